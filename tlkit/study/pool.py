"""Workers for the stages of a study: Parsl's, as a YAML describes them, or this process."""

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from jsonargparse._util import import_object

from tlkit.errors import UserError
from tlkit.study.worker import Done, Task, work, work_in_pool

# Seconds. A pool whose interchange is gone ends THRESHOLD later, and then takes up to 3 s to end its workers.
HEARTBEAT, THRESHOLD = 2, 10
MARGIN = 120  # seconds of a pilot job for starting its workers and for ending
LIMITS = ("runs_per_worker", "worker_gib")
GIB_PER_WORKER = 2.0  # torch, a small network and its data


@dataclass
class Pool:
    """Where stages are carried out.

    Attributes:
        submit: hands a stage out; the future fails only if its worker, not the stage, went wrong.
        running: returns how many stages are being carried out.
        check: raises `UserError` if the workers can do nothing any more.
        slots: stages that may be handed out at once.
        tried: returns what was started, for messages.
    """

    submit: Callable[[Task], "Future[Done]"]
    running: Callable[[], int]
    check: Callable[[], None]
    slots: float
    tried: Callable[[], str]


@contextmanager
def inline() -> Iterator[Pool]:
    """Carries stages out one after the other in this process."""

    def submit(task: Task) -> "Future[Done]":
        future: Future[Done] = Future()
        future.set_result(work(task))
        return future

    yield Pool(submit, lambda: 1, lambda: None, 1, lambda: "this process")


@contextmanager
def parsl_pool(engine: Path | None, threads: int, accelerated: bool, longest: float, scratch: Path) -> Iterator[Pool]:
    """Starts Parsl and stops it.

    Args:
        engine: YAML with ``parsl`` (a Parsl configuration by class path), ``runs_per_worker`` and ``worker_gib``;
            None: this machine, with as many workers as fit.
        threads: per worker.
        accelerated: whether some stage may use an accelerator.
        longest: seconds that the longest stage is expected to take; 0: unknown.
        scratch: directory for Parsl's logs and scripts; removed when all went well.

    Raises:
        UserError: the engine cannot start; says what was tried.
    """
    import parsl
    from parsl.dataflow.dflow import DataFlowKernel

    config, limits = read(engine) if engine else (_this_machine(threads, accelerated), {})
    for executor in config.executors:
        _adapt(executor, threads, longest, engine)
    config.run_dir, config.initialize_logging, config.retries = str(scratch), False, 0

    def tried() -> str:
        shown = (
            f"  {' '.join(repr(executor.provider).split())}\n  {executor.launch_cmd}" for executor in config.executors
        )
        return "\n".join(shown)

    try:
        kernel = DataFlowKernel(config)
    except Exception as error:  # whatever a provider raises
        raise UserError(
            f"the engine {engine or 'for this machine'} does not start: {error}; tried:\n{tried()}"
        ) from error
    app = parsl.python_app(work_in_pool, data_flow_kernel=kernel)

    def check() -> None:
        for executor in config.executors:
            if executor.interchange_proc.poll() is not None:
                raise UserError(
                    f"Parsl's interchange has ended; its log is in {scratch}. Start the study again to go on"
                )

    def running() -> int:
        return sum(manager["tasks"] for executor in config.executors for manager in executor.connected_managers())

    try:
        yield Pool(lambda task: app(replace(task, **limits)), running, check, float("inf"), tried)
    finally:
        kernel.cleanup()
    shutil.rmtree(scratch, ignore_errors=True)


def read(engine: Path) -> tuple[Any, dict[str, Any]]:
    """Returns the Parsl configuration of an engine's YAML, and the limits of its workers.

    Raises:
        UserError: what is wrong with the file.
    """
    try:
        content = yaml.safe_load(engine.read_text(encoding="utf-8"))
        unknown = [key for key in content if key not in ("parsl", *LIMITS)]
        if unknown or "parsl" not in content:
            raise ValueError(f"expected the keys parsl, {', '.join(LIMITS)}, got {', '.join(map(str, content))}")
        return _build(content["parsl"], "parsl"), {key: content.get(key) for key in LIMITS}
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise UserError(f"{engine}: {error}; configs/engines has examples") from error


def _build(node: Any, where: str) -> Any:
    """Makes objects of mappings with a ``class_path``; not with jsonargparse, as Parsl does not type its launchers."""
    if isinstance(node, list):
        return [_build(item, f"{where}[{n}]") for n, item in enumerate(node)]
    if not isinstance(node, dict) or "class_path" not in node:
        return node
    arguments = {key: _build(value, f"{where}.{key}") for key, value in (node.get("init_args") or {}).items()}
    try:
        return import_object(node["class_path"])(**arguments)
    except Exception as error:  # typeguard's, an import's, whatever a constructor raises
        raise ValueError(f"{where}: {node['class_path']} cannot be made: {error}") from error


def _this_machine(threads: int, accelerated: bool) -> Any:
    from parsl.config import Config
    from parsl.executors import HighThroughputExecutor
    from parsl.providers import LocalProvider

    executor = HighThroughputExecutor(
        label="local",
        address="127.0.0.1",
        cores_per_worker=threads,
        mem_per_worker=GIB_PER_WORKER,
        max_workers_per_node=max(1, len(os.sched_getaffinity(0)) // threads),
        available_accelerators=_accelerators() if accelerated else 0,
        provider=LocalProvider(),  # type: ignore[no-untyped-call]
    )
    return Config(executors=[executor])


def _accelerators() -> int:
    """Returns the number of NVIDIA devices, without importing torch."""
    import pynvml

    try:
        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return 0


def _adapt(executor: Any, threads: int, longest: float, engine: Path | None) -> None:
    """Sets what every engine needs and no user should have to know."""
    from parsl.executors import HighThroughputExecutor
    from parsl.executors.high_throughput.executor import DEFAULT_LAUNCH_CMD
    from parsl.jobs.error_handlers import windowed_error_handler

    if not isinstance(executor, HighThroughputExecutor):
        raise UserError(
            f"{engine}: expected executors of class parsl.executors.HighThroughputExecutor, whose workers are "
            f"processes that train on their main thread, got {type(executor).__name__}"
        )
    launch = [sys.executable, "-m", "tlkit.study.launch"]
    executor.interchange_launch_cmd = [*launch, "interchange"]
    if executor.launch_cmd == DEFAULT_LAUNCH_CMD:
        executor.launch_cmd = DEFAULT_LAUNCH_CMD.replace("process_worker_pool.py", shlex.join([*launch, "pool"]))
    executor.heartbeat_period = min(executor.heartbeat_period, HEARTBEAT)
    executor.heartbeat_threshold = min(executor.heartbeat_threshold, THRESHOLD)
    executor.cores_per_worker = max(executor.cores_per_worker, threads)
    executor.block_error_handler = windowed_error_handler  # one pool that dies is replaced, three in a row are not
    walltime = getattr(executor.provider, "walltime", None)
    if walltime and longest and executor.drain_period is None:
        executor.drain_period = _drain_period(str(walltime), longest)


def _drain_period(walltime: str, longest: float) -> int | None:
    """Returns after how many seconds a pilot job takes no further stage, so that none is cut off.

    A stage that no job is long enough for is cut off and goes on in the next: then there is nothing to wait for.
    """
    hours, minutes, seconds = (int(part) for part in walltime.split(":"))
    period = 3600 * hours + 60 * minutes + seconds - MARGIN - round(longest)
    return period if period > 0 else None
