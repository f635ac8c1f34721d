"""What a recipe makes of data and methods: its images, its batches, its method, its Measurer."""

import copy
import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from relatum.core.distributed import rank
from relatum.core.randomness import seed_of
from relatum.data import pairing, sources
from relatum.data.images import Images, check_labels, first, split
from relatum.data.listing import Listing
from relatum.data.loading import Loader
from relatum.data.residency import common_shape
from relatum.data.sources import GIVEN, Source
from relatum.measurement.evaluators import EVALUATORS
from relatum.measurement.measurer import Measurer, PrecisionContext
from relatum.methods import METHODS, Method
from relatum.networks.backbones import Backbone, takes_size
from relatum.networks.export import is_encoder
from relatum.networks.registered import build_backbone
from relatum.recipes.options import build_method
from relatum.recipes.recipe import Recipe
from relatum.recipes.trained import load_teacher, start_from, weights_file

log = logging.getLogger(__name__)

SPLIT_SEED = 0  # the held-out part, and the fixed part of a set, are the same in all runs, whatever their seed


@dataclass(frozen=True)
class Given:
    """Objects in the place of what a recipe names.

    Attributes:
        source: the images; None for those of the recipe.
        backbone: what is trained, as it is at the start: a run trains a copy. None for that of the recipe.
    """

    source: Source | None = None
    backbone: Backbone | None = None

    def said_in(self, recipe: Recipe) -> Recipe:
        """The recipe with their names in the place of its own.

        Raises:
            ValueError: the recipe names initial weights for a backbone that has its own.
        """
        if self.source is not None:
            plain = self.source.name in ("tensors", "dataset")
            named = f"{GIVEN}{self.source.name}" if plain else self.source.name
            recipe = replace(recipe, data=replace(recipe.data, source=named))
        if self.backbone is None:
            return recipe
        if recipe.model.initial:
            raise ValueError(
                f"model.initial is {recipe.model.initial!r}, and the backbone was given with its weights; give it those"
                " with load_encoder(path, backbone), and leave model.initial out."
            )
        model = replace(
            recipe.model,
            name=self.backbone.name,
            stem=self.backbone.stem,
            patch_size=self.backbone.patch_size,
            pretrained=False,
        )
        return replace(recipe, model=model)


NOTHING = Given()


class Prepared(NamedTuple):
    """The images of a recipe.

    Attributes:
        source: the data set.
        train: the images that training sees.
        held_out: the part of the training images that it does not see; None where nothing is held out.
        batch_size: the recipe's, or as many images as there are; 0 for the recipe's.
        notices: what had to change for these images, in words.
        backbone: what is trained in the place of the recipe's; None for that.
    """

    source: Source
    train: Images
    held_out: Images | None
    batch_size: int = 0
    notices: tuple[str, ...] = ()
    backbone: Backbone | None = None

    @property
    def labeled(self) -> bool:
        """Whether all training images have a class."""
        return bool((self.train.labels >= 0).all())


def prepare(recipe: Recipe, check: Callable[[Listing], None] | None = None, given: Given = NOTHING) -> Prepared:
    """Load, cut and split the images, and refuse what the recipe cannot be trained on before any image is decoded.

    Args:
        recipe: says which images.
        check: what else is to be refused of the images as they are listed, such as `trial.of`.
        given: objects in the place of what the recipe names.

    Raises:
        FileNotFoundError, ValueError: as `sources.load`; labels that the method needs and the data lacks.
    """
    data = recipe.data

    def refuse(listing: Listing) -> None:
        size = common_shape(listing.parts, data.on_bad_image)
        train, held_out = cut(recipe, listing)
        _refuse(recipe, train.labels, held_out, listing.classes, _side(size))
        if check is not None:
            check(listing)

    if given.source is not None:
        source = given.source
        refuse(Listing(source.train, source.test, source.classes))
    else:
        source = sources.load(
            data.source,
            root=data.root,
            on_bad_image=data.on_bad_image,
            resident=data.resident,
            labels=data.labels,
            check=refuse,
        )
    images, held_out = cut(recipe, source)
    size = batch_size_for(recipe, images.labels)
    notices = []
    if size != data.batch_size:
        notices = [f"data.batch_size: {data.batch_size} was asked for, and {len(images)} training images give {size}."]
    if held_out is not None and not data.validation:
        notices.append(
            f"{source.name} has no test images: {len(held_out):,} of its {len(images) + len(held_out):,} are held out "
            "to measure by (--data.test-share 0 trains on all of them, and measures nothing that needs others)."
        )
    prepared = Prepared(source, images, held_out, size, tuple(notices), given.backbone)
    # Once more: bad images may have been left out, and sizes are known of all now.
    _refuse(recipe, images.labels, held_out, source.classes, source.size)
    if source.size is None and recipe.data.resident != "no":
        log.info("%s holds images of different sizes: they are cropped as they are streamed", source.name)
    return prepared


