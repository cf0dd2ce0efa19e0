"""Whether every configuration has its runs and their values, and what means and intervals cannot mean where not."""

from collections.abc import Collection

import pandas as pd


def balance_remarks(frame: pd.DataFrame, keys: list[str], crossed: list[str], combinations: int) -> list[str]:
    """Returns what is to be said of replicates and of runs that are not there, one sentence each.

    Args:
        frame: the runs that have a value; with replicates in column ``r``, if there are any.
        keys: columns that make a configuration.
        crossed: those of them whose levels could all be combined.
        combinations: how many combinations that would be.
    """
    said = []
    present = len(frame[crossed].drop_duplicates()) if crossed else 1
    absent = [f"{combinations - present:,} of {combinations:,} combinations of levels have no run"]
    absent = absent if present < combinations else []
    if "r" not in frame:
        said.append("there is no replicate column: intervals are over runs and do not reflect replication")
    elif frame["r"].nunique() == 1:
        said.append(f"there is one replicate only ({frame['r'].iloc[0]}): intervals do not reflect replication")
    else:
        runs = frame.groupby([*keys, "r"], observed=True).size()
        expected = (len(frame[keys].drop_duplicates()) if keys else 1) * frame["r"].nunique()
        if len(runs) < expected:
            lost = expected - len(runs)
            absent.append(f"{lost:,} of {expected:,} pairs of configuration and replicate have no value")
        if (runs > 1).any():
            said.append(
                f"{(runs > 1).sum():,} pairs of configuration and replicate have several runs: each counts in means, "
                "their mean in differences"
            )
    if absent:
        said.append(
            f"the table is unbalanced: {'; '.join(absent)}; means per level are then over different runs (differences "
            "between matched runs are not), and shares of variance may overlap or fall short of 100 %"
        )
    return said


def hole_remarks(frame: pd.DataFrame, roles: Collection[str]) -> list[str]:
    """Returns how many runs have no value in which of the roles that the frame has, one sentence each."""
    lost = {role: int(frame[role].isna().sum()) for role in frame if role in roles}
    return [
        f"columns.{role}: {count:,} of {len(frame):,} runs have no finite value; its section is about the others"
        for role, count in lost.items()
        if count
    ]
