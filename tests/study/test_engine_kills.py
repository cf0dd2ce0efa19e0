"""A study whose processes are killed at random moments ends as one that was left in peace."""

import os
import random
import signal
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from pools import engine, gone, last_words, processes, results, start, until
from studies import toy_study

from tlkit.study.engine import carry_out
from tlkit.study.planned import StudyPlan

pytestmark = pytest.mark.slow

KILLS = ["driver"] * 5 + ["worker"] * 10 + ["both"] * 5
WORKER_BYTES = 150 << 20  # of a process that has imported torch; Parsl's others have a third


def workers(mark: str, driver: int) -> list[int]:
    """Returns the processes that train."""
    found = []
    for pid, command in processes(mark).items():
        try:
            resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            continue
        if pid != driver and "spawn_main" in command and resident > WORKER_BYTES:
            found.append(pid)
    return found


def runs(command: str, mark: str) -> bool:
    return any(command in text for text in processes(mark).values())


def finished(tmp_path: Path) -> int:
    return len(list(tmp_path.glob("runs/toys/*/result.json")))


def weights(study: StudyPlan) -> dict[str, dict[str, torch.Tensor]]:
    return {
        id_: torch.load(path, weights_only=True)["state_dict"]
        for id_, stage in study.stages.items()
        for path in (study.root / "toys").glob(f"{stage.stage}-{id_[:8]}/checkpoints/best.ckpt")
    }


def curves(study: StudyPlan) -> dict[str, str]:
    return {path.parent.name: path.read_text() for path in (study.root / "toys").glob("*/metrics.csv")}


def disturb(tmp_path: Path, study: StudyPlan, chance: random.Random) -> list[str]:
    """Carries a study out with random SIGKILLs; returns whom they hit."""
    targets, done = chance.sample(KILLS, len(KILLS)), []
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    file = str(engine(tmp_path, heartbeat_threshold=5))
    driver = start(tmp_path, study, file, TMPDIR=str(scratch))
    for target in targets:
        wanted, busy = finished(tmp_path) + chance.randint(0, 1), []
        while driver.poll() is None and finished(tmp_path) < wanted:
            time.sleep(0.05)
        time.sleep(chance.uniform(0, 1))
        while driver.poll() is None and target != "driver" and not (busy := workers(str(tmp_path), driver.pid)):
            time.sleep(0.1)
        if driver.poll() is not None:
            break
        done.append(target)
        if target != "driver":
            os.kill(chance.choice(busy), signal.SIGKILL)
        if target != "worker":
            driver.kill()
            last_words(driver, 60)
            if len(done) - done.count("worker") == 1:
                assert gone(str(tmp_path), 30)
            driver = start(tmp_path, study, file, TMPDIR=str(scratch))
    out = last_words(driver, 600)
    assert driver.returncode == 0 and "Traceback" not in out, out
    return done


@pytest.mark.timeout(1800)
def test_sixty_stages_and_twenty_kills(tmp_path):
    variants = [{"seed_everything": seed} for seed in range(30)]
    killed, calm = toy_study(tmp_path, variants), toy_study(tmp_path / "calm", variants)
    assert len(disturb(tmp_path, killed, random.Random(1))) >= 20
    assert gone(str(tmp_path), 30)
    assert not list(tmp_path.rglob("*.tmp")) and not (tmp_path / "runs" / "toys" / ".engine").exists()
    assert not list((tmp_path / "tmp").iterdir())
    assert carry_out(calm, engine(tmp_path)).failed == {}
    found, expected = results(killed), results(calm)
    assert len(expected) == 60
    for part in ("metrics", "metric", "epochs"):
        assert {id_: r[part] for id_, r in found.items()} == {id_: r[part] for id_, r in expected.items()}
    assert curves(killed) == curves(calm) and len(curves(calm)) == 60  # no epoch twice, none left out
    some, others = weights(killed), weights(calm)
    assert some.keys() == others.keys() == expected.keys()
    for id_, state in some.items():
        assert all(torch.equal(state[name], others[id_][name]) for name in state)
    assert len(list((tmp_path / "runs" / "toys").glob("*/identity.json"))) == 60


def test_a_driver_killed_while_it_starts_leaves_nothing(tmp_path):
    drivers = []
    for number, started in enumerate(["launch interchange", "launch pool", "spawn_main"]):
        folder = tmp_path / str(number)
        folder.mkdir()
        driver = start(folder, toy_study(folder, [{"seed_everything": 0}]), str(engine(folder)))
        until(partial(runs, started, str(folder)), driver)
        driver.kill()
        drivers.append(driver)
    assert gone(str(tmp_path), 30)
    assert [last_words(driver, 30) for driver in drivers] == ["", "", ""]


def test_ctrl_c_ends_everything_in_order(tmp_path):
    nap = {"class_path": "probes.Nap", "init_args": {"seconds": 2.0}}
    common = {"trainer.callbacks": [nap], "data.num_workers": 1}
    study = toy_study(tmp_path, [{"seed_everything": seed, **common} for seed in range(3)])
    driver = start(tmp_path, study, str(engine(tmp_path)))
    until(lambda: list(tmp_path.glob("runs/toys/transfer-*/checkpoints/last.ckpt")), driver)
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does
    assert "KeyboardInterrupt" in last_words(driver, 120)
    assert gone(str(tmp_path), 30)
    assert not list((tmp_path / "runs" / "toys").glob("failed/*"))
    assert 0 < finished(tmp_path) < 6
