"""GradualUnfreezing: what trains when, at which rate, in every circumstance."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_module import ForeignModule, changed, loader, snapshot, trainer
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tlkit_callbacks.chain_thaw import ChainThaw
from tlkit_callbacks.gradual_unfreezing import GradualUnfreezing
from tlkit_callbacks.layer_freezing import LayerFreezing
from tlkit_callbacks.moment import Moment
from tlkit_callbacks.phase import Phase
from tlkit_callbacks.plateau import Plateau
from tlkit_callbacks.schedule import Curve
from tlkit_callbacks.step_decay import StepDecay
from toy import ToyData, ToyNet

from tlkit.errors import UserError
from tlkit.optim import build_optimizer
from tlkit.recorder import Recorder
from tlkit.tasks import Classification

LR, BATCHES = 0.1, 3
LAYERS = ("conv1", "conv2", "fc")


class Named(ForeignModule):
    """One named group per layer; logs what its validation says: ``losses`` in turn."""

    def __init__(self, losses: list[float] | None = None, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.losses = losses

    def configure_optimizers(self) -> Any:
        kind = getattr(torch.optim, self.optimizer)
        return build_optimizer(self, lambda groups: kind(groups, **self.arguments))

    def on_validation_epoch_end(self) -> None:
        if self.losses is not None:
            self.log("val/loss", torch.tensor(self.losses[self.current_epoch]))


class Watch(Callback):
    """Notes before each batch which layers train, and after it which have moved."""

    def __init__(self) -> None:
        self.trains: list[str] = []
        self.moved: list[str] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        now = snapshot(pl_module)
        moved = {key.partition(".")[0] for key in changed(pl_module, self.before)} if hasattr(self, "before") else set()
        names = {"norm1": "conv1", "norm2": "conv2"}
        self.moved.append(" ".join(sorted({names.get(name, name) for name in moved})))
        self.before = now
        weights = {"conv1": pl_module.conv1, "conv2": pl_module.conv2, "fc": pl_module.fc}
        self.trains.append(" ".join(name for name, part in weights.items() if part.weight.requires_grad))


def run(module: LightningModule, tmp_path: Path, *callbacks: Any, **arguments: Any) -> Watch:
    watch = Watch()
    trainer(tmp_path, *callbacks, watch, **arguments).fit(module, loader(), loader())
    return watch


def test_by_default_it_thaws_one_layer_an_epoch_from_the_last_to_the_first(tmp_path: Path) -> None:
    watch = run(Named(), tmp_path, GradualUnfreezing(), epochs=4)
    assert watch.trains[::BATCHES] == ["fc", "conv2 fc", "conv1 conv2 fc", "conv1 conv2 fc"]
    assert watch.trains == [names for names in watch.trains[::BATCHES] for _ in range(BATCHES)]
    assert watch.moved[1:] == watch.trains[1:]  # to the bit: what is frozen does not move, its statistics neither


def test_several_layers_and_several_epochs_per_phase(tmp_path: Path) -> None:
    watch = run(Named(), tmp_path, GradualUnfreezing(layers_per_phase=2, epochs_per_phase=2), epochs=3)
    assert watch.trains[::BATCHES] == ["conv2 fc", "conv2 fc", "conv1 conv2 fc"]


def test_a_layer_in_no_phase_stays_frozen(tmp_path: Path) -> None:
    module = Named(optimizer="AdamW", weight_decay=0.1)
    before = snapshot(module)
    run(module, tmp_path, GradualUnfreezing([Phase("fc"), Phase("conv2", epoch=1)]), epochs=3)
    assert {key.partition(".")[0] for key in changed(module, before)} == {"conv2", "norm2", "fc"}


@pytest.mark.parametrize(
    ("trigger", "first"),
    [
        ({"epoch": 2}, 6),
        ({"step": 4}, 4),
        ({"fraction": 0.25}, 3),
        ({"epoch": 3, "step": 4}, 4),
        ({"epoch": 3, "step": 4, "when": "all"}, 9),
        ({"plateau": Plateau("val/loss", patience=1)}, 6),
        ({"plateau": Plateau("val/loss", patience=2)}, 9),
        ({"plateau": Plateau("val/loss", patience=2), "step": 5}, 5),
        ({"plateau": Plateau("val/loss", patience=1), "epoch": 3, "when": "all"}, 9),
    ],
)
def test_every_trigger_thaws_before_the_update_that_it_names(trigger: Any, first: int, tmp_path: Path) -> None:
    module = Named(losses=[1.0, 1.0, 1.0, 1.0])
    watch = run(module, tmp_path, GradualUnfreezing([Phase("fc"), Phase("rest", **trigger)]), epochs=4)
    assert watch.trains == ["fc"] * first + ["conv1 conv2 fc"] * (12 - first)


def test_a_plateau_counts_from_the_beginning_of_the_phase_before(tmp_path: Path) -> None:
    plateau = Plateau("val/loss", patience=2)
    phases = [Phase("fc"), Phase("conv2", epoch=1), Phase("conv1", plateau=plateau)]
    watch = run(Named(losses=[0.5, 1.0, 1.0, 1.0, 1.0]), tmp_path, GradualUnfreezing(phases), epochs=5)
    assert watch.trains[::BATCHES] == ["fc", "conv2 fc", "conv2 fc", "conv2 fc", "conv1 conv2 fc"]


def test_phases_that_are_due_at_once_begin_one_update_after_the_other(tmp_path: Path) -> None:
    slow = Plateau("val/loss", patience=2)
    gradual = GradualUnfreezing(
        [Phase("fc"), Phase("conv2", plateau=slow, when="all", step=1), Phase("conv1", epoch=1)]
    )
    watch = run(Named(losses=[1.0] * 4), tmp_path, gradual, epochs=4)
    assert watch.trains == ["fc"] * 9 + ["conv2 fc"] + ["conv1 conv2 fc"] * 2
    assert [(phase["epoch"], phase["step"], phase["why"]) for phase in gradual.summary()["phases"]] == [
        (0, 0, "start"),
        (3, 9, "step 1 and val/loss no better for 2 epochs"),
        (3, 10, "epoch 1"),
    ]


class AtBatch(GradualUnfreezing):
    """Is due at the second batch of each epoch."""

    def due(self, trainer: Any, pl_module: LightningModule, phase: Phase) -> str | None:
        return "second batch" if trainer.fit_loop.epoch_loop.batch_idx >= 1 else None


@pytest.mark.parametrize(("window", "second", "third"), [(1, 1, 2), (2, 2, 5), (3, None, None)])
def test_no_phase_begins_within_a_window_of_accumulated_batches(
    window: int, second: int | None, third: int | None, tmp_path: Path
) -> None:
    watch = run(Named(), tmp_path, AtBatch(), epochs=2, accumulate_grad_batches=window)
    for names, first in (("conv2 fc", second), ("conv1 conv2 fc", third)):
        assert (watch.trains.index(names) if names in watch.trains else None) == first


def test_under_autocast_what_is_frozen_stays_to_the_bit(tmp_path: Path) -> None:
    watch = run(Named(), tmp_path, GradualUnfreezing(), epochs=3, precision="bf16-mixed")
    assert watch.moved[1:] == watch.trains[1:]


# --- rates


def rates(module: ForeignModule, tmp_path: Path, *callbacks: Any, epochs: int) -> list[dict[str, float]]:
    """The rate of each layer in the first batch of each epoch."""
    trainer(tmp_path, *callbacks, epochs=epochs).fit(module, loader(), loader())
    return [dict(zip(LAYERS, found, strict=True)) for found in module.rates[::BATCHES]]


def test_what_is_thawed_later_trains_at_a_tenth_and_schedules_go_on(tmp_path: Path) -> None:
    for epoch, found in enumerate(
        rates(Named(), tmp_path, StepDecay(every=1, factor=0.5), GradualUnfreezing(), epochs=4)
    ):
        decayed = LR * 0.5**epoch
        assert found == pytest.approx({"conv1": 0.1 * decayed, "conv2": 0.1 * decayed, "fc": decayed})


def test_multipliers_of_what_trains_already_accumulate(tmp_path: Path) -> None:
    phases = [
        Phase("fc", rate=2.0),
        Phase("conv2", epoch=1, rate=0.5, rate_before=0.1),
        Phase("conv1", epoch=2, rate=3.0, rate_before=0.2),
    ]
    found = rates(Named(), tmp_path, GradualUnfreezing(phases), epochs=3)
    assert found[0]["fc"] == pytest.approx(2.0 * LR)
    assert (found[1]["fc"], found[1]["conv2"]) == pytest.approx((0.2 * LR, 0.5 * LR))
    assert found[2] == pytest.approx({"fc": 0.04 * LR, "conv2": 0.1 * LR, "conv1": 3.0 * LR})


@pytest.mark.parametrize("together", [True, False])
def test_discriminative_rates_of_ulmfit(together: bool, tmp_path: Path) -> None:
    factor = 1 / 2.6
    body = (
        [Phase("rest", epoch=1, rate=1.0, depth_factor=factor)]
        if together
        else [Phase(name, epoch=n, rate=1.0, depth_factor=factor) for n, name in ((1, "conv2"), (2, "conv1"))]
    )
    found = rates(Named(), tmp_path, GradualUnfreezing([Phase("fc"), *body]), epochs=3)[-1]
    assert found == pytest.approx({"fc": LR, "conv2": LR / 2.6, "conv1": LR / 2.6 / 2.6})


def test_one_group_for_all_layers_has_one_rate_and_that_is_said(tmp_path: Path, caplog: Any) -> None:
    logging.getLogger("tlkit").propagate = True
    module, gradual = ForeignModule(), GradualUnfreezing()
    watch = run(module, tmp_path, gradual, epochs=3)
    assert watch.moved[-1] == "conv1 conv2 fc" and module.rates == [[LR]] * 9
    (warned,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "full rate" in warned and "tlkit.optim.build_optimizer" in warned


def test_rates_that_one_group_cannot_have_are_refused_with_the_helper(tmp_path: Path) -> None:
    gradual = GradualUnfreezing([Phase("fc"), Phase("rest", epoch=1, rate=0.1)])
    with pytest.raises(UserError, match=r"conv2 at 0.1, got one that holds both; .*tlkit.optim.build_optimizer"):
        run(ForeignModule(), tmp_path, gradual, epochs=2)


def test_a_rate_that_is_the_same_for_all_needs_no_names(tmp_path: Path) -> None:
    module = ForeignModule()
    run(module, tmp_path, GradualUnfreezing([Phase("fc"), Phase("rest", epoch=1, rate=0.1, rate_before=0.1)]), epochs=2)
    assert [rate for (rate,) in module.rates] == pytest.approx([LR] * 3 + [0.1 * LR] * 3)


def test_groups_of_the_users_own_suffice_where_each_has_one_rate(tmp_path: Path) -> None:
    class HeadAndBody(ForeignModule):
        def configure_optimizers(self) -> Any:
            body = [p for part in (self.conv1, self.norm1, self.conv2, self.norm2) for p in part.parameters()]
            return torch.optim.SGD([{"params": body}, {"params": self.fc.parameters(), "lr": 1.0}], lr=LR)

    module = HeadAndBody()
    run(module, tmp_path, GradualUnfreezing([Phase("fc"), Phase("rest", epoch=1)]), epochs=2)
    assert module.rates[-1] == pytest.approx([0.1 * LR, 1.0])


def test_beside_a_scheduler_of_torch_only_full_rates_may_stand(tmp_path: Path) -> None:
    module = ForeignModule(scheduler=True)  # StepLR: × 0.1 an epoch
    run(module, tmp_path, GradualUnfreezing([Phase("fc"), Phase("rest", epoch=1, rate=1.0)]), epochs=2)
    assert [rate for (rate,) in module.rates] == pytest.approx([LR] * 3 + [0.1 * LR] * 3)
    with pytest.raises(UserError, match="GradualUnfreezing and the scheduler"):
        phases = [Phase("fc"), Phase("rest", epoch=1, rate=0.5, rate_before=0.5)]
        run(ForeignModule(scheduler=True), tmp_path, GradualUnfreezing(phases), epochs=2)


class Noted(Curve):
    """A curve that notes where it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def curve(self, step: int, steps: int) -> float:
        self.asked.append((step, steps))
        return 1 - step / steps


