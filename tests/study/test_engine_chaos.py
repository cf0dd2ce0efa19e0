"""A study that is killed at random moments ends as one that was left in peace."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from studies import toy_study
from test_engine_parsl import engine, processes, results, start

from tlkit.study.engine import carry_out
from tlkit.study.planned import StudyPlan

KILLS = 20
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


def finished(tmp_path: Path) -> int:
    return len(list(tmp_path.glob("runs/toys/*/result.json")))


def weights(study: StudyPlan) -> dict[str, dict[str, torch.Tensor]]:
    return {
        id_: torch.load(path, weights_only=True)["state_dict"]
        for id_, stage in study.stages.items()
        for path in (study.root / "toys").glob(f"{stage.stage}-{id_[:8]}/checkpoints/best.ckpt")
    }


@pytest.mark.cluster
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_sixty_stages_and_twenty_kills(tmp_path):
    chance, kills, starts = random.Random(1), {"driver": 0, "worker": 0, "both": 0}, 1
    file = engine(tmp_path)
    driver = start(tmp_path, str(file), 30)
    while driver.poll() is None and sum(kills.values()) < KILLS:
        wanted = finished(tmp_path) + chance.randint(0, 1)
        while driver.poll() is None and finished(tmp_path) < wanted:
            time.sleep(0.05)
        time.sleep(chance.uniform(0, 1))
        target = chance.choice(list(kills))
        busy = workers(str(tmp_path), driver.pid)
        if target != "driver" and not busy:
            continue
        kills[target] += 1
        if target != "driver":
            os.kill(chance.choice(busy), signal.SIGKILL)
        if target != "worker":
            driver.kill()
            driver.communicate()
            driver, starts = start(tmp_path, str(file), 30), starts + 1
    out = driver.communicate()[0]
    print(kills, starts)
    assert driver.returncode == 0, out
    assert sum(kills.values()) >= KILLS
    time.sleep(30)
    assert processes(str(tmp_path)) == {}
    assert not list(tmp_path.rglob("*.tmp")) and not (tmp_path / "runs" / "toys" / ".engine").exists()
    variants = [{"seed_everything": seed} for seed in range(30)]
    killed, calm = toy_study(tmp_path, variants), toy_study(tmp_path / "calm", variants)
    assert carry_out(calm, "inline").failed == {}
    found, expected = results(killed), results(calm)
    assert len(expected) == 60
    assert {id_: r["metrics"] for id_, r in found.items()} == {id_: r["metrics"] for id_, r in expected.items()}
    some, others = weights(killed), weights(calm)
    assert some.keys() == others.keys()
    for id_, state in some.items():
        assert all(torch.equal(state[name], others[id_][name]) for name in state)
    assert len(list((tmp_path / "runs" / "toys").glob("*/identity.json"))) == 60
