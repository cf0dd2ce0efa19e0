"""The path language."""

from typing import Any

import pytest

from tlkit.errors import UserError
from tlkit.paths import flatten, lookup, override, spelled_out, with_overrides

CONFIG = {
    "model": {
        "class_path": "a.Net",
        "init_args": {"network": {"class_path": "b.AlexNet", "init_args": {"width": 1.0}}},
    },
    "trainer": {
        "max_epochs": 3,
        "callbacks": [{"class_path": "c.LayerFreezing", "init_args": {"layers": 1}}, {"class_path": "c.StepDecay"}],
    },
    "pretrain": {"layers": 5},
}


def test_a_path_omits_init_args_and_names_a_callback_by_its_class() -> None:
    changed = override(CONFIG, {"model.network.width": 0.5, "callbacks.LayerFreezing.layers": 4, "pretrain.layers": 2})
    assert lookup(changed, "model.network.width") == 0.5
    assert changed["trainer"]["callbacks"][0]["init_args"] == {"layers": 4}
    assert changed["pretrain"] == {"layers": 2}
    assert CONFIG["pretrain"] == {"layers": 5}


def test_another_class_drops_the_arguments_of_the_one_before() -> None:
    changed = override(CONFIG, {"model.network.class_path": "b.UNet"})
    assert changed["model"]["init_args"]["network"] == {"class_path": "b.UNet"}


@pytest.mark.parametrize(
    "path, value", [("model.network.class_path", "b.UNet"), ("model.network", {"class_path": "b.UNet"})]
)
def test_another_class_may_have_other_arguments(path: str, value: Any) -> None:
    changed = with_overrides(CONFIG, {"model.network.depth": 3, path: value, "model.network.width": 16})
    assert changed["model"]["init_args"]["network"] == {"class_path": "b.UNet", "init_args": {"depth": 3, "width": 16}}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("model.network.widht", "'model.network.widht' to exist.*did you mean 'width'"),
        ("callbacks.EMAWeights.decay", "there is none; the stage has: LayerFreezing, StepDecay"),
        ("trainer.max_epochs.x", "got nothing there"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused_with_what_is_there(path: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        override(CONFIG, {path: 1})


def test_flatten_lists_every_leaf_under_its_path() -> None:
    assert flatten(CONFIG) == {
        "model": "Net",
        "model.network": "AlexNet",
        "model.network.width": 1.0,
        "trainer.max_epochs": 3,
        "trainer.callbacks.LayerFreezing": "LayerFreezing",
        "trainer.callbacks.LayerFreezing.layers": 1,
        "trainer.callbacks.StepDecay": "StepDecay",
        "pretrain.layers": 5,
    }


def test_items_that_are_no_classes_go_by_their_number() -> None:
    assert flatten({"phases": [{"layers": "fc"}, {"layers": ["a", "b"], "plateau": {"patience": 3}}]}) == {
        "phases[0].layers": "fc",
        "phases[1].layers": ["a", "b"],
        "phases[1].plateau.patience": 3,
    }


def test_nested_overrides_reach_into_sections_and_stop_at_values() -> None:
    nested = {
        "trainer.max_epochs": 9,
        "trainer": {"max_epochs": 2, "callbacks": []},
        "model": {"network": {"width": 0.5}, "lr_scale": {"fc": 0.1}},
        "pretrain": {"layers": 0},
    }
    assert spelled_out(CONFIG, nested) == {
        "trainer.max_epochs": 2,
        "trainer.callbacks": [],
        "model.network.width": 0.5,
        "model.lr_scale": {"fc": 0.1},
        "pretrain.layers": 0,
    }
    classes = {"data": {"class_path": "b.Data"}, "model": {"network": {"init_args": {"width": 2.0}}}}
    assert spelled_out(CONFIG, classes) == {"data": {"class_path": "b.Data"}, "model.network.width": 2.0}