@pytest.mark.parametrize("first", [True, False])
def test_a_restart_begins_schedules_anew(first: bool, tmp_path: Path) -> None:
    phases = [
        Phase("fc"),
        Phase("conv2", epoch=1, rate=1.0, restart=True),
        Phase("conv1", step=9, rate=1.0, restart=True),
    ]
    curve, gradual = Noted(), GradualUnfreezing(phases)
    module = Named()
    run(module, tmp_path, *((curve, gradual) if first else (gradual, curve)), epochs=4)
    places = list(dict.fromkeys(curve.asked))
    assert places == [*((n, 3) for n in range(3)), *((n, 6) for n in range(6))]  # and once more of 3 updates
    assert [found[0] for found in module.rates] == pytest.approx(
        [LR * (1 - n / 3) for n in range(3)]
        + [LR * (1 - n / 6) for n in range(6)]
        + [LR * (1 - n / 3) for n in range(3)]
    )


def test_a_restart_at_an_unknown_moment_leaves_the_course_before_it_to_the_end_of_the_run(tmp_path: Path) -> None:
    phases = [Phase("fc"), Phase("rest", plateau=Plateau("val/loss", patience=1), rate=1.0, restart=True)]
    module = Named(losses=[1.0] * 4)
    run(module, tmp_path, GradualUnfreezing(phases), Noted(), epochs=4)
    expected = [1 - n / 12 for n in range(6)] + [1 - n / 6 for n in range(6)]
    assert [found[0] / LR for found in module.rates] == pytest.approx(expected)