def cut(recipe: Recipe, found: Listing | Source) -> tuple[Images, Images | None]:
    """(the images that training sees, those of them that are held out): the same for listed and for decoded images.

    Raises:
        ValueError: there are too few.
    """
    data, images = recipe.data, found.train
    if data.train_images is not None:
        if data.train_images > len(images):
            raise ValueError(
                f"data.train_images is {data.train_images:,}, and {data.source} has {len(images):,} training images; "
                "give at most that many with --data.train-images, or leave it out for all."
            )
        images = first(images, data.train_images, seed=SPLIT_SEED)
    share = data.validation
    if not share and found.test is None and len(images.labels.unique()) > 1 and bool((images.labels >= 0).all()):
        share = data.test_share if round(data.test_share * len(images)) else 0.0
    if not share:
        return images, None
    if not 0 < round(share * len(images)) < len(images):
        raise ValueError(
            f"data.validation is {share:g}, and of {len(images):,} training images that holds out "
            f"{round(share * len(images)):,}; expected at least one image on either side. Hold out another "
            "share with --data.validation 0.5, or nothing with --data.validation 0."
        )
    return split(images, share, seed=SPLIT_SEED)


def _side(shape: tuple[int, ...] | None) -> int | None:
    """The side of square images of this shape "c h w"."""
    return shape[-1] if shape and shape[-1] == shape[-2] else None


def _refuse(
    recipe: Recipe, labels: Int[Tensor, " n"], held_out: Images | None, classes: Sequence[str], side: int | None
) -> None:
    """Raise if the method or the online probe needs other labels, or the view other images."""
    view: Any = recipe.data.view
    if METHODS[recipe.method.name].needs_labels:
        check_labels(labels, len(classes))
    if recipe.evaluation.online:
        _refuse_online(labels, held_out)
    if getattr(view, "crop", "") == "pad" and side != view.size:
        many = "of different sizes, or no squares" if side is None else f"of {side} pixels"
        fitting = "" if side is None else f"--data.view.size {side}, or "
        raise ValueError(
            f"the view cuts windows of {view.size} pixels out of images {many}, and evaluation would show whole "
            f"images: choose {fitting}--data.view.crop resized to scale the images."
        )


def _refuse_online(labels: Int[Tensor, " n"], held_out: Images | None) -> None:
    """Raise where an online probe would have nothing to learn from, or to be measured on."""
    unlabeled = int((labels < 0).sum())
    if unlabeled:
        raise ValueError(
            f"evaluation.online trains a probe on classes, and {unlabeled:,} of {len(labels):,} training images have "
            "none: leave --evaluation.online out (the effective rank is told without classes), or give labels with "
            "--data.labels."
        )
    if held_out is None:
        raise ValueError(
            "evaluation.online measures its probe on held-out images, and nothing is held out: hold a part out with "
            "--data.validation 0.1, or leave --evaluation.online out."
        )


