"""What other systems lack is asked for before it is used. These tests take away what is Unix's."""

import ast
import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import relatum
from relatum.core import plugins
from relatum.training import hardware

ROOT = Path(__file__).parent.parent
PACKAGE = Path(relatum.__file__).parent

UNIX_MODULES = {"crypt", "curses", "fcntl", "grp", "nis", "posix", "pty", "pwd", "readline", "resource", "spwd"} | {
    *("syslog", "termios", "tty"),
}
"""Modules of the standard library that Windows lacks."""

WINDOWS_HAS = {
    "os": {"nt"},
    "signal": {"SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM", "SIGBREAK"},
}
UNIX_NAMES = {
    *("O_NONBLOCK", "WNOHANG", "chown", "fork", "forkpty", "getegid", "geteuid", "getgid", "getgroups", "getloadavg"),
    *("getpgid", "getpgrp", "getpriority", "getsid", "getuid", "killpg", "lchown", "mkfifo", "mknod", "nice", "pread"),
    *("pwrite", "sched_getaffinity", "sched_setaffinity", "sched_yield", "setpgid", "setsid", "statvfs", "sysconf"),
    *("uname", "wait", "waitpid", "initgroups", "openpty", "setuid", "posix_fadvise", "posix_fallocate"),
}
"""Names of `os` that Windows lacks."""

GUARDED = {
    "training/hardware.py": {"resource"},  # in a `try`
    "training/processes.py": {"signal.SIGKILL"},  # where sys.platform is linux
    "data/cache.py": {"os.geteuid"},  # behind hasattr
}
"""What is used nevertheless, and what is asked before; `O_NONBLOCK` is asked for by `getattr`."""

SMALL = """
import builtins, sys

UNIX, EXTRAS, honest = {unix!r}, {extras!r}, builtins.__import__

def only_what_all_have(name, globals=None, *rest, **more):
    asking = (globals or {{}}).get("__name__", "")
    if asking.startswith("relatum") and name.partition(".")[0] in UNIX | EXTRAS:
        raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
    return honest(name, globals, *rest, **more)

builtins.__import__ = only_what_all_have
import os
del os.geteuid  # whose absence platformdirs bears, unlike that of getuid
from relatum.cli import main

sys.argv = ["relatum", *{words!r}]
main()
"""


def used(source: str) -> set[str]:
    """Modules that a source imports and names of `os` and `signal` that it uses, which Windows lacks."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found |= {alias.name for alias in names} & UNIX_MODULES
            case ast.ImportFrom(module="os" | "signal" as module, names=names):
                found |= {f"{module}.{alias.name}" for alias in names if lacking(module, alias.name)}
            case ast.ImportFrom(module=module):
                found |= {module} & UNIX_MODULES
            case ast.Attribute(value=ast.Name(id="os" | "signal" as module), attr=name) if lacking(module, name):
                found.add(f"{module}.{name}")
    return found


def lacking(module: str, name: str) -> bool:
    if module == "os":
        return name in UNIX_NAMES
    return name.startswith("SIG") and not name.startswith("SIG_") and name not in WINDOWS_HAS["signal"]


def test_what_only_unix_has_is_used_where_it_is_asked_for():
    found = {str(path.relative_to(PACKAGE).as_posix()): used(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py")}
    assert {path: names for path, names in found.items() if names} == GUARDED


@pytest.mark.parametrize(
    ("planted", "name"),
    [
        ("import resource", "resource"),
        ("def f():\n    from fcntl import flock", "fcntl"),
        ("import os\nos.sched_getaffinity(0)", "os.sched_getaffinity"),
        ("from os import fork", "os.fork"),
        ("import signal\nsignal.SIGUSR1", "signal.SIGUSR1"),
    ],
)
def test_planted_uses_are_found(planted, name):
    assert used(planted) == {name}


def test_the_names_are_unixs():
    """The lists above name what there is: a name that is misspelled would never be found."""
    assert {name for name in UNIX_NAMES if not hasattr(os, name)} == set() or sys.platform != "linux"
    assert all(hasattr(signal, name) for name in WINDOWS_HAS["signal"] - {"SIGBREAK"})


def extras() -> set[str]:
    """The modules of packages that only an extra brings."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = [name for extra, names in project["optional-dependencies"].items() if extra != "test" for name in names]
    modules = {re.split(r"[^\w-]", name)[0].replace("-", "_") for name in optional}
    return modules | {"pytorch_lightning", "vl_convert", "pillow_heif"}