# --- the best checkpoint


def test_a_phase_may_begin_with_the_best_weights_and_a_fresh_optimizer(tmp_path: Path) -> None:
    class Keep(Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if trainer.global_step == 6:
                self.weights = snapshot(pl_module)
                self.momentum = dict(trainer.optimizers[0].state)

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == 0:
                self.best = snapshot(pl_module)

    keep, gradual = Keep(), GradualUnfreezing([Phase("fc"), Phase("rest", epoch=2, restore_best=True)])
    best = ModelCheckpoint(tmp_path, monitor="val/loss")
    module = Named(losses=[0.1, 0.5, 0.5], momentum=0.9)
    trainer(tmp_path, gradual, keep, best, epochs=3, enable_checkpointing=True).fit(module, loader(), loader())
    assert all(torch.equal(value, keep.best[key]) for key, value in keep.weights.items())
    assert not keep.momentum


@pytest.mark.parametrize("callbacks", [[], [ModelCheckpoint()]])
def test_without_a_best_checkpoint_there_is_nothing_to_restore(callbacks: list[Any], tmp_path: Path) -> None:
    gradual = GradualUnfreezing([Phase("fc"), Phase("rest", epoch=1, restore_best=True)])
    with pytest.raises(UserError, match="expected a ModelCheckpoint with a monitor"):
        run(Named(), tmp_path, gradual, *callbacks, enable_checkpointing=bool(callbacks))


# --- resume


def classification() -> Classification:
    torch.manual_seed(0)
    network = ToyNet(num_classes=4, in_channels=1)
    return Classification(network, optimizer=lambda groups: torch.optim.AdamW(groups, 0.01))


class Kept(Recorder):
    """Keeps both checkpoints of every epoch."""

    def on_train_epoch_end(self, trainer: Any, pl_module: LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        folder = self.directory / str(trainer.current_epoch + 1)
        shutil.copytree(self.directory / "checkpoints", folder / "checkpoints")


def toy_run(callbacks: list[Callback], folder: Path, tmp_path: Path, checkpoint: Path | None = None) -> LightningModule:
    folder.mkdir(exist_ok=True)
    recorder = Kept(folder, "val/loss", "min", {"stage": "transfer"}, 0)
    module = classification()
    runner = trainer(folder, *callbacks, recorder, epochs=6, enable_checkpointing=True, num_sanity_val_steps=0)
    runner.fit(module, ToyData(cache_dir=str(tmp_path)), ckpt_path=checkpoint, weights_only=True)
    return module


class ThawBelow(GradualUnfreezing):
    """Begins the next phase once the training loss is below a limit: one for each phase after the first."""

    def __init__(self, limits: list[float], layers_per_phase: int = 1) -> None:
        super().__init__(layers_per_phase=layers_per_phase)
        self.limits = limits

    def due(self, trainer: Any, pl_module: LightningModule, phase: Phase) -> str | None:
        loss, limit = trainer.callback_metrics.get("train/loss"), self.limits[self.phase]
        return f"train/loss below {limit:g}" if loss is not None and loss < limit else None


PATIENT = Plateau("val/loss", patience=1)
PROTOCOLS: dict[str, Callable[[], list[Callback]]] = {
    "generated": lambda: [GradualUnfreezing(epochs_per_phase=2)],
    "in mid-epoch": lambda: [
        GradualUnfreezing(
            [Phase("fc"), Phase("conv2", step=8, restart=True), Phase("conv1", fraction=0.7, rate_before=0.5)]
        ),
        StepDecay(every=1, factor=0.7),
    ],
    "plateaus": lambda: [
        GradualUnfreezing(
            [
                Phase("fc"),
                Phase("conv2", plateau=Plateau("val/loss", patience=1, min_delta=9.0), restore_best=True),
                Phase("conv1", plateau=Plateau("val/loss", patience=2, min_delta=9.0), restore_best=True),
            ]
        )
    ],
    "a training loss": lambda: [ThawBelow([1.7, 1.3])],
    "one layer at a time": lambda: [ChainThaw()],
}


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_run_resumed_after_any_epoch_ends_as_the_uninterrupted_one(name: str, tmp_path: Path) -> None:
    callbacks = PROTOCOLS[name]()
    whole = snapshot(toy_run(callbacks, tmp_path / "whole", tmp_path))
    begins = [phase["step"] for phase in callbacks[0].summary()["phases"]]  # type: ignore[attr-defined]
    assert begins == sorted(set(begins)) and len(begins) >= 3, begins  # all of them have begun
    for epoch in range(1, 6):
        folder = tmp_path / f"from{epoch}"
        shutil.copytree(tmp_path / "whole" / str(epoch), folder)
        again = PROTOCOLS[name]()
        resumed = toy_run(again, folder, tmp_path, folder / "checkpoints" / "last.ckpt")
        assert not changed(resumed, whole), epoch
        assert again[0].summary() == callbacks[0].summary()  # type: ignore[attr-defined]


def test_a_run_resumed_after_the_thaw_trains_what_was_thawed(tmp_path: Path) -> None:
    first, checkpoint = trainer(tmp_path, GradualUnfreezing(), epochs=3), tmp_path / "last.ckpt"
    first.fit(Named(), loader(), loader())
    first.save_checkpoint(checkpoint)
    module = Named()
    module.load_state_dict(torch.load(checkpoint, weights_only=True)["state_dict"])
    before, second = snapshot(module), trainer(tmp_path, GradualUnfreezing(), epochs=4)
    second.fit(module, loader(), loader(), ckpt_path=checkpoint, weights_only=True)
    assert {"conv1.weight", "conv2.weight", "fc.weight"} <= changed(module, before)


def test_a_checkpoint_of_a_run_without_it_is_gone_on_with(tmp_path: Path) -> None:
    first, checkpoint = trainer(tmp_path, epochs=2), tmp_path / "last.ckpt"
    first.fit(Named(), loader(), loader())
    first.save_checkpoint(checkpoint)
    watch, gradual = Watch(), GradualUnfreezing()
    trainer(tmp_path, gradual, watch, epochs=3).fit(
        Named(), loader(), loader(), ckpt_path=checkpoint, weights_only=True
    )
    assert watch.trains == ["conv2 fc", "conv1 conv2 fc", "conv1 conv2 fc"]


def test_a_checkpoint_of_other_phases_is_refused(tmp_path: Path) -> None:
    first, checkpoint = trainer(tmp_path, GradualUnfreezing(), epochs=3), tmp_path / "last.ckpt"
    first.fit(Named(), loader(), loader())
    first.save_checkpoint(checkpoint)
    second = trainer(tmp_path, GradualUnfreezing(layers_per_phase=2), epochs=4)
    with pytest.raises(UserError, match="those of the checkpoint, at least 3, got 2"):
        second.fit(Named(), loader(), loader(), ckpt_path=checkpoint, weights_only=True)


def test_a_second_fit_of_the_same_module_begins_with_the_first_phase(tmp_path: Path) -> None:
    module, gradual = Named(), GradualUnfreezing()
    with pytest.raises(UserError, match="stop"):  # in the first phase: two layers are left frozen
        run(module, tmp_path, gradual, Stop(), epochs=3)
    assert not module.conv1.weight.requires_grad and not module.norm1.training
    watch = run(module, tmp_path, LayerFreezing("fc"), epochs=1)
    assert watch.trains[0] == watch.moved[1] == "conv1 conv2"
    assert run(module, tmp_path, gradual, epochs=3).trains[::BATCHES] == ["fc", "conv2 fc", "conv1 conv2 fc"]


class Stop(Callback):
    def on_train_epoch_end(self, trainer: Any, pl_module: LightningModule) -> None:
        raise UserError("stop")


# --- beside others, compiled


def test_a_window_of_freezing_beside_it_adds_to_what_is_frozen(tmp_path: Path) -> None:
    window = LayerFreezing("fc", start=Moment(epoch=1), end=Moment(epoch=2))
    assert run(Named(), tmp_path, window, GradualUnfreezing(), epochs=3).trains[::BATCHES] == [
        "fc",
        "conv2",
        "conv1 conv2 fc",
    ]


def test_what_the_module_keeps_fixed_stays_fixed_when_its_layer_is_thawed(tmp_path: Path) -> None:
    class Fixed(Named):
        def __init__(self) -> None:
            super().__init__()
            self.norm1.bias.requires_grad_(False)

    module = Fixed()
    before = snapshot(module)
    run(module, tmp_path, GradualUnfreezing(), epochs=4)
    assert set(before) - changed(module, before) == {"norm1.bias"}


def test_a_compiled_module_thaws_as_a_plain_one(tmp_path: Path) -> None:
    plain, compiled = Named(momentum=0.9), Named(momentum=0.9)
    plain.drop.p = compiled.drop.p = 0.0
    run(plain, tmp_path, GradualUnfreezing(), epochs=3)
    trainer(tmp_path, GradualUnfreezing(), epochs=3).fit(torch.compile(compiled, backend="eager"), loader(), loader())
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[key], value)


# --- what it says


def test_each_transition_is_in_the_log_and_the_summary(tmp_path: Path, caplog: Any) -> None:
    caplog.set_level(logging.INFO, "tlkit")
    logging.getLogger("tlkit").propagate = True
    gradual = GradualUnfreezing([Phase("fc"), Phase("conv2", step=2), Phase("conv1", epoch=1, plateau=PATIENT)])
    run(Named(losses=[1.0, 1.0]), tmp_path, gradual, epochs=2)
    assert [record.getMessage() for record in caplog.records if "begins" in record.getMessage()] == [
        "epoch 0, step 2: phase 1 begins (step 2); it thaws conv2 (rate × 0.1), goes on with fc (rate × 1)",
        "epoch 1, step 3: phase 2 begins (epoch 1); it thaws conv1 (rate × 0.1), goes on with fc (rate × 1), "
        "conv2 (rate × 0.1)",
    ]
    assert gradual.summary() == {
        "phases": [
            {"layers": ["fc"], "epoch": 0, "step": 0, "why": "start"},
            {"layers": ["conv2"], "epoch": 0, "step": 2, "why": "step 2"},
            {"layers": ["conv1"], "epoch": 1, "step": 3, "why": "epoch 1"},
        ]
    }
    assert gradual.phase == 2


def test_tensorboard_shows_phases_and_thawed_layers_as_steps(tmp_path: Path) -> None:
    logger = TensorBoardLogger(str(tmp_path), name="", version="")
    run(Named(), tmp_path, GradualUnfreezing([Phase("fc"), Phase("rest", step=4)]), epochs=2, logger=logger)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    points = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in ("phase", "trains/conv1", "trains/fc")}
    step = [(0, 0.0), (3, 0.0), (4, 1.0), (5, 1.0)]
    assert points == {"phase": step, "trains/conv1": step, "trains/fc": [(s, 1.0) for s, _ in step]}
