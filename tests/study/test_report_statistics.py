"""The numbers of a report against statsmodels, scipy and arithmetic by hand."""

from dataclasses import replace
from itertools import combinations
from typing import Literal

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from study_tables import RESTORATION, classification, restoration

from tlkit.study.report.answer import answer, by_size
from tlkit.study.report.comparison import comparison
from tlkit.study.report.differences import paired
from tlkit.study.report.distributions import tails
from tlkit.study.report.drawing import GREY
from tlkit.study.report.mapping import TableMapping
from tlkit.study.report.section import Section, number
from tlkit.study.report.statistics import (
    configurations,
    effects,
    interaction_shares,
    main_shares,
    pareto,
    tail_risk,
    threshold,
)
from tlkit.study.report.tidy import Runs, prepare
from tlkit.study.report.training import advice

SMALL = TableMapping("loss", "min", {"f": "F", "g": "G"}, replicate="seed")


def small(**columns: list[float]) -> pd.DataFrame:
    """Two factors × three seeds; b is worse than a by 1, 2 and 3 in the three seeds, whatever g is."""
    rows = [(f, g, seed) for f in "ab" for g in "xy" for seed in range(3)]
    table = pd.DataFrame(rows, columns=["f", "g", "seed"])
    table["loss"] = 10.0 + (table["f"] == "b") * (table["seed"] + 1) + 0.25 * (table["g"] == "y")
    return table.assign(**columns)


def restored(**changes: object) -> Runs:
    factors = RESTORATION["factors"]
    mapping = TableMapping("loss", "min", factors, replicate="seed", **changes)  # type: ignore[arg-type]
    return prepare(restoration(), mapping)


def test_shares_of_variance_are_those_of_statsmodels() -> None:
    runs = restored()  # source = target is left out, so the table is not balanced
    names = {factor.key: factor.column for factor in runs.factors}
    table = restoration()
    formula = "loss ~ " + " + ".join(f"C({column})" for column in names.values())
    anova = anova_lm(ols(formula, table).fit(), typ=2)
    total = ((table["loss"] - table["loss"].mean()) ** 2).sum()
    shares = main_shares(runs)
    assert len(shares) == 6
    for key, column in names.items():
        assert shares[key] == pytest.approx(anova.loc[f"C({column})", "sum_sq"] / total, rel=1e-9)


def test_interactions_are_those_of_statsmodels_where_the_table_is_balanced() -> None:
    table = classification()
    columns = ["layers", "decay", "examples", "protocol"]
    runs = prepare(table, TableMapping("accuracy", "max", {column: column for column in columns}, replicate="split"))
    anova = anova_lm(ols("accuracy ~ (" + " + ".join(f"C({c})" for c in columns) + ")**2", table).fit(), typ=2)
    total = ((table["accuracy"] - table["accuracy"].mean()) ** 2).sum()
    shares = interaction_shares(runs).set_index(["a", "b"])["eta_squared"]
    assert list(shares) == sorted(shares, reverse=True)
    for (a, x), (b, z) in combinations(enumerate(columns), 2):
        assert shares[f"f{a}", f"f{b}"] == pytest.approx(anova.loc[f"C({x}):C({z})", "sum_sq"] / total, rel=1e-9)


def test_interactions_are_those_of_statsmodels_where_runs_are_missing() -> None:
    table = classification()
    table = table[np.random.default_rng(0).random(len(table)) < 0.6]
    columns = ["layers", "decay", "examples", "protocol"]
    runs = prepare(table, TableMapping("accuracy", "max", {column: column for column in columns}, replicate="split"))
    total = ((table["accuracy"] - table["accuracy"].mean()) ** 2).sum()
    shares = interaction_shares(runs).set_index(["a", "b"])["eta_squared"]
    main = " + ".join(f"C({column})" for column in columns)
    for (a, x), (b, z) in combinations(enumerate(columns), 2):  # each alone beside the main effects
        anova = anova_lm(ols(f"accuracy ~ {main} + C({x}):C({z})", table).fit(), typ=2)
        assert shares[f"f{a}", f"f{b}"] == pytest.approx(anova.loc[f"C({x}):C({z})", "sum_sq"] / total, rel=1e-9)


