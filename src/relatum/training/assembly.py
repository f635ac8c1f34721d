"""What a run is put together from: images, method, optimizer, loader, and what its checkpoints must agree on."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from torch import Tensor, nn

from relatum.core.distributed import wait_for_all
from relatum.core.types import Batch
from relatum.data.loading import Loader
from relatum.measurement.measurer import Measurer
from relatum.methods import Method
from relatum.networks.backbones import Backbone, share_batch_statistics
from relatum.networks.export import checksum, describe, load_encoder
from relatum.networks.memory import Frozen
from relatum.networks.teachers import TIMM
from relatum.recipes import building, trial
from relatum.recipes.building import NOTHING, Given, Prepared
from relatum.recipes.recipe import Recipe
from relatum.recipes.trained import weights_file
from relatum.reports.records import read_record
from relatum.training.collapse import alarm
from relatum.training.online import Online
from relatum.training.optimizers import build_optimizer

log = logging.getLogger(__name__)


class Learner(nn.Module):
    """A method whose `forward` is its losses: what a distributed strategy can wrap."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        return self.method.losses(batch)


@dataclass(frozen=True)
class Assembled:
    """All parts of a run in one process.

    Attributes:
        recipe: what says so.
        fabric: the processes, the device and the precision.
        prepared: the images.
        loader: this process's part of each batch.
        method: on its device, with fresh weights.
        optimizer: the optimizer of the method's parameters.
        measurer: what measures the method's backbone.
        teacher: what tells the teacher from others; None without one.
        online: the probe that learns beside the method; None without one.
    """

    recipe: Recipe
    fabric: Fabric
    prepared: Prepared
    loader: Loader
    method: Method
    optimizer: torch.optim.Optimizer
    measurer: Measurer
    teacher: dict[str, Any] | None
    online: Online | None = None

    @property
    def first(self) -> bool:
        """Whether this process writes."""
        return self.fabric.global_rank == 0

    def collapse(self, history: Sequence[Mapping[str, float]]) -> str:
        """The notice of a collapse that the epochs show; "" for none, and for methods that learn from classes."""
        return "" if self.method.needs_labels else alarm(history)

    @property
    def encoder(self) -> dict[str, Any]:
        """What `describe` needs beside the backbone."""
        source, classes = self.prepared.source, self.method.backbone.num_classes
        return {
            "mean": source.mean,
            "std": source.std,
            "size": self.recipe.data.view.size,
            "classes": source.classes if classes else None,
        }

    @property
    def facts(self) -> Mapping[str, Any]:
        """What a checkpoint says beside weights and progress, in plain types."""
        info = asdict(describe(self.method.backbone, **self.encoder))
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in info.items()}
        return {"teacher": self.teacher, "encoder": plain}


def assemble(fabric: Fabric, recipe: Recipe, given: Given = NOTHING) -> Assembled:
    """Load the images and make everything that trains, or refuse before any work is lost.

    Args:
        fabric: the processes, the device and the precision.
        recipe: what is trained.
        given: objects in the place of what the recipe names.

    Raises:
        FileNotFoundError, ValueError: for data, a teacher or settings that cannot be trained on.
    """
    device = fabric.device
    if recipe.train.sync_batchnorm:
        _refuse_shared_statistics_without_gpu(device)
    prepared = _prepare_in_turns(fabric, recipe, given)
    loader = building.build_loader(recipe, prepared, device, rank=fabric.global_rank, world_size=fabric.world_size)
    method = building.build(recipe, prepared)
    if recipe.train.sync_batchnorm:
        method = share_batch_statistics(method)
    teacher = next((part.network for part in method.modules() if isinstance(part, Frozen)), None)
    method = method.to(device).to(memory_format=torch.channels_last)
    if recipe.train.chunk:
        _encode_in_chunks(method, recipe)
    if recipe.train.compile:
        _compile(method)
    optimizer = build_optimizer(method, recipe.optim)
    measurer = building.measurer_of(
        recipe, prepared, device, fabric.autocast, staged=bool(method.backbone.stage_channels)
    )
    online = Online.of(recipe, prepared, method.backbone, device) if recipe.evaluation.online else None
    told = teacher_of(recipe, teacher)
    return Assembled(recipe, fabric, prepared, loader, method, optimizer, measurer, told, online)


def teacher_of(recipe: Recipe, network: nn.Module | None) -> dict[str, Any] | None:
    """What tells the teacher of a recipe from any other: path, sha256 of its file, classes, and its top-1 accuracy.

    The accuracy is that of its Record, in percent; None for a file without one, and for timm's. None for a recipe
    without a teacher.

    Args:
        recipe: names the teacher.
        network: the teacher; of timm's, the hash is that of its weights.
    """
    path = getattr(recipe.method, "teacher", "")
    if not path:
        return None
    if path.startswith(TIMM):
        assert network is not None
        state = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
        return {"path": path, "sha256": checksum(path, state), "classes": None, "accuracy": None}
    file = weights_file(path)
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    _, info = load_encoder(file)
    record = Path(path) / "record.json"
    accuracy = read_record(record).metrics.get("top1") if record.is_file() else None
    classes = list(info.classes) if info.classes else None
    return {"path": path, "sha256": digest, "classes": classes, "accuracy": accuracy}


def _prepare_in_turns(fabric: Fabric, recipe: Recipe, given: Given) -> Prepared:
    """The images: the first process of each machine downloads them, the others find them."""
    check = trial.of(recipe, partial(_refuse_chunks, recipe), given)
    if fabric.local_rank == 0:
        prepared = building.prepare(recipe, check, given)
        wait_for_all()
        return prepared
    wait_for_all()
    return building.prepare(recipe, check, given)


def _refuse_shared_statistics_without_gpu(device: torch.device) -> None:
    if device.type == "cpu":
        raise ValueError(
            "sync_batchnorm was asked for on the CPU, and torch shares batch statistics among GPUs only. "
            "Leave --train.sync-batchnorm out, or train with --train.accelerator cuda."
        )


def _encode_in_chunks(method: Method, recipe: Recipe) -> None:
    """Let the backbone encode in chunks, if the user knows what that changes."""
    if changes := _refuse_chunks(recipe, method):
        log.warning("%s.", changes)
    method.backbone.chunk = recipe.train.chunk


def _refuse_chunks(recipe: Recipe, method: Method) -> str:
    """What chunks change, "" for nothing; a ValueError where that was not asked for."""
    size = recipe.train.chunk
    if not size or not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in method.backbone.modules()):
        return ""
    changes = (
        f"{recipe.model.name} has batch normalization: in chunks of {size} its statistics are those of each chunk, "
        "and its running statistics move twice a step. This is another computation than that of the whole batch"
    )
    if not recipe.train.chunk_batchnorm:
        raise ValueError(f"{changes}. Ask for it with --train.chunk-batchnorm, or leave --train.chunk out.")
    return changes


def _compile(method: Method) -> None:
    """Compile every backbone when it is first called: the student's, its momentum copy's, a peer's, a teacher's."""
    for module in method.modules():
        network = module.network if isinstance(module, Frozen) else module
        if isinstance(network, Backbone):
            network.compile()
