"""Single sections of a report: what is drawn and shown, and names that are called as something else."""

import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from study_tables import CLASSIFICATION, COMPUTE, RESTORATION, classification, compute, curves, restoration

from tlkit.study.report import (
    costs,
    distributions,
    domains,
    explore,
    main_effects,
    protocols,
    training,
    write_report,
    writing,
)
from tlkit.study.report.answer import most_important
from tlkit.study.report.drawing import colours, unknown_signs
from tlkit.study.report.mapping import NUMBER_ROLES, TableMapping
from tlkit.study.report.section import HEADINGS, Section, Shown, capital, percent
from tlkit.study.report.tidy import Runs, prepare


def mapped(mapping: dict[str, Any], **changes: Any) -> TableMapping:
    """Returns one of the mappings of `study_tables` as it is read."""
    columns = {role: tuple([names] if isinstance(names, str) else names) for role, names in mapping["columns"].items()}
    metric = mapping["metric"]
    made = TableMapping(metric["column"], metric["mode"], mapping["factors"], replicate=mapping["replicate"])
    return replace(made, columns=columns, **changes)


def cells(**columns: list[Any]) -> list[tuple[str, ...]]:
    frame = pd.DataFrame(columns)
    rows = Shown("t", "", frame, {name: HEADINGS.get(name, name) for name in frame}).cells()
    return list(zip(*(row.values() for row in rows), strict=True))


def test_the_numbers_of_a_column_have_equal_decimals() -> None:
    assert cells(a=[0.003869, -0.00002961, 0.0, np.nan]) == [("0.003869", "−0.000030", "0.000000", "—")]
    assert cells(a=[12345.6, 1000.25]) == [("12,346", "1,000")]
    assert cells(a=[1, 20_000], b=["x", None]) == [("1", "20,000"), ("x", "—")]
    value, low, high = cells(value=[10.0, 9.9], low=[9.5, 0.0001], high=[10.5, 1e6])
    assert (value, low, high) == (("10.00", "9.90"), ("9.50", "0.00"), ("10.50", "1,000,000.00"))  # as its value
    assert cells(lr=[1234.5], slow=[0.00123], flow=[0.5]) == [("1,234",), ("0.001230",), ("0.5000",)]  # no intervals
    assert cells(a=[1.5e-9, 2.5, 3e7]) == [("1.500e-09", "2.500", "30,000,000")]  # no decimals would do for all
    assert [percent(share) for share in (0, 0.0001, 0.05, 0.5, 1)] == [
        "0\u00a0%", "< 0.1\u00a0%", "5.0\u00a0%", "50\u00a0%", "100\u00a0%",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("metric", "labels"),
    [
        ({"column": "joules", "mode": "min", "label": "joules"}, {}),
        ({}, {"frozen": "mean", "precision": "runs", "cap": "seconds per epoch", "batch": "low"}),
        ({}, {"frozen": "same", "precision": "same", "cap": "joules", "batch": "loss"}),
    ],
)
def test_a_name_may_be_that_of_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: dict[str, str], labels: dict[str, str]
) -> None:
    monkeypatch.setattr(writing, "_save", lambda drawn, folder: "data:,")
    table = compute().query("batch > 8").assign(train=1.0, val=lambda t: t["seconds"] / 10, wall=lambda t: t["seconds"])
    roles = {"train_loss": "train", "val_loss": "val", "over": "frozen", "size": "cap", "protocol": "precision"}
    roles |= {"source": "frozen", "target": "cap", "workers": "batch", "wall_seconds": "wall"}
    mapping = COMPUTE | {"metric": metric or COMPUTE["metric"], "factors": COMPUTE["factors"] | labels}
    made = mapped(mapping | {"columns": COMPUTE["columns"] | roles}, metric_label=mapping["metric"]["label"])
    write_report(table, made, tmp_path / "out", title="t", command="cmd")
    shown = pd.read_csv(tmp_path / "out" / "tables" / "compute.csv")
    assert len(shown) == 3 * 2 * 2 * 3
    assert shown["seconds per epoch runs"].tolist() == [3] * len(shown)
    assert shown["seconds per epoch"].sum() == pytest.approx(table["seconds"].sum() / 10 / 3)
    assert not shown.columns.str.contains(r"\.1$").any()  # pandas marks names that come twice


