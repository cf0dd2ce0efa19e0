"""Advice for restoration: a study's medians, and what speaks against relying on them."""

from tlkit.advise.arguments import Question
from tlkit.advise.medians import EPOCHS, FREEZE, LOSS, PRETRAIN_IMAGES, RATES, SYMMETRIES, length, median_loss
from tlkit.advise.text import columns, entry, paragraph

PROBE = (
    "Restoration with the experiment's small U-Net (+10 to 0 nm, 32 images, 4 seeds) gave 22.70 ± 0.18 dB with 0.0001 "
    "for the transfer, 23.50 ± 0.06 with 0.001, and 21.97 ± 0.47 from scratch. Compare them: the experiment has the "
    "commands."
)
"""What the advice gave where it was tried; docs/advise.md has the table."""


def advice(question: Question) -> list[str]:
    """Returns the recommendation, block by block."""
    images = question.examples
    spans = {"pretrain": PRETRAIN_IMAGES, "transfer": images}
    return [
        paragraph(f"{images:,} images of the target domain, batches of {question.batch:,}"),
        "",
        entry("transfer", "all layers of the U-Net"),
        entry("freeze", "nothing"),
        entry("learning rate", "0.001 to pretrain, 0.0001 to transfer, each × 0.99 per study's epoch; Adam"),
        "",
        columns(
            [
                ("", "images", "study's epochs", "updates", "your epochs"),
                *(_span(what, count, question.batch) for what, count in spans.items()),
            ]
        ),
        "",
        "Medians of the best validation loss there, less is better:",
        "",
        entry("frozen", _row(FREEZE), "(15 to 25 % faster)"),
        entry("rates", _row(RATES)),
        entry("images", _row(LOSS)),
        "",
        entry("source", "Rangel DaCosta, Oill & Scott, DOI 10.69761/kjte5358.", *_source(images)),
        entry("caveat of scale", "that was segmentation at 512 px with 14.3 M parameters.", PROBE),
    ]


def _span(what: str, images: int, batch: int) -> tuple[str, ...]:
    here = length(images, batch)
    return what, f"{images:,}", f"{EPOCHS}", f"{here.updates:,}", f"{here.epochs:,}"


def _row(medians: dict[str, float] | dict[int, float]) -> str:
    return ", ".join(f"{level} {median:.4f}" for level, median in medians.items())


def _source(images: int) -> list[str]:
    least, most = min(LOSS), max(LOSS)
    if least <= images <= most:
        between = "" if images in LOSS else " (linear over the logarithm)"
        expected = f"With {images:,} images the median is {median_loss(images):.4f}{between}."
    else:
        expected = f"It had {least} to {most} images: nothing is known of {images:,}."
    return [
        expected,
        "The fewer images, the more runs fail altogether: plan several seeds.",
        f"An epoch there shows each image in all {SYMMETRIES} symmetries, one of yours in one.",
    ]
