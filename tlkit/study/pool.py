"""Workers for the stages of a study: Parsl's, as a YAML describes them, or this process."""

import logging
import math
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import zmq

from tlkit.errors import UserError
from tlkit.study.engine_file import DEFAULTS, read, this_machine
from tlkit.study.jobs import leave_time, replace_or_give_up
from tlkit.study.worker import Done, Task, work, work_in_pool

# Seconds. A pool looks after its workers every HEARTBEAT; on this machine one whose interchange is gone ends THRESHOLD
# later, and then takes up to 3 s to end its workers. Pilot jobs, which may wait for days, follow the engine's YAML.
HEARTBEAT, THRESHOLD = 2, 10
ANSWER = 30  # that the interchange has for a question
PROMPT = 0.5  # Parsl starts workers so much later than it is asked to; a scheduler is not to be bothered so often

_GONE = "Parsl's interchange has ended or does not answer; its log is in {}. Start the study again to go on"


@dataclass
class Pool:
    """Where stages are carried out.

    Attributes:
        submit: hands a stage out; the future fails only if its worker, not the stage, went wrong.
        running: returns how many stages are being carried out.
        check: raises `UserError` if the workers can do nothing any more.
        slots: stages that may be handed out at once.
        tried: returns what was started, for messages.
        learn: is told how long a stage took, s.
    """

    submit: Callable[[Task], "Future[Done]"]
    running: Callable[[], int]
    check: Callable[[], None]
    slots: float
    tried: Callable[[], str]
    learn: Callable[[float], None] = lambda seconds: None


@contextmanager
def inline() -> Iterator[Pool]:
    """Carries stages out one after the other in this process."""

    def submit(task: Task) -> "Future[Done]":
        future: Future[Done] = Future()
        future.set_result(work(task))
        return future

    yield Pool(submit, lambda: 1, lambda: None, 1, lambda: "this process")


@contextmanager
def parsl_pool(
    engine: Path | None,
    threads: int,
    accelerated: bool,
    expected: Collection[float],
    scratch: Path,
    workers: int | None = None,
    work: Callable[[Task], Done] = work_in_pool,
) -> Iterator[Pool]:
    """Starts Parsl and stops it.

    Args:
        engine: YAML, see `engine_file`; None: this machine, with as many workers as fit.
        threads: per worker.
        accelerated: whether some stage may use an accelerator.
        expected: seconds that the stages are expected to take, as far as it is known.
        scratch: directory for Parsl's logs and scripts; removed when all went well.
        workers: exactly so many; None: as many as the engine says, or as fit.
        work: what a worker does with a task.

    Raises:
        UserError: the engine cannot start; says what was tried.
    """
    from parsl.providers import LocalProvider

    config, limits = read(engine) if engine else (this_machine(accelerated), DEFAULTS)
    for executor in config.executors:
        _adapt(executor, threads, expected, engine)
    if workers:
        _exactly(workers, config.executors, engine)
    config.run_dir, config.initialize_logging, config.retries = str(scratch), False, 0
    if all(isinstance(executor.provider, LocalProvider) for executor in config.executors):
        config.strategy_period = min(config.strategy_period, PROMPT)
    with _logged(scratch), _kernel(config, engine) as kernel:
        yield _pool(kernel, config.executors, limits, scratch, work)
    shutil.rmtree(scratch, ignore_errors=True)


def _pool(
    kernel: Any, executors: Collection[Any], limits: dict[str, Any], scratch: Path, work: Callable[[Task], Done]
) -> Pool:
    import parsl

    app = parsl.python_app(work, data_flow_kernel=kernel)
    needs = ", ".join(f"{e.cores_per_worker} cores and {e.mem_per_worker} GiB of free memory" for e in executors)

    def managers() -> list[dict[str, Any]]:
        try:
            return [manager for executor in executors for manager in executor.connected_managers()]
        except zmq.ZMQError:
            raise UserError(_GONE.format(scratch)) from None

    def check() -> None:
        if any(executor.interchange_proc.poll() is not None for executor in executors):
            raise UserError(_GONE.format(scratch))
        if (nodes := managers()) and not any(node["worker_count"] for node in nodes):
            raise UserError(
                f"expected room for a worker, got none: each takes {needs}; set cores_per_worker (the study's threads "
                "raise it) or mem_per_worker to less, in an engine of your own: configs/engines/local.yaml"
            )

    def running() -> int:
        return sum(node["tasks"] for node in managers())

    def learn(seconds: float) -> None:
        for executor in executors:
            leave_time(executor, (seconds,))

    def submit(task: Task) -> "Future[Done]":
        future: Future[Done] = app(replace(task, **limits))
        return future

    return Pool(submit, running, check, float("inf"), lambda: _tried(executors), learn)


