"""YAML as it stands in the file: every value with its line, and what is wrong with the text itself.

Values are those that jsonargparse reads, so ``1e-3`` is a number.
"""

from dataclasses import dataclass
from typing import Any

import yaml
from jsonargparse._loaders_dumpers import get_yaml_default_loader

MERGE = "tag:yaml.org,2002:merge"
INDENTED = "is this line indented as its neighbours are?"
REMEDIES = {
    "did not find expected key": f"; {INDENTED}",
    "could not find expected ':'": "; a key needs a space after its colon",
    "mapping values are not allowed in this context": f"; {INDENTED} A key needs a space after its colon, and a text "
    "quotes if it has a colon and a space in it",
}
"""What the parser says -> what to look for."""
OPAQUE = object()  # the value of what cannot be read, or is not there to be read: fits everywhere


@dataclass(frozen=True, order=True)
class Fault:
    """One thing wrong with a configuration.

    Attributes:
        line: where it stands, from 1; 0: not in a file.
        path: what it is about, in the path language (dotted, ``init_args`` omitted); empty: the file as a whole.
        message: what was expected, what was got, what may have been meant; one line.
    """

    line: int
    path: str
    message: str


@dataclass(frozen=True)
class Node:
    """A YAML value that knows where it stands.

    Attributes:
        line: the line of its key, or of its start in a list; from 1.
        value: plain data; `OPAQUE` if it cannot be read.
        children: the values of a mapping by key, or those of a list; None for anything else.
    """

    line: int
    value: Any
    children: "dict[Any, Node] | list[Node] | None" = None


def read(text: str) -> tuple[Node, list[Fault]]:
    """Returns the content of a YAML file and the faults of the text.

    These are syntax errors (after which nothing else can be told), keys given twice, anchors that refer to themselves,
    and tags that name no plain data. An empty file is an empty mapping.
    """
    loader = get_yaml_default_loader()  # type: ignore[no-untyped-call]
    try:
        composed = loader(text)
        try:
            reader = _Reader(composed)
            root = composed.get_single_node()
            if root is None:
                return Node(1, {}, {}), []
            value, children = reader.content(root, "")
        finally:
            composed.dispose()
    except yaml.YAMLError as error:
        return Node(1, OPAQUE), [_syntax_fault(error, text)]
    except RecursionError:
        return Node(1, OPAQUE), [Fault(1, "", "nested too deeply")]
    return Node(root.start_mark.line + 1, value, children), reader.faults


def join(path: str, key: Any) -> str:
    """Returns the path of a key below a path; ``init_args`` adds nothing, a number is an index."""
    if key == "init_args":
        return path
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else str(key)


class _Reader:
    """Turns composed YAML into nodes; an aliased value is turned once."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.faults: list[Fault] = []
        self.done: dict[int, tuple[Any, Any]] = {}
        self.open: set[int] = set()

    def content(self, node: yaml.Node, path: str, line: int = 1) -> tuple[Any, Any]:
        """Returns the value and the children of a YAML node that is named at a line."""
        if id(node) in self.open:
            self.faults.append(Fault(line, path, f"refers to itself (the anchor in line {node.start_mark.line + 1})"))
            return OPAQUE, None
        if id(node) not in self.done:
            self.open.add(id(node))
            self.done[id(node)] = self._convert(node, path)
            self.open.remove(id(node))
        return self.done[id(node)]

    def _convert(self, node: yaml.Node, path: str) -> tuple[Any, Any]:
        if isinstance(node, yaml.MappingNode):
            children = self._mapping(node, path)
            return {key: child.value for key, child in children.items()}, children
        if isinstance(node, yaml.SequenceNode):
            items = []
            for index, item in enumerate(node.value):
                line = item.start_mark.line + 1
                items.append(Node(line, *self.content(item, join(path, index), line)))
            return [item.value for item in items], items
        return self._scalar(node, path), None

    def _mapping(self, node: yaml.MappingNode, path: str) -> dict[Any, Node]:
        merged: dict[Any, Node] = {}
        own: dict[Any, Node] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == MERGE:
                self._merge(merged, value_node, path, line)
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self.faults.append(Fault(line, path, "expected a name as key, got a list or a mapping"))
                continue
            key = self._scalar(key_node, path)
            below = join(path, str(key))
            if key in own:
                self.faults.append(Fault(line, below, f"given twice; first in line {own[key].line}"))
            own[key] = Node(line, *self.content(value_node, below, line))
        return merged | own

    def _merge(self, merged: dict[Any, Node], value_node: yaml.Node, path: str, line: int) -> None:
        """Adds what ``<<`` brings in; what was brought in earlier wins."""
        _, children = self.content(value_node, path, line)
        for source in [item.children for item in children] if isinstance(children, list) else [children]:
            for key, child in (source if isinstance(source, dict) else {}).items():
                merged.setdefault(key, child)

    def _scalar(self, node: yaml.Node, path: str) -> Any:
        try:
            return self.loader.construct_object(node)
        except (yaml.YAMLError, ValueError):  # a ValueError: 0b2, a number of no base
            self.faults.append(Fault(node.start_mark.line + 1, path, f"expected plain data, got {node.tag}"))
            return OPAQUE


def _syntax_fault(error: yaml.YAMLError, text: str) -> Fault:
    if not isinstance(error, yaml.MarkedYAMLError):  # a character that may not stand in YAML
        position = getattr(error, "position", 0)
        return Fault(text.count("\n", 0, position) + 1, "", f"not YAML: {str(error).splitlines()[0]}")
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line, mark.column) if mark else (0, 0)
    lines = text.splitlines()
    tab = "; a tab stands here, indent with spaces" if line < len(lines) and "\t" in lines[line][: column + 1] else ""
    context = f", {error.context}" if error.context else ""
    since = error.context_mark.line + 1 if error.context_mark else line + 1
    begun = f" that begins in line {since}" if context and since != line + 1 else ""
    remedy = tab or REMEDIES.get(error.problem or "", "")
    return Fault(line + 1, "", f"column {column + 1}: not YAML: {error.problem}{context}{begun}{remedy}")
