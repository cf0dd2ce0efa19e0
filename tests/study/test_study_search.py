"""Nuisance factors as ranges: which points are searched, what is refused, and that a longer search loses nothing."""

import re
from collections import Counter
from dataclasses import replace
from itertools import product
from math import log10
from pathlib import Path

import pandas as pd
import pytest
from conftest import Write
from test_study_plan import finish, say, transfers
from test_study_spec import refusal, study

from tlkit.errors import UserError
from tlkit.study.cells import cells
from tlkit.study.plan import plan_study
from tlkit.study.report import writing
from tlkit.study.report.nuisance import compared
from tlkit.study.report.tidy import prepare
from tlkit.study.spec import Range
from tlkit.study.spec_search import Search, points
from tlkit.study.study_report import finished

RATE, DECAY = "model.optimizer.lr", "model.optimizer.weight_decay"
SEARCH = f"""\
name: toys
goal: Does transfer help, each at its best rate?
base: toy.yaml
scientific:
  pretrain.layers: [0, 2]
nuisance:
  {RATE}: {{low: 0.001, high: 0.1, log: true}}
  model.network.width: [4, 6]
  {DECAY}: {{low: 1e-5, high: 1e-3, log: true}}
search: {{points: 12, seed: 0}}
metric: {{name: test/accuracy, mode: max}}
"""
RATES = [Range(0.001, 0.1, log=True), Range(1e-5, 1e-3, log=True)]


def test_points_are_the_same_at_every_reading_and_of_few_digits() -> None:
    assert points(RATES, Search(3)) == [(0.001578, 1.282e-05), (0.01578, 0.0002762), (0.004992, 5.95e-05)]
    assert points(RATES, Search(3, seed=1)) != points(RATES, Search(3))
    (narrow,) = zip(*points([Range(0.9, 0.99)], Search(8)), strict=True)
    assert all(0.9 <= value <= 0.99 and value == round(value, 5) for value in narrow)


@pytest.mark.parametrize("shorter", [1, 5, 12, 16])
def test_a_longer_search_begins_with_the_shorter_one(shorter: int) -> None:
    mixed = [*RATES, Range(1, 6), Range(0.0, 0.5)]
    assert points(mixed, Search(50))[:shorter] == points(mixed, Search(shorter))
    assert len(set(points(mixed, Search(50)))) == 50


