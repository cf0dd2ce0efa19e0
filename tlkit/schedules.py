"""Curves of learning rate over training: pure functions of progress, relative to the start rate."""


def step_decay(epoch: int, *, every: int | None, factor: float, start: int) -> float:
    """Returns the rate in an epoch relative to the first: a drop by ``factor`` at ``start`` and every so often after.

    Args:
        epoch: counted from 0.
        every: epochs from one drop to the next; None: there is one drop.
        factor: what each drop multiplies the rate with.
        start: epoch of the first drop; 0 drops before the first update.

    Returns:
        ``factor ** drops``.
    """
    if epoch < start:
        return 1.0
    drops = 1 if every is None else 1 + (epoch - start) // every
    return float(factor**drops)
