"""Whatever goes wrong is one clear line with its remedy; Ctrl-C says how to go on; a closed pipe says nothing."""

import io
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException
from torch.utils.data import DataLoader, Dataset

from relatum import cli
from relatum.cli import errors
from relatum.cli.train import resuming
from relatum.core.statuses import HELD, LOST, REFUSED, ProcessLostError
from relatum.recipes import index
from relatum.training import loop
from relatum.training.lease import LeaseError

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "src")}


def answer(capsys, error: BaseException) -> tuple[int, str]:
    def fail() -> None:
        raise error

    return errors.explained(fail), capsys.readouterr().err


class Failing(Dataset):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, i: int) -> torch.Tensor:
        raise ValueError(f"image {i} is no image: choose --data.on-bad-image skip")


def test_a_workers_error_is_its_last_line(capsys):
    with pytest.raises(ValueError, match="Traceback") as wrapped:
        next(iter(DataLoader(Failing(), num_workers=1)))
    code, said = answer(capsys, wrapped.value)
    assert code == 2
    assert said.splitlines()[0] == "relatum: in worker 0: image 0 is no image: choose --data.on-bad-image skip"
    assert len(said.splitlines()) == 2


def test_a_failing_rank_is_its_last_line(capsys):
    began = "\n\n-- Process 1 terminated with the following error:\nTraceback (most recent call last):\n  File x\n"
    story = began + "ValueError: no"
    code, said = answer(capsys, ProcessRaisedException(story, 1, 99))
    assert (code, said.splitlines()[0]) == (2, "relatum: in process 1: no")
    story = story.replace("ValueError: no", "KeyError: 'lr'")
    assert "in process 1: KeyError: 'lr'" in answer(capsys, ProcessRaisedException(story, 1, 99))[1]


def test_a_killed_rank_says_how_to_go_on(capsys):
    killed = ProcessExitedException("process 0 terminated with signal SIGKILL", 0, 99, -9, "SIGKILL")
    code, said = answer(capsys, killed)
    assert code == LOST
    assert "process 0 terminated with signal SIGKILL" in said
    assert "no memory left. Add --resume" in said


def test_what_was_lost_or_is_held_has_a_status_of_its_own(capsys):
    """By it a study knows what to start again, and what to wait for."""
    assert answer(capsys, ProcessLostError("process 2 of 2 was ended by SIGKILL"))[0] == LOST == 71
    assert answer(capsys, RuntimeError("[1] gloo/transport/tcp/pair.cc: Connection closed by peer [::1]:7"))[0] == LOST
    assert answer(capsys, LeaseError("process 7 on here is training in this folder"))[0] == HELD == 75
    assert answer(capsys, RuntimeError("anything else"))[0] == REFUSED == 2


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), "out of memory. Use smaller steps (--data.batch-size, --train.chunk)"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried\nmore"), "out of memory: CUDA out of memory. Tried. Use"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory: "),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that ..."),
            "shared memory of the machine is too small. Decode in the training process with --data.workers 0",
        ),
        (RuntimeError("unable to open shared memory object </torch_1>"), "--data.workers 0"),
        (
            ModuleNotFoundError("No module named 'ray'", name="ray"),
            "'ray' is not installed: pip install 'relatum[ray]'",
        ),
        (ModuleNotFoundError("No module named 'x'", name="x"), "'x' is not installed: No module named 'x'"),
        (ValueError("k=0"), "relatum: k=0"),
        (ValueError(), "relatum: ValueError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_each_error_is_one_line_with_its_remedy(capsys, error, expected):
    code, said = answer(capsys, error)
    assert code == (LOST if "killed by signal" in str(error) else REFUSED)
    assert expected in said
    assert "Traceback" not in said
    assert len(said.splitlines()) == 2
    assert said.endswith("(RELATUM_TRACEBACK=1 shows where)\n")


def test_a_fault_of_ours_is_called_one(capsys, monkeypatch):
    code, said = answer(capsys, KeyError("lr"))
    assert code == 1
    assert "KeyError: 'lr'\nThis is a fault of Relatum's: please report it" in said
    monkeypatch.setenv(cli.TRACEBACK, "1")
    with pytest.raises(KeyError):
        answer(capsys, KeyError("lr"))


def test_packages_of_extras_name_extras_that_exist():
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(errors.EXTRAS.values()) <= set(extras)


def stopped(monkeypatch, capsys, *args: str) -> tuple[int, str]:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "fit", interrupt)
    monkeypatch.setattr("sys.argv", ["relatum", *args])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return stop.value.code, capsys.readouterr().err


