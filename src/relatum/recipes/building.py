"""What a recipe makes of data and methods: its images, its batches, its method, its Measurer."""

import logging
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from relatum.core.randomness import seed_of
from relatum.data import pairing, sources
from relatum.data.images import Images, check_labels, first, split
from relatum.data.loading import Loader
from relatum.data.sources import Source
from relatum.measurement.measurer import SPLIT_SEED, Measurer, Precision
from relatum.methods import METHODS, Method
from relatum.networks.backbones import Backbone
from relatum.networks.export import load_encoder
from relatum.recipes.options import build_method
from relatum.recipes.recipe import Recipe

log = logging.getLogger(__name__)


class Prepared(NamedTuple):
    """The images of a recipe.

    Attributes:
        source: the data set.
        train: the images that training sees.
        held_out: the part of the training images that it does not see; None where nothing is held out.
    """

    source: Source
    train: Images
    held_out: Images | None

    @property
    def labeled(self) -> bool:
        """Whether all training images have a class."""
        return bool((self.train.labels >= 0).all())


def prepare(recipe: Recipe) -> Prepared:
    """Load, cut and split the images, and refuse what the recipe cannot be trained on before any work is lost.

    Raises:
        FileNotFoundError, ValueError: as `sources.load`; labels that the method needs and the data lacks; more
            neighbors than images.
    """
    data = recipe.data
    source = sources.load(
        data.source, root=data.root, on_bad_image=data.on_bad_image, resident=data.resident, labels=data.labels
    )
    images = source.train
    if data.train_images is not None:
        images = first(images, data.train_images, seed=SPLIT_SEED)
    held_out = None
    if data.validation > 0:
        images, held_out = split(images, data.validation, seed=SPLIT_SEED)
    prepared = Prepared(source, images, held_out)
    if METHODS[recipe.method.name].needs_labels:
        check_labels(images.labels, len(source.classes))
    if getattr(data.view, "crop", "") == "pad" and source.size != data.view.size:
        raise ValueError(
            f"the view cuts windows of {data.view.size} pixels out of images of {source.size or 'many'} pixels, and "
            f"evaluation would show whole images: choose --data.view.size {source.size or '224'}, or "
            "--data.view.crop resized to scale the images."
        )
    neighbors = recipe.evaluation.knn.k
    if prepared.labeled and neighbors > len(images):
        raise ValueError(
            f"k-NN with k={neighbors} needs as many images, and training has {len(images)}; "
            f"choose --evaluation.knn.k of at most {len(images)}."
        )
    if source.size is None and recipe.data.resident != "no":
        log.info("%s holds images of different sizes: they are cropped as they are streamed", source.name)
    return prepared


def batches_of(recipe: Recipe, labels: Int[Tensor, " n"]) -> Callable[[int], Int[Tensor, "steps rows m"]]:
    """The batches of each epoch, as the method eats them: a function of the epoch."""
    data, seed = recipe.data, recipe.train.seed
    match METHODS[recipe.method.name].pairing:
        case "triples":
            return lambda epoch: pairing.triples(
                labels, batch_size=data.batch_size, seed=seed, epoch=epoch, mode=data.triples
            )
        case "same-class-pairs":
            return lambda epoch: pairing.same_class_pairs(labels, batch_size=data.batch_size, seed=seed, epoch=epoch)
        case _ if data.images_per_class:
            return lambda epoch: pairing.class_balanced(
                labels, batch_size=data.batch_size, per_class=data.images_per_class, seed=seed, epoch=epoch
            )
        case _:
            return lambda epoch: pairing.shuffled(len(labels), batch_size=data.batch_size, seed=seed, epoch=epoch)


