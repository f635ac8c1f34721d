"""Ours: every method that takes a relation, with every relation."""

from collections.abc import Mapping

from relatum.recipes import index
from relatum.studies.scales import ALL_IMAGES, CPU_LABELED, CPU_UNLABELED
from relatum.studies.study import Changes, Scale, Study

_WITHOUT_LABELS = ("simclr", "moco", "byol", "simsiam", "debiased", "supcon")
"""Each has images in two views, and temperatures that were not tuned."""

_RELATIONS = tuple(index.shipped()["relations"])
"""Every relation that there is."""

ROWS: Mapping[str, Changes] = {relation: {"method.relation": relation} for relation in _RELATIONS}

relations = Study(
    name="relations",
    question="Does every method work with every relation, and which pairs work well?",
    recipe="simclr",
    rows=ROWS,
    columns={method: {"recipe": method} for method in _WITHOUT_LABELS},
    baseline="cosine",
    metrics={"knn_top1": "k-NN"},
    scales={
        "gpu": Scale(
            "ResNet-18, 100 epochs of CIFAR-10 at 32 pixels; each method's own temperature, not tuned",
            ALL_IMAGES,
            seeds=(0, 1, 2),
        ),
        "cpu": Scale(
            "ResNet-8, 10,000 images of CIFAR-10 at 16 pixels, 10 epochs; each method's own temperature, not tuned",
            {**CPU_UNLABELED, "model.name": "resnet8", "train.epochs": 10},
            seeds=(0, 1),
        ),
    },
    notes=("Relations have different ranges: at one temperature their softmax is not equally sharp.",),
)

relations_corsd = Study(
    name="relations-corsd",
    question="Which relation does CORSD distill best: a trained network on pairs, or a formula?",
    recipe="corsd",
    rows={"relation network": {}, **{name: {"method.relation": name} for name in _RELATIONS}},
    columns={"CIFAR-100": {"data.source": "cifar100"}},
    baseline="relation network",
    scales={
        "gpu": Scale("ResNet-18, 100 epochs of CIFAR-100", ALL_IMAGES, seeds=(0, 1, 2)),
        "cpu": Scale("resnet8x4, 5,000 images of CIFAR-100 at 16 pixels, 40 epochs", CPU_LABELED, seeds=(0, 1)),
    },
)

STUDIES = (relations, relations_corsd)
