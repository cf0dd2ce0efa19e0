"""Goes down YAML and type hints together and notes where they differ."""

import inspect
import os
import typing
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from tlkit import hints
from tlkit.class_names import NoSuchClass, class_names, default_class, find_target
from tlkit.hints import Parameter
from tlkit.yaml_lines import OPAQUE, Fault, Node, join

SPEC = ("class_path", "init_args", "dict_kwargs")
EMPTY = inspect.Parameter.empty


class Walk:
    """Goes down YAML and type hints together."""

    def __init__(self, folder: Path) -> None:
        """Starts at a directory.

        Args:
            folder: what names of files given in place of a class are relative to.
        """
        self.folder = folder

    def check(self, node: Node, hint: Any, path: str, default: Any = EMPTY) -> list[Fault]:
        """Returns the faults of a value: none if any alternative of its hint fits, else those of the closest one."""
        members = [(member, hints.shape(member)) for member in hints.alternatives(hint)]
        if node.value is OPAQUE or any(shape == "any" for _, shape in members):
            return []
        fitting = [(member, shape) for member, shape in members if _fits(member, shape, node)]
        tried: list[list[Fault]] = []
        for member, shape in fitting:
            faults = self._check_one(node, member, shape, path, default)
            if not faults:
                return []
            if shape not in ("scalar", "leaf"):
                tried.append(faults)
        closest = min(tried, key=lambda faults: _rank(faults, path), default=None)
        # A word may be meant as any of them, unless all else is null.
        mixed = node.children is None and any(
            shape in ("scalar", "leaf") and member is not type(None) for member, shape in fitting
        )
        if closest is None or (mixed and "did you mean" not in closest[0].message):
            return [Fault(node.line, path, hints.expected(hint, node.value))]
        return closest

    def _check_one(self, node: Node, hint: Any, shape: hints.Shape, path: str, default: Any) -> list[Fault]:
        arguments = typing.get_args(hint)
        if shape == "keys":
            return self._check_closed(node, hint, path)
        if shape == "class":
            return self._check_spec(node, typing.get_origin(hint) or hint, 0, path, default)
        if shape == "callable":
            return self._check_callable(node, hint, path, default)
        if shape == "list":
            return self._check_items(node, hint, path)
        if shape == "mapping" and arguments:
            items = node.children.items() if isinstance(node.children, dict) else ()
            return [fault for key, child in items for fault in self.check(child, arguments[1], join(path, str(key)))]
        if shape == "mapping":
            return []
        return [] if hints.accepts(hint, node.value) else [Fault(node.line, path, hints.expected(hint, node.value))]

    def _check_closed(self, node: Node, hint: Any, path: str) -> list[Fault]:
        """Checks a mapping that is written as its keys alone."""
        if isinstance(hint, dict):
            known: Mapping[str, Parameter] = {key: Parameter(value) for key, value in hint.items()}
            name = path or "the top level"
        else:
            known, name = hints.parameters(hint), hint.__name__
        children = node.children
        if not isinstance(children, dict):  # a NamedTuple as a list
            return [] if hints.accepts(hint, node.value) else [Fault(node.line, path, hints.expected(hint, node.value))]
        if "class_path" not in children:
            return self._check_keys(children, known, path, node.line)
        if not isinstance(hint, dict) and hints.accepts(hint, node.value):
            return []  # a dataclass under its own class_path
        faults = [Fault(children["class_path"].line, join(path, "class_path"), _direct(name, known))]
        inner = children.get("init_args")
        if inner and isinstance(inner.children, dict):
            faults += self._check_keys(inner.children, known, path, inner.line)
        return faults + self._check_keys({k: v for k, v in children.items() if k not in SPEC}, known, path, 0)

    def _check_callable(self, node: Node, hint: Any, path: str, default: Any) -> list[Fault]:
        """Checks a class whose instances a callable returns: its arguments without those of the call."""
        arguments = typing.get_args(hint)
        returned = arguments[-1] if arguments else Any
        if hints.shape(returned) != "class":
            return [] if hints.accepts(hint, node.value) else [Fault(node.line, path, hints.expected(hint, node.value))]
        skip = len(arguments[0]) if isinstance(arguments[0], list) else 1
        return self._check_spec(node, typing.get_origin(returned) or returned, skip, path, default)

    def _check_items(self, node: Node, hint: Any, path: str) -> list[Fault]:
        items, arguments = typing.cast("list[Node]", node.children), typing.get_args(hint)
        each = arguments[:1] * len(items)
        if typing.get_origin(hint) is tuple and arguments and arguments[-1] is not ...:
            if len(items) != len(arguments):
                return [Fault(node.line, path, f"{hints.expected(hint, node.value)} of {len(items)}")]
            each = arguments
        names = Counter(class_name(item) for item in items)
        faults: list[Fault] = []
        for index, (item, member) in enumerate(zip(items, each, strict=False)):
            name = class_name(item)
            here = join(path, index) if names[name] > 1 or not name else join(path, name)
            found = self.check(item, member, here)
            unnamed = here if item.children is None else join(here, "class_path")
            if any(fault.path == unnamed for fault in found):  # a wrong name is no way to tell which
                found = [Fault(f.line, join(path, index) + f.path.removeprefix(here), f.message) for f in found]
            faults += found
        return faults

    def _check_spec(self, node: Node, base: type, skip: int, path: str, default: Any) -> list[Fault]:
        """Checks a class given by name, or by ``class_path`` and ``init_args``."""
        if not isinstance(node.children, dict):
            if os.path.isfile(self.folder / node.value):  # never raises, whatever the text is
                return []
            spec, where = {"class_path": node}, path
        elif "class_path" in node.children:
            spec, where = node.children, join(path, "class_path")
        else:
            return self._check_unnamed(node, base, skip, path, default)
        named = spec["class_path"]
        try:
            target = find_target(named.value, base, function_suffices=skip > 0)
        except NoSuchClass as error:
            fault = Fault(named.line, where, str(error))
            if error.meant is None:
                return [fault, *_beside(spec, (), path)]
            return [fault, *self._check_arguments(spec, hints.parameters(error.meant, skip), path, named.line)]
        if isinstance(target, base) or (skip and not inspect.isclass(target)):
            return _beside(spec, (), path)  # an object or a function that is used as it is
        return self._check_arguments(spec, hints.parameters(target, skip), path, named.line)

    def _check_unnamed(self, node: Node, base: type, skip: int, path: str, default: Any) -> list[Fault]:
        """Checks arguments without ``class_path``: those of the default's class, or of the hinted class itself."""
        children = typing.cast("dict[Any, Node]", node.children)
        typo = [key for key in children if "'class_path'" in hints.did_you_mean(str(key), SPEC)]
        if typo:
            return [Fault(children[typo[0]].line, join(path, typo[0]), "unknown key; did you mean 'class_path'?")]
        spec = children if "init_args" in children else {"init_args": node}
        implied = default_class(default, base)
        if implied:
            return self._check_arguments(spec, hints.parameters(implied, skip), path, node.line)
        known = hints.parameters(base, skip)
        if not inspect.isabstract(base) and set(spec["init_args"].children or ()) <= set(known):
            return self._check_arguments(spec, known, path, node.line)
        names = hints.valid(class_names(base))
        return [Fault(node.line, path, f"missing class_path; expected {base.__name__}; {names}")]

    def _check_arguments(
        self, spec: dict[Any, Node], known: Mapping[str, Parameter], path: str, line: int
    ) -> list[Fault]:
        """Checks ``init_args``, and what else stands beside ``class_path``."""
        faults = _beside(spec, known, path)
        meant = [child for key, child in spec.items() if "'init_args'" in hints.did_you_mean(str(key), SPEC)]
        given = spec.get("init_args", meant[0] if meant else Node(0, {}, {}))
        if given.value is OPAQUE:
            return faults
        if not isinstance(given.children, dict):
            message = f"expected a mapping as init_args, got {hints.show(given.value)}"
            return [*faults, Fault(given.line, path, message)]
        free = spec["dict_kwargs"].children if "dict_kwargs" in spec else None
        free = free if isinstance(free, dict) else {}
        taken = given.children | {key: child for key, child in free.items() if key in known}
        return faults + self._check_keys(taken, known, path, line)

    def _check_keys(self, given: dict[Any, Node], known: Mapping[str, Parameter], path: str, line: int) -> list[Fault]:
        """Checks named arguments.

        Args:
            given: those in the YAML.
            known: those there are.
            path: of what takes them.
            line: where missing ones are reported; 0: missing ones are reported elsewhere.
        """
        faults: list[Fault] = []
        for key, child in given.items():
            if key in known:
                parameter = known[key]
                if child.value is not None and not _same(child.value, parameter.default):
                    faults += self.check(child, parameter.hint, join(path, key), parameter.default)
            elif str(key).partition(".")[0] not in known or "." not in str(key):
                faults.append(Fault(child.line, join(path, str(key)), _unknown(str(key), known)))
        heads = {str(key).partition(".")[0] for key, child in given.items() if child.value is not None}
        for name, parameter in known.items() if line else ():
            if parameter.required and name not in heads:
                faults.append(Fault(line, join(path, name), f"missing; expected {hints.describe(parameter.hint)}"))
        return faults


