"""The section on scaling: speed-up, efficiency and utilisation, each for its own setting."""

# ruff: noqa: F811

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from study_tables import SCALING, scaling
from test_report import Make, make, unsaved  # noqa: F401  the fixtures apply here too


def test_scaling_efficiency_is_speed_up_over_workers_and_threads(make: Make, tmp_path: Path) -> None:
    text = make(scaling(), SCALING)
    table = pd.read_csv(tmp_path / "out" / "tables" / "scaling.csv").set_index(["workers", "threads per worker"])
    wall = scaling().groupby(["workers", "threads"])["wall"].mean()
    assert table.loc[(1, 1), "efficiency"] == 1.0
    assert table.loc[(8, 2), "speed_up"] == pytest.approx(wall[1, 1] / wall[8, 2])
    assert table.loc[(8, 2), "efficiency"] == pytest.approx(wall[1, 1] / wall[8, 2] / 16)
    assert table.loc[(4, 1), "utilisation"] == pytest.approx(0.95)
    row = table.loc[(8, 2)]
    assert row["efficiency_high"] == pytest.approx(table.loc[(1, 1), "wall_seconds"] / row["low"] / 16)
    assert (table["utilisation_low"] == table["utilisation_high"]).all()  # both repeats are equal
    assert "the smallest setting (workers 1, threads per worker 1)" in text


def test_utilisation_belongs_to_its_setting_where_another_has_none(make: Make, tmp_path: Path) -> None:
    table = scaling()
    table.loc[(table["workers"] == 2) & (table["threads"] == 1), "busy"] = np.nan
    make(table, SCALING)
    found = pd.read_csv(tmp_path / "out" / "tables" / "scaling.csv").set_index(["workers", "threads per worker"])
    assert np.isnan(found.loc[(2, 1), "utilisation"])
    assert found.loc[(8, 2), "utilisation"] == pytest.approx(0.91)


def test_more_workers_than_can_be_shown_are_left_out(make: Make) -> None:
    many = pd.concat([scaling().query("workers == 1").assign(workers=workers) for workers in range(1, 31)])
    text = make(many.assign(wall=many["wall"] / many["workers"]), SCALING)
    assert "Workers has 30 different numbers: cut into 5 bins" in text
    assert "role 'workers' or 'threads', factors of at most 24 numbers" in text


def test_scaling_over_threads_alone(make: Make, tmp_path: Path) -> None:
    text = make(scaling().query("workers == 2"), SCALING)
    found = pd.read_csv(tmp_path / "out" / "tables" / "scaling.csv").set_index("threads per worker")
    assert found["speed_up"].to_dict() == pytest.approx({1: 1.0, 2: 525.5 / (525 / 2**0.8 + 0.5)})
    assert "the smallest setting (threads per worker 1)" in text
    assert "Nuisance settings" not in text  # nobody asked for any