@pytest.mark.parametrize(
    ("cap", "solid"), [(["200", "none"], "none"), (["100", "250"], "250"), (["low", "off"], "off")]
)
def test_what_is_capped_is_dashed(cap: list[str], solid: str) -> None:
    table = compute().assign(cap=lambda t: t["cap"].map({"none": cap[1], "200 W": cap[0]}))
    section: Any = costs.compute(prepare(table, mapped(COMPUTE)))
    drawn = section.figures[0].figure.axes[1].get_legend()
    styles = {line.get_linestyle() for line, text in zip(drawn.get_lines(), drawn.get_texts(), strict=True)
              if text.get_text().endswith(solid)}  # fmt: skip
    assert styles == {"-"}
    assert len(drawn.get_lines()) == 6 and [line.get_linestyle() for line in drawn.get_lines()].count("--") == 3


def restored(**changes: Any) -> Runs:
    return prepare(restoration(seeds=2), mapped(RESTORATION, **changes))


def test_a_domain_is_not_the_answer_unless_asked_for() -> None:
    table = restoration(seeds=2)
    table["loss"] += (table["target"] == 0) * 0.1  # by far the largest share of variance
    mapping = mapped(RESTORATION)
    runs = prepare(table, mapping)
    labels = {factor.key: factor.column for factor in runs.factors}
    first = [labels[key] for key in most_important(runs)]
    assert set(first[-2:]) == {"source", "target"}
    asked = prepare(table, replace(mapping, answer="target"))
    assert labels[most_important(asked)[0]] == "target"


def test_sizes_are_a_scale_though_one_is_called_all() -> None:
    table = pd.DataFrame(product(["10", "25", "all"], ["none", "encoder", "8"]), columns=["size", "part"])
    runs = prepare(table.assign(y=range(9)), TableMapping("y", "min", {"size": "size", "part": "part"}))
    size, part = runs.factors
    assert (size.ordered, part.ordered) == (True, False)
    assert colours(size)["10"][:3] == pytest.approx((0.267, 0.005, 0.329), abs=0.001)  # viridis begins dark


def test_the_last_fifth_begins_after_four_fifths() -> None:
    table = pd.DataFrame({"part": list("ab") * 5, "y": range(10), "fraction": [0.2] * 3 + [0.8] * 4 + [0.9] * 3})
    mapping = TableMapping("y", "min", {"part": "part"}, columns={"best_epoch_fraction": ("fraction",)})
    section: Any = training.best_epoch(prepare(table, mapping))
    assert "first fifth of the run in 30\u00a0% of the runs, in the last fifth in 30\u00a0%" in section.text[0]
    counts = section.figures[0].figure.axes[0].patches[0].get_data().values
    assert (counts[:4].sum(), counts[15], counts[16:].sum()) == (3, 4, 3)


def test_a_curve_counts_for_every_level_that_its_run_serves() -> None:
    table = pd.DataFrame({"rate": ["1", "2", "1", "2"], "y": [1.0, 1.0, 2.0, 3.0], "run": ["a", "a", "b", "c"]})
    mapping = TableMapping("y", "min", {"rate": "rate"}, columns={"run": ("run",)}, curves_label="val/loss")
    table["accuracy"] = table["y"]
    section: Any = training.training_curves(prepare(table, mapping), curves(table.drop_duplicates("run"), 4))
    medians = section.tables[0].frame
    assert medians["runs"].tolist() == [2] * 8
    assert section.figures[0].figure.axes[0].get_ylabel() == "val/loss"


def test_signs_that_the_font_has_not_are_named() -> None:
    table = restoration(seeds=1)
    assert unknown_signs(prepare(table, mapped(RESTORATION))) == ""
    strange = prepare(table, mapped(RESTORATION, metric_label="損失 λ²"))
    assert unknown_signs(strange) == "figures show a box for what the font DejaVu Sans has not: 失 損"