def test_intervals_are_over_the_means_of_replicates() -> None:
    table = effects(prepare(small(), SMALL)).set_index(["factor", "level"])
    row = table.loc["f", "b"]
    # means of the seeds: 11.125, 12.125, 13.125; t(0.975, 2) = 4.3027, standard error 1/√3
    assert row[["n", "median", "mean", "replicates"]].tolist() == pytest.approx([6, 12.125, 12.125, 3])
    assert row["high"] - row["mean"] == pytest.approx(4.302653 / np.sqrt(3), rel=1e-6)
    assert row["mean"] - row["low"] == pytest.approx(4.302653 / np.sqrt(3), rel=1e-6)
    assert table.loc["f", "eta_squared"].tolist() == pytest.approx([12 / 16.1875] * 2)  # 3·2² over all squares
    flat = prepare(small(), replace(SMALL, replicate=None))
    low, high = stats.t.interval(0.95, 5, loc=12.125, scale=stats.sem([11.0, 12.0, 13.0, 11.25, 12.25, 13.25]))
    row = effects(flat).set_index(["factor", "level"]).loc["f", "b"]
    assert row[["low", "high", "replicates"]].tolist() == pytest.approx([low, high, 0])


def test_differences_are_paired_by_replicate_and_by_the_other_factors() -> None:
    runs = prepare(small(), SMALL)
    row = paired(runs, runs.factors[0]).iloc[0]
    expected = stats.ttest_1samp([-1.0, -2.0, -3.0], 0).confidence_interval()
    assert row[["level", "against", "pairs", "replicates"]].tolist() == ["a", "b", 6, 3]
    assert row[["difference", "low", "high"]].tolist() == pytest.approx([-2.0, expected.low, expected.high])
    assert row["probability_of_improvement"] == 1.0
    assert row["verdict"] == "inconclusive"  # -2 ± 2.48 holds 0, though every pair is better
    row = paired(runs, runs.factors[1]).iloc[0]
    assert row[["difference", "low", "high", "verdict"]].tolist() == [-0.25, -0.25, -0.25, "better"]


def test_a_tie_is_half_an_improvement_and_one_replicate_has_no_interval() -> None:
    table = small()
    table.loc[table["seed"] == 0, "loss"] = 10.0
    runs = prepare(table, SMALL)
    assert paired(runs, runs.factors[0]).iloc[0]["probability_of_improvement"] == pytest.approx((4 + 2 * 0.5) / 6)
    runs = prepare(small().query("seed == 1 and g == 'x'"), SMALL)
    row = paired(runs, runs.factors[0]).iloc[0]
    assert (row["difference"], row["verdict"], row["replicates"]) == (-2.0, "no interval", 0)


