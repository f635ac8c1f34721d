"""What a recipe makes of data and encoders, apart from training: its images, its backbone, its measurements."""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from math import ceil
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Generator, Tensor, nn

from relatum.core.precision import at_least_float32
from relatum.core.randomness import generator_of, seed_of
from relatum.core.types import Embeddings
from relatum.data import pairing, sources
from relatum.data.images import Images, check_labels, first, split
from relatum.data.loading import Loader, evaluation_batches
from relatum.data.sources import Source
from relatum.data.views import ClassifierView, EvaluationView
from relatum.evaluation.classification import accuracy, expected_calibration_error
from relatum.evaluation.extract import extract
from relatum.evaluation.geometry import alignment, effective_rank, uniformity
from relatum.methods import METHODS, Method
from relatum.networks.backbones import Backbone
from relatum.networks.export import load_encoder
from relatum.recipes.recipe import Recipe, build_method

log = logging.getLogger(__name__)

Precision = Callable[[], AbstractContextManager]
"""Makes the context in which an encoder runs, such as autocast."""

UNIFORMITY_IMAGES = 10_000  # at most; it grows with the square
SPLIT_SEED = 0  # the held-out part, and the fixed part of a set, are the same in all runs, whatever their seed
ALIGNED = 1000  # training images whose two views are compared at most


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

    @property
    def test(self) -> tuple[Images | None, str]:
        """What is measured at the end, and its name in a protocol: held-out images where the set has no test images."""
        test, held_out = self.source.test, self.held_out
        if test is None and held_out is not None:
            return held_out, f"{len(held_out)} held-out training images"
        return test, f"{len(test)} test images" if test is not None else ""