def always_imported(source: str) -> set[str]:
    """The packages that a source imports as soon as it is imported itself."""
    body = ast.parse(source).body
    names = {alias.name for node in body if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in body if isinstance(node, ast.ImportFrom)}
    return {name.partition(".")[0] for name in names}


def test_what_an_extra_brings_is_imported_where_it_is_used():
    found = {str(path.relative_to(PACKAGE).as_posix()): path.read_text("utf-8") for path in PACKAGE.rglob("*.py")}
    kept = {path: always_imported(source) & extras() for path, source in found.items()}
    assert {path: names for path, names in kept.items() if names} == {
        "data/parquet.py": {"pyarrow"},  # which itself is imported where there is such a file
        "reports/charts.py": {"altair"},  # so is this, by `relatum report`
    }
    assert always_imported("import altair\ndef f():\n    import ray") == {"altair"}


@pytest.mark.installed  # a process of its own, with all its imports
def test_two_steps_are_trained_without_what_only_unix_has_and_without_extras(tmp_path):
    """Photos of several sizes, streamed; the Record has a peak of memory from elsewhere."""
    from commands import make_photos

    make_photos(tmp_path / "photos")
    words = ["train", "simclr", "--data.source", "photos", "--data.view.size", "16", "--data.batch-size", "16"]
    words += ["--model.name", "resnet8", "--train.epochs", "1", "--train.threads", "1", "--run", "run"]
    words += ["--evaluation.run", "knn", "--evaluation.knn.k", "3", "--data.workers", "0"]
    program = SMALL.format(unix=UNIX_MODULES, extras=extras(), words=words)
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "record.json").is_file()


def test_without_the_module_resource_memory_is_what_is_held(monkeypatch):
    import psutil

    monkeypatch.setitem(sys.modules, "resource", None)
    assert hardware.peak_memory(torch.device("cpu")) == pytest.approx(
        psutil.Process().memory_info().rss / 2**20, rel=0.01
    )


def test_a_plugin_is_a_file_by_any_separator_of_paths(tmp_path):
    assert plugins._is_file("my.py")
    assert plugins._is_file(str(tmp_path / "mine"))
    assert not plugins._is_file("package.module")


@pytest.mark.installed
def test_workers_that_are_spawned_decode_photos(tmp_path):
    """Windows and macOS start processes anew, and so will Linux from Python 3.14 on: nothing is inherited."""
    from commands import make_photos

    make_photos(tmp_path / "photos")
    program = (
        "import multiprocessing, sys\n"
        "if __name__ == '__main__':\n"
        "    multiprocessing.set_start_method('spawn')\n"
        "    from relatum.cli import main\n"
        "    main()\n"
    )
    (tmp_path / "start.py").write_text(program, encoding="utf-8")
    for run, workers in (("forked", ["-c", "from relatum.cli import main; main()"]), ("spawned", ["start.py"])):
        words = ["train", "simclr", "--data.source", "photos", "--data.view.size", "16", "--data.batch-size", "16"]
        words += ["--model.name", "resnet8", "--train.epochs", "1", "--train.threads", "1", "--run", run]
        words += ["--evaluation.run", "knn", "--evaluation.knn.k", "3", "--data.workers", "1"]
        done = subprocess.run(
            [sys.executable, *workers, *words], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    # The entries of the files' headers come in any order.
    forked, spawned = (load_file(tmp_path / run / "encoder.safetensors") for run in ("forked", "spawned"))
    assert forked.keys() == spawned.keys()
    assert all(torch.equal(forked[name], spawned[name]) for name in forked)