def class_name(node: Node) -> str:
    """Returns the short name of the class that a node gives, or an empty string."""
    children = node.children
    value = children["class_path"].value if isinstance(children, dict) and "class_path" in children else node.value
    return value.rpartition(".")[2] if isinstance(value, str) else ""


def _fits(hint: Any, shape: hints.Shape, node: Node) -> bool:
    if isinstance(node.children, dict):
        return shape in ("keys", "class", "callable", "mapping", "leaf")
    if isinstance(node.children, list):
        return shape in ("list", "leaf") or (shape == "keys" and hints.is_named_tuple(hint))
    return shape in ("scalar", "leaf") or (shape in ("class", "callable") and isinstance(node.value, str))


def _rank(faults: list[Fault], path: str) -> tuple[bool, bool, int]:
    """Orders alternatives: first those whose class exists, then those with a suggestion, then the fewest faults."""
    unresolved = any(fault.path in (path, join(path, "class_path")) for fault in faults)
    return unresolved, "did you mean" not in faults[0].message, len(faults)


def _same(value: Any, default: Any) -> bool:
    return isinstance(value, str | bool | int | float) and type(value) is type(default) and bool(value == default)


def _unknown(key: str, known: Collection[str]) -> str:
    if not known:
        return "unknown key; nothing can be given here"
    return f"unknown key{hints.did_you_mean(key, known) or ';'} {hints.valid(known)}"


def _beside(spec: dict[Any, Node], known: Collection[str], path: str) -> list[Fault]:
    """Returns the faults of what stands beside ``class_path``; ``known``: what belongs under ``init_args``."""
    faults = []
    for key, child in spec.items():
        if key in known:
            faults.append(Fault(child.line, join(path, key), "stands beside class_path; it belongs under init_args"))
        elif key not in SPEC and not str(key).startswith("init_args."):
            faults.append(Fault(child.line, join(path, str(key)), _unknown(str(key), SPEC)))
    return faults


def _direct(name: str, known: Collection[str]) -> str:
    return f"class_path is not allowed here; give the arguments of {name} directly; {hints.valid(known)}"