def test_before_and_after_a_transfer_share_their_colours_and_name_the_metric() -> None:
    runs = restored(metric_label="loss (MSE)")
    section: Any = domains.domain_matrix(runs)
    figure = section.figures[0].figure
    before, after, gain = (axes.images[0] for axes in figure.axes[:3])
    means = section.tables[0].frame.set_index("what")["mean"]
    both = means[means.index != "gain (positive: better)"]
    assert before.get_clim() == after.get_clim() == (both.min(), both.max())
    assert gain.get_clim() == (-means["gain (positive: better)"].max(), means["gain (positive: better)"].max())
    assert figure.get_suptitle() == "loss (MSE) (lower is better)"
    assert len(figure.axes) == 3 + 2  # a colour bar each
    forgotten: Any = domains.forgetting(runs)
    assert forgotten.figures[0].figure.get_supylabel() == "loss (MSE)\non the source, after − before"


def test_a_figure_says_what_its_bars_are_and_that_levels_are_not_to_scale() -> None:
    runs = prepare(classification(), mapped(CLASSIFICATION))
    for section in (protocols.over_factors(runs), protocols.protocols(runs)):
        assert isinstance(section, Section)
        figure = section.figures[0].figure
        assert figure.get_supxlabel() == "bars: 95 % t-intervals over the means of 4 replicates"
    assert figure.axes[0].get_xlabel() == "examples per class (not to scale)"  # 10, 25, 50, …, all
    layers: Any = protocols.over_factors(runs)
    assert layers.figures[0].figure.axes[0].get_xlabel() == "layers transferred"  # 4, 5, 6, 7
    once: Any = protocols.protocols(prepare(classification().query("split == 'A'"), mapped(CLASSIFICATION)))
    assert once.figures[0].figure.get_supxlabel() == "bars: 95 % t-intervals over runs, not over replicates"


@pytest.mark.parametrize("role", sorted(set(NUMBER_ROLES) - {"selected_by"}))
def test_runs_without_a_value_in_a_role_are_counted(role: str) -> None:
    table = pd.DataFrame({"part": list("ab") * 3, "y": range(6), "role": [1.0, np.inf, np.nan, 1.0, 2.0, 3.0]})
    runs = prepare(table, TableMapping("y", "min", {"part": "part"}, columns={role: ("role",)}))
    assert f"columns.{role}: 2 of 6 runs have no finite value; its section is about the others" in runs.remarks
    complete = prepare(table.assign(role=1.0), TableMapping("y", "min", {"part": "part"}, columns={role: ("role",)}))
    assert not any(role in remark for remark in complete.remarks)


def test_an_epoch_costs_what_those_cost_that_were_measured() -> None:
    table = compute()
    table.loc[table["repeat"] == 0, "joules"] = np.nan
    section: Any = costs.compute(prepare(table, mapped(COMPUTE)))
    shown = section.tables[0].frame
    assert set(shown["seconds per epoch runs"]) == {3} and set(shown["joules per epoch runs"]) == {2}


@pytest.mark.parametrize(
    ("metric", "roles", "there"),
    [
        ("seconds_train", {"seconds": "seconds"}, False),  # time against time
        ("seconds_train", {"seconds": "seconds", "joules": "joules"}, True),
        ("joules", {"joules": "joules"}, False),
        ("loss", {"seconds": "seconds"}, True),
    ],
)
def test_a_cost_is_not_drawn_against_itself(metric: str, roles: dict[str, str], there: bool) -> None:
    table = compute().assign(seconds_train=lambda t: t["seconds"] - 1, loss=1.0)
    mapping = replace(mapped(COMPUTE | {"columns": roles}), metric=metric)
    section = costs.front(prepare(table, mapping))
    assert isinstance(section, Section) == there
    if isinstance(section, Section):
        assert f"The cost: '{'joules' if 'joules' in roles else 'seconds'}'." in section.text[0]