def test_levels_whose_runs_are_all_equal_are_no_matter_of_luck() -> None:
    table = small().assign(loss=lambda t: 1.0 + t["seed"] + (t["g"] == "y"))
    runs = prepare(table, replace(SMALL, answer="f"))
    assert paired(runs, runs.factors[0])["verdict"].tolist() == ["equal"]
    said = "against the next best, b, all 6 matched runs of both are equal to the last digit: does the level have any"
    assert said in answer(runs, None)
    table.loc[0, "loss"] += 1e-9
    assert paired(prepare(table, SMALL), runs.factors[0])["verdict"].tolist() == ["inconclusive"]


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("means", [(0, 0, 1, 1), (1, 0, 1, 0), (1, 1, 0), (0, 1, 0, 0, 1)])
def test_of_equal_levels_the_first_is_the_best_one_everywhere(
    means: tuple[int, ...], mode: Literal["min", "max"]
) -> None:
    rows = [(f"l{place}", n, seed, float(mean)) for place, mean in enumerate(means) for n in (1, 2) for seed in (0, 1)]
    table = pd.DataFrame(rows, columns=["f", "n", "seed", "y"])
    mapping = TableMapping("y", mode, {"f": "F", "n": "N"}, replicate="seed", answer="f", columns={"size": ("n",)})
    runs = prepare(table, mapping)
    top = max(means) if mode == "max" else min(means)
    best, *rest = [f"l{place}" for place, mean in enumerate(means) if mean == top]
    second = (rest or [f"l{place}" for place, mean in enumerate(means) if mean != top])[0]
    assert answer(runs, None).startswith(f"F = {best} has the ")
    assert f"against the next best, {second}," in answer(runs, None)
    sizes = by_size(runs)
    assert sizes and sizes.frame[["best", "against"]].to_numpy().tolist() == [[best, second]] * 2
    assert configurations(runs)["f0"].iloc[0] == best


@pytest.mark.parametrize("mode", ["min", "max"])
def test_runs_that_nothing_pairs_are_compared_by_welch(mode: Literal["min", "max"]) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.0, 1.0, 50), rng.normal(1.0, 2.0, 40)
    table = pd.DataFrame({"f": ["a"] * 50 + ["b"] * 40, "loss": [*a, *b]})
    runs = prepare(table, TableMapping("loss", mode, {"f": "F"}))
    row = paired(runs, runs.factors[0]).iloc[0]
    first, second = (a, b) if mode == "min" else (b, a)
    expected = stats.ttest_ind(first, second, equal_var=False).confidence_interval()
    wins = (first[:, None] < second).mean() if mode == "min" else (first[:, None] > second).mean()
    assert row[["difference", "low", "high", "probability_of_improvement"]].tolist() == pytest.approx(
        [first.mean() - second.mean(), expected.low, expected.high, wins]
    )
    assert (row["pairs"], row["verdict"]) == (2000, "better")
    said = answer(runs, None)
    assert f"it is {number(abs(row['difference']))} {'lower' if mode == 'min' else 'higher'} (95" in said
    section = comparison(runs)
    assert (
        isinstance(section, Section) and "which nothing pairs. The interval is Welch's t over runs" in section.text[0]
    )
    alone = prepare(table.iloc[[0, -1]], TableMapping("loss", mode, {"f": "F"}))
    assert paired(alone, alone.factors[0]).iloc[0]["verdict"] == "no interval"
    assert "one pair only: there is no interval" in answer(alone, None)


def test_the_answer_begins_with_what_wins_where_runs_are_matched() -> None:
    rows = [(f, g, seed) for f in "ab" for g in "xy" for seed in range(3)]
    table = pd.DataFrame(rows, columns=["f", "g", "seed"])
    # b is better by 1 whatever g is, but was tried mostly at the hard y
    table["loss"] = 10.0 - (table["f"] == "b") + 8 * (table["g"] == "y") + 0.1 * table["seed"]
    table = table[~((table["f"] == "a") & (table["g"] == "y") & (table["seed"] > 0))]
    table = table[~((table["f"] == "b") & (table["g"] == "x") & (table["seed"] > 0))]
    said = answer(prepare(table, replace(SMALL, answer="f")), None)
    assert said.startswith("Where runs are matched, F = b is better: F = a has the lowest mean loss, ")
    assert "; but against b, it is 1.000 higher in matched runs (" in said
    assert answer(prepare(small(), replace(SMALL, answer="f")), None).startswith("F = a has the lowest mean loss, ")


def test_more_is_better_where_the_mapping_says_max() -> None:
    runs = prepare(small(), replace(SMALL, mode="max"))
    row = paired(runs, runs.factors[1]).iloc[0]
    assert row[["level", "against", "difference", "verdict"]].tolist() == ["y", "x", 0.25, "better"]
    assert configurations(runs).iloc[0][["f0", "f1", "mean", "best", "worst"]].tolist() == [
        "b",
        "y",
        12.25,
        13.25,
        11.25,
    ]


