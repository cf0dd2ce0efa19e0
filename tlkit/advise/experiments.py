"""What is advised as experiments for ``tlkit fit``: templates with their question, commands and choices as comments."""

import math
from importlib.resources import files
from string import Template

from tlkit.advise.arguments import Question
from tlkit.advise.classification import protocol
from tlkit.advise.medians import PRETRAIN_IMAGES, length
from tlkit.advise.table2 import EPOCHS, EVERY

VALIDATION = 50
"""Images per class to validate on."""
LEAST = 400
"""Fractals per class that are generated at least, so that there is something to pretrain on."""


def experiment(question: Question, file: str) -> str:
    """Returns what is advised as YAML.

    Args:
        question: what was asked.
        file: that it is written to; for the commands in it.
    """
    values = _restoration(question) if question.task == "restoration" else _classification(question)
    text = (files(__package__) / "templates" / f"{question.task}.yaml").read_text(encoding="utf-8")
    common = {"examples": question.examples, "batch": question.batch, "file": file, "command": _command(question)}
    return Template(text).substitute(values | common)


def _command(question: Question) -> str:
    words = f"tlkit advise --examples-per-class {question.examples} --batch-size {question.batch}"
    if question.task == "restoration":
        return f"{words} --task restoration"
    return f"{words} --classes {question.classes} --similar {'yes' if question.similar else 'no'}"


def _classification(question: Question) -> dict[str, object]:
    found = protocol(question)
    plain = "--model.lr_scale null --callbacks.LayerFreezing.layers 0 --callbacks.InitialDecay.epochs"
    longer = f"--trainer.max_steps {3 * found.steps} --callbacks.StepDecay.every {3 * EVERY}"
    return {
        "classes": question.classes,
        "both": 2 * question.classes,
        "needed": math.ceil((question.examples + VALIDATION) / 0.8),  # ImageFolder holds a fifth out to test on
        "images": max(LEAST, question.examples + VALIDATION),
        "validation": VALIDATION,
        "common": f"--pretrain.layers 7 {plain} {EPOCHS}",
        "scratch": f"--pretrain.layers 0 {plain} {3 * EPOCHS} {longer}",
        "repeats": f"{found.repeats:.3g}",
        "steps": found.steps,
        "every": max(1, round(found.repeats)),
        "transfer": found.transfer,
        "freeze": found.freeze,
        "decay": found.decay,
        "study_updates": found.study_updates,
    }


def _restoration(question: Question) -> dict[str, object]:
    here, before = length(question.examples, question.batch), length(PRETRAIN_IMAGES, question.batch)
    return {
        "epochs": here.epochs,
        "factor": here.factor,
        "three_times": 3 * here.epochs,
        "pretrain_epochs": before.epochs,
        "pretrain_factor": before.factor,
    }
