"""Put a peak rate into a copy of a configuration file, its comments kept."""

from collections.abc import Mapping
from typing import Any

import yaml

from tlkit.yaml_lines import read

Arguments = Mapping[str, float | None]

NAME = "OneCycle"


def block(arguments: Arguments) -> str:
    """Returns the callback as one line of YAML, to stand in the list ``trainer.callbacks``."""
    given = ", ".join(f"{key}: {'null' if value is None else value}" for key, value in arguments.items())
    return f"{{class_path: {NAME}, init_args: {{{given}}}}}"


def with_one_cycle(text: str, arguments: Arguments) -> tuple[str, bool]:
    """Returns a configuration with a peak rate: that of its OneCycle, else a OneCycle is added before all callbacks.

    Args:
        text: the YAML file.
        arguments: ``peak_lr``, and what else a OneCycle that is added takes.

    Returns:
        The new text, and whether all but this is as it was. If not, the layout and the comments are lost: the file says
        with anchors, or in some other way, what can only be changed in several places.
    """
    wanted = _changed(read(text)[0].value, arguments)
    position, length, inserted = _edit(text, arguments)
    edited = text[:position] + inserted + text[position + length :]
    node, faults = read(edited)
    if node.value == wanted and not faults:
        return edited, True
    return yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True), False


def _changed(config: dict[str, Any], arguments: Arguments) -> dict[str, Any]:
    """Returns the same change of plain data."""
    config = _copy(config)
    trainer = config["trainer"] = config.get("trainer") or {}
    callbacks = trainer.get("callbacks") or []
    callbacks = trainer["callbacks"] = callbacks if isinstance(callbacks, list) else [callbacks]
    for number, item in enumerate(callbacks):
        if _is_one_cycle(item if isinstance(item, str) else item["class_path"]):
            item = callbacks[number] = {"class_path": item} if isinstance(item, str) else item
            item["init_args"] = (item.get("init_args") or {}) | {"peak_lr": arguments["peak_lr"]}
            return config
    callbacks.insert(0, read(block(arguments))[0].value)
    return config


def _copy(value: Any) -> Any:
    """Returns a copy in which what an anchor shared is separate, as with the OneCycle of the pretrain."""
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _edit(text: str, arguments: Arguments) -> tuple[int, int, str]:
    """Returns where the text is to be changed: position, number of characters to leave out, characters to put in."""
    trainer = _child(yaml.compose(text, Loader=yaml.SafeLoader), "trainer")
    callbacks = _child(trainer, "callbacks")
    peak = f"peak_lr: {arguments['peak_lr']}"
    for item in callbacks.value if isinstance(callbacks, yaml.SequenceNode) else []:
        name = _child(item, "class_path") or item
        if isinstance(name, yaml.ScalarNode) and _is_one_cycle(name.value):
            return _edit_one_cycle(item, name, peak)
    if isinstance(callbacks, yaml.SequenceNode):
        return _first(callbacks, f"- {block(arguments)}", block(arguments))
    if isinstance(trainer, yaml.MappingNode):
        indent = " " * trainer.start_mark.column
        new = f"callbacks:\n{indent}  - {block(arguments)}"
        return _first(trainer, new, f"callbacks: [{block(arguments)}]")
    new = f"{'' if text.endswith(chr(10)) else chr(10)}trainer:\n  callbacks:\n    - {block(arguments)}\n"
    return len(text), 0, new


def _edit_one_cycle(item: yaml.Node, name: yaml.ScalarNode, peak: str) -> tuple[int, int, str]:
    given = _child(item, "init_args")
    old = _child(given, "peak_lr")
    if item is name:
        return _replace(item, f"{{class_path: {name.value}, init_args: {{{peak}}}}}")
    if old is not None:
        return _replace(old, peak.partition(": ")[2])
    if isinstance(given, yaml.MappingNode):
        return _first(given, peak, peak)
    if given is not None:  # null
        return _replace(given, f"{{{peak}}}")
    between = ", " if getattr(item, "flow_style", False) else f"\n{' ' * item.start_mark.column}"
    return name.end_mark.index, 0, f"{between}init_args: {{{peak}}}"


def _replace(node: yaml.Node, new: str) -> tuple[int, int, str]:
    return node.start_mark.index, node.end_mark.index - node.start_mark.index, new


def _first(node: yaml.CollectionNode, in_block: str, in_flow: str) -> tuple[int, int, str]:
    """Puts something before what a collection holds."""
    start = node.start_mark
    if node.flow_style:
        return start.index + 1, 0, in_flow + (", " if node.value else "")
    return start.index, 0, f"{in_block}\n{' ' * start.column}"


def _child(node: yaml.Node | None, key: str) -> yaml.Node | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((value for name, value in pairs if name.value == key), None)


def _is_one_cycle(class_path: str) -> bool:
    return class_path.rpartition(".")[2] == NAME
