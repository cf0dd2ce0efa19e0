"""Freezing and thawing in two processes: they stay together, and compute what one process computes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from foreign_module import changed, snapshot, trainer
from lightning.pytorch import Callback, LightningModule
from tlkit_callbacks.gradual_unfreezing import GradualUnfreezing
from tlkit_callbacks.layer_freezing import LayerFreezing
from tlkit_callbacks.moment import Moment
from tlkit_callbacks.phase import Phase
from tlkit_callbacks.plateau import Plateau
from torch import Tensor, nn
from torch.utils.data import DataLoader
from two_processes import gloo

from tlkit.errors import UserError
from tlkit.optim import build_optimizer

LOOKS, WAITS = "ddp_find_unused_parameters_true", "ddp"
PLATEAU = Plateau("loss", patience=1, min_delta=9.0)

PROTOCOLS: dict[str, Callable[[], Callback]] = {
    "thaw": lambda: GradualUnfreezing([Phase("three"), Phase("two", step=4), Phase("one", epoch=2, rate=0.5)]),
    "plateau": lambda: GradualUnfreezing([Phase("three"), Phase("rest", plateau=PLATEAU, rate=1.0)]),
    "window": lambda: LayerFreezing("one", start=Moment(step=2), end=Moment(epoch=2)),
    "whole run": lambda: LayerFreezing("one"),
}


class Lines(LightningModule):
    """Three linear layers: what ranks compute of their shares of a batch averages to the gradient of the whole."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.three = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 1)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss = (self.three(torch.tanh(self.two(torch.tanh(self.one(batch))))) - 1).square().mean()
        self.log("loss", loss, on_step=False, on_epoch=True)  # each rank its own
        return loss

    def configure_optimizers(self) -> Any:
        return build_optimizer(self, lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9, weight_decay=0.01))


def share(rows: slice) -> DataLoader[Tensor]:
    batches = torch.randn(3, 8, 4, generator=torch.Generator().manual_seed(2))
    return DataLoader(batches[:, rows], batch_size=None)  # type: ignore[arg-type]


def on_rank(rank: int, folder: str) -> dict[str, Any]:
    """The weights that each protocol leads to; what is said where DDP waits for all parameters."""
    ends: dict[str, Any] = {}
    for name, protocol in PROTOCOLS.items():
        for strategy in (WAITS, LOOKS):
            module = Lines()
            arguments: dict[str, Any] = {"strategy": strategy, "devices": 2, "use_distributed_sampler": False}
            try:
                trainer(folder, protocol(), epochs=4, **arguments).fit(module, share(slice(rank, None, 2)))
            except UserError as error:
                ends[f"{name}, {strategy}"] = str(error)
            else:
                ends[f"{name}, {strategy}"] = {key: value.tolist() for key, value in module.state_dict().items()}
    return ends


def test_two_processes_stay_together_across_a_thaw_and_compute_what_one_does(tmp_path: Path) -> None:
    first, second = gloo(on_rank, str(tmp_path))
    assert first == second  # to the bit
    refused = [name for name, end in first.items() if isinstance(end, str)]
    assert refused == [f"{name}, {WAITS}" for name in ("thaw", "plateau", "window")]
    assert all("give trainer.strategy: ddp_find_unused_parameters_true" in first[name] for name in refused)
    for name, protocol in PROTOCOLS.items():
        module = Lines()
        before = snapshot(module)
        trainer(tmp_path, protocol(), epochs=4).fit(module, share(slice(None)))
        assert ("one.weight" in changed(module, before)) == (name != "whole run")
        for key, value in module.state_dict().items():
            torch.testing.assert_close(torch.tensor(first[f"{name}, {LOOKS}"][key]), value)
    assert first[f"whole run, {WAITS}"] == first[f"whole run, {LOOKS}"]
