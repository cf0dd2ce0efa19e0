"""Which part of a network to train, by the size of the target's data and their similarity to the source's.

The 2 × 2 table of "Lecture 10: Training Neural Networks II", section 10.3.1, figure 10.28, lecture notes after
Justin Johnson's lecture of 9 February 2022.
"""

from dataclasses import dataclass

SMALL = 100
"""Images per class from which on data are no longer small. The table itself names no number; section 10.3.3 of the
same notes calls data small with "only tens of samples per class"."""


@dataclass(frozen=True)
class Regime:
    """One cell of the table.

    Attributes:
        advice: what it says.
        why: the reason.
        beside: how it goes with what Plested & Gedeon measured, and which of them the experiment follows.
        how: it is done, as the notes say before the table (figure 10.25); empty where there is nothing to say.
    """

    advice: str
    why: str
    beside: str
    how: str = ""


REGIMES = {
    (True, True): Regime(
        "a linear classifier on frozen features",
        "the features fit already, and so few images cannot improve them without overfitting",
        "Table 2 trains what was not transferred, and more with more images; the experiment follows it",
    ),
    (False, True): Regime(
        "fine-tune a few of the later layers, the early ones frozen",
        "early layers are general, later ones hold the details that differ",
        "Table 2 freezes one layer or none, for more did harm; the experiment follows it",
        "the classifier first, then later layers one after another at about a tenth of its rate (GradualUnfreezing; "
        "LinearProbeThenFineTune thaws all at once)",
    ),
    (False, False): Regime(
        "fine-tune a larger part of the network",
        "it has to adapt to the new domain, and there are enough images for it",
        "Plested & Gedeon measured similar data only and expect freezing to do more harm on others: nothing is frozen",
    ),
    (True, False): Regime(
        "try both a linear classifier and fine-tuning; success is not guaranteed",
        "the features do not fit, and there are too few images to learn others",
        "Plested & Gedeon measured similar data only and expect freezing to help less on others: nothing is frozen",
    ),
}
"""(small, similar) -> cell."""


def regime(examples: int, similar: bool) -> Regime:
    """Returns the cell for a number of images per class."""
    return REGIMES[examples < SMALL, similar]