def test_ctrl_c_prints_the_command_that_goes_on(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, said = stopped(monkeypatch, capsys, "train", "demo", "--optim.lr", "1e-3", "--data.source", "my photos")
    assert code == 130
    command = "relatum train demo --optim.lr 1e-3 --data.source 'my photos' --run runs/demo --resume"
    assert said == f"stopped; to go on: {command}\n"
    # The command, interrupted again, is its own answer.
    code, said = stopped(monkeypatch, capsys, *shlex.split(command)[1:])
    assert (code, said) == (130, f"stopped; to go on: {command}\n")


def test_the_folder_stands_once_in_the_command_that_goes_on():
    for words in (["demo", "--run", "x"], ["demo", "--run=x"], ["demo", "--run", "x", "--resume"], ["demo"]):
        assert resuming(words, Path("x")) == "relatum train demo --run x --resume"


@pytest.mark.parametrize("words", [["show", "demo"], ["list"], ["show", "demo", "--train.epochs", "3"]], ids=" ".join)
def test_a_closed_pipe_is_left_quietly(words):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "relatum", *words],
            stdout=writing,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            check=False,
        )
    finally:
        os.close(writing)
    assert done.returncode == 128 + signal.SIGPIPE
    assert done.stderr == b""


def run(*words: str, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "relatum", *words]
    return subprocess.run(command, capture_output=True, env={**ENVIRONMENT, **environment}, check=False, text=False)


def test_python_m_relatum():
    assert run("--version").stdout.startswith(b"relatum 0.")


@pytest.mark.parametrize("verb", cli.VERBS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_after_every_verb(verb, flag, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["relatum", verb, flag])
    try:
        cli.main()
    except SystemExit as stop:
        assert not stop.code  # noqa: PT017 - parsers end the program after their help
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: relatum {verb}")
    assert len(printed.splitlines()) > 2


def test_texts_are_utf_8_wherever_they_are_written(tmp_path):
    """In a locale without the plus-minus sign the table is whole, in the file and (but for the sign) on the screen."""
    latin = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    words = ["table", str(ROOT / "results" / "earlier" / "cifar10")]
    done = run(*words, "--out", str(tmp_path / "table.md"), **latin)
    assert (done.returncode, done.stderr) == (0, b"")
    assert "40.21 ± 0.21" in (tmp_path / "table.md").read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["table.md"]
    done = run(*words, **latin)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"40.21 ? 0.21" in done.stdout


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    done = run("table", str(ROOT / "results" / "earlier" / "cifar10"), "--out", str(tmp_path / "no" / "table.md"))
    assert done.returncode == 2
    assert b"table.md cannot be written: No such file or directory. Choose another --out." in done.stderr


COMPLETE = """
source {script}
complete_line() {{ COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${{#COMP_LINE}}; COMPREPLY=()
  _tyro_relatum; echo "${{COMPREPLY[@]}}"; }}
complete_line relatum tr
complete_line relatum train simclr-j
complete_line relatum train demo --optim.l
complete_line relatum evaluate --evaluation.knn.k
complete_line relatum show dem
"""


def test_bash_completes_verbs_recipes_and_options(tmp_path, monkeypatch, capsys):
    few = ["demo", "simclr-jaccard"]  # all take ten seconds
    monkeypatch.setattr(index, "recipe_names", lambda: few)
    monkeypatch.setattr("sys.argv", ["relatum", "completion", "bash"])
    with pytest.raises(SystemExit) as done:
        cli.main()
    assert not done.value.code
    script = tmp_path / "complete.sh"
    script.write_text(capsys.readouterr().out)
    bash = subprocess.run(
        ["bash", "-c", COMPLETE.format(script=script)], capture_output=True, text=True, check=True, env=ENVIRONMENT
    )
    lines = [line.split() for line in bash.stdout.splitlines()]
    assert lines == [["train"], ["simclr-jaccard"], ["--optim.lr"], ["--evaluation.knn.k"], ["demo"]]


def test_completion_for_an_unknown_shell(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["relatum", "completion", "cmd"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "one shell of bash, zsh, fish, and was given cmd" in capsys.readouterr().err


def test_the_ranges_of_the_command_line_are_those_of_yaml(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    for words, message in (
        (["--name", "../../x"], "name is '../../x'; it names the run's folder"),
        (["--name", "/tmp/x"], "name is '/tmp/x'"),
        (["--optim.lr", "nan"], "optim.lr is nan; expected a finite number"),
        (["--optim.warmup-epochs", "inf"], "optim.warmup_epochs is inf"),
        (["--train.seed", "1" * 21], "train.seed is a number of 21 digits"),
        (["--train.seed", "1" * 5000], "--train.seed: "),
        (["--optim.milestones", "9", "3"], "optim.milestones is (9.0, 3.0)"),
    ):
        monkeypatch.setattr("sys.argv", ["relatum", "train", "demo", *words])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        said = capsys.readouterr().err
        assert stop.value.code == 2
        assert said.startswith(f"relatum: {message}"), said
        assert not re.search("[─│]|---", said), "tyro's box"
    assert list(tmp_path.iterdir()) == []


def test_a_terminal_without_lines_gets_the_same_words(monkeypatch, capsys):
    for encoding in ("utf-8", "ascii"):
        monkeypatch.setattr("sys.argv", ["relatum", "train", "demo", "--optim.lr", "fast"])
        monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding))
        with pytest.raises(SystemExit):
            cli.main()
        said = capsys.readouterr().err
        assert said.startswith(
            "relatum: --optim.lr: could not convert string to float: 'fast'. Expected: --optim.lr FLOAT"
        )
        assert "--- " not in said