def _tried(executors: Collection[Any]) -> str:
    return "\n".join(f"  {' '.join(repr(one.provider).split())}\n  {one.launch_cmd}" for one in executors)


@contextmanager
def _logged(scratch: Path) -> Iterator[None]:
    """Keeps Parsl's tracebacks of lost workers, which are no fault of the study, off the terminal."""
    scratch.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(scratch / "parsl.log")
    handler.setLevel(logging.WARNING)
    logging.getLogger("parsl").addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger("parsl").removeHandler(handler)
        handler.close()


@contextmanager
def _kernel(config: Any, engine: Path | None) -> Iterator[Any]:
    """Starts Parsl and stops it."""
    from parsl.dataflow.dflow import DataFlowKernel

    try:
        kernel = DataFlowKernel(config)
    except Exception as error:  # whatever a provider raises
        raise UserError(
            f"the engine {engine or 'for this machine'} does not start: {error}; tried:\n{_tried(config.executors)}"
        ) from error
    try:
        for executor in config.executors:
            _limit_answers(executor)
        yield kernel
    finally:
        _stop(kernel, config.executors)


def _limit_answers(executor: Any) -> None:
    """Parsl waits for ever for the answer of an interchange that was killed."""
    client = executor.command_client
    with client._lock:
        client.zmq_socket.setsockopt(zmq.RCVTIMEO, 1000 * ANSWER)
        client.zmq_socket.setsockopt(zmq.SNDTIMEO, 1000 * ANSWER)


def _stop(kernel: Any, executors: Collection[Any]) -> None:
    for executor in executors:
        if executor.interchange_proc.poll() is not None and not executor.bad_state_is_set:
            # else Parsl would ask the interchange which jobs are idle
            executor.set_bad_state_and_fail_all(RuntimeError("the interchange has ended"))
        if executor.bad_state_is_set:
            executor.provider.cancel(list(executor.job_ids_to_block))  # which Parsl then leaves as they are
    kernel.cleanup()


def _adapt(executor: Any, threads: int, expected: Collection[float], engine: Path | None) -> None:
    """Sets what every engine needs and no user should have to know."""
    from parsl.executors import HighThroughputExecutor
    from parsl.executors.high_throughput.executor import DEFAULT_LAUNCH_CMD
    from parsl.providers import LocalProvider

    if not isinstance(executor, HighThroughputExecutor):
        raise UserError(
            f"{engine}: expected executors of class parsl.executors.HighThroughputExecutor, whose workers are "
            f"processes that train on their main thread, got {type(executor).__name__}"
        )
    launch = [sys.executable, "-m", "tlkit.study.launch"]
    executor.interchange_launch_cmd = [*launch, "interchange", str(os.getpid())]
    if executor.launch_cmd == DEFAULT_LAUNCH_CMD:
        executor.launch_cmd = DEFAULT_LAUNCH_CMD.replace("process_worker_pool.py", shlex.join([*launch, "pool"]))
    executor.heartbeat_period = min(executor.heartbeat_period, HEARTBEAT)
    executor.cores_per_worker = max(executor.cores_per_worker, threads)
    executor.block_error_handler = replace_or_give_up
    if isinstance(executor.provider, LocalProvider):
        cores = len(os.sched_getaffinity(0))  # Parsl would count all of the machine
        executor.heartbeat_threshold = min(executor.heartbeat_threshold, THRESHOLD)
        executor.address_probe_timeout = executor.heartbeat_threshold
        executor.cores_per_worker = min(executor.cores_per_worker, cores)  # more threads than cores: one worker
        executor.provider.worker_init += f"\nexport PARSL_CORES={cores}"
    try:
        leave_time(executor, expected)
    except ValueError:
        got = getattr(executor.provider, "walltime", None)
        raise UserError(f"{engine}: walltime: expected HH:MM:SS, got {got}") from None


def _exactly(workers: int, executors: list[Any], engine: Path | None) -> None:
    """Sets the number of workers, whatever cores and memory there are: in one job, of as many nodes as they take."""
    executor, *others = executors
    most = executor.max_workers_per_node if engine else workers
    nodes = max(1, math.ceil(workers / most))
    if others or workers % nodes:
        raise UserError(
            f"{engine}: expected one executor with a max_workers_per_node that {workers} workers can be spread over "
            f"nodes by evenly, got {len(executors)} with {most}"
        )
    executor.max_workers_per_node = each = workers // nodes
    executor.cores_per_worker, executor.mem_per_worker = 1e-9, None
    devices = executor.available_accelerators
    executor.available_accelerators = [devices[n % len(devices)] for n in range(each)] if devices else []
    provider = executor.provider
    provider.nodes_per_block, provider.init_blocks, provider.min_blocks, provider.max_blocks = nodes, 1, 1, 1