def prepare(recipe: Recipe) -> Prepared:
    """Load, cut and split the images, and refuse what the recipe cannot be trained on before any work is lost.

    Raises:
        FileNotFoundError, ValueError: as `sources.load`; labels that the method needs and the data lacks; more
            neighbors than images.
    """
    data = recipe.data
    source = sources.load(data.source, root=data.root, on_bad_image=data.on_bad_image, resident=data.resident)
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


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, and back to the mode before it."""
    before = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(before)


def embeddings(
    embed: Callable[[Tensor], Float[Tensor, "n d"]],
    images: Images,
    recipe: Recipe,
    source: Source,
    device: torch.device,
    precision: Precision = nullcontext,
) -> Embeddings:
    """The embeddings of clean views of `images`, normalized as in training."""
    batches = evaluation_batches(
        images,
        EvaluationView(size=recipe.data.view.size),
        mean=source.mean,
        std=source.std,
        batch_size=recipe.evaluation.batch_size,
        device=device,
        workers=recipe.data.workers,
    )
    with precision():
        return extract(embed, batches)


class Measurements(NamedTuple):
    """Numbers, and how each group of them was measured."""

    metrics: dict[str, float]
    protocols: dict[str, str]


def measure_epoch(
    method: Method, recipe: Recipe, prepared: Prepared, device: torch.device, precision: Precision
) -> dict[str, float]:
    """What can be said of the encoder between two epochs, from the training images alone."""
    source = prepared.source
    with evaluating(method):
        if not prepared.labeled or prepared.held_out is None:
            look = prepared.held_out or prepared.train
            return {
                "effective_rank": effective_rank(embeddings(method.embed, look, recipe, source, device, precision)[0])
            }
        if method.backbone.num_classes:
            held_out = embeddings(logits_of(method.backbone), prepared.held_out, recipe, source, device, precision)
            return _prefix("validation", accuracy(*held_out))
        bank = embeddings(method.embed, prepared.train, recipe, source, device, precision)
        held_out = embeddings(method.embed, prepared.held_out, recipe, source, device, precision)
    return _prefix("validation_knn", recipe.evaluation.knn(bank, held_out))


def measure(
    backbone: Backbone, recipe: Recipe, prepared: Prepared, device: torch.device, precision: Precision = nullcontext
) -> tuple[Measurements, Embeddings | None]:
    """The final measurements: on the test set, against all training images of the recipe.

    Returns:
        the measurements, and the embeddings of the test images (None without a test set or labels).
    """
    source, evaluation = prepared.source, recipe.evaluation
    metrics: dict[str, float] = {}
    protocols: dict[str, str] = {}
    with evaluating(backbone):
        test_images, where = prepared.test
        bank_images = prepared.train
        bank = embeddings(backbone.embed, bank_images, recipe, source, device, precision)
        metrics |= {"effective_rank": effective_rank(bank.features), "uniformity": uniformity(_some(bank.features))}
        protocols["geometry"] = (
            f"backbone features of {len(bank_images)} training images (uniformity: {UNIFORMITY_IMAGES:,} at most)"
        )
        if METHODS[recipe.method.name].pairing == "two-views":
            more, how = measure_alignment(backbone, recipe, prepared, device, precision)
            metrics, protocols = metrics | more, protocols | how
        if not prepared.labeled or test_images is None:
            return Measurements(metrics, protocols), None
        test = embeddings(backbone.embed, test_images, recipe, source, device, precision)
        shared = f"backbone features, clean views, {len(bank_images)} training against {where}, last epoch"
        metrics |= _prefix("knn", evaluation.knn(bank, test))
        protocols["knn"] = f"{evaluation.knn}; {shared}"
        metrics |= _prefix("linear", evaluation.linear(bank, test))
        protocols["linear"] = f"{evaluation.linear}; {shared}"
        if evaluation.linear_augmented:
            more, how = measure_augmented(backbone, bank, test, recipe, prepared, device, precision)
            metrics, protocols = metrics | more, protocols | how
        if evaluation.stages:
            more, how = measure_stages(backbone, recipe, prepared, device, precision)
            metrics, protocols = metrics | more, protocols | how
        if backbone.num_classes:
            logits, labels = embeddings(logits_of(backbone), test_images, recipe, source, device, precision)
            metrics |= accuracy(logits, labels) | {"calibration_error": expected_calibration_error(logits, labels)}
            protocols["classifier"] = (
                f"the backbone's classifier, {where}, last epoch; calibration error of 15 bins, in percent"
            )
    return Measurements(metrics, protocols), test


def measure_alignment(
    backbone: Backbone, recipe: Recipe, prepared: Prepared, device: torch.device, precision: Precision = nullcontext
) -> Measurements:
    """How close two training views of an image lie, on a fixed part of the training images."""
    images = first(prepared.train, min(ALIGNED, len(prepared.train)), seed=SPLIT_SEED)
    steps = ceil(len(images) / recipe.evaluation.batch_size)
    batches = torch.arange(len(images) // steps * steps).view(steps, 1, -1)
    loader = Loader(
        images,
        lambda epoch: batches,
        recipe.data.view,
        mean=prepared.source.mean,
        std=prepared.source.std,
        copies=2,
        seed=SPLIT_SEED,
        device=device,
        workers=recipe.data.workers,
    )
    embed = _under(precision, backbone.embed)
    with evaluating(backbone), torch.no_grad():
        views = [[embed(view).float().cpu() for view in batch.views] for batch in loader.epoch(0)]
    a, b = (torch.cat(view) for view in zip(*views))
    protocol = (
        f"mean squared distance of the normalized backbone features of two training views, {len(a)} training images, "
        "last epoch"
    )
    return Measurements({"alignment": alignment(a, b)}, {"alignment": protocol})


def measure_augmented(
    backbone: Backbone,
    bank: Embeddings,
    test: Embeddings,
    recipe: Recipe,
    prepared: Prepared,
    device: torch.device,
    precision: Precision = nullcontext,
) -> Measurements:
    """The linear probe on random resized crops and mirror images, as is usual on ImageNet.

    Args:
        bank, test: clean features of the training images, in their order, and of the test images.
    """
    images, linear = prepared.train, recipe.evaluation.linear
    view = ClassifierView(size=recipe.data.view.size, crop="resized", min_scale=0.08, flip=recipe.data.view.flip)
    rows = min(linear.batch_size, len(images))
    loader = Loader(
        images,
        lambda epoch: pairing.shuffled(len(images), batch_size=rows, seed=linear.seed, epoch=epoch),
        view,
        mean=prepared.source.mean,
        std=prepared.source.std,
        seed=linear.seed,
        device=device,
        workers=recipe.data.workers,
    )
    features, labels = bank
    with evaluating(backbone):
        metrics = linear.augmented(
            _under(precision, backbone.embed), loader.epoch, Embeddings(features.to(device), labels.to(device)), test
        )
    protocol = (
        f"{linear}; backbone features of crops of {view.min_scale:.0%} to 100% of the area, mirrored with probability "
        f"{view.flip:g}, drawn anew in each epoch; {len(images)} training against clean views of "
        f"{prepared.test[1]}, last epoch"
    )
    return Measurements(_prefix("linear_augmented", metrics), {"linear_augmented": protocol})


def stage_embeddings(
    backbone: Backbone,
    images: Images,
    recipe: Recipe,
    source: Source,
    device: torch.device,
    precision: Precision = nullcontext,
) -> list[Embeddings]:
    """The features of every stage, shallow to deep: the mean of its map over the positions, from one forward pass."""

    def pooled(views: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        return torch.cat([at_least_float32(maps).mean((2, 3)) for maps in backbone(views).stages], dim=1)

    with evaluating(backbone):
        features, labels = embeddings(pooled, images, recipe, source, device, precision)
    return [Embeddings(stage, labels) for stage in features.split(backbone.stage_channels, dim=1)]


def measure_stages(
    backbone: Backbone, recipe: Recipe, prepared: Prepared, device: torch.device, precision: Precision = nullcontext
) -> Measurements:
    """k-NN on the features of every stage: at what depth classes come apart (Yu et al. 2023, Fig. 2, in numbers)."""
    source, knn = prepared.source, recipe.evaluation.knn
    test_images, where = prepared.test
    if test_images is None or not prepared.labeled:
        return Measurements({}, {})
    banks, tests = (
        stage_embeddings(backbone, images, recipe, source, device, precision)
        for images in (prepared.train, test_images)
    )
    metrics: dict[str, float] = {}
    for number, (bank, test) in enumerate(zip(banks, tests), 1):
        metrics |= _prefix(f"stage{number}_knn", knn(bank, test))
    protocol = (
        f"{knn} on the mean over the positions of each stage's map, shallow to deep, clean views, "
        f"{len(prepared.train)} training against {where}, last epoch"
    )
    return Measurements(metrics, {"stages": protocol})


def measure_baselines(
    recipe: Recipe, prepared: Prepared, device: torch.device, precision: Precision = nullcontext
) -> Measurements:
    """k-NN on raw pixels and on the untrained encoder: what training has to beat."""
    source, knn = prepared.source, recipe.evaluation.knn
    test_images, _ = prepared.test
    if test_images is None or not prepared.labeled:
        return Measurements({}, {})
    untrained = build(recipe, prepared).to(device).eval()
    metrics: dict[str, float] = {}
    for name, embed in (("pixels", lambda images: images.flatten(1)), ("untrained", untrained.embed)):
        bank, test = (
            embeddings(embed, images, recipe, source, device, precision) for images in (prepared.train, test_images)
        )
        metrics |= _prefix(f"{name}_knn", knn(bank, test))
    return Measurements(metrics, {"baselines": f"{knn} on normalized pixels, and on the encoder before training"})


def thumbnail(images: Images, i: int, size: int) -> UInt8[Tensor, "s s c"]:
    """Image i as people look at it."""
    picture = EvaluationView(size=size).crop_image(
        Image.fromarray(images.read(i).permute(1, 2, 0).numpy()), Generator()
    )
    return picture.permute(1, 2, 0)


def logits_of(backbone: Backbone) -> Callable[[Tensor], Float[Tensor, "n k"]]:
    """The classifier as a function of images."""
    return lambda images: backbone(images).logits


def _under(precision: Precision, embed: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """`embed` in a precision of its own: what is made of its features is computed in full precision."""

    def run(images: Tensor) -> Tensor:
        with precision():
            return embed(images)

    return run


def _some(features: Float[Tensor, "n d"]) -> Float[Tensor, "m d"]:
    """All of few features, or a fixed random part of many: uniformity compares every pair."""
    order = torch.randperm(len(features), generator=generator_of(SPLIT_SEED))
    return features[order[:UNIFORMITY_IMAGES]]


def _prefix(prefix: str, metrics: dict[str, float]) -> dict[str, float]:
    return {f"{prefix}_{name}": value for name, value in metrics.items()}
