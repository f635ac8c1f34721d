"""Batches of views: of resident images, on their device; or of streamed ones, cropped by workers.

What a step sees is a function of (seed, epoch, step): a resumed run meets the batches that it would have met, and
the number of workers changes nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from relatum.core.randomness import generator_of
from relatum.core.types import Batch
from relatum.data.images import Images, ResidentImages, StreamedImages
from relatum.data.pairing import shard
from relatum.data.views import View

SHARE = 0.5  # of the free GPU memory that resident images may take; the rest is for the network


class Draw(NamedTuple):
    """A worker's task: the crops of one image, for one row of a batch.

    Attributes:
        sample: number of the image.
        epoch, step, row: where the batch stands in training, and the row in the batch.
        place: where the image stands in the row, counted over all ranks.
    """

    sample: int
    epoch: int
    step: int
    row: int
    place: int


@dataclass(frozen=True)
class Crops(Dataset[tuple[Tensor, ...]]):
    """What runs in the workers: decodes an image and crops it once for each of its views.

    Attributes:
        images: where from.
        views: what makes each view of an image, in their order.
        seed: of all draws.
    """

    images: StreamedImages
    views: tuple[View, ...]
    seed: int

    def __getitem__(self, draw: Draw) -> tuple[UInt8[Tensor, "_v c _s _s"], ...]:
        """The crops, those of one size together: views of one size are neighbors."""
        picture = self.images.picture(draw.sample)
        groups = []
        for _, group in groupby(enumerate(self.views, draw.row * len(self.views)), key=lambda pair: pair[1].size):
            generators = ((view, generator_of(self.seed, draw.epoch, draw.step, draw.place, v)) for v, view in group)
            groups.append(torch.stack([view.crop_image(picture, generator) for view, generator in generators]))
        return tuple(groups)


@dataclass
class Plan:
    """The tasks of an epoch's remaining steps, one list for each batch. Set anew while the workers live on."""

    samples: Int[Tensor, "steps rows n"]
    epoch: int = 0
    first_step: int = 0
    first_place: int = 0

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[list[Draw]]:
        for step, rows in enumerate(self.samples.tolist(), self.first_step):
            yield [
                Draw(sample, self.epoch, step, row, place)
                for row, samples in enumerate(rows)
                for place, sample in enumerate(samples, self.first_place)
            ]


