"""A study's YAML: read without importing torch, all faults at once."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from tlkit.errors import UserError, suggest
from tlkit.study.columns import AFTER
from tlkit.study.scaling_file import read_scaling
from tlkit.study.spec import ROLES, Factor, Role, Study, is_batch_size, is_length
from tlkit.study.spec_factors import PLAIN, FactorReader, columns_of, named
from tlkit.study.spec_report import ReportReader, compared
from tlkit.yaml_lines import OPAQUE, Fault, Node, read

KEYS = ("name", "goal", "base", *ROLES, "search", "metric", "where", "budget", "threads", "report", "scaling")
REQUIRED = {"name": "a word", "goal": "the question, one sentence", "base": "path of an experiment", "metric": "METRIC"}
METRIC = "{name: test/accuracy, mode: max or min, label: TEXT}; label may be left out"
BUDGET = ("stages", "hours", "gigabytes")
SCALED = ("workers", "threads")  # the factors of a scaling study
SENTENCES = r"""(?<!\be\.g)(?<!\bi\.e)(?<!\bvs)(?<!\bcf)(?<!\bal)(?<!\bFig)(?<!\b[A-Z])[.!?]["')]*\s+["'(]*[A-Z]"""
"""Where one sentence ends and another begins."""
MEASURED = ("test/", "val/", "train/", "before/")


def read_study(path: Path) -> tuple[Study | None, list[Fault]]:
    """Reads a study file.

    Returns:
        The study (None: there is too little to go on) and everything that is wrong with the file as such; whether
        its paths exist in the experiment is for `tlkit.study.check`.

    Raises:
        UserError: it cannot be read.
    """
    try:
        root, faults = read(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"expected a study in YAML, got {path}: {error}") from error
    if not isinstance(root.children, dict):
        if root.value is not OPAQUE:
            faults.append(Fault(1, "", f"expected a mapping with {', '.join(KEYS)}, got {root.value!r}"))
        return None, faults
    if {"model", "trainer"} <= set(root.children) and not {"base", "scientific"} & set(root.children):
        remedy = f"name it as base: in a study, or train it: tlkit fit --config {path}"
        return None, [Fault(1, "", f"expected a study, got an experiment; {remedy}")]
    reader = _Reader(path, faults)
    return reader.study(root.children), sorted(set(faults))


def refusal(path: Path, faults: list[Fault]) -> str:
    """Returns the faults of a study file as text."""
    lines = [f"  line {f.line}  {f.path}{': ' if f.path else ''}{f.message}" for f in sorted(set(faults))]
    return "\n".join([f"{path}: {len(lines)} fault{'s' * (len(lines) != 1)}", *lines])


class _Reader:
    """Takes the nodes of a study one by one and notes what is wrong."""

    def __init__(self, path: Path, faults: list[Fault]) -> None:
        self.path, self.faults = path, faults
        self.factors = FactorReader(faults)

    def fault(self, node: Node, path: str, message: str) -> None:
        self.faults.append(Fault(node.line, path, message))

    def _unknown(self, node: Node, path: str, valid: tuple[str, ...]) -> None:
        meant = suggest(path.rpartition(".")[2], valid) or ";"
        self.fault(node, path, f"unknown key{meant} valid: {', '.join(valid)}")

    def study(self, top: dict[Any, Node]) -> Study | None:
        """Returns the study; None if there is no base, or no name to tell one study from another."""
        meant = ""
        for key, node in top.items():
            if key not in KEYS:
                meant += suggest(str(key), KEYS)
                if "." in str(key) or key in PLAIN:
                    self.fault(
                        node, str(key), "a path belongs below scientific, nuisance, replicates or fixed: indent it"
                    )
                else:
                    self._unknown(node, str(key), KEYS)
        given = {key: node for key, node in top.items() if node.value not in (None, OPAQUE)}
        for key, what in REQUIRED.items():
            if key not in given and f"'{key}'" not in meant:
                what = METRIC if what == "METRIC" else what
                self.faults.append(Fault(top[key].line if key in top else 1, key, f"missing; expected {what}"))
        name, base = self._text(given, "name"), self._base(given)
        if any(sign in name for sign in "/\\") or name.startswith("."):
            self.fault(given["name"], "name", f"expected a name that a directory can have, got '{name}'")
        factors = self.factors.read({role: given[role] for role in ROLES if role in given}, given.get("search"))
        told = {"scientific", "scaling"} & set(given) or "'scientific'" in meant
        if not any(factor.role == "scientific" for factor in factors) and not told:
            line = top["scientific"].line if "scientific" in top else 1
            what = "missing; expected factor: [levels], what the question is about"
            self.faults.append(Fault(line, "scientific", what))
        metric, mode, metric_label = self._metric(given.get("metric"))
        study = Study(
            path=self.path,
            name=name,
            goal=self._goal(given.get("goal")),
            base=base or Path(),
            factors=factors,
            metric=metric,
            mode=mode,
            metric_label=metric_label,
            where=self._text(given, "where"),
            budget=self._budget(given.get("budget")),
            threads=self._threads(given.get("threads")),
            report=self._report(given),
            notes=(*self.factors.notes, *self._notes(factors, metric)) if "scaling" not in given else (),
            scaling=read_scaling(given, self.faults),
        )
        varied: list[Role] = [role for role in ROLES if role in given and role != "fixed"]
        written = {column: role for role in varied for name in named(given[role]) for column in columns_of(name)}
        unread = {column: role for column, role in written.items() if column not in study.all_columns}
        return replace(study, unread=unread) if base else None

    def _text(self, given: dict[Any, Node], key: str) -> str:
        value = given[key].value if key in given else ""
        if not isinstance(value, str) or (key in given and not value.strip()):
            self.fault(given[key], key, f"expected a text, got {value!r}")
            return ""
        return value.strip()

    def _goal(self, node: Node | None) -> str:
        goal = node.value.strip() if node and isinstance(node.value, str) else ""
        if node and (not goal or "\n" in goal or re.search(SENTENCES, goal)):
            got = f"expected the question as one sentence on one line, got {node.value!r}; what else there is to say"
            self.fault(node, "goal", f"{got} may stand in a comment, # …")
        return goal

    def _base(self, given: dict[Any, Node]) -> Path | None:
        written = self._text(given, "base")
        tried = [self.path.parent / written, Path(written)]
        found = next((path for path in tried if written and path.is_file()), None)
        if written and found is None:
            places = " and ".join(dict.fromkeys(str(path) for path in tried))
            self.fault(given["base"], "base", f"expected the file of an experiment, got none at {places}")
        return found

    def _metric(self, node: Node | None) -> tuple[str, Literal["min", "max"], str]:
        if node is None:
            return "", "max", ""
        nodes = node.children if isinstance(node.children, dict) else {}
        parts = {key: child.value for key, child in nodes.items()}
        for key, child in nodes.items():
            if key not in ("name", "mode", "label"):
                self._unknown(child, f"metric.{key}", ("name", "mode", "label"))
            elif key == "mode" and child.value not in ("min", "max"):
                self.fault(child, "metric.mode", f"expected min or max, got {child.value!r}")
            elif key != "mode" and not isinstance(child.value, str) and not (key == "label" and child.value is None):
                self.fault(child, f"metric.{key}", f"expected a text, got {child.value!r}")
        if not {"name", "mode"} <= set(parts):
            self.fault(node, "metric", f"expected {METRIC}, got {node.value!r}")
        name = parts["name"] if isinstance(parts.get("name"), str) else ""
        return name, "min" if parts.get("mode") == "min" else "max", str(parts.get("label") or "")

    def _budget(self, node: Node | None) -> dict[str, float]:
        children = node.children if node else {}
        if node and not isinstance(children, dict):
            self.fault(node, "budget", f"expected a mapping with {', '.join(BUDGET)}, got {node.value!r}")
        budget: dict[str, float] = {}
        for key, child in children.items() if isinstance(children, dict) else ():
            if key not in BUDGET:
                self._unknown(child, f"budget.{key}", BUDGET)
            elif isinstance(child.value, bool) or not isinstance(child.value, int | float) or child.value <= 0:
                self.fault(child, f"budget.{key}", f"expected a number above 0, got {child.value!r}")
            else:
                budget[str(key)] = float(child.value)
        return budget

    def _threads(self, node: Node | None) -> int:
        if node is None:
            return 1
        if isinstance(node.value, bool) or not isinstance(node.value, int) or node.value < 1:
            self.fault(node, "threads", f"expected the number of threads per process, at least 1, got {node.value!r}")
            return 1
        return node.value

    def _report(self, given: dict[Any, Node]) -> dict[str, Any]:
        if "report" not in given:
            return {}
        factors = SCALED if "scaling" in given else compared({role: given[role] for role in ROLES if role in given})
        return ReportReader(factors, self.faults).read(given["report"])

    def _notes(self, factors: tuple[Factor, ...], metric: str) -> list[str]:
        notes = []
        if metric and metric not in AFTER and not metric.startswith(MEASURED):
            notes.append(
                f"metric: {metric} is neither of docs/study_table.md nor {', '.join(f'{kind}…' for kind in MEASURED)}: "
                "the report needs it in the results of the runs"
            )
        paths = {path for f in factors if f.role == "scientific" for level in f.levels for path in level.nodes}
        if lengths := sorted(path for path in paths if is_length(path)):
            notes.append(
                f"{', '.join(lengths)} differs between scientific levels: a longer run has had more of everything, say "
                "so with the result"
            )
        if sizes := sorted(path for path in paths if is_batch_size(path)):
            notes.append(
                f"{', '.join(sizes)} differs between scientific levels: it changes speed and energy; quality can be "
                "compared only where the rate is tuned anew for each"
            )
        if not any(factor.role == "replicates" for factor in factors):
            notes.append("there are no replicates: no difference can be told from random variation")
        return notes
