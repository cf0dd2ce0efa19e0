"""Advice for classification: Table 2 counted in updates, the 2 × 2 table, and what speaks against relying on them."""

from dataclasses import replace

from tlkit.advise import table2
from tlkit.advise.arguments import Question
from tlkit.advise.regimes import SMALL, regime
from tlkit.advise.table2 import EPOCHS, EVERY, EXAMPLES, Protocol
from tlkit.advise.text import amount, columns, entry, paragraph

LAYERS = 8
PROBE = (
    "On Fashion-MNIST (5 classes to 5 others, 10 images each, 4 splits) Table 2 in updates gave an accuracy of "
    "0.712 ± 0.051, the same with nothing frozen 0.798 ± 0.048, common practice for as many updates 0.814 ± 0.058, and "
    "Table 2 in epochs 0.627 ± 0.159 (an earlier probe: 0.637 to 0.736, against 0.834 with 7 layers at 0.01 and 0.776 "
    "from scratch)."
)
"""What the advice gave where it was tried; docs/advise.md has the table."""


def protocol(question: Question) -> Protocol:
    """Returns what Table 2 advises, with nothing frozen where source and target are not similar."""
    found = table2.protocol(question.examples, question.classes, question.batch)
    return found if question.similar else replace(found, freeze=0)


def advice(question: Question) -> list[str]:
    """Returns the recommendation, block by block."""
    found = protocol(question)
    rates = "0.01 for the last layer, 0.001 for the others" if found.decay else "0.001 for all layers"
    frozen = {0: "nothing", 1: "the first layer"}.get(found.freeze, f"the first {found.freeze} layers")
    spans = {"last layer × 0.1 after": found.decay, "all layers × 0.1 every": EVERY, "end after": EPOCHS}
    return [
        paragraph(
            f"{question.classes:,} classes of {question.examples:,} images, batches of {question.batch:,}:",
            f"{found.updates:,} update{'s' * (found.updates > 1)} an epoch",
        ),
        "",
        entry("transfer", f"the first {found.transfer} of {LAYERS} layers; the others start anew"),
        entry("freeze", frozen),
        entry("learning rate", f"{rates}; SGD with momentum 0.9"),
        "",
        columns([("", "study's epochs", "updates", "your epochs"), *(_span(found, *span) for span in spans.items())]),
        "",
        entry("source", *_source(question.examples, found)),
        entry("2 × 2 table", *_two_by_two(question)),
        entry("caveat of scale", *_scale(found)),
    ]


def _span(found: Protocol, what: str, epochs: int) -> tuple[str, ...]:
    """Returns a row: what, epochs of the study, updates, epochs of the user."""
    return what, f"{epochs}", f"{epochs * found.study_updates:,}", amount(epochs * found.repeats)


def _source(examples: int, found: Protocol) -> list[str]:
    first, last = EXAMPLES[0], EXAMPLES[-1]
    low, high = (f"{column:,}" if column < last else f"all ({last:,})" for column in found.columns)
    if found.examples != examples:
        where = f"its {'first' if found.examples == first else 'last'} column, {low}: nothing is known of {examples:,}"
    elif low == high:
        where = f"column {low}"
    else:
        where = f"between columns {low} and {high} (linear over the logarithm, rounded)"
    return [
        f"Plested & Gedeon, Table 2, {where}.",
        f"The paper reasons with updates, so these are kept: 500 × {found.examples:,} / {table2.BATCH}, that is "
        f"{found.study_updates:,}, make an epoch there.",
        f"It states neither batch size nor length: {table2.BATCH} is AlexNet's, {EPOCHS} epochs are those of PyTorch's "
        "ImageNet example.",
    ]


def _two_by_two(question: Question) -> list[str]:
    cell = regime(question.examples, question.similar)
    size = f"small, fewer than {SMALL}" if question.examples < SMALL else f"large, at least {SMALL}"
    return [
        f"{size} images per class, and {'similar' if question.similar else 'different'}: {cell.advice}.",
        f"Why: {cell.why}.",
        cell.how and f"How: {cell.how}.",
        f"{cell.beside}.",
        "Lecture 10, Training Neural Networks II, 10.3.1, after Justin Johnson 2022; the bound is ours, after the tens "
        "of samples per class that 10.3.3 calls small.",
    ]


def _scale(found: Protocol) -> list[str]:
    return [
        f"in as many updates each image of yours is seen {amount(found.repeats)} times as often as there, and what is "
        "frozen there are features of 500 classes of photographs.",
        PROBE,
        "So compare it with nothing frozen, with common practice, and with training from scratch for three times as "
        "long (10.3.3, after He et al. 2019): the experiment has the commands.",
    ]
