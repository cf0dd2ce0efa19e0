"""``tlkit fit --ckpt_path last`` of a run that was cut off in an epoch ends in the bits of the uninterrupted one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Write
from lightning.pytorch import Callback

from tlkit.cli import main


def callback(name: str, **arguments: Any) -> dict[str, Any]:
    return {"class_path": name, "init_args": arguments}


PLATEAU = {"metric": "val/loss", "patience": 1, "min_delta": 10.0}
RUNS: dict[str, list[dict[str, Any]]] = {
    "window, cycle, average, ensemble, meters": [
        callback("LayerFreezing", layers=1, start={"epoch": 1}, end={"epoch": 3}),
        callback("CyclicCosine", cycles=3),
        callback("SnapshotEnsemble", keep=2),
        callback("EMAWeights", decay=0.5, evaluate="both", start={"epoch": 1}),
        callback("WeightUpdateRatio", every=2),
        callback("EnergyMonitor"),
        callback("EarlyStopping", monitor="raw/val/loss", patience=9),
    ],
    "phases by a plateau, from the best weights": [
        callback(
            "GradualUnfreezing",
            phases=[{"layers": -1}, {"layers": "rest", "plateau": PLATEAU, "restore_best": True, "restart": True}],
        ),
        callback("CosineDecay", warmup=3),
        callback("PolyakMean"),
    ],
    "chain": [callback("ChainThaw", plateau={"metric": "val/loss", "patience": 1}), callback("L2SP", alpha=1.0)],
    "probe": [callback("LinearProbeThenFineTune", probe_epochs=2), callback("OneCycle", warmup=2)],
    "the rate with a state": [callback("ReduceOnPlateau", patience=1, min_delta=1.0)],
}


class CutOff(Callback):
    """Ends the process's run in the midst of the third epoch, as a power cut would."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch == 2 and batch_idx == 1:
            raise RuntimeError("cut off")


def last(path: Path, name: str) -> dict[str, Any]:
    """The last checkpoint of the one run of an experiment, which has nothing else by that name."""
    (found,) = path.parent.glob(f"runs/{name}/transfer-*/checkpoints/last.ckpt")
    checkpoint: dict[str, Any] = torch.load(found, weights_only=True)
    return checkpoint


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_the_resumed_run_ends_as_the_uninterrupted_one(
    name: str, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = callback("test_cases_resumed_by_tlkit.CutOff")
    path = write(**{"trainer.callbacks": [*RUNS[name], cut], "trainer.max_epochs": 4})
    with pytest.raises(RuntimeError, match="cut off"):
        main(["fit", "--config", str(path), "--name", "cut"])
    assert last(path, "cut")["epoch"] == 1
    monkeypatch.setattr(CutOff, "on_train_batch_start", Callback.on_train_batch_start)
    assert main(["fit", "--config", str(path), "--name", "cut", "--ckpt_path", "last"]) == 0
    assert main(["fit", "--config", str(path), "--name", "whole"]) == 0
    cut_off, whole = last(path, "cut"), last(path, "whole")
    assert cut_off["global_step"] == whole["global_step"]
    assert not [k for k, v in whole["state_dict"].items() if not torch.equal(v, cut_off["state_dict"][k])]
