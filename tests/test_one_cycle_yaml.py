"""A peak rate in a copy of a configuration file: what is added, and that nothing else changes."""

import pytest

from tlkit.one_cycle_yaml import block, with_one_cycle
from tlkit.yaml_lines import read

ARGUMENTS = {"peak_lr": 0.03, "div_factor": 10}
NEW = "{class_path: OneCycle, init_args: {peak_lr: 0.03, div_factor: 10}}"

CASES = {
    "a list": (
        "trainer:\n  max_epochs: 3  # few\n  callbacks:  # what\n    # first\n    - {class_path: A}\n",
        f"trainer:\n  max_epochs: 3  # few\n  callbacks:  # what\n    # first\n    - {NEW}\n    - {{class_path: A}}\n",
    ),
    "a list that is not indented": (
        "trainer:\n  callbacks:\n  - class_path: A\n    init_args: {b: 1}\nname: x\n",
        f"trainer:\n  callbacks:\n  - {NEW}\n  - class_path: A\n    init_args: {{b: 1}}\nname: x\n",
    ),
    "a list in one line": (
        "trainer: {callbacks: [{class_path: A}]}  # short\n",
        f"trainer: {{callbacks: [{NEW}, {{class_path: A}}]}}  # short\n",
    ),
    "an empty list": ("trainer:\n  callbacks: []\n", f"trainer:\n  callbacks: [{NEW}]\n"),
    "no callbacks": (
        "# why\ntrainer:\n    max_epochs: 3\nname: x",
        f"# why\ntrainer:\n    callbacks:\n      - {NEW}\n    max_epochs: 3\nname: x",
    ),
    "no callbacks, in one line": (
        "trainer: {max_epochs: 3}\n",
        f"trainer: {{callbacks: [{NEW}], max_epochs: 3}}\n",
    ),
    "no trainer": ("name: x  # and", f"name: x  # and\ntrainer:\n  callbacks:\n    - {NEW}\n"),
    "a peak": (
        "trainer:\n callbacks:\n - class_path: a.OneCycle\n   init_args:\n     peak_lr: 1.0e-05  #\n     pct: 5\n",
        "trainer:\n callbacks:\n - class_path: a.OneCycle\n   init_args:\n     peak_lr: 0.03  #\n     pct: 5\n",
    ),
    "a OneCycle without a peak": (
        "trainer:\n  callbacks: [B, {class_path: OneCycle, init_args: {pct_start: 0.2}}]\n",
        "trainer:\n  callbacks: [B, {class_path: OneCycle, init_args: {peak_lr: 0.03, pct_start: 0.2}}]\n",
    ),
    "a OneCycle without arguments": (
        "trainer:\n  callbacks:\n    - class_path: OneCycle\n    - class_path: B\n",
        "trainer:\n  callbacks:\n    - class_path: OneCycle\n      init_args: {peak_lr: 0.03}\n    - class_path: B\n",
    ),
    "a OneCycle without arguments, in one line": (
        "trainer: {callbacks: [{class_path: OneCycle}]}\n",
        "trainer: {callbacks: [{class_path: OneCycle, init_args: {peak_lr: 0.03}}]}\n",
    ),
    "a OneCycle with none": (
        "trainer:\n  callbacks:\n    - class_path: OneCycle\n      init_args: null\n",
        "trainer:\n  callbacks:\n    - class_path: OneCycle\n      init_args: {peak_lr: 0.03}\n",
    ),
    "its name alone": (
        "trainer:\n  callbacks:\n    - OneCycle\n",
        "trainer:\n  callbacks:\n    - {class_path: OneCycle, init_args: {peak_lr: 0.03}}\n",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_only_the_peak_is_put_in(case: str) -> None:
    before, after = CASES[case]
    assert with_one_cycle(before, ARGUMENTS) == (after, True)


@pytest.mark.parametrize(
    "text",
    [
        "trainer:\n  callbacks: {class_path: A}  # a single one\n",
        "trainer:\n  callbacks:\n  max_epochs: 3\n",
        "trainer:\nname: x\n",
    ],
)
def test_what_cannot_be_changed_in_one_place_is_written_anew(text: str) -> None:
    new, kept = with_one_cycle(text, ARGUMENTS)
    assert not kept
    given, found = read(text)[0].value, read(new)[0].value
    names = [item["class_path"] for item in found["trainer"].pop("callbacks")]
    assert names == (["OneCycle", "A"] if "class_path: A" in text else ["OneCycle"])
    (given["trainer"] or {}).pop("callbacks", None)
    assert found == given | {"trainer": given["trainer"] or {}}


def test_a_pretrain_that_shares_the_callback_keeps_its_own_peak() -> None:
    text = "pretrain: {with: {trainer.callbacks: [&own {class_path: OneCycle}]}}\ntrainer: {callbacks: [*own]}\n"
    found = read(with_one_cycle(text, ARGUMENTS)[0])[0].value
    assert found["pretrain"]["with"]["trainer.callbacks"] == [{"class_path": "OneCycle"}]
    assert found["trainer"]["callbacks"] == [{"class_path": "OneCycle", "init_args": {"peak_lr": 0.03}}]


def test_momentum_that_does_not_exist_is_left_alone() -> None:
    text = block({"peak_lr": 1e-05, "div_factor": 3, "momentum_min": None, "momentum_max": None})
    arguments = read(text)[0].value["init_args"]
    assert arguments == {"peak_lr": 1e-05, "div_factor": 3, "momentum_min": None, "momentum_max": None}