def build_loader(
    recipe: Recipe, prepared: Prepared, device: torch.device, *, rank: int = 0, world_size: int = 1
) -> Loader:
    """The training batches of a recipe."""
    return Loader(
        prepared.train,
        batches_of(recipe, prepared.train.labels),
        recipe.data.view,
        mean=prepared.source.mean,
        std=prepared.source.std,
        copies=2 if METHODS[recipe.method.name].pairing == "two-views" else 1,
        seed=recipe.train.seed,
        device=device,
        rank=rank,
        world_size=world_size,
        workers=recipe.data.workers,
        compile=recipe.train.compile,
    )


def build(recipe: Recipe, prepared: Prepared) -> Method:
    """The method with fresh weights, a function of the recipe's seed.

    Raises:
        ValueError: for a teacher or initial weights that do not fit.
    """
    torch.manual_seed(seed_of(recipe.train.seed))
    source, model = prepared.source, recipe.model
    backbone = Backbone(
        model.name,
        stem=model.stem,
        num_classes=len(source.classes) if METHODS[recipe.method.name].classifies else 0,
        in_channels=len(source.mean),
        pretrained=model.pretrained,
    )
    if model.initial:
        _start_from(backbone, encoder_of(model.initial))
    return build_method(
        recipe.method,
        backbone,
        num_samples=len(prepared.train),
        load_teacher=lambda path: load_teacher(path, source, recipe.data.view.size),
    )


def encoder_of(path: str) -> Path:
    """The weights that a run folder, or the path of a file, names."""
    return Path(path) / "encoder.safetensors" if Path(path).is_dir() else Path(path)


def load_teacher(path: str, source: Source, size: int) -> Backbone:
    """The trained classifier of a run folder, checked against the data that its student will see.

    Raises:
        FileNotFoundError, ValueError: where there is none, or it was made for other classes, normalization or size.
    """
    teacher, info = load_encoder(encoder_of(path))
    expected = (len(source.classes), tuple(source.mean), tuple(source.std), size)
    found = (info.num_classes, info.mean, info.std, info.size)
    for what, a, b in zip(("classes", "mean", "std", "size"), found, expected):
        same = torch.allclose(torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64), atol=1e-4)
        if not same:
            raise ValueError(
                f"the teacher {path} was trained with {what} {a}, and its student is to be trained with {b}: it would "
                "see other images than it knows. Train the teacher on the same data, or the student as the teacher was."
            )
    return teacher


def _start_from(backbone: Backbone, path: Path) -> None:
    """Copy all weights but the classifier's from a file of an encoder of the same architecture."""
    donor, info = load_encoder(path)
    if (info.architecture, info.stem) != (backbone.name, backbone.stem):
        raise ValueError(
            f"{path} holds {info.architecture} with stem {info.stem}; expected {backbone.name} with {backbone.stem}. "
            "Choose --model.name and --model.stem to fit."
        )
    own = backbone.model.state_dict()
    kept = {k: v for k, v in donor.model.state_dict().items() if k in own and own[k].shape == v.shape}
    missing, _ = backbone.model.load_state_dict(kept, strict=False)
    log.info("started from %s; fresh: %s", path, ", ".join(missing) or "nothing")


def measurer_of(
    recipe: Recipe, prepared: Prepared, device: torch.device, precision: Precision = nullcontext
) -> Measurer:
    """What measures the encoders of a recipe.

    Args:
        recipe: says what is measured, and how.
        prepared: its images.
        device: where the encoder is.
        precision: makes the context in which the encoder runs, as in training.
    """
    data, evaluation = recipe.data, recipe.evaluation
    return Measurer(
        source=prepared.source,
        train=prepared.train,
        held_out=prepared.held_out,
        size=data.view.size,
        view=data.view,
        two_views=METHODS[recipe.method.name].pairing == "two-views",
        device=device,
        precision=precision,
        batch_size=evaluation.batch_size,
        workers=data.workers,
        knn=evaluation.knn,
        linear=evaluation.linear,
        also=frozenset(n for n in ("baselines", "linear_augmented", "stages") if getattr(evaluation, n)),
        untrained=lambda: build(recipe, prepared).backbone,
    )