def test_points_fill_each_range_evenly() -> None:
    found = points(RATES, Search(24))
    for number, (low, parts) in enumerate([(-3, 8), (-5, 3)]):  # bases 2 and 3: 24 points in 8 and in 3 equal parts
        places = Counter(int((log10(point[number]) - low) / 2 * parts) for point in found)
        assert places == dict.fromkeys(range(parts), 24 // parts)


def test_a_finite_space_ends_by_itself() -> None:
    grid = [Range(0, 1), Range(3, 4)]
    assert sorted(points(grid, Search(6))) == list(product([0, 1], [3, 4]))
    assert len(points(grid, Search(3))) == 3
    assert all(isinstance(value, int) for point in points(grid, Search(6)) for value in point)
    assert sorted(points([Range(7, 300)], Search(400))) == [(value,) for value in range(7, 301)]
    assert len(points([Range(0.0, 1.0)], Search(1500))) == 1001  # three decimals


def test_whole_numbers_have_equal_parts_of_a_range() -> None:
    (linear,) = zip(*points([Range(1, 1000)], Search(900)), strict=True)
    assert min(linear) < 10 and max(linear) > 990
    values = [value for (value,) in points([Range(16, 512, log=True)], Search(40))]
    assert all(isinstance(value, int) and 16 <= value <= 512 for value in values)
    assert abs(sum(value < 90 for value in values) - 20) <= 2  # 90.5: the middle on a log scale


def test_all_ranges_are_one_factor_with_the_same_points_for_every_level(write: Write) -> None:
    found = study(write().with_name("s.yaml"), SEARCH)
    combined = [cell.labels for cell in cells(found)]
    assert len(combined) == 2 * 2 * 12
    assert {(cell[RATE], cell[DECAY]) for cell in combined} == set(points(RATES, Search(12)))
    assert set(Counter((cell[RATE], cell["pretrain.layers"]) for cell in combined).values()) == {2}
    assert cells(found)[0].overrides[RATE] == combined[0][RATE]
    assert found.notes[0] == (
        f"search: 12 quasi-random points, in {RATE} 0.001 to 0.1 (log), {DECAY} 1e-05 to 0.001 (log)"
    )
    small = SEARCH.replace("{low: 0.001, high: 0.1, log: true}", "{low: 1, high: 2}").replace(f"  {DECAY}", "# ")
    note = study(write().with_name("s.yaml"), small).notes[0]
    assert note == f"search: 2 points instead of 12, for there are no more, in {RATE} 1 to 2"


FAULTS = f"""\
name: toys
goal: What is wrong?
base: toy.yaml
scientific:
  model.network.width: {{low: 4, high: 8}}
nuisance:
  {RATE}: {{low: 0.1, high: 0.1}}
  {DECAY}: {{low: 0, high: 1, log: true}}
  model.optimizer.momentum: {{low: 0.5, hihg: 0.9}}
  data.image_size: {{low: a, high: .inf, log: 1}}
  "data.a, data.b": {{low: 1, high: 2}}
replicates:
  seed_everything: {{low: 0, high: 3}}
search:
  points: 0
  sed: 1
metric: {{name: test/accuracy, mode: max}}
"""


def faults(message: str) -> dict[int, str]:
    """Returns line -> all faults told of it."""
    found: dict[int, str] = {}
    for line, text in re.findall(r"line (\d+)  (.*)", message):
        found[int(line)] = f"{found.get(int(line), '')}{text} | "
    return found


def test_all_faults_of_a_search_are_told_with_their_lines(write: Write) -> None:
    found = faults(refusal(write().with_name("bad.yaml"), FAULTS))
    assert list(found) == [5, 7, 8, 9, 10, 11, 13, 15, 16]
    assert "a range is searched for its best value, under nuisance; expected a list of levels" in found[5]
    assert f"nuisance.{RATE}.low: expected less than high, got 0.1 and 0.1" in found[7]
    assert "expected more than 0 on a log scale, got 0" in found[8]
    assert "'high'? valid: low, high, log" in found[9] and "expected {low: 0.001, high: 0.1, log: true}" in found[9]
    assert "expected a number, got 'a'" in found[10] and "expected a number, got inf" in found[10]
    assert "expected true or false, got 1" in found[10]
    assert "expected one path" in found[11]
    assert "under nuisance" in found[13]
    assert "search.points: expected a whole number from 1, got 0" in found[15]
    assert "'seed'? valid: points, seed" in found[16]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("search: {points: 12, seed: 0}\n", "", "a range needs, beside nuisance, search: {points: 12, seed: 0}"),
        ("search: {points: 12, seed: 0}", "search: 12", "line 10  search: expected {points: 12, seed: 0}"),
        (": {low: 0.001, high: 0.1, log: true}", ": [0.1]", ""),
        ("0.001, high: 0.1", "0.001, high: wide", "line 7  nuisance.model.optimizer.lr.high: expected a number"),
        (RATE, "trainer.max_epochs", "the length of the run, which is never tuned"),
        ("pretrain.layers: [0, 2]", f"{RATE}: [0.1, 0.2]", f"is set by scientific.{RATE} as well"),
        ("lr: {low", "lrr: {low", "did you mean 'lr'"),
        (RATE, "data.num_workers", "expected int, got 0.001578"),
    ],
)
def test_what_else_is_refused(before: str, after: str, expected: str, write: Write) -> None:
    text = SEARCH.replace(before, after, 1)
    path = write().with_name("s.yaml")
    if expected:
        message = refusal(path, text)
        assert expected in message
        assert message.count(expected.partition(" got ")[0]) <= 2  # once per range, not once per point
    else:
        study(path, text)  # one range is left


def test_a_search_without_a_range_is_refused(write: Write) -> None:
    text = re.sub(r": \{low.*\}", ": [0.1, 0.2]", SEARCH)
    assert "line 10  search: there is no range to search" in refusal(write().with_name("s.yaml"), text)


