"""What a type hint accepts in a configuration: shapes, leaf values, classes by name, and their arguments."""

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from copy import deepcopy
from enum import Enum
from functools import cache
from os import PathLike
from typing import Any, Literal, TypeVar

from jsonargparse import ArgumentParser
from jsonargparse._parameter_resolvers import get_signature_parameters
from jsonargparse.typing import get_registered_type
from lightning.pytorch import Trainer

from tlkit.errors import suggest

Shape = Literal["any", "keys", "class", "callable", "list", "mapping", "scalar", "leaf"]

SHOWN = 8  # names listed in a message
LISTS = (list, tuple, set, frozenset, Sequence, Iterable, Collection, Set)
MAPPINGS = (dict, Mapping)


class Parameter(typing.NamedTuple):
    """One argument of a class: its type hint, whether it must be given, its default (`inspect.Parameter.empty`)."""

    hint: Any
    required: bool = False
    default: Any = inspect.Parameter.empty


def alternatives(hint: Any) -> tuple[Any, ...]:
    """Returns the members of a union, flat; anything else alone."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(member for argument in typing.get_args(hint) for member in alternatives(argument))
    if isinstance(hint, typing.NewType):
        return alternatives(hint.__supertype__)
    return (hint,)


def shape(hint: Any) -> Shape:
    """Returns what kind of YAML a hint that is no union asks for; ``leaf`` is left to jsonargparse as a whole."""
    origin = typing.get_origin(hint) or hint
    if hint in (Any, object, inspect.Parameter.empty) or isinstance(hint, str | typing.ForwardRef | TypeVar):
        return "any"
    if isinstance(hint, dict) or is_closed(origin):
        return "keys"
    if origin is Callable:
        return "callable"
    if origin in LISTS:
        return "list"
    if origin in MAPPINGS:
        return "mapping"
    if origin is Literal or not inspect.isclass(origin):
        return "scalar" if origin in (Literal, None) else "leaf"
    if (
        origin.__module__ == "builtins"
        or issubclass(origin, Enum | PathLike | str | int | float)
        or get_registered_type(hint)
    ):
        return "scalar"
    return "leaf" if issubclass(origin, dict | tuple | type) or getattr(origin, "_is_protocol", False) else "class"


def is_named_tuple(hint: Any) -> bool:
    """Returns whether a class is a `typing.NamedTuple`, which may be written as a list, too."""
    return inspect.isclass(hint) and issubclass(hint, tuple) and hasattr(hint, "_fields")


def is_closed(hint: Any) -> bool:
    """Returns whether a class is written as its arguments alone, without ``class_path``."""
    if not inspect.isclass(hint):
        return False
    return dataclasses.is_dataclass(hint) or issubclass(hint, Trainer) or is_named_tuple(hint)


def describe(hint: Any) -> str:
    """Returns a hint in a few words: ``int | null``, ``'torch' | 'he'``, ``list[Callback]``."""
    members = alternatives(hint)
    if len(members) > 1:
        parts: list[str] = []
        for member in members:
            literal = typing.get_origin(member) is Literal
            parts += map(repr, typing.get_args(member)) if literal else [describe(member)]
        return _some(list(dict.fromkeys(parts)), " | ")
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in (None, types.NoneType):
        return "null"
    if isinstance(hint, dict):
        return "a mapping"
    if origin is Literal:
        return _some([repr(value) for value in arguments], " | ")
    if origin is Callable:
        return f"class of {describe(arguments[-1])}" if arguments else "a callable"
    if is_closed(hint):
        return f"mapping of {hint.__name__}"
    if inspect.isclass(hint) and issubclass(hint, Enum):
        return _some(list(hint.__members__), " | ")
    if origin and arguments:
        inner = ", ".join("..." if argument is ... else describe(argument) for argument in arguments)
        return f"{origin.__name__.lower()}[{inner}]" if origin in LISTS + MAPPINGS else str(hint)
    return hint.__name__ if inspect.isclass(hint) else re.sub(r"\b\w+\.", "", str(hint))


def show(value: Any) -> str:
    """Returns a value as YAML has it, shortened."""
    if isinstance(value, dict):
        return "a class_path" if "class_path" in value else "a mapping"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return "a list"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:56]}…{text[-1]}"


def expected(hint: Any, value: Any) -> str:
    """Returns the message for a value that a hint does not accept, with what may have been meant."""
    choices = [
        choice
        for member in alternatives(hint)
        for choice in (typing.get_args(member) if typing.get_origin(member) is Literal else ())
        if isinstance(choice, str)
    ]
    choices += [
        name for m in alternatives(hint) if inspect.isclass(m) and issubclass(m, Enum) for name in m.__members__
    ]
    meant = did_you_mean(value, choices) if isinstance(value, str) else ""
    return f"expected {describe(hint)}, got {show(value)}{meant}"


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """Returns ``; did you mean 'width'?`` or an empty string; upper and lower case count as near."""
    names = list(valid)
    same = [known for known in names if known.lower() == name.lower()]
    return f"; did you mean '{same[0]}'?" if same else suggest(name, names)


def valid(names: Iterable[str]) -> str:
    """Returns ``valid: depth, width, …``."""
    return f"valid: {_some(list(names))}"


def accepts(hint: Any, value: Any) -> bool:
    """Returns whether jsonargparse takes a value for a hint; a hint it does not know takes everything."""
    if hint is types.NoneType:
        return value in (None, "null")
    if value is None:  # alone it would mean that nothing is given
        hint, value = list[hint], [value]
    parser = ArgumentParser(exit_on_error=False)
    try:
        parser.add_argument("--v", type=hint)
    except ValueError:
        return True
    try:
        parser.parse_object({"v": deepcopy(value)})
    except Exception:  # deserializers of registered types raise whatever they like
        return False
    return True


@cache
def parameters(target: Callable[..., Any], skip: int = 0) -> Mapping[str, Parameter]:
    """Returns the arguments that a class or function takes in YAML, those behind ``**kwargs`` included.

    Args:
        target: the class or function.
        skip: number of leading arguments that YAML does not give (those of a hinted callable).
    """
    empty = inspect.Parameter.empty
    found: dict[str, Parameter] = {}
    for parameter in get_signature_parameters(target, None, logger=False)[skip:]:
        hint, default = parameter.annotation, parameter.default
        required = default is empty and hint is not empty and types.NoneType not in alternatives(hint)
        if required or not parameter.name.startswith("_"):
            found[parameter.name] = Parameter(hint, required, default)
    return found


def _some(names: list[str], separator: str = ", ") -> str:
    return separator.join(names[:SHOWN] + ["…"] * (len(names) > SHOWN)) or "none"
