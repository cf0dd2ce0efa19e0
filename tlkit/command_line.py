"""What tlkit adds to the parser's command line: paths that it does not know, and a word where something is lost."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tlkit.errors import UserError
from tlkit.paths import WITH, Config
from tlkit.yaml_lines import join, read

CALLBACKS = "--trainer.callbacks"
BY_NAME = re.compile(rf"--trainer\.(callbacks\.[A-Z]\w*\..+)|--({re.escape(WITH)}.+)")


def in_full(words: Sequence[str]) -> list[str]:
    """Returns a command line with ``--callbacks.…`` spelled out as ``--trainer.callbacks.…``."""
    return [f"--trainer.{word[2:]}" if word.startswith("--callbacks.") else word for word in words]


def take_paths(words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Takes ``--trainer.callbacks.LayerFreezing.layers 2`` and ``--pretrain.with.PATH 2`` out of a command line.

    The parser knows no callbacks by name, and of two ``--pretrain.with.data.…`` it would keep the last one only. To it
    ``--trainer.callbacks.layers 2`` is of the last callback, whichever that is; it is left to it only behind a callback
    that the command line gives.

    Returns:
        The other words, and path -> value of those taken out.

    Raises:
        UserError: there is no value, or no telling which callback is meant.
    """
    others: list[str] = []
    taken: dict[str, Any] = {}
    rest, given = iter(words), False
    for word in rest:
        name, equals, value = word.partition("=")
        match = BY_NAME.fullmatch(name)
        given |= name in (CALLBACKS, f"{CALLBACKS}+")
        if match is None and name.startswith(f"{CALLBACKS}.") and not given:
            argument = name.rpartition(".")[2]
            raise UserError(
                f"{name}: of which callback? expected the name of its class, {CALLBACKS}.CLASS.{argument}, got none"
            )
        if match is None:
            others.append(word)
            continue
        value = value if equals else next(rest, "")
        if not value:
            raise UserError(f"{name}: expected a value after it, got none")
        taken[match[1] or match[2]] = read(value)[0].value
    return others, taken


def losses(given: Any, resolved: Any, words: Sequence[str], path: str = "") -> list[str]:
    """Returns a message for each thing that a file gives and its resolved configuration lacks.

    The parser replaces a list as a whole, and drops those arguments of a class that the class put in its place does
    not take, both without a word.

    Args:
        given: what the file says, plain data.
        resolved: what came of it, options of the command line included.
        words: the command line; what it sets itself is not lost.
        path: of both.
    """
    if isinstance(resolved, list):
        return _lost_items(_listed(given), resolved, words, path)
    if not isinstance(given, dict) or not isinstance(resolved, dict):
        return []
    if _class_name(given) and _class_name(given) != _class_name(resolved):
        return _lost_arguments(given, resolved, words, path)
    return [
        message for key, value in given.items() for message in losses(value, resolved.get(key), words, join(path, key))
    ]


def lost_classes(given: Any, resolved: Any) -> list[str]:
    """Returns the classes of a list that are not in the list in its place; an empty one is what was asked for."""
    before, now = (Counter(_class_name(item) for item in _listed(items)) for items in (given, resolved))
    return list((before - now).elements()) if now else []


def _lost_items(given: list[Any], resolved: list[Any], words: Sequence[str], path: str) -> list[str]:
    before, now = [_class_name(item) for item in given], [_class_name(item) for item in resolved]
    if not all(isinstance(item, dict) and _class_name(item) for item in resolved):
        return []  # no list of classes
    if gone := lost_classes(given, resolved):
        return [
            f"--{path} replaces the list of the file, {', '.join(gone)} {'are' if len(gone) > 1 else 'is'} left out; "
            f"--{path}+= adds to it"
        ]
    pairs = [(item, resolved[now.index(name)]) for item, name in zip(given, before, strict=True) if name in now]
    return [message for item, same in pairs for message in losses(item, same, words, join(path, _class_name(item)))]


def _lost_arguments(given: Config, resolved: Config, words: Sequence[str], path: str) -> list[str]:
    kept = resolved.get("init_args") or {}
    options = {word.partition("=")[0].rpartition(".")[2] for word in words}
    gone = [
        f"{key}: {value}"
        for key, value in (given.get("init_args") or {}).items()
        if key not in kept or (isinstance(value, bool | int | float) and kept[key] != value and key not in options)
    ]
    if not gone:
        return []
    return [
        f"{path} is now {_class_name(resolved)}, arguments that the file gives to {_class_name(given)} are left out: "
        + ", ".join(gone)
    ]


def _class_name(value: Any) -> str:
    """Returns the short name of the class that a value gives, or an empty string."""
    path = value.get("class_path") if isinstance(value, dict) else value
    return path.rpartition(".")[2] if isinstance(path, str) else ""


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
