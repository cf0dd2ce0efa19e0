"""Measure what a training costs: seconds, joules, memory."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

from tlkit.errors import Unavailable, UserError
from tlkit.memory import peak_bytes, reset_peak
from tlkit_callbacks.energy import trained
from tlkit_callbacks.energy.counter import Clock, Counter, Sampler, Unreadable
from tlkit_callbacks.energy.devices import card_of
from tlkit_callbacks.energy.ledger import Ledger
from tlkit_callbacks.energy.meter import Meter
from tlkit_callbacks.energy.nvml import Card, opened
from tlkit_callbacks.energy.power_cap import PowerCap, check_cap, recover
from tlkit_callbacks.energy.rows import Row, Total, Use
from tlkit_callbacks.energy.sources import open_card, open_counters


class EnergyMonitor(Callback):
    """Measures seconds, joules and peak memory per stage, epoch and phase; can cap the power of the GPU.

    Measured are the GPU of each rank (NVML: its energy counter, else its power over time) and, once per machine, the
    processors with their memory (RAPL), whatever else they do. What cannot be measured is null, with method ``none``.

    ``energy.csv`` in the run directory has a row per epoch, and a further one where a phase begins or a run goes on,
    each for all devices together (``all``) and for each of them. A row lasts until the next one begins. Its columns:

    - frozen_fraction: of the parameters, at the first batch
    - valid, why: false where joules are unknown, or the row is shorter than 10 periods of a counter; and why
    - seconds; of them train, validate, checkpoint; the rest lies between epochs
    - samples_per_second: of training, per train_seconds; samples_per_joule: per train_joules, those of training alone
    - joules, watts: of the whole row
    - peak_bytes: most memory used on the device in this row; without a GPU by the process
    - cap_enforced_watts: the power limit in force, requested or not; celsius: temperature of the GPU; at the row's end
    - counter_period_ms: time in milliseconds in which the counter renews itself, measured at the start

    The accelerator is waited for where epochs, validations, checkpoints and phases begin or end, never in a step. Not
    counted: what comes before the first epoch and after the last one, and before a resume what its checkpoint lacks.

    Args:
        power_cap_watts: limit of the GPU's power in watts while the stage trains, put back afterwards; null: as it is.

    Raises:
        UserError: at the start of a run: a cap without an NVIDIA GPU, outside its limits, or without permission.
    """

    clock: Clock = time
    """Tells the time."""

    def __init__(self, power_cap_watts: float | None = None) -> None:
        if power_cap_watts is not None and not power_cap_watts > 0:
            raise UserError(f"EnergyMonitor: expected power_cap_watts above 0 W, got {power_cap_watts:g}")
        self.power_cap_watts = power_cap_watts

    _ledger = Ledger()
    """Of the current run."""
    _undo = ExitStack()
    """What is to be undone when it ends, however it ends."""
    _meters: list[Meter]
    _part: str
    """What is being done since `_time`, see `PARTS`."""
    _time: float
    _directory: Path

    def check(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuses a cap that cannot be set; see the class."""
        if self.power_cap_watts is None:
            return
        index, watts = trained.cuda_index(trainer), self.power_cap_watts
        expected = f"expected an NVIDIA GPU to cap at {watts:g} W (power_cap_watts)"
        if index is None:
            raise Unavailable(
                f"{expected}, got a run on {trainer.strategy.root_device.type}; leave the cap out, or train on a GPU"
            )
        try:
            with opened():
                check_cap(card_of(index), watts)
        except Unreadable as error:
            raise UserError(f"{expected}, got none for cuda:{index}: {error}") from error

    def counters(self, trainer: Trainer, card: Card | None) -> list[Counter]:
        """Opens what this process measures; a subclass may add a meter of its own.

        Args:
            trainer: in a fit.
            card: that this process trains on; None: it trains elsewhere.
        """
        return open_counters(card, trainer.local_rank == 0, self.clock)

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self._ledger, self._undo = Ledger(), ExitStack()
            self.check(trainer, pl_module)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # not sooner: from here on Ctrl-C and SIGTERM reach on_exception
        index = trained.cuda_index(trainer)
        card = None if index is None else open_card(index, self._undo)
        if card is not None:
            recover()
        if self.power_cap_watts is not None:
            self._cap(card, self.power_cap_watts)
        counters = self.counters(trainer, card)
        self._time_checkpoints(trainer)
        self._directory = Path(getattr(pl_module, "run_dir", None) or trainer.log_dir or trainer.default_root_dir)
        trained.synchronize(trainer)
        self._meters = [Meter(counter, self._ledger.totals.get(counter.device, Total())) for counter in counters]
        self._undo.callback(Sampler(counters).stop)
        self._part, self._time = "train", self.clock.perf_counter()  # in mid-epoch, if it is resumed there
        self._begin(trainer)

    def _cap(self, card: Card | None, watts: float) -> None:
        if card is None:
            raise UserError(f"expected an NVIDIA GPU to cap at {watts:g} W (power_cap_watts), got none")
        check_cap(card, watts)
        cap = PowerCap(card, watts)
        self._undo.callback(cap.restore)
        cap.apply()

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._edge(trainer, "train")
        if self._ledger.open[-1].frozen_fraction is None:  # no batch yet
            self._ledger.open[-1].epoch = trainer.current_epoch
        else:
            self._report(trainer)
            self._begin(trainer)

    @override
    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        # the first hook of a batch that comes after every callback's on_train_batch_start, where phases begin
        row, phase = self._ledger.open[-1], trained.phase_of(trainer)
        if row.frozen_fraction is not None and phase != row.phase:
            self._edge(trainer, "train")
            self._begin(trainer)
            row = self._ledger.open[-1]
        if row.frozen_fraction is None:
            row.phase, row.frozen_fraction = phase, trained.frozen_fraction(pl_module)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._ledger.open[-1].samples += trained.samples_in(batch)

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._ledger.open:
            self._edge(trainer, "validate")

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._ledger.open:
            self._edge(trainer, "train")

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._edge(trainer, "other")

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._edge(trainer, "other")
        self._report(trainer)
        self._close()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        try:
            if self._ledger.open:
                self._edge(trainer, "other")
                self._report(trainer)
        finally:
            self._close()

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self._close()

    def _close(self) -> None:
        self._ledger.open = []
        self._undo.close()

    def _begin(self, trainer: Trainer) -> None:
        labels = (trained.stage_of(trainer), trainer.current_epoch, trained.phase_of(trainer), trainer.global_step)
        self._ledger.begin(Row(*labels, str(trainer.precision), self.power_cap_watts))
        reset_peak(trainer.strategy.root_device)

    def _edge(self, trainer: Trainer, part: str) -> None:
        """Ends a window of the row that is being measured; what follows is of this part."""
        if not trainer.interrupted:  # an error of the device would come up again
            trained.synchronize(trainer)
        now, row = self.clock.perf_counter(), self._ledger.open[-1]
        row.seconds[self._part] += now - self._time
        for meter in self._meters:
            use, device = meter.edge(self._part == "train"), meter.counter.device
            row.uses.setdefault(device, Use(use.method)).add(use)
        row.step, row.peak_bytes = trainer.global_step, max(row.peak_bytes, peak_bytes(trainer.strategy.root_device))
        self._part, self._time = part, now

    def _publish(self, trainer: Trainer) -> None:
        self._ledger.publish(trainer, {meter.counter.device: meter.total() for meter in self._meters})

    def _report(self, trainer: Trainer) -> None:
        self._publish(trainer)
        if trainer.is_global_zero:
            self._ledger.write(self._directory)
        self._ledger.log(trainer)

    def _time_checkpoints(self, trainer: Trainer) -> None:
        """Lightning has no hook that follows the writing of a checkpoint."""
        save: Callable[..., None] = trainer.save_checkpoint

        def timed(*args: Any, **kwargs: Any) -> None:
            part = self._part
            self._edge(trainer, "checkpoint")
            self._publish(trainer)  # so that it is in the checkpoint
            save(*args, **kwargs)
            self._edge(trainer, part)

        trainer.save_checkpoint = timed  # type: ignore[method-assign]
        self._undo.callback(setattr, trainer, "save_checkpoint", save)

    @override
    def state_dict(self) -> dict[str, Any]:
        return self._ledger.state_dict()

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._ledger.load_state_dict(state_dict)

    def summary(self) -> dict[str, Any]:
        """Returns the figures of the whole stage, of each device and of each phase, named as in ``energy.csv``."""
        return self._ledger.summary()

    def energy(self) -> dict[str, Any] | None:
        """Returns joules (None: unknown), method and scope; None: there was nothing to measure with."""
        run = self.summary()
        if not run or not run["devices"]:
            return None
        joules = run["joules"] if run["valid"] else None
        return {"joules": joules, "method": run["method"], "scope": ", ".join(run["devices"])}
