"""Studies under SLURM: one node, which is this machine."""

import re
import subprocess
import threading
from collections.abc import Iterator

import pandas as pd
import pytest
from parsl.providers import SlurmProvider
from pools import HERE, PROBED, probes, spy
from pools import engine as local_engine
from slurm import CORES, begin, engine, jobs, one_node, said
from studies import toy_study, written_study
from trivial import only_torch, trivial_study

from tlkit.errors import UserError
from tlkit.study.engine import carry_out
from tlkit.study.pool import parsl_pool
from tlkit.study.table import study_table

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def slurm() -> Iterator[None]:
    with one_node():
        yield


@pytest.fixture(autouse=True)
def prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsl asks for the state of jobs once a minute."""
    monkeypatch.setattr(SlurmProvider, "status_polling_interval", 5)


def nap(seconds: float, epochs: int, seed: int = 0) -> dict[str, object]:
    """Returns a transfer without a pretrain whose epochs take so long."""
    callback = {"class_path": "probes.Nap", "init_args": {"seconds": seconds}}
    changes = {"pretrain.layers": 0, "trainer.max_epochs": epochs, "seed_everything": seed}
    return changes | {"trainer.callbacks": [callback]}


@pytest.mark.timeout(600)
def test_slurm_gives_the_table_of_this_machine_although_a_pilot_job_is_cancelled(tmp_path):
    # the sixty stages that test_engine_kills.py disturbs
    written, elsewhere = (written_study(place, 30, PROBED) for place in (tmp_path, tmp_path / "here"))
    study, here = written.plan, elsewhere.plan
    cancelled: list[str] = []
    over = threading.Event()

    def cancel() -> None:
        while not list(tmp_path.glob("runs/toys/*/checkpoints/last.ckpt")):
            if over.wait(0.2):
                return
        cancelled.extend(said("squeue", "-h", "-o", "%A").split())
        subprocess.run(["scancel", *cancelled], check=True, timeout=60)

    canceller = threading.Thread(target=cancel)
    canceller.start()
    try:
        assert carry_out(study, engine(tmp_path, max_blocks=1), {id_: 5.0 for id_ in study.stages}).failed == {}
    finally:
        over.set()
        canceller.join()
    assert [jobs()[job]["JobState"] for job in cancelled] == ["CANCELLED"]
    seen = {(probe["environment"], probe["world_size"], probe["threads"]) for probe in probes(study)}
    assert seen == {("LightningEnvironment", 1, 1)}
    assert carry_out(here, local_engine(here.root.parent)).failed == {}
    table, expected = (comparable(study_table(one)) for one in (written, elsewhere))
    assert len(table) == 60 and set(table["status"]) == {"done"}
    pd.testing.assert_frame_equal(table, expected, check_exact=True)
    assert said("squeue", "-h", "-o", "%t").split() in ([], ["CG"])


def comparable(table: pd.DataFrame) -> pd.DataFrame:
    """Returns what must be the same wherever a study runs: not what it took, nor where it is."""
    return table.drop(columns=[name for name in table if re.match("seconds|joules|energy|peak|memory|run$", name)])


@pytest.mark.timeout(600)
def test_walltime(tmp_path):
    # a minute: no short stage starts that could be cut off, and one that is longer than any job goes on in the next
    study = toy_study(tmp_path, [nap(8.0, 12), *(nap(2.0, 3, seed) for seed in range(8))])
    long, *short = study.stages
    before = set(jobs())
    expected = {long: 100.0} | dict.fromkeys(short, 8.0)
    assert carry_out(study, engine(tmp_path, max_blocks=1, walltime="00:01:00"), expected).failed == {}
    begins = sorted(begin(job) for id_, job in jobs().items() if id_ not in before)
    runs = {id_: next((study.root / "toys").glob(f"transfer-{id_[:8]}")) for id_ in study.stages}
    for id_ in short:
        started = (runs[id_] / "identity.json").stat().st_mtime
        assert started - max(some for some in begins if some <= started) < 60 - 8
        assert (runs[id_] / "log.txt").read_text().count(" stage in ") == 1
    assert (runs[long] / "log.txt").read_text().count(" stage in ") > 1  # 96 s of naps are in no job
    assert pd.read_csv(runs[long] / "metrics.csv")["epoch"].tolist() == [*range(12)]


def test_500_stages_are_four_jobs_at_most_and_torch_is_imported_once_per_worker(tmp_path, monkeypatch):
    path, notes = spy(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{path}:{HERE}")
    monkeypatch.setenv("TORCH_SPY", str(notes))
    study, before = trivial_study(tmp_path, [0.0] * 500), set(jobs())
    pool = parsl_pool(engine(tmp_path), 1, False, (), tmp_path / "scratch", work=only_torch)
    assert carry_out(study, pool=pool).done == 500
    count = len(set(jobs()) - before)
    assert 1 <= count <= 4
    done = [line.split()[0] for line in (tmp_path / "done.txt").read_text().splitlines()]
    imported = [line.split()[0] for line in notes.read_text().splitlines()]
    assert len(done) == 500
    assert sorted(imported) == sorted(set(done)) and len(imported) <= CORES * count


def test_what_slurm_refuses_is_said(tmp_path):
    pool = parsl_pool(engine(tmp_path, partition="gpus"), 1, False, (), tmp_path / "scratch", work=only_torch)
    with pytest.raises(UserError, match=r"(?s)invalid partition.*tried:.*partition='gpus'"):
        carry_out(trivial_study(tmp_path, [0.0]), pool=pool)
