"""Code of others that adds methods, relations, backbones, data sets, evaluators or recipes: where it is, when it loads.

There are two kinds. An installed package with an entry point in the group `relatum.plugins` is found by itself. A file,
or a module that Python finds, is named by `--plugin` or in the environment variable `RELATUM_PLUGINS`, which every
process that is started from here inherits: ranks, workers, and the runs of a study.

Nothing is loaded before it is needed: a registry that does not know a name loads all plugins before it says so. A
recipe, a Record or a checkpoint never names code that would be run by reading it.
"""

import hashlib
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

GROUP = "relatum.plugins"
VARIABLE = "RELATUM_PLUGINS"
OPTION = "--plugin"

_loaded: set[str] = set()


class PluginError(ImportError):
    """A plugin that cannot be loaded."""


class Registry(dict[str, T]):
    """Things by the names that recipes and the command line use; plugins add to it.

    Args:
        what: what the things are, in the singular, for errors.
        known: those that Relatum brings.
    """

    def __init__(self, what: str, known: Mapping[str, T]) -> None:
        super().__init__(known)
        self.what = what

    def __contains__(self, name: object) -> bool:
        if not super().__contains__(name):
            load()
        return super().__contains__(name)

    def __missing__(self, name: str) -> T:
        load()
        if super().__contains__(name):
            return super().__getitem__(name)
        raise KeyError(name)

    def add(self, name: str, thing: T) -> None:
        """Add a thing. The same definition, run again by a notebook or in a process that was started here, replaces it.

        Raises:
            ValueError: for a name that is taken, or none that a word of the command line can be.
        """
        if not name or name != name.strip() or any(sign in name for sign in " /\\=,:") or name.startswith("-"):
            raise ValueError(
                f"{name!r} is no name for a {self.what}; expected a word without spaces and / \\ = , : such as "
                f"'my-{self.what.split()[0]}'."
            )
        if super().__contains__(name) and _defined(self[name]) != _defined(thing):
            raise ValueError(f"there is a {self.what} {name!r} already ({_defined(self[name])}); choose another name.")
        self[name] = thing


def wanted() -> list[str]:
    """What would be loaded: entry points, then files and modules in the order in which they were named."""
    return [*_installed(), *named()]


def named() -> list[str]:
    """The files and modules of `--plugin` and `RELATUM_PLUGINS`."""
    return list(dict.fromkeys(part for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part))


def name_more(plugins: Sequence[str]) -> None:
    """Name files and modules, for this process and those that it starts.

    Raises:
        FileNotFoundError: for a file that is not there.
    """
    found = [str(_file(plugin)) if _is_file(plugin) else plugin for plugin in plugins]
    os.environ[VARIABLE] = os.pathsep.join(dict.fromkeys([*named(), *found]))


def words() -> list[str]:
    """The options that name the same files and modules in another command."""
    return [word for plugin in named() for word in (OPTION, plugin)]


def load() -> None:
    """Load every plugin that is not loaded yet.

    Raises:
        PluginError: one raised an error, with what it was.
        FileNotFoundError: for a file that is not there.
    """
    for plugin in wanted():
        if plugin in _loaded:
            continue
        _loaded.add(plugin)  # before it is, since it will ask for names itself
        try:
            point = _installed().get(plugin)
            _import(plugin) if point is None else point.load()
        except (PluginError, FileNotFoundError):
            _loaded.discard(plugin)
            raise
        except Exception as error:  # whatever the code of others raises
            _loaded.discard(plugin)
            raise PluginError(f"the plugin {plugin} cannot be loaded: {type(error).__name__}: {error}") from error


def versions() -> dict[str, str]:
    """What a Record says of each plugin: the version of its package, or the hash of its file."""
    found = {}
    for plugin in wanted():
        point = _installed().get(plugin)
        if point is not None:
            found[f"plugin {plugin}"] = point.dist.version if point.dist is not None else ""
        elif _is_file(plugin):
            found[f"plugin {Path(plugin).name}"] = f"sha256 {hashlib.sha256(_file(plugin).read_bytes()).hexdigest()}"
        else:
            found[f"plugin {plugin}"] = str(getattr(sys.modules.get(plugin), "__version__", ""))
    return found


@cache
def _installed() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _is_file(plugin: str) -> bool:
    return plugin.endswith(".py") or Path(plugin).name != plugin  # a path, by whatever separator this system has


def _file(plugin: str) -> Path:
    path = Path(plugin).expanduser().resolve()
    if not path.is_file():
        raise FileNotFoundError(
            f"{OPTION} {plugin}: there is no such file; expected a Python file, or a module's name."
        )
    return path


def _import(plugin: str) -> None:
    """Import a file under its own name, so that what it defines can be pickled, or a module."""
    if not _is_file(plugin):
        importlib.import_module(plugin)
        return
    path = _file(plugin)
    main = getattr(sys.modules["__main__"], "__file__", None)
    if main is not None and Path(main).resolve() == path:
        return  # it is the program itself
    if not path.stem.isidentifier():
        raise PluginError(f"the plugin {plugin} is imported by its name, and {path.stem!r} is none: rename the file.")
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # last: it must hide no package
    importlib.invalidate_caches()
    found = getattr(importlib.import_module(path.stem), "__file__", None)
    if found is None or Path(found).resolve() != path:
        raise PluginError(f"the plugin {plugin} has the name of another module, {found or path.stem}: rename the file.")


def _defined(thing: Any) -> str:
    """Where a class or function is defined; a spawned process knows the main program by another name."""
    thing = getattr(thing, "func", thing)
    module = getattr(thing, "__module__", "").replace("__mp_main__", "__main__")
    return f"{module}.{getattr(thing, '__qualname__', type(thing).__qualname__)}"
