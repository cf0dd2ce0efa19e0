"""Classes by the names that a configuration gives them."""

import inspect
import typing
from contextlib import suppress
from typing import Any

from jsonargparse._util import get_import_path, import_object

from tlkit.hints import did_you_mean, show, valid

OTHERS = ("torch", "torchvision", "torchmetrics", "lightning")  # their classes are named after ours


class NoSuchClass(Exception):
    """A name that stands for no class of the expected kind; the message says what may have been meant.

    Attributes:
        meant: the class that the message suggests; None if there is none, or several are called so.
    """

    def __init__(self, message: str, meant: type | None = None) -> None:
        """Stores the arguments; see the class."""
        super().__init__(message)
        self.meant = meant


def find_target(name: Any, base: type, function_suffices: bool) -> Any:
    """Returns the class, function or object that a ``class_path`` stands for."""
    if not isinstance(name, str):
        raise NoSuchClass(f"expected a class name ({base.__name__}), got {show(name)}")
    target = _find_class(name, base)
    if inspect.isclass(target) and issubclass(target, base):
        if inspect.isabstract(target):
            raise NoSuchClass(f"'{name}' is abstract; {valid(class_names(target))}")
        return target
    if isinstance(target, base):
        return target
    if not inspect.isclass(target) and callable(target) and (function_suffices or _returns(target, base)):
        return target
    raise NoSuchClass(f"'{name}' is no {base.__name__}; {valid(class_names(base))}")


def default_class(default: Any, base: type) -> Any:
    """Returns the class that a default names or is; None if it is nothing of the kind."""
    if isinstance(default, dict) and "class_path" in default:
        with suppress(NoSuchClass):
            default = _find_class(default["class_path"], base)
    return default if inspect.isclass(default) and issubclass(default, base) else None


def _find_class(name: str, base: type) -> Any:
    """Returns what a ``class_path`` names: a class below ``base`` by short name, or anything by import path.

    Raises:
        NoSuchClass: there is none, there are several, or it cannot be imported.
    """
    if "." in name:
        try:
            return import_object(name)
        except Exception as error:  # importing runs code of others
            raise _missing(f"no class '{name}' ({_reason(name, error)})", name, base) from error
    named = [cls for cls in _subclasses(base) if cls.__name__ == name]
    found = {path: cls for cls in named if not inspect.isabstract(cls) and (path := _import_path(cls))}
    if len(found) > 1:
        raise NoSuchClass(f"'{name}' names several classes, give the full path: {', '.join(found)}")
    if not found and named:
        raise NoSuchClass(f"'{name}' is abstract; {valid(class_names(base))}")
    if not found:
        raise _missing(f"no class '{name}' (expected {base.__name__})", name, base)
    return next(iter(found.values()))


def class_names(base: type) -> list[str]:
    """Returns the short names of the classes at and below a base that can be built; ours before those of libraries."""
    public = [cls for cls in _subclasses(base) if not inspect.isabstract(cls) and not _is_private(cls)]
    public.sort(key=lambda cls: (cls.__module__.split(".")[0] in OTHERS, cls is base))
    return list(dict.fromkeys(cls.__name__ for cls in public))


def _subclasses(base: type) -> list[type]:
    """Returns the classes at and below a base, without those that cannot be imported."""
    found: dict[type, None] = {}
    waiting = [base]
    while waiting:
        cls = waiting.pop(0)
        if cls not in found and "<locals>" not in cls.__qualname__:
            found[cls] = None
            waiting += cls.__subclasses__()
    return list(found)


def _import_path(cls: type) -> str:
    """Returns the shortest path to import a class from; empty if it is private, or its module is gone."""
    try:
        path = str(get_import_path(cls))
    except (ImportError, AttributeError):
        return ""
    return "" if "._" in path else path


def _is_private(cls: type) -> bool:
    return cls.__name__.startswith("_") or any(part.startswith("_") for part in cls.__module__.split("."))


def _returns(function: Any, base: type) -> bool:
    """Returns whether a function says that it returns a ``base``."""
    try:
        returned = typing.get_type_hints(function).get("return")
    except Exception:  # evaluates annotations of others
        return False
    return inspect.isclass(returned) and issubclass(returned, base)


def _reason(name: str, error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name and name.startswith(error.name):
        return f"there is no module '{error.name}'"
    if isinstance(error, AttributeError | ValueError):
        return f"nothing of that name in '{name.rpartition('.')[0]}'"
    return f"importing it fails: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def _missing(what: str, name: str, base: type) -> NoSuchClass:
    """Returns the error for a name that stands for nothing, with the class that may have been meant."""
    folder, _, short = name.rpartition(".")
    known = class_names(base)
    suggestion = did_you_mean(short, known)
    if not suggestion:
        return NoSuchClass(f"{what}; {valid(known)}")
    called_so = [cls for cls in _subclasses(base) if f"'{cls.__name__}'" in suggestion and not inspect.isabstract(cls)]
    paths = {path: cls for cls in called_so if (path := _import_path(cls))}
    if folder:
        suggestion = f"; did you mean '{next(iter(paths))}'?" if paths else ""
    return NoSuchClass(what + suggestion, next(iter(paths.values())) if len(paths) == 1 else None)
