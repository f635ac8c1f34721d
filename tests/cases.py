"""Every method, small: what its laws are checked on. A variant is a method with some of its options chosen."""

import inspect
from collections.abc import Callable

import torch

from relatum.core.types import Batch
from relatum.methods import METHODS, Method
from relatum.networks.backbones import Backbone
from relatum.relations import Cosine, Euclidean, Jaccard, Relation, Tanimoto

RELATIONS: dict[str, Relation] = {
    "cosine": Cosine(),
    "euclidean": Euclidean(),
    "jaccard": Jaccard(),
    "jaccard-signed": Jaccard("signed"),
    "tanimoto": Tanimoto(),
}

CLASSES, SAMPLES, SIZE, IMAGES = 5, 40, 16, 8
VIEWS = {"single": 1, "two-views": 2, "same-class-pairs": 2, "triples": 3}

SMALL = {
    "barlow-twins": {"hidden_width": 16, "out_width": 8},
    "byol": {"hidden_width": 16, "out_width": 8},
    "lejepa": {"hidden_width": 16, "out_width": 8, "lines": 12},
    "crd": {"width": 8},
    "mocov3": {"hidden_width": 32, "out_width": 32},
    "nnclr": {"queue_size": 24, "hidden_width": 32, "prediction_width": 32, "out_width": 32},
    "ressl": {"queue_size": 24, "key_splits": 2, "hidden_width": 32, "out_width": 32},
    "moco": {"queue_size": 24, "key_splits": 2},
    "seed": {"queue_size": 24, "hidden_width": 16},
    "simsiam": {"out_width": 16, "bottleneck": 8},
    "swav": {"prototypes": 4, "out_width": 8},
    "dino": {"prototypes": 12, "hidden_width": 16, "out_width": 8, "momentum": 0.9},
    "vicreg": {"hidden_width": 16, "out_width": 8},
}
"""Options that make a method small enough for a test; every other option has its default."""

CHOSEN = {
    "simclr-multi-crop": ("simclr", {}),
    "swav-multi-crop": ("swav", {"frozen_share": 0.0}),
    "swav-queue": ("swav", {"prototypes": 10, "queue_size": 20, "queue_after": 0.0}),
    "dino-multi-crop": ("dino", {"frozen_share": 0.0, "momentum": 0.5}),
    "barlow-twins-wide": ("barlow-twins", {"out_width": 24}),
    "nnclr-jaccard": ("nnclr", {"relation": Jaccard(), "alphas": (0.3, 0.3)}),
    "ressl-jaccard": ("ressl", {"relation": Jaccard(), "projector_norm": False}),
    "mocov3-jaccard": ("mocov3", {"relation": Jaccard(), "alphas": (0.3, 0.3)}),
    "lejepa-multi-crop": ("lejepa", {"prediction": "sum"}),
    "vicreg-wide": ("vicreg", {"out_width": 24, "variance": "mean"}),
    "simclr-jaccard-three-terms": ("simclr", {"relation": Jaccard(), "alphas": (0.3, 0.3)}),
    "moco-symmetric": ("moco", {"symmetric": True}),
    "moco-summed": ("moco", {"symmetric": True, "symmetric_loss": "sum", "projector_norm": False}),
    "moco-unshuffled": ("moco", {"key_splits": 1}),
    "kd-standardized": ("kd", {"standardize": True}),
    "dkd-warmup": ("dkd", {"warmup": 0.5, "standardize": True}),
    "fitnet-rectified": ("fitnet", {"rectify": True, "kd_weight": 0.5}),
    "fitnet-two-stages": ("fitnet", {"hint_share": 0.5}),
    "rkd-all": ("rkd", {"tuples": "all", "kd_weight": 0.5}),
    "at-squared": ("at", {"norm": "squared", "kd_weight": 0.5}),
    "sp-kd": ("sp", {"kd_weight": 0.5}),
    "cc-kd": ("cc", {"kd_weight": 0.5}),
    "cc-neighbors": ("cc", {"kernel": "neighbors"}),
    "crd-sampled": ("crd", {"samples": 12, "kd_weight": 0.5}),
    "crd-jaccard": ("crd", {"relation": Jaccard(), "negatives": "other-images", "momentum": 0.0}),
    "crd-sampled-images": ("crd", {"samples": 5, "negatives": "other-images"}),
    "review-kd-warmup": ("review-kd", {"warmup": 0.5, "width": 12, "kd_weight": 0.5}),
    "seed-jaccard": ("seed", {"relation": Jaccard()}),
    "tf-kd-alpha-1": ("tf-kd", {"alpha": 1.0}),
    "tf-kd-virtual-code": ("tf-kd-virtual", {"form": "code"}),
    "ps-kd-sharded": ("ps-kd", {"sharded": True}),
    "dml-three": ("dml", {"peers": 2}),
    "sd-conference": ("sd", {"attention": False, "temperature_squared": True}),
    "sd-code": ("sd", {"hint": "frobenius", "hint_weight": 0.03, "exempt": "second-deepest"}),
    "sd-shallowest": ("sd", {"exempt": "shallowest"}),
    "sd-no-hint": ("sd", {"hint_weight": 0.0}),
    "sd-alpha-0": ("sd", {"alpha": 0.0}),
    "sd-alpha-1": ("sd", {"alpha": 1.0}),
    "corsd-jaccard": ("corsd", {"relation": Jaccard()}),
    "corsd-code": (
        "corsd",
        {
            "detach_teacher": False,
            "shared_classifier": True,
            "statistics": "separate",
            "calibration_loss": "sum",
            "divergence": "from-shallow",
        },
    ),
    "corsd-deep": ("corsd", {"deepest_layers": 1}),
    "corsd-checkpoint": ("corsd", {"checkpoint": True}),
}
"""Forms of a method that compute something else, beside its default form; "multi-crop" at the end is of its batch."""

