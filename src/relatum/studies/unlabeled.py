"""Ours: the methods that learn without labels, beside SimCLR on one budget."""

from relatum.studies.scales import ALL_IMAGES, CPU_UNLABELED
from relatum.studies.study import Scale, Study

label_free = Study(
    name="label-free",
    question="Which method without labels learns most of the same images in the same time?",
    recipe="simclr",
    rows={
        "SimCLR": {},
        "debiased SimCLR": {"recipe": "debiased"},
        "MoCo v2": {"recipe": "moco"},
        "MoCo v3": {"recipe": "mocov3"},
        "BYOL": {"recipe": "byol"},
        "SimSiam": {"recipe": "simsiam"},
        # Fewer keys than images: neighbors are other images, not the same ones an epoch ago.
        "NNCLR": {"recipe": "nnclr", "method.queue_size": 4096},
        "ReSSL": {"recipe": "ressl"},
        "SwAV": {"recipe": "swav"},
        "DINO": {"recipe": "dino"},
        "Barlow Twins": {"recipe": "barlow-twins"},
        "VICReg": {"recipe": "vicreg"},
        "LeJEPA": {"recipe": "lejepa"},
    },
    columns={"CIFAR-10": {"data.source": "cifar10"}},
    baseline="SimCLR",
    metrics={"knn_top1": "k-NN", "linear_top1": "linear"},
    scales={
        "gpu": Scale("ResNet-18, 100 epochs of CIFAR-10; each recipe's own optimizer and rate", ALL_IMAGES),
        "cpu": Scale(
            "ResNet-20, 10,000 images of CIFAR-10 at 16 pixels, 20 epochs; Adam at 1e-3 for all, which was not tuned",
            {**CPU_UNLABELED, "optim.warmup_epochs": 0.0},
        ),
    },
    notes=(
        "Epochs are the same, their cost is not: the answer's table of costs stands beside its accuracies.",
        "LeJEPA has two views here; its authors take eight, two of them large.",
    ),
)

STUDIES = (label_free,)
