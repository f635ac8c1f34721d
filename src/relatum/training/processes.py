"""The processes of a run: this one alone, several that it starts, or those that torchrun or srun have started."""

import ctypes
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import psutil
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning_fabric.strategies import DDPStrategy
from torch import nn
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException
from torch.nn.parallel import DistributedDataParallel

from relatum.core.statuses import ProcessLostError
from relatum.networks.memory import agreed_buffers
from relatum.networks.wrapping import Wrapped
from relatum.recipes.recipe import Recipe
from relatum.training.hardware import precision_of

log = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1  # of Linux's prctl
WATCH = 0.5  # seconds between two looks at whether the parent lives
GRACE = 2.0  # seconds that a child has to end before it is killed


def started_from_outside() -> bool:
    """Whether torchrun or srun has started this process as one of several."""
    return _environment().creates_processes_externally


def launch(recipe: Recipe, work: Callable[..., None], *args: Any) -> None:
    """Run `work(fabric, *args)` in every process of the recipe.

    Processes that are started here end with this one, however it ends: SIGINT and SIGTERM stop it, and them within
    seconds; should it be killed, they notice.

    Args:
        recipe: says how many processes, where, and in what precision.
        work: a function of a module.
        args: plain types.

    Raises:
        ValueError: for a GPU that is not there, or a number of processes that is not the recipe's.
        ProcessLostError: when a process that was started here was killed. What it raised itself is raised here.
    """
    fabric = _fabric(recipe)
    if recipe.train.devices == 1 or started_from_outside():
        fabric.launch(work, *args)
        return
    with _children_end_here(), tempfile.TemporaryDirectory() as folder:
        try:
            fabric.launch(cast(Any, _child), _Task(work, args), Path(folder))
        except ProcessRaisedException as raised:
            raise _carried(Path(folder), raised) from None
        except ProcessExitedException as exited:
            how = exited.signal_name or f"exit code {exited.exit_code}"
            raise ProcessLostError(
                f"process {exited.error_index + 1} of {recipe.train.devices} was ended by {how}, and the others with "
                "it (SIGKILL is often a lack of memory). Go on with --resume."
            ) from None


def _environment() -> ClusterEnvironment:
    """Who starts the processes. Lightning's own choice warns wherever `srun` is installed, and takes any Slurm job for
    one of several processes."""
    if TorchElasticEnvironment.detect() and int(os.environ["WORLD_SIZE"]) > 1:
        return TorchElasticEnvironment()
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:  # set by srun for its tasks, not by sbatch for its script
        return SLURMEnvironment()
    return LightningEnvironment()


class PhasesInParallel(DDPStrategy):
    """DistributedDataParallel for a `Learner`, of which some parameters may have no gradient: where its method trains
    in phases, and in a module of others, whose embedding need not come out of all of it. Queues and banks, which all
    processes write alike, are not sent in every step."""

    def setup_module(self, module: nn.Module) -> DistributedDataParallel:
        # Not for all methods: to find them it walks through the graph in each step.
        method = cast(Any, module).method
        self._ddp_kwargs["find_unused_parameters"] = method.trains_in_phases or isinstance(method.backbone, Wrapped)
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, agreed_buffers(module))
        return super().setup_module(module)


def _fabric(recipe: Recipe) -> Fabric:
    train, environment = recipe.train, _environment()
    if train.accelerator == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "train.accelerator is cuda, and torch finds no GPU here: choose --train.accelerator auto or cpu, or check "
            "the driver and that torch was installed with CUDA."
        )
    processes = train.devices * train.nodes
    strategy: Any = PhasesInParallel()
    if environment.creates_processes_externally:
        if environment.world_size() != processes:
            raise ValueError(
                f"{environment.world_size()} processes were started from outside (torchrun or srun), and the recipe "
                f"wants {processes}: --train.nodes {train.nodes} times --train.devices {train.devices}, the processes "
                "of a machine. Make them agree."
            )
    elif train.nodes > 1:
        raise ValueError(
            f"train.nodes is {train.nodes}, and one command starts the processes of one machine only: run it on each "
            f"machine by torchrun --nnodes {train.nodes} --nproc-per-node {train.devices} ... --no-python -- relatum "
            "train ... (without the two dashes torchrun takes --run for its own), or by srun."
        )
    else:
        strategy = "auto" if train.devices == 1 else PhasesInParallel(start_method="spawn")
    return Fabric(
        accelerator=train.accelerator,
        devices=train.devices,
        num_nodes=train.nodes,
        strategy=strategy,
        precision=precision_of(recipe),
        plugins=[environment],
    )


class _Task:
    """What a child does. It binds the process that it is unpickled in to the one that made it, before all else."""

    def __init__(self, work: Callable[..., None], args: tuple[Any, ...]) -> None:
        self.work, self.args, self.parent = work, args, os.getpid()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        threading.Thread(target=self._watch, daemon=True, name="relatum: watches its parent").start()

    def _watch(self) -> None:
        while os.getppid() == self.parent and psutil.pid_exists(self.parent):  # Windows never names another parent
            time.sleep(WATCH)
        os._exit(1)


def _child(fabric: Fabric, task: _Task, folder: Path) -> None:
    """A task in a process of its own. torch hands an error's text to the parent; this hands it the error."""
    try:
        task.work(fabric, *task.args)
    except Exception as error:
        (folder / str(fabric.global_rank)).write_bytes(_pickled(error))
        raise


def _pickled(error: Exception) -> bytes:
    try:
        data = pickle.dumps(error)
        pickle.loads(data)  # an exception with a constructor of its own can often be written only
        return data
    except Exception:
        return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))


def _carried(folder: Path, raised: ProcessRaisedException) -> Exception:
    """What the first process to fail has raised; or its text, where it failed before our code."""
    file = folder / str(raised.error_index)
    if not file.exists():
        return RuntimeError(str(raised).strip())
    error = pickle.loads(file.read_bytes())  # from a folder that only this user can write into
    log.debug("raised in process %d: %s", raised.error_index, raised)
    return error


@contextmanager
def _children_end_here() -> Iterator[None]:
    """No process that is started inside lives on after it. SIGTERM stops like SIGINT meanwhile."""
    before = set(multiprocessing.active_children())

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    ours = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGTERM, stop) if ours else None
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # until all have ended
        children = [child for child in multiprocessing.active_children() if child not in before]
        for child in children:
            child.terminate()
        deadline = time.monotonic() + GRACE
        for child in children:
            child.join(max(0.0, deadline - time.monotonic()))
            if child.is_alive():
                child.kill()
                child.join()
        if ours:
            signal.signal(signal.SIGTERM, handler)
