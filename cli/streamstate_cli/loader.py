"""From ``PATH[:attribute]`` or ``module:attribute`` to a topology."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from streamstate.dsl.topology import Topology
from streamstate.errors import ConfigError, StreamStateError, TopologyError
from streamstate.graph.node import Graph

__all__ = ["load_topology", "load_with_module"]

DEFAULT_ATTRIBUTE = "topology"


def load_topology(target: str) -> Graph:
    """Import a topology and build it.

    Args:
        target: a file, or a module's name; behind a colon the attribute: a ``Topology``, a ``Graph``, or a function
            without parameters that returns one. ``topology`` when not given.

    Raises:
        ConfigError: there is no such file or module.
        TopologyError: importing it failed, or it has no such topology.
    """
    return load_with_module(target)[0]


def load_with_module(target: str) -> tuple[Graph, ModuleType]:
    """The same, with the module in which it stands."""
    place, attribute = _split(target)
    if _is_file(place):
        module, own = _import_file(Path(place))
    else:
        module, own = _import_module(place)
    found = _attribute(module, attribute or DEFAULT_ATTRIBUTE, place)
    if callable(found) and not isinstance(found, (Topology, Graph)):
        found = _called(found, f"{place}:{attribute or DEFAULT_ATTRIBUTE}", own)
    if isinstance(found, Topology):
        return found.build(), module
    if isinstance(found, Graph):
        return found, module
    raise TopologyError(
        f"{place}:{attribute or DEFAULT_ATTRIBUTE} is a {type(found).__name__}; it must be a Topology, a Graph or a "
        f"function without parameters that returns one"
    )


def _split(target: str) -> tuple[str, str]:
    place, _, attribute = target.rpartition(":")
    if not place or not attribute.isidentifier():
        return target.removesuffix(":"), ""
    return place, attribute


def _is_file(place: str) -> bool:
    return place.endswith(".py") or os.sep in place or Path(place).exists()


def _import_file(path: Path) -> tuple[ModuleType, str]:
    if not path.is_file():
        what = "is a directory" if path.is_dir() else "does not exist"
        raise ConfigError(
            f"the topology file {path} {what}: give a Python file, PATH or PATH:attribute{_nearest_file(path)}"
        )
    file = path.resolve()
    # What stands beside it can be imported, as when Python runs the file itself.
    sys.path.insert(0, str(file.parent))
    name = file.stem if file.stem not in sys.modules else f"streamstate_topology_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is not a Python file: give PATH.py or PATH.py:attribute")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # noqa: BLE001 - shown as theirs
        del sys.modules[name]
        raise _failed(f"importing {path}", error, str(file)) from None
    return module, str(file)


def _nearest_file(path: Path) -> str:
    try:
        files = {found.name.lower(): found for found in path.parent.iterdir() if found.suffix == ".py"}
    except OSError:
        return ""
    close = difflib.get_close_matches(path.name.lower(), files, 1)
    return f". Did you mean {files[close[0]]}?" if close else ""


def _import_module(name: str) -> tuple[ModuleType, str]:
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise ConfigError(
                f"there is no module or file {name!r}: give a file as PATH.py[:attribute], or an importable module as "
                f"module:attribute"
            ) from None
        raise _failed(f"importing {name}", error, "") from None
    except Exception as error:  # noqa: BLE001 - shown as theirs
        raise _failed(f"importing {name}", error, "") from None
    return module, module.__file__ or ""


def _attribute(module: ModuleType, attribute: str, place: str) -> Any:
    try:
        return getattr(module, attribute)
    except AttributeError:
        others = [name for name, value in vars(module).items() if isinstance(value, (Topology, Graph))]
        if others:
            hint = f"it has {', '.join(f'{place}:{name}' for name in others)}: give one of these"
        else:
            hint = f"it defines no topology: {DEFAULT_ATTRIBUTE} = Topology(NAME)"
        raise TopologyError(f"{place} has no attribute {attribute!r}; {hint}") from None


def _called(function: Any, name: str, own: str) -> Any:
    try:
        inspect.signature(function).bind()
    except (TypeError, ValueError):
        raise TopologyError(f"{name} is not a topology, nor a function without parameters that returns one") from None
    try:
        return function()
    except Exception as error:  # noqa: BLE001 - shown as theirs
        raise _failed(f"calling {name}", error, own) from None


def _failed(doing: str, error: Exception, file: str) -> StreamStateError:
    """The user's part of the traceback: it begins in ``file``, or behind this module and the import machinery."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [index for index, frame in enumerate(frames) if frame.filename == file]
    machinery = (__file__, "<frozen importlib", importlib.__file__ or "")
    start = (
        theirs[0]
        if theirs
        else next((i for i, frame in enumerate(frames) if not frame.filename.startswith(machinery)), len(frames))
    )
    if isinstance(error, StreamStateError):
        where = f" ({frames[theirs[-1]].filename}, line {frames[theirs[-1]].lineno})" if theirs else ""
        return type(error)(f"{error}{where}")
    kept = traceback.StackSummary.from_list(frames[start:])
    text = "".join(["Traceback (most recent call last):\n", *kept.format()] if kept else [])
    text += "".join(traceback.format_exception_only(error))
    return TopologyError(f"{doing} failed:\n{text.rstrip()}")
