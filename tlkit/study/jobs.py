"""Pilot jobs: until when one takes stages, and when their failing ends a study."""

import re
from collections.abc import Collection
from typing import Any

START = 60  # seconds of a pilot job until its workers are there, and for ending
SPREAD = 1.2  # a stage may take so much longer than stages like it took on average
ATTEMPTS = 3


def drain_period(walltime: str, seconds: Collection[float]) -> int | None:
    """Returns after how many seconds a pilot job takes no further stage, so that none is cut off; None: never.

    Stages that no job is long enough for are cut off and go on in the next: there is no sense in waiting for those.

    Args:
        walltime: of the job, ``HH:MM:SS``.
        seconds: that the stages are expected to take, as far as it is known.

    Raises:
        ValueError: another form of walltime.
    """
    hours, minutes, rest = (int(part) for part in walltime.split(":"))
    whole = 3600 * hours + 60 * minutes + rest
    usable = whole - min(START, whole / 4)
    fitting = [SPREAD * some for some in seconds if SPREAD * some < usable]
    return max(1, round(usable - max(fitting))) if fitting else None


def leave_time(executor: Any, seconds: Collection[float]) -> None:
    """Lets jobs that start from now on take no stage so late that one of these lengths, s, would be cut off.

    Raises:
        ValueError: the provider's walltime is not ``HH:MM:SS``.
    """
    walltime = getattr(executor.provider, "walltime", None)
    period = drain_period(walltime, seconds) if walltime else None
    if period is not None and (executor.drain_period is None or period < executor.drain_period):
        executor.drain_period = period
        executor.launch_cmd = re.sub(r"--drain_period=\S+", f"--drain_period={period}", executor.launch_cmd)


def replace_or_give_up(executor: Any, status: dict[str, Any]) -> None:
    """Parsl replaces a job that has ended; this ends the study if the last three had no worker to offer, ever.

    Jobs that had workers do not count: they came to the end of their walltime, were cancelled, or a stage took too
    much memory, which the stage's own count of losses ends.
    """
    from parsl.jobs.states import JobState

    if any(one.state in (JobState.RUNNING, JobState.PENDING) for one in status.values()):
        return
    last = sorted(status, key=int)[-ATTEMPTS:]
    failed = [job for job in last if status[job].state in (JobState.FAILED, JobState.MISSING)]
    if len(failed) == ATTEMPTS and not set(failed) & set(executor.connected_blocks()):
        one = status[failed[-1]]
        parts = {
            "message": one.message,
            "exit code": one.exit_code,
            "output": one.stdout_summary,
            "errors": one.stderr_summary,
        }
        said = "; ".join(f"{name}: {str(value).strip()}" for name, value in parts.items() if value)
        executor.set_bad_state_and_fail_all(
            RuntimeError(f"{ATTEMPTS} jobs, one after the other, had no worker; of the last, {said}")
        )
