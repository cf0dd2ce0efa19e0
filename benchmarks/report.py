"""How long the report of a large table takes, and how much memory.

    make bench        # 1 minute on an idle machine; writes benchmarks/results/report.md

``tlkit study report --table T.csv --mapping M.yaml --out DIR`` in a process of its own, from its start to its end: a
table of the shape of the restoration study, 2,400 configurations × 3 seeds = 7,200 rows with six factors (pretrain and
transfer rate, source and target defocus in ångström, number of images, frozen part), a loss per row, and the columns
that its other sections take. Memory is the process's peak resident set as the kernel counts it. Each round writes a
report of its own; their tables must be equal, or there is no table here.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from study_common import MODULES, goal, header, keep

sys.path += map(str, MODULES)
from study_tables import RESTORATION, restoration, save  # noqa: E402  of tests/study

SECONDS, GB = 20.0, 1.0  # goals
SEEDS = 3  # 2,400 rows each


def main() -> None:
    """Measures, prints the table and keeps it if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="of 2,400 rows each")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="Markdown file to be written")
    arguments = parser.parse_args()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = restoration(seeds=arguments.seeds)
        files = save(folder, table, {key: value for key, value in RESTORATION.items() if key != "where"})
        rounds = [report(*files, folder / f"report-{number}") for number in range(arguments.rounds)]
        sizes = [tables(folder / f"report-{number}") for number in range(arguments.rounds)]
        assert sizes[0] and all(some == sizes[0] for some in sizes), "the tables of two reports differ"
        page = (folder / "report-0" / "report.html").stat().st_size / 1e6
    text = [
        header("Report of a large table", time.perf_counter() - start, "Medians over the rounds."),
        f"{len(table):,} rows, {len(table.columns)} columns, {len(rounds)} rounds; the page has {page:.1f} MB.\n",
        "| | seconds | CPU seconds | peak memory, GB |",
        "|---|---|---|---|",
        f"| tlkit study report | {' | '.join(f'{median(some):.2f}' for some in zip(*rounds, strict=True))} |\n",
        "| goal | measured | |",
        "|---|---|---|",
        goal("seconds", median(seconds for seconds, _, _ in rounds), SECONDS),
        goal("peak memory, GB", max(memory for _, _, memory in rounds), GB),
        "",
    ]
    keep("\n".join(text), arguments.output)


def report(table: Path, mapping: Path, out: Path) -> tuple[float, float, float]:
    """Writes a report; returns seconds on the clock, of CPU, and GB of peak memory."""
    words = ["study", "report", "--table", str(table), "--mapping", str(mapping), "--out", str(out)]
    log = out.with_suffix(".log")
    start = time.perf_counter()
    with log.open("w") as file:
        process = subprocess.Popen([sys.executable, "-m", "tlkit", *words], stdout=file, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"tlkit {' '.join(words)} ended with exit code {process.returncode}:\n{log.read_text()[-4000:]}")
    memory = usage.ru_maxrss * 1024 / 1e9  # KiB on Linux
    print(f"{seconds:.1f} s, {memory:.2f} GB", flush=True)
    return seconds, usage.ru_utime + usage.ru_stime, memory


def tables(out: Path) -> dict[str, bytes]:
    """Returns the numbers that a report shows: file -> content."""
    return {file.name: file.read_bytes() for file in sorted((out / "tables").glob("*.csv"))}


if __name__ == "__main__":
    main()