def test_a_cost_says_that_it_is_without_the_pretrain_and_why_it_is_none_of_energy() -> None:
    mapping = mapped(COMPUTE | {"columns": {"seconds": "seconds", "joules": "joules"}})
    table = compute().assign(loss=1.0, joules=np.nan)
    timed: Any = costs.front(prepare(table, replace(mapping, metric="loss", shared_pretrain=True)))
    assert [text.partition(":")[0] for text in timed.text[1:]] == [
        "No energy was measured, or none is in the table",
        "Without the pretrain that a run starts from, which runs share.",
    ]


def test_a_path_at_the_start_of_a_sentence_stays_as_it_is() -> None:
    texts = ["pretrain.layers = 7 has", "test/accuracy per level.", "seconds_train: x", "loss.", "f has 1.5"]
    assert [capital(text) for text in texts] == [*texts[:3], "Loss.", "F has 1.5"]


def test_runs_are_counted_in_whole_numbers() -> None:
    table = compute().head(1).assign(loss=1.0, best=1.0)
    section: Any = training.best_epoch(prepare(table, mapped(COMPUTE | {"columns": {"best_epoch_fraction": "best"}})))
    axes = section.figures[0].figure.axes[0]
    assert all(float(tick).is_integer() for tick in axes.get_yticks())


def test_a_pair_that_is_not_drawn_is_named() -> None:
    runs = prepare(
        compute().assign(batch=lambda t: np.arange(len(t)) % 21, one="x"),
        replace(
            mapped(COMPUTE),
            factors={"frozen": "frozen part", "batch": "batch size", "one": "One"},
            pairs=(("frozen", "batch"), ("frozen", "one")),
        ),
    )
    section: Any = distributions.distributions(runs)
    assert len(section.figures) == 1
    assert section.text[1] == (
        "Pairs left out: frozen part × batch size (more than 60 cells); "
        "frozen part × One (a factor without two levels)."
    )


def test_a_factor_without_a_share_of_its_own_is_named_and_the_title_of_shares_is_whole() -> None:
    rates = {"SGD with momentum": ["0.01", "0.03"], "Adam": ["0.0003", "0.001"]}
    rows = [(name, rate, layers, s) for name in rates for rate in rates[name] for layers in "07" for s in range(2)]
    table = pd.DataFrame(rows, columns=["optimizer", "rate", "layers", "seed"])
    table["acc"] = np.random.default_rng(0).normal(size=len(table))
    labels = {"optimizer": "model.optimizer.class_path", "rate": "rate", "layers": "layers that are pretrained"}
    section: Any = main_effects.interactions(prepare(table, TableMapping("acc", "max", labels, replicate="seed")))
    assert section.text[-1] == "model.optimizer.class_path is determined by rate: it has no share of its own."
    figure = next(drawn.figure for drawn in section.figures if drawn.name == "shares")
    FigureCanvasAgg(figure).draw()
    (title,) = figure.findobj(lambda artist: isinstance(artist, Text) and "pairs beyond" in artist.get_text())
    box = title.get_window_extent()
    assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1


def test_the_page_calls_seconds_and_joules_as_the_table_does() -> None:
    columns = {"seconds": ("seconds_train",), "joules": ("joules_train",), "memory": ("memory",)}
    table = compute().assign(loss=1.0).rename(columns={"seconds": "seconds_train", "joules": "joules_train"})
    runs = prepare(table, replace(mapped(COMPUTE), metric="loss", columns=columns))
    assert [column["label"] for column in json.loads(explore.page_data(runs, []))["columns"]] == [
        "seconds_train", "joules_train", "peak memory (GiB)",
    ]  # fmt: skip
    assert list(explore.runs_table(runs).frame)[-3:] == ["seconds_train", "joules_train", "memory"]
    timed = prepare(table, replace(mapped(COMPUTE), metric="seconds_train", columns=columns))
    assert list(explore.runs_table(timed).frame)[-3:] == ["seconds (role)", "joules_train", "memory"]
