"""Values at paths replaced in YAML as it stands, to find what is wrong with overrides.

The path language is that of `tlkit.paths`; here it goes over what the file says instead of over what it resolves to.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from tlkit.fault_walk import Walk, class_name
from tlkit.hints import show
from tlkit.yaml_lines import OPAQUE, Fault, Node

OVERRIDES = ("pretrain", "with")
APPEND = "+"  # last part of a path: one more item of the list there


def override_faults(walk: Walk, root: Node, schema: Mapping[str, Any]) -> list[Fault]:
    """Returns the faults of ``pretrain.with``: those that the rest of the file has only under its overrides."""
    section, key = OVERRIDES
    block = _child(_child(root, section), key)
    if not isinstance(root.children, dict) or block is None or not isinstance(block.children, dict):
        return []
    rest = {name: child for name, child in root.children.items() if name not in (section, "trainer")}
    trainer = _child(root, "trainer")
    settings = trainer.children if trainer and isinstance(trainer.children, dict) else {}
    # The pretrain stage has only the callbacks given here.
    stage = _with(root, rest, "trainer", _with(root, settings, "callbacks", Node(root.line, [], [])))
    before = set(walk.check(stage, dict(schema), ""))
    # A class comes before its arguments, whatever the order in the file.
    changes = sorted(block.children.items(), key=lambda item: len(_parts(str(item[0]).removesuffix(".class_path"))))
    faults, changed = apply(stage, [(str(path), value) for path, value in changes], into_lists=True)
    touched = [".".join(_parts(str(path))).removesuffix(".class_path") for path, _ in changes]
    for fault in walk.check(changed, dict(schema), ""):
        if fault not in before and any(fault.path.startswith(p) or p.startswith(fault.path) for p in touched):
            faults.append(fault)
    faults += override_faults(walk, changed, schema)
    return [Fault(fault.line, f"{section}.{key}.{fault.path}", fault.message) for fault in faults]


def apply(root: Node, changes: Iterable[tuple[str, Node]], into_lists: bool) -> tuple[list[Fault], Node]:
    """Returns a tree with values at paths replaced, and the faults of the paths that cannot be followed."""
    faults = []
    for path, value in changes:
        try:
            root = _put(root, _parts(path), value)
        except LookupError as error:
            if into_lists:
                faults.append(Fault(value.line, path, str(error.args[0])))
    return faults, root


def _parts(path: str) -> list[str]:
    parts = [part for part in path.split(".") if part != "init_args"]
    return ["trainer", *parts] if parts[:1] == ["callbacks"] else parts


def _put(node: Node | None, parts: list[str], value: Node) -> Node:
    """Returns a node with what lies at a path below it replaced; what is not in the file is taken to fit.

    Raises:
        LookupError: there is no such item, or several, in a list; or nothing can lie below what is there.
    """
    if not parts:
        return value
    part, rest = parts[0], parts[1:]
    if part == APPEND:
        items = [*(node.children if node and isinstance(node.children, list) else []), value]
        return Node(value.line, [item.value for item in items], items)
    if node is None or node.value is OPAQUE:
        return Node(value.line, OPAQUE)
    children = node.children
    if isinstance(children, list):
        names = [class_name(item) for item in children]
        if names and not any(names):
            return Node(value.line, OPAQUE)  # no list of classes: what is wrong there is told where it stands
        if names.count(part) != 1:
            listed = ", ".join(name for name in names if name) or "none"
            raise LookupError(f"expected one '{part}' in the list, got {names.count(part)}; the stage has: {listed}")
        items = [_put(item, rest, value) if name == part else item for name, item in zip(names, children, strict=True)]
        return Node(node.line, [item.value for item in items], items)
    if isinstance(node.value, str):  # a class by name alone
        children = {"class_path": node}
    if not isinstance(children, dict) and node.value is not None:
        raise LookupError(f"expected a class or a mapping to set '{part}' in, got {show(node.value)}")
    if not isinstance(children, dict):
        return Node(value.line, OPAQUE)
    if part == "class_path":
        children = {key: child for key, child in children.items() if key != "init_args"}
    elif "class_path" in children:
        inner = _put(children.get("init_args", Node(node.line, {}, {})), parts, value)
        return _with(node, children, "init_args", inner)
    return _with(node, children, part, _put(children.get(part), rest, value))


def _with(node: Node, children: dict[Any, Node], key: str, child: Node) -> Node:
    children = {**children, key: child}
    return Node(node.line, {name: item.value for name, item in children.items()}, children)


def _child(node: Node | None, key: str) -> Node | None:
    return node.children.get(key) if node and isinstance(node.children, dict) else None
