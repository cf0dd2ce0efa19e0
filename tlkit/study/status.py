"""``tlkit study status``: what has become of a study's stages. Imports neither torch nor pandas."""

import math
from collections import Counter
from pathlib import Path
from typing import Any, get_args

from tlkit.errors import UserError
from tlkit.runs import LOCK, owner
from tlkit.study.plan import load
from tlkit.study.state import Found, State, failures, states, with_again

LISTED = 8
SHORT = 100  # characters of a reason


def status(root: Path, name: str) -> list[str]:
    """Returns the lines that say how far a study is.

    Args:
        root: directory of all runs.
        name: of the study.

    Raises:
        UserError: it has not been planned.
    """
    stored = load(root / name)
    if stored is None:
        raise UserError(f"expected a planned study in {root / name}, got none; tlkit study plan FILE plans it")
    kinds = {row["id"]: row["stage"] for row in stored["stages"]}
    found = states(root, name, [(kind, id_) for id_, kind in kinds.items()])
    found = with_again(found, {row["id"]: row["pretrain"] for row in stored["stages"]})
    lines = [f"{name}: {stored['study']['goal']}", *_counts(kinds, found), *_best(stored["study"], kinds, found)]
    for one in found.values():
        if one.state == "running" and one.path:
            lines.append(f"  running   {one.path}  {owner(one.path / LOCK)}")
    failed = {row["id"]: row["pretrain"] for row in stored["stages"] if found[row["id"]].state == "failed"}
    records = failures(root / name)
    # those that were not run because their pretrain failed come last
    paths = [records[id_[:8]] for id_ in sorted(failed, key=lambda id_: failed[id_] in failed)]
    lines += _some("failed", [*map(_failure, paths[:LISTED]), *map(str, paths[LISTED:])])
    lines += _some("damaged", [f"{one.path}; it will be run again" for one in found.values() if one.state == "damaged"])
    gone = "its weights are deleted, and a stage to do starts from them"
    lines += _some("again", [f"{one.path}; {gone}" for one in found.values() if one.state == "again"])
    return lines


def _counts(kinds: dict[str, str], found: dict[str, Found]) -> list[str]:
    """Returns a table of kinds and states."""
    counts = Counter((kinds[id_], one.state) for id_, one in found.items())
    columns = [state for state in get_args(State) if state in ("done", "to do") or any(s == state for _, s in counts)]
    rows = [["", *columns, "all"]]
    for kind in dict.fromkeys(kinds.values()):
        numbers = [counts[kind, state] for state in columns]
        rows.append([kind, *map(str, numbers), str(sum(numbers))])
    return ["  " + row[0].ljust(10) + "".join(cell.rjust(9) for cell in row[1:]) for row in rows]


def _best(asked: dict[str, Any], kinds: dict[str, str], found: dict[str, Found]) -> list[str]:
    runs = [one for id_, one in found.items() if kinds[id_] == "transfer" and one.result]
    values = [(one.result["metrics"].get(asked["metric"], math.nan), one.path) for one in runs if one.result]
    values = [(value, path) for value, path in values if not math.isnan(value)]
    if not values:
        return []
    value, path = (max if asked["mode"] == "max" else min)(values, key=lambda item: item[0])
    return [f"  best so far: {asked['metric']} {value:.4g} of {len(values)} runs, {path}"]


def _failure(record: Path) -> str:
    """Returns where the log of a failure is, and what went wrong, shortened."""
    try:
        reason = (record / "reason.txt").read_text().partition("\n")[0].removesuffix(f" ({record.resolve()})")
    except OSError:
        reason = ""
    files = (file for name in ("log.txt", "traceback.txt") if (file := record / name).exists())
    short = reason if len(reason) <= SHORT else f"{reason[: SHORT - 1]}…"
    return f"{next(files, record)}  {short}".rstrip()


def _some(what: str, texts: list[str]) -> list[str]:
    more = [f"  {what:<9} and {len(texts) - LISTED} more"] if len(texts) > LISTED else []
    return [*(f"  {what:<9} {text}" for text in texts[:LISTED]), *more]
