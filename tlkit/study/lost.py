"""What levels of a study lose without a word: a list of callbacks takes the place of the experiment's."""

from collections.abc import Iterator

from tlkit.command_line import lost_classes
from tlkit.study.spec import Study, label
from tlkit.yaml_lines import read

PATH = "trainer.callbacks"


def lost_callbacks(study: Study) -> Iterator[str]:
    """Yields a sentence for each factor of which levels leave out some of the experiment's callbacks.

    What is fixed does so in all runs alike, and stands in the plan.
    """
    base = read(study.base.read_text(encoding="utf-8"))[0].value
    trainer = base.get("trainer") if isinstance(base, dict) else None
    given = trainer.get("callbacks") if isinstance(trainer, dict) else None
    for factor in (one for one in study.factors if one.role != "fixed"):
        lost: dict[str, list[str]] = {}
        for level in factor.levels:
            if gone := lost_classes(given, level.overrides.get(PATH)):
                lost.setdefault(", ".join(gone), []).append(label(list(level.labels.values())))
        for without, levels in lost.items():
            where = f"{', '.join(factor.columns)}: {'; '.join(levels)}"
            what = f"replaces the list of {study.base.name}, {without} left out"
            yield f"{where}: {PATH} {what}; what is to stay is listed there as well"
