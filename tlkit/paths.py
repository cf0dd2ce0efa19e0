"""The path language of overrides: dotted, ``init_args`` omitted, a callback under its class name.

``data.examples_per_class``, ``model.network.width``, ``callbacks.LayerFreezing.layers``, ``pretrain.layers``.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from tlkit.errors import UserError, suggest

Config = dict[str, Any]

WITH = "pretrain.with."


def override(config: Config, overrides: Mapping[str, Any]) -> Config:
    """Returns a copy of a resolved configuration with values at some paths replaced.

    Setting another ``class_path``, or a value with one, drops the ``init_args`` of the class that stood there; which
    arguments the new one has is left to its parser.

    Raises:
        UserError: a path that leads nowhere.
    """
    changed, classes = deepcopy(config), set()
    for path, value in overrides.items():
        owner, _, name = path.rpartition(".")
        if owner in classes and name not in ("class_path", "init_args"):  # the class alone knows its arguments
            lookup(changed, owner).setdefault("init_args", {})[name] = deepcopy(value)
        else:
            _set(changed, path, deepcopy(value))
        if name == "class_path" or (isinstance(value, Mapping) and "class_path" in value):
            classes.add(owner if name == "class_path" else path)
    return changed


def with_overrides(base: Config, overrides: Mapping[str, Any]) -> Config:
    """Returns a resolved configuration with values in it, in whatever order they come.

    A class is set before its arguments; ``pretrain.with.PATH`` is one more override of the pretrain stage.

    Raises:
        UserError: a path that leads nowhere.
    """
    direct = {path: value for path, value in overrides.items() if not path.startswith(WITH)}
    config = override(base, dict(sorted(direct.items(), key=lambda item: _depth(item[0]))))
    within = {path.removeprefix(WITH): value for path, value in overrides.items() if path.startswith(WITH)}
    if within:
        stated = spelled_out(config, config["pretrain"]["with"] or {})
        config["pretrain"]["with"] = dict(sorted((stated | within).items(), key=lambda item: _depth(item[0])))
    return config


def spelled_out(config: Config, overrides: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns path -> value of overrides that may be nested where the configuration has sections.

    ``--pretrain.with.trainer.max_epochs 2`` is parsed to ``{"trainer": {"max_epochs": 2}}``: it must not replace the
    whole trainer. A mapping with a ``class_path``, or where no section is, stays a value.
    """
    flat: dict[str, Any] = {}
    for key, value in overrides.items():
        path = prefix.rstrip(".") if prefix and key == "init_args" else f"{prefix}{key}"
        if isinstance(value, Mapping) and "class_path" not in value and _is_section(config, path):
            flat |= spelled_out(config, value, f"{path}.")
        else:
            flat[path] = value
    return flat


def lookup(config: Config, path: str) -> Any:
    """Returns the value at a path.

    Raises:
        UserError: a path that leads nowhere.
    """
    parent, key = _parent(config, path)
    return parent[key]


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Returns path -> leaf for everything in a configuration, with class names in place of ``class_path``."""
    if isinstance(config, Mapping) and "class_path" in config:
        name = str(config["class_path"]).rpartition(".")[2]
        arguments = config.get("init_args")
        return {prefix: name} | (flatten(arguments, prefix) if arguments else {})
    if isinstance(config, Mapping) and config:
        flat: dict[str, Any] = {}
        for key, value in config.items():
            flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
        return flat
    if isinstance(config, list) and any(isinstance(item, Mapping) for item in config):
        flat = {}
        for number, item in enumerate(config):
            named = isinstance(item, Mapping) and "class_path" in item
            name = f".{str(item['class_path']).rpartition('.')[2]}" if named else f"[{number}]"
            flat |= flatten(item, prefix + name)
        return flat
    return {prefix: config}


def _depth(path: str) -> int:
    parts = path.removesuffix(".class_path").split(".")
    return len(parts) + (parts[0] == "callbacks")


def _is_section(config: Config, path: str) -> bool:
    try:
        node = lookup(config, path)
    except UserError:
        return False
    return isinstance(node, dict) and ("class_path" in node or "." not in path)


def _set(config: Config, path: str, value: Any) -> None:
    parent, key = _parent(config, path)
    if key == "class_path" and value not in (parent[key], str(parent[key]).rpartition(".")[2]):
        parent.pop("init_args", None)
    parent[key] = value


def _parent(config: Config, path: str) -> tuple[Any, Any]:
    """Walks to what holds the last part of a path; returns it and the key (or list index) there."""
    parts = path.split(".")
    if parts[0] == "callbacks":
        parts = ["trainer", *parts]
    node: Any = config
    for depth, part in enumerate(parts):
        node, key = _step(node, part, ".".join(parts[: depth + 1]), path)
        if depth == len(parts) - 1:
            return node, key
        node = node[key]
    raise AssertionError("a path has at least one part")


def _step(node: Any, part: str, here: str, path: str) -> tuple[Any, Any]:
    if isinstance(node, list):
        names = [str(item.get("class_path", "")).rpartition(".")[2] for item in node]
        if names.count(part) == 1:
            return node, names.index(part)
        got = "there are several" if part in names else "there is none"
        raise UserError(
            f"path '{path}': expected one callback '{part}', {got}; the stage has: {', '.join(names) or '—'}"
        )
    if isinstance(node, dict) and "class_path" in node and part not in ("class_path", "init_args"):
        node = node.setdefault("init_args", {})
    if not isinstance(node, dict) or part not in node:
        valid = list(node) if isinstance(node, dict) else []
        raise UserError(
            f"path '{path}': expected '{here}' to exist, got nothing there{suggest(part, valid) or ';'} "
            f"valid here: {', '.join(valid) or 'nothing'}"
        )
    return node, part