def test_more_points_keep_all_earlier_runs(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    path = write().with_name("s.yaml")
    path.write_text(SEARCH.replace("points: 12", "points: 2").replace("width: [4, 6]", "width: [4]"))
    short = plan_study(path)
    assert len(transfers(short)) == 2 * 2
    for id_ in short.plan.stages:
        finish(short, id_)
    assert plan_study(path).cached
    path.write_text(path.read_text().replace("points: 2", "points: 3"))
    longer = plan_study(path)
    assert set(short.plan.stages) < set(longer.plan.stages)
    assert "6 transfer: 4 done, 2 to do" in say(capsys, "plan", path)
    fresh = next(id_ for id_ in transfers(longer) if id_ not in short.plan.stages)
    told = say(capsys, "plan", path, "--explain", fresh)
    assert re.search(rf"  {RATE}: 0\.\d+ -> 0\.\d+\n", told) and f"  {DECAY}: " in told


def test_a_study_chooses_by_what_selected_the_checkpoints_and_counts_what_failed(write: Write) -> None:
    path = write().with_name("s.yaml")
    text = SEARCH.replace("points: 12", "points: 2").replace("  model.network.width: [4, 6]\n", "")
    text = text.replace("search:", "replicates: {seed_everything: [0, 1]}\nfixed: {pretrain.layers: 0}\nsearch:")
    path.write_text(text.replace("pretrain.layers: [0, 2]", "model.network.width: [4, 6]"))
    planned = plan_study(path)
    one, other = (rate for rate, _ in points(RATES, Search(2)))
    results = {(4, one): (0.9, 0.5), (4, other): (0.95, 0.9), (6, one): (0.6, 0.9), (6, other): (0.8, 0.7)}
    for (width, rate), (validation, test) in results.items():
        for seed in (0, 1):
            (id_,) = transfers(planned, **{"model.network.width": width, RATE: rate, "seed_everything": seed})
            if (width, rate, seed) == (4, other, 1):
                (planned.plan.root / "toys" / "failed" / id_[:8]).mkdir(parents=True)
                continue
            metric = {"name": "val/accuracy", "mode": "max", "best": validation, "best_epoch": 1}
            finish(planned, id_, accuracy=test, metric=metric)
    table, mapping = finished(planned)
    assert mapping.columns["selected_by"] == ("best val/accuracy",) and mapping.selected_mode == "max"
    assert mapping.ranges == dict(zip([RATE, DECAY], RATES, strict=True))
    assert mapping.missing[:1] == ("1 of 8 runs: failed",)
    runs = prepare(table, mapping)
    assert (len(runs.frame), len(runs.missing)) == (7, 1)
    chosen = compared(runs)  # at width 4 the better setting lost a run; at width 6 the test alone prefers the other
    assert chosen.frame.groupby("f0", observed=True)["y"].mean().to_dict() == {"4": 0.5, "6": pytest.approx(0.7)}
    for given, role, mode in (
        ("val/loss", None, None),
        ("last_value", ("last_value",), None),
        ({"column": "test/accuracy", "mode": "min"}, ("test/accuracy",), "min"),
    ):
        path.write_text(path.read_text().partition("report:")[0] + f"report: {{columns: {{selected_by: {given}}}}}\n")
        study_again = replace(planned, study=study(path, path.read_text()))
        if role is None:
            with pytest.raises(UserError, match="report.columns.selected_by: expected a column of the table"):
                finished(study_again)
        else:
            mapping = finished(study_again)[1]
            assert (mapping.columns["selected_by"], mapping.selected_mode) == (role, mode)


def test_a_searched_study_runs_to_its_report(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_save", lambda drawn, folder: "data:,")  # which is most of a report's time
    path = write(**{"trainer.max_epochs": 1}).with_name("s.yaml")
    text = SEARCH.replace("points: 12", "points: 2").replace("  model.network.width: [4, 6]\n", "")
    path.write_text(text.replace("pretrain.layers: [0, 2]", "model.network.width: [4, 6]\nfixed: {pretrain.layers: 0}"))
    assert "4 stages" in say(capsys, "plan", path)
    say(capsys, "run", path, "--engine", "inline")
    table = pd.read_parquet(tmp_path / "runs" / "toys" / "table.parquet")
    assert list(table["status"]) == ["done"] * 4
    assert table[[RATE, DECAY]].drop_duplicates().to_numpy().tolist() == [list(p) for p in points(RATES, Search(2))]
    assert set(table["selected_by"]) == {"val/accuracy"} and set(table["selected_mode"]) == {"max"}
    say(capsys, "report", path)
    tables = tmp_path / "runs" / "toys" / "report" / "tables"
    found = pd.read_csv(tables / "nuisance.csv").set_index("model.network.width")
    best = table.loc[table.groupby("model.network.width")["best_value"].idxmax()].set_index("model.network.width")
    assert found["selected_by"].to_dict() == pytest.approx(best["best_value"].to_dict())
    assert found["tried"].tolist() == [2, 2]
    page = (tables.parent / "report.html").read_text()
    assert "chosen by best val/accuracy (higher is better), not by test/accuracy" in page
    assert f"search: 2 quasi-random points, in {RATE} 0.001 to 0.1 (log)" in page.replace("Search:", "search:")
