"""The report of a study: one HTML page that opens from disk, its figures as PNG and PDF, its numbers as CSV.

`report_table` serves a table from elsewhere; `write_report` is what it and the study's own table have in common.
"""

from dataclasses import replace
from pathlib import Path

import pandas as pd
from markupsafe import Markup

import tlkit
from tlkit.errors import UserError
from tlkit.study.report import (
    answer,
    comparison,
    costs,
    distributions,
    domains,
    drawing,
    explore,
    main_effects,
    nuisance,
    protocols,
    training,
    writing,
)
from tlkit.study.report.mapping import TableMapping
from tlkit.study.report.mapping_file import read_mapping
from tlkit.study.report.section import LeftOut, Section
from tlkit.study.report.table_file import read_curves, read_table
from tlkit.study.report.tidy import Runs, prepare


def report_table(table: Path, mapping: Path, out: Path, command: str) -> tuple[Path, tuple[str, ...]]:
    """Writes the report on a table from elsewhere.

    Args:
        table: CSV or Parquet, one row per run.
        mapping: YAML, see `tlkit.study.report.mapping.TableMapping`.
        out: a new directory, or one with an earlier report.
        command: that makes the report again; printed on the page.

    Returns:
        The page, and what was left out of it, one sentence each.

    Raises:
        UserError: what is wrong with the table, everything that is wrong with the mapping, `out` holds other files.
    """
    writing.check_out(out)
    frame = read_table(table)
    meaning = read_mapping(mapping, list(frame))
    curves = None
    if meaning.curves:
        try:
            curves = read_curves(meaning.curves)
        except UserError as error:
            meaning = replace(meaning, missing=(*meaning.missing, f"curves left out: {error}"))
    return write_report(frame, meaning, out, title=table.stem, command=command, curves=curves)


def write_report(
    table: pd.DataFrame,
    mapping: TableMapping,
    out: Path,
    *,
    title: str,
    command: str,
    curves: pd.DataFrame | None = None,
) -> tuple[Path, tuple[str, ...]]:
    """Writes the report on a table of runs.

    Args:
        table: one row per run; numbers, or text as in a CSV.
        mapping: what its columns mean.
        out: directory of the report.
        title: of the page.
        command: that makes the report again.
        curves: columns run, epoch, value: the metric of each run per epoch.

    Returns:
        The page, and what was left out of it, one sentence each.

    Raises:
        UserError: nothing is left to report on; `out` holds other files.
    """
    writing.check_out(out)
    runs = prepare(table, mapping)
    if boxes := drawing.unknown_signs(runs):
        runs = replace(runs, remarks=(*runs.remarks, boxes))
    chosen = nuisance.compared(runs)
    by_size = answer.by_size(chosen)
    page = writing.write(
        out,
        _sections(runs, chosen, curves),
        [explore.runs_table(runs), *([by_size] if by_size else [])],
        {
            "title": title,
            "goal": mapping.goal,
            "answer": answer.answer(chosen, by_size),
            "by_size": by_size,
            "caveats": answer.caveats(runs, chosen),
            "command": command,
            "runs": runs,
            "data": Markup(explore.page_data(runs, answer.most_important(runs)[:2])),
            "version": tlkit.__version__,
        },
    )
    return page, runs.remarks


def _sections(runs: Runs, chosen: Runs, curves: pd.DataFrame | None) -> list[Section | LeftOut]:
    """Returns the sections of a report in their order, of all runs or of those at the best nuisance setting."""
    with drawing.style():
        return [
            comparison.comparison(chosen),
            comparison.best(chosen),
            *([nuisance.nuisance(runs)] if runs.mapping.nuisance else []),
            main_effects.main_effects(runs, chosen),
            main_effects.interactions(runs),
            distributions.distributions(runs),
            distributions.tails(runs),
            protocols.over_factors(chosen),
            protocols.protocols(chosen),
            protocols.overfitting(chosen),
            domains.domain_matrix(chosen),
            domains.forgetting(chosen),
            costs.compute(runs),
            costs.front(runs),
            costs.scaling(runs),
            training.training_curves(runs, curves),
            training.best_epoch(runs),
        ]