VARIANTS: dict[str, tuple[str, dict]] = {name: (name, {}) for name in METHODS} | CHOSEN


def backbone(classes: int = CLASSES) -> Backbone:
    return Backbone("resnet8", stem="cifar", num_classes=classes)


def keywords_of(name: str) -> set[str]:
    return set(inspect.signature(METHODS[name].__init__).parameters)


WITH_RELATION = [name for name in METHODS if "relation" in keywords_of(name)]
WITH_TEACHER = [variant for variant, (name, _) in VARIANTS.items() if "teacher" in keywords_of(name)]


def build(variant: str, *, make: Callable[[int], Backbone] = backbone, **chosen) -> Method:
    """The method of `variant` on a backbone of `make`, with the options of `chosen` in the place of its own."""
    torch.manual_seed(1)
    name, own = VARIANTS[variant]
    supplied = {}
    if "num_samples" in keywords_of(name):
        supplied["num_samples"] = SAMPLES
    if "teacher" in keywords_of(name):
        supplied["teacher"] = backbone()
    student = make(CLASSES if METHODS[name].classifies else 0)
    method = METHODS[name](student, **SMALL.get(name, {}) | supplied | own | chosen)
    method.small_crops = 2 * variant.endswith("multi-crop")
    return method


def batch_for(method: Method, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    count = VIEWS[method.pairing]
    views = tuple(torch.randn(IMAGES, 3, SIZE, SIZE, generator=generator, dtype=dtype) for _ in range(count))
    small = getattr(method, "small_crops", 0)
    half = SIZE // 2
    views += tuple(torch.randn(IMAGES, 3, half, half, generator=generator, dtype=dtype) for _ in range(small))
    index = torch.stack([torch.randperm(SAMPLES, generator=generator)[:IMAGES] for _ in views])
    labels = torch.arange(IMAGES).remainder(CLASSES).repeat(len(views), 1)
    if method.pairing == "triples":
        labels[2] = (labels[2] + 1 + torch.arange(IMAGES) % (CLASSES - 1)) % CLASSES
    if method.pairing == "two-views":
        index[1:] = index[0]
    return Batch(views, labels, index, small)


def optimizer_of(method: Method) -> torch.optim.Optimizer:
    return torch.optim.SGD((p for p in method.parameters() if p.requires_grad), 0.05, momentum=0.9)


def train(method: Method, steps: int, first: int = 0, optimizer: torch.optim.Optimizer | None = None):
    """The totals of `steps` training steps from step `first` on, and the optimizer."""
    optimizer = optimizer or optimizer_of(method)
    method.train()
    totals = []
    for step in range(first, first + steps):
        torch.manual_seed(step)
        total = sum(method.losses(batch_for(method, step)).values())
        total.backward()
        optimizer.step()
        optimizer.zero_grad()
        method.after_step((step + 1) / 10)
        totals.append(total.item())
    return totals, optimizer
