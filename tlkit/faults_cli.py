"""What is wrong with a command line, in one line."""

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from tlkit import hints
from tlkit.fault_overrides import APPEND, apply
from tlkit.fault_walk import Walk
from tlkit.paths import WITH, flatten
from tlkit.yaml_lines import Node, read


def cli_fault(parser: ArgumentParser, message: str, args: Sequence[str]) -> str:
    """Returns one line for what is wrong on a command line.

    Args:
        parser: what refused it.
        message: what it said.
        args: the words; those of a ``--config`` are taken as they are, `find_faults` tells what is wrong in the file.
    """
    schema, options = schema_of(parser), _options(args)
    texts = [Path(value) for name, value in options if name in ("config", "c")]
    root = read(texts[-1].read_text())[0] if texts and texts[-1].is_file() else Node(1, {}, {})
    walk = Walk(Path())
    before = set(walk.check(root, schema, ""))
    changes = []
    for name, value in options:
        if name.partition(".")[0] in schema:
            # jsonargparse appends what a plus sign follows.
            changes.append((f"{name[:-1]}.{APPEND}" if name.endswith("+") else name, _node(value)))
        elif not any(known.startswith(f"--{name}") or known == f"-{name}" for known in parser._option_string_actions):
            known = [option.removeprefix("--") for option in parser._option_string_actions]
            meant = _meant(name, [*known, *flatten(root.value)]) or hints.did_you_mean(name, known)
            return f"--{name}: unknown option{meant or '; --help lists them'}"
    faults, root = apply(root, changes, into_lists=False)
    # What is missing may follow from a class that keeps its arguments here: jsonargparse says so better.
    after = [fault for fault in walk.check(root, schema, "") if not fault.message.startswith("missing")]
    faults += [fault for fault in after if fault not in before]
    if faults:
        return f"--{faults[0].path}: {faults[0].message}"
    file = re.search(r"unrecognized arguments: .*?(\S+\.ya?ml)\b", message)
    return _condense(message) + (f"; did you mean --config {file[1]}?" if file else "")


def _meant(word: str, paths: Sequence[str]) -> str:
    """Returns ``; did you mean '--model.optimizer.lr'?`` for the paths that end in a word, or an empty string."""
    same = [f"'--{p}'" for p in dict.fromkeys(paths) if p.rpartition(".")[2] == word and not p.startswith(WITH)]
    return f"; did you mean {' or '.join(same)}?" if same else ""


def schema_of(parser: ArgumentParser) -> dict[str, Any]:
    """Returns the schema of the files that a parser reads: its arguments' type hints, nested by their dotted names."""
    schema: dict[str, Any] = {}
    for action in parser._actions:
        if hasattr(action, "_typehint") and not action.dest.endswith(".help"):
            *sections, key = action.dest.split(".")
            section = schema
            for name in sections:
                section = section.setdefault(name, {})
            section[key] = action._typehint
    return schema


def _options(args: Sequence[str]) -> list[tuple[str, str]]:
    """Returns option and value of each pair on a command line."""
    options = []
    for word, following in pairwise([*args, "--"]):
        name, equals, value = word.lstrip("-").partition("=")
        if word.startswith("--") or word == "-c":
            if equals or not following.startswith("--"):
                options.append((name, value if equals else following))
    return options


def _node(text: str) -> Node:
    """Returns the content of a word of the command line: a list or a mapping, else the text, for it may be meant so."""
    node = read(text)[0]
    return Node(0, text) if node.children is None or not text else Node(0, node.value, node.children)


def _condense(message: str) -> str:
    """Returns where and what of jsonargparse's message, without its types."""
    keys = re.findall(r'Parser key "([^"]+)"', message)
    lines = [line.strip(" -") for line in message.splitlines() if "NoneType" not in line]
    telling = [line for line in lines if re.search(r"not accepted|Expected|No module|has no attribute|required", line)]
    said = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", (telling or lines or [message])[-1 if telling else 0])
    said = said.partition(". Got value: Namespace")[0]
    return f"{'.'.join(keys)}: {said}" if keys and not said.startswith("Parser key") else said
