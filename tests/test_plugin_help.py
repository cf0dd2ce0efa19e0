"""`tlkit plugins`: every callback says what it is for and what its arguments mean."""

import inspect
import re

import pytest
import tlkit_callbacks
from lightning.pytorch import Callback

from tlkit.cli import main

CALLBACKS = [
    cls
    for name in tlkit_callbacks.__all__
    if isinstance(cls := getattr(tlkit_callbacks, name), type)
    and issubclass(cls, Callback)
    and not inspect.isabstract(cls)
]


@pytest.fixture(scope="module")
def sections() -> dict[str, str]:
    """Returns what is printed below each callback's name, without line breaks."""
    import contextlib
    import io

    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        assert main(["plugins"]) == 0
    parts = re.split(r"^  (\w+): ", text.getvalue(), flags=re.MULTILINE)
    return {name: " ".join(body.split()) for name, body in zip(parts[1::2], parts[2::2], strict=True)}


@pytest.mark.parametrize("cls", CALLBACKS, ids=lambda cls: cls.__name__)
def test_each_callback_is_listed_with_its_purpose_and_what_each_argument_means(
    cls: type, sections: dict[str, str]
) -> None:
    body = sections[cls.__name__]
    assert body.startswith(" ".join((inspect.getdoc(cls) or "").splitlines()[0].split()))
    for parameter in inspect.signature(cls).parameters.values():
        default = r" \(required\)" if parameter.default is parameter.empty else " = [^:]+"
        assert re.search(rf" {parameter.name}{default}: \S", body), parameter.name


def test_defaults_are_printed_as_yaml_has_them(sections: dict[str, str]) -> None:
    assert " every = 30: epochs" in sections["StepDecay"]
    assert " start = null: " in sections["StepDecay"]
    assert " factor = 0.1: " in sections["StepDecay"]
    assert " layers (required): the first k layers" in sections["LayerFreezing"]
