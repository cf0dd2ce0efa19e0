"""Everything that is wrong with a configuration at once: one line each, with its place and what may have been meant.

jsonargparse reports one fault, as a dump of every type it tried. After it has refused a file or a command line, this
walks the plain YAML along the type hints of what is to be built. What jsonargparse takes is no fault, except what it
drops without a word: keys given twice, unknown keys over an empty mapping, a section that is no mapping.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from tlkit import hints
from tlkit.fault_overrides import override_faults
from tlkit.fault_walk import Walk
from tlkit.yaml_lines import Fault, read


def find_faults(text: str, schema: Mapping[str, Any], source: str, required: Collection[str] = ()) -> list[Fault]:
    """Returns all faults of a configuration file, in the order of its lines.

    Args:
        text: the YAML.
        schema: top-level key -> type hint, or a mapping of key -> type hint. A class is written as ``class_path`` and
            ``init_args``; a `Trainer`, like a dataclass, as its arguments alone. ``pretrain.with`` is checked as
            overrides of the rest of the file.
        source: where the text is from; file names given in place of a class are relative to its directory.
        required: top-level keys that must be given.
    """
    root, faults = read(text)
    walk = Walk(Path(source).parent)
    faults += walk.check(root, dict(schema), "")
    if isinstance(root.children, dict):
        given = {key for key, child in root.children.items() if child.value is not None}
        faults += [
            Fault(1, key, f"missing; expected {hints.describe(schema[key])}") for key in required if key not in given
        ]
    return sorted({*faults, *override_faults(walk, root, schema)})


def report(faults: Sequence[Fault], source: str) -> str:
    """Returns the faults of a file as text: a heading, then one line each; options if all that is wrong is missing."""
    width = max((len(str(fault.line)) for fault in faults), default=1)
    lines = [f"{source}: {len(faults)} fault{'s' * (len(faults) != 1)}"]
    for fault in faults:
        lines.append(f"  line {fault.line:<{width}}  {fault.path}{': ' if fault.path else ''}{fault.message}")
    missing = [fault.path for fault in faults if fault.message.startswith("missing; ")]
    if missing and len(missing) == len(faults) and not any("callbacks" in path for path in missing):
        lines.append(f"  or on the command line: {' '.join(f'--{path} …' for path in missing)}")
    return "\n".join(lines)