def test_tail_risk_counts_models_worse_than_the_threshold() -> None:
    runs = prepare(small(), SMALL)
    # losses: 6 × about 10, then 11, 12, 13 and a quarter more: the upper quartile of twelve values
    assert threshold(runs) == (np.quantile(small()["loss"], 0.75), False)
    given = prepare(small(), replace(SMALL, threshold=11.9))
    assert threshold(given) == (11.9, True)
    table = tail_risk(given, 11.9).set_index(["factor", "level"])["fraction"]
    assert table.to_dict() == {("f", "a"): 0.0, ("f", "b"): 4 / 6, ("g", "x"): 2 / 6, ("g", "y"): 2 / 6}
    row = tail_risk(given, 11.9).iloc[0]  # none of six is worse, in no replicate: that is no certainty
    wilson = stats.binomtest(0, 6).proportion_ci(method="wilson")
    assert (row["low"], row["high"]) == pytest.approx((wilson.low, wilson.high))
    flat = prepare(small(), replace(SMALL, replicate=None))
    row = tail_risk(flat, 11.9).iloc[1]
    wilson = stats.binomtest(4, 6).proportion_ci(method="wilson")
    assert (row["low"], row["high"]) == pytest.approx((wilson.low, wilson.high))
    assert tail_risk(prepare(small(), replace(SMALL, mode="max")), 11.9).iloc[0]["fraction"] == 1.0


def test_the_fraction_of_all_runs_is_one_of_runs() -> None:
    rows = [(f, 0, 13.0) for f in "ab" for _ in range(8)] + [(f, seed, 10.0) for f in "ab" for seed in (1, 2)]
    runs = prepare(pd.DataFrame(rows, columns=["f", "seed", "loss"]), replace(SMALL, factors={"f": "F"}, threshold=11))
    made = tails(runs)
    assert isinstance(made, Section)
    flat = [set(line.get_ydata()) for line in made.figures[0].figure.axes[0].lines if line.get_color() == GREY]
    assert flat == [{100 * 16 / 20}]  # one of three replicates is worse, but it has 16 of the 20 runs


def test_what_cannot_be_told_is_not_a_number() -> None:
    same = prepare(small().assign(loss=1.0), SMALL)
    assert np.isnan(list(main_shares(same).values())).all()
    both = TableMapping("loss", "min", {"f": "F", "g": "G", "h": "H"}, replicate="seed")
    aliased = prepare(small().assign(h=lambda t: t["f"].map({"a": "p", "b": "q"})), both)
    shares = main_shares(aliased)
    assert np.isnan(shares["f0"]) and np.isnan(shares["f2"]) and shares["f1"] > 0
    pair = prepare(small().assign(h=lambda t: t["f"]), replace(both, factors={"f": "F", "h": "H"}))
    assert np.isnan(list(main_shares(pair).values())).all()
    assert np.isnan(interaction_shares(pair)["eta_squared"]).all()
    assert paired(aliased, aliased.factors[0]).iloc[0]["verdict"] == "no matched pairs"


def test_the_pareto_front_is_what_nothing_beats_in_both() -> None:
    cost = pd.Series([1.0, 2.0, 3.0, 4.0, 4.0, 2.0])
    value = pd.Series([5.0, 3.0, 3.0, 1.0, 2.0, 6.0])
    assert pareto(cost, value, lower=True).tolist() == [True, True, False, True, False, False]
    assert pareto(cost, value, lower=False).tolist() == [True, False, False, False, False, True]


@pytest.mark.parametrize(
    ("early", "late", "said"), [(1.0, 0.0, "fewer epochs"), (0.9, 0.1, "fits"), (0.0, 0.51, "more epochs")]
)
def test_advice_on_the_number_of_epochs(early: float, late: float, said: str) -> None:
    assert said in advice(early, late)