class Loader:
    """The batches of every epoch, on a device.

    View k of row r of a batch has the number `v = r * views_per_image + k`; the views of an image are drawn one
    independent of the other.
    Resident images draw all of a view from `seed_of(seed, epoch, step, rank, v)`. Streamed images draw the crop
    of the image at place p of the batch of all ranks from `seed_of(seed, epoch, step, p, v)`, and the rest as
    resident ones do.

    Args:
        images: the training set. A resident one moves to a CUDA device if it takes at most half of the free memory.
        indices: epoch -> sample numbers "steps rows n" of the whole epoch, all ranks together; the same number of
            steps in each epoch.
        view: what is made of an image; `view.of` makes each of its views.
        mean, std: the source's, per channel, in [0, 1].
        views_per_image: views of each image, small crops among them.
        seed: what all draws depend on.
        device: where the views are made.
        dtype: the type of the views.
        rank, world_size: this process's part of each batch; `world_size` divides n.
        workers: processes that decode and crop streamed images; 0 does so in this one.
        compile: compile what is made of the images on the device.

    Raises:
        ValueError: `views_per_image`, `workers` or the ranks are out of range, or n is no multiple of `world_size`.
    """

    def __init__(
        self,
        images: Images,
        indices: Callable[[int], Int[Tensor, "steps rows n"]],
        view: View,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        views_per_image: int = 1,
        seed: int,
        device: torch.device | str,
        dtype: torch.dtype = torch.float32,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        compile: bool = False,
    ) -> None:
        if views_per_image < 1 or workers < 0:
            raise ValueError(f"views_per_image={views_per_image} must be at least 1, and workers={workers} at least 0")
        self.device = torch.device(device)
        self.images, self.labels = _placed(images, self.device), images.labels.to(device)
        views = tuple(view.of(number) for number in range(views_per_image))
        compiled = {one: one.compiled() for one in dict.fromkeys(views)} if compile else {}
        self.views = tuple(compiled.get(one, one) for one in views)
        self.small = max(0, views_per_image - view.large_crops)
        self.mean, self.std, self.dtype = tuple(mean), tuple(std), dtype
        self.views_per_image, self.seed, self.rank = views_per_image, seed, rank
        self._part = lambda epoch: shard(indices(epoch), rank, world_size)
        self._plan = Plan(self._part(0))
        self.steps_per_epoch = len(self._plan)
        if isinstance(images, StreamedImages):
            crops = Crops(images, views, seed)
            self._crops = _worker_pool(crops, self._plan, workers, self.device, persistent=True)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from step `first_step` on: where a run stopped within an epoch, it goes on.

        One epoch at a time: the workers serve the last one that was asked for.

        Raises:
            BadImage: a streamed image cannot be decoded.
        """
        part = self._part(epoch)[first_step:]
        rows, n = part.shape[1:]
        if isinstance(self.images, ResidentImages):
            makers: Sequence[Callable[..., Tensor]] = self.views
            pixels = self._resident(part)
        else:
            self._plan.samples, self._plan.epoch = part, epoch
            self._plan.first_step, self._plan.first_place = first_step, self.rank * n
            makers = [view.finish_crops for view in self.views]
            pixels = (_by_row_and_view(groups, rows) for groups in _hinted(self._crops))
        for step, (index, raw) in enumerate(zip(part.to(self.device), pixels), first_step):
            views = []
            for v in range(rows * self.views_per_image):
                generator = generator_of(self.seed, epoch, step, self.rank, v, device=self.device)
                row, number = divmod(v, self.views_per_image)
                images = raw[row][number].to(self.device, non_blocking=True)
                views.append(makers[number](images, self.mean, self.std, generator, self.dtype))
            index = index.repeat_interleave(self.views_per_image, 0)
            yield Batch(tuple(views), self.labels[index], index, self.small if rows == 1 else 0)

    def _resident(self, part: Int[Tensor, "steps rows n"]) -> Iterator[list[list[Tensor]]]:
        """For each step: by row, by view of an image, the images "n c h w"."""
        assert isinstance(self.images, ResidentImages)
        pixels = self.images.images
        for index in part.to(pixels.device):
            yield [[images] * self.views_per_image for images in pixels[index]]


def evaluation_batches(
    images: Images,
    view: View,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int,
    device: torch.device | str,
    dtype: torch.dtype = torch.float32,
    workers: int = 0,
) -> Iterator[tuple[Float[Tensor, "n c s s"], Int[Tensor, " n"]]]:
    """All images in their order, and their labels; the last batch may be smaller.

    Args:
        images: training or test images.
        view: the evaluation view; a random one draws the same each time.
        mean, std: those of the training set, also for test images.
        batch_size: images in a batch, at least 1.
        device, dtype, workers: as for `Loader`.

    Raises:
        ValueError: `batch_size` is not positive.
        BadImage: a streamed image cannot be decoded.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1")
    device = torch.device(device)
    batches = torch.arange(len(images)).split(batch_size)
    if isinstance(images, ResidentImages):
        make: Callable[..., Tensor] = view
        pixels = iter(images.images.split(batch_size))
    else:
        tasks = [[Draw(i, 0, 0, 0, i) for i in batch.tolist()] for batch in batches]
        loaded = _worker_pool(Crops(images, (view,), 0), tasks, workers, device, persistent=False)
        make = view.finish_crops
        pixels = (crops.squeeze(1) for (crops,) in _hinted(loaded))
    for step, (batch, raw) in enumerate(zip(batches, pixels)):
        generator = generator_of(0, 0, step, 0, 0, device=device)
        yield make(raw.to(device), mean, std, generator, dtype), images.labels[batch].to(device)


def _placed(images: Images, device: torch.device) -> Images:
    """Resident images on `device` where they leave it enough room; all others where they are."""
    if isinstance(images, StreamedImages) or device.type != "cuda":
        return images
    free, _ = torch.cuda.mem_get_info(device)
    return replace(images, images=images.images.to(device)) if images.images.nbytes <= SHARE * free else images


def _by_row_and_view(groups: Sequence[Tensor], rows: int) -> list[list[Tensor]]:
    """The crops of a batch "n c s s" by row, and by view of an image, from those of each size "(rows n) v c s s"."""
    parts = [group.unflatten(0, (rows, -1)).transpose(1, 2) for group in groups]
    return [[view for part in parts for view in part[row]] for row in range(rows)]


def _hinted(loaded: Iterable[Any]) -> Iterator[Any]:
    """What workers return. Where they die, mostly of too little shared memory, the remedy is said."""
    try:
        yield from loaded
    except RuntimeError as error:
        if not any(sign in str(error) for sign in ("shared memory", "DataLoader worker", "/torch_", "No space left")):
            raise
        raise RuntimeError(
            f"the workers that decode images stopped, as they do where /dev/shm is too small for batches: enlarge "
            f"it (docker: --shm-size 2g), or load in the training process with `--data.workers 0` ({error})"
        ) from error


def _worker_pool(
    crops: Crops, tasks: Iterable[list[Draw]], workers: int, device: torch.device, *, persistent: bool
) -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(
        crops,
        batch_sampler=tasks,
        num_workers=workers,
        persistent_workers=persistent and workers > 0,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # its own: the loader would draw a seed from the global state
    )