def batch_size_for(recipe: Recipe, labels: Int[Tensor, " n"]) -> int:
    """The recipe's batch size, or the largest that these images fill.

    Smaller ones are multiples of 8 where there are as many, and can be shared by all processes.
    """
    data, method = recipe.data, METHODS[recipe.method.name]
    unit = recipe.train.devices * getattr(recipe.train, "nodes", 1)
    most = len(labels)
    if method.pairing == "triples":
        unit *= 3
        if data.triples == "anchor":
            most *= 3
        else:
            most = 3 * int((torch.bincount(labels[labels >= 0]) // 3).sum())
    if data.images_per_class or data.batch_size <= most or most < unit:
        return data.batch_size  # groups of classes, and what no batch can be made of, are refused where they are made
    step = 8 * unit if most >= 8 * unit else unit
    return most // step * step


def batches_of(
    recipe: Recipe, labels: Int[Tensor, " n"], batch_size: int = 0
) -> Callable[[int], Int[Tensor, "steps rows m"]]:
    """The batches of each epoch, as the method takes them: a function of the epoch.

    Args:
        recipe: says which.
        labels: the classes of the training images.
        batch_size: images a step in the place of the recipe's; 0 for the recipe's.
    """
    data, seed = recipe.data, recipe.train.seed
    size = batch_size or data.batch_size
    match METHODS[recipe.method.name].pairing:
        case "triples":
            return lambda epoch: pairing.triples(labels, batch_size=size, seed=seed, epoch=epoch, mode=data.triples)
        case "same-class-pairs":
            return lambda epoch: pairing.same_class_pairs(labels, batch_size=size, seed=seed, epoch=epoch)
        case _ if data.images_per_class:
            return lambda epoch: pairing.class_balanced(
                labels, batch_size=size, per_class=data.images_per_class, seed=seed, epoch=epoch
            )
        case _:
            return lambda epoch: pairing.shuffled(len(labels), batch_size=size, seed=seed, epoch=epoch)


def build_loader(
    recipe: Recipe, prepared: Prepared, device: torch.device, *, rank: int = 0, world_size: int = 1
) -> Loader:
    """The training batches of a recipe."""
    view, pairs = recipe.data.view, METHODS[recipe.method.name].pairing == "two-views"
    return Loader(
        prepared.train,
        batches_of(recipe, prepared.train.labels, prepared.batch_size),
        view,
        mean=prepared.source.mean,
        std=prepared.source.std,
        views_per_image=view.large_crops + view.small_crops if pairs else 1,
        seed=recipe.train.seed,
        device=device,
        rank=rank,
        world_size=world_size,
        workers=recipe.data.workers,
        compile=recipe.train.compile,
    )


def build(recipe: Recipe, prepared: Prepared, *, decoded: bool = True) -> Method:
    """The method with fresh weights, a function of the recipe's seed.

    Args:
        recipe: says which.
        prepared: the recipe's images.
        decoded: whether they are; before, the mean and deviation of their pixels are not known, and not compared.

    Raises:
        ValueError: for a teacher or initial weights that do not fit.
    """
    torch.manual_seed(seed_of(recipe.train.seed))
    source, model = prepared.source, recipe.model
    classes = len(source.classes) if METHODS[recipe.method.name].classifies else 0
    initial = weights_file(model.initial) if model.initial else None
    ours = initial is None or initial.parent == Path(model.initial) or is_encoder(initial)
    if prepared.backbone is not None:
        backbone = _copy_of(prepared.backbone, classes, len(source.mean))
    else:
        backbone = build_backbone(
            model.name,
            stem=model.stem,
            num_classes=classes,
            in_channels=len(source.mean),
            size=recipe.data.view.size,
            pretrained=model.pretrained if initial is None else False if ours else initial,
            img_size=recipe.data.view.size if takes_size(model.name) else None,
            patch_size=model.patch_size,
        )
    for number in range(recipe.data.view.large_crops + recipe.data.view.small_crops):
        size = recipe.data.view.of(number).size
        backbone.refuse_images_of(backbone.in_channels, size, size)
    if initial is not None and ours:
        start_from(backbone, initial)
    method = build_method(
        recipe.method,
        backbone,
        num_samples=len(prepared.train),
        load_teacher=lambda path: load_teacher(path, source, recipe.data.view.size, decoded=decoded),
    )
    method.refuse_batch(prepared.batch_size or recipe.data.batch_size)
    return method


def _copy_of(backbone: Backbone, classes: int, channels: int) -> Backbone:
    """A backbone that was given, which stays as it is.

    Raises:
        ValueError: for other classes or channels than the images and the method need.
    """
    for what, found, expected in (
        ("num_classes", backbone.num_classes, classes),
        ("in_channels", backbone.in_channels, channels),
    ):
        if found != expected:
            why = "the method trains no classifier" if what == "num_classes" and not expected else "the data has them"
            raise ValueError(
                f"the backbone {backbone.name} has {what}={found}; expected {expected}, since {why}: make it with "
                f"{what}={expected}."
            )
    return copy.deepcopy(backbone)


def measurer_of(
    recipe: Recipe,
    prepared: Prepared,
    device: torch.device,
    precision: PrecisionContext = nullcontext,
    *,
    staged: bool = True,
) -> Measurer:
    """What measures the encoders of a recipe.

    Args:
        recipe: says what is measured, and how.
        prepared: the recipe's images.
        device: where the encoder is.
        precision: makes the context in which the encoder runs, as in training.
        staged: whether the encoder has stages.
    """
    data, evaluation, method = recipe.data, recipe.evaluation, METHODS[recipe.method.name]
    measurer = Measurer(
        source=prepared.source,
        train=prepared.train,
        held_out=prepared.held_out,
        view=data.view,
        two_views=method.pairing == "two-views",
        outputs=len(prepared.source.classes) if method.classifies else 0,
        staged=staged,
        device=device,
        precision=precision,
        batch_size=evaluation.batch_size,
        workers=data.workers,
        evaluators={name: getattr(evaluation, name) for name in EVALUATORS if hasattr(evaluation, name)},
        run=evaluation.run,
        untrained=lambda: build(recipe, prepared).backbone,
        heads=METHODS[recipe.method.name].predictions is not Method.predictions,
        adapted=prepared.notices,
    )
    if rank() == 0:
        for notice in measurer.plan.notices:
            log.warning("%s", notice)
    return measurer
