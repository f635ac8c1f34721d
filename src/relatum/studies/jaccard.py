"""The tables and the figure of Jiang et al. 2022, "Refining Self-Supervised Learning in Imaging: Beyond Linear Metric".

The paper says: ResNet-50, 500 epochs, batches of 512 (256 on Tiny-ImageNet), SimCLR's views, a constant rate of 1e-3,
several temperatures of which the best is shown, k-NN after each epoch. It does not say: the optimizer (here Adam), the
weights of Eq. (4) (here equal), MoCo's queue. One tau stands for all terms of Eq. (4), as printed.
"""

from collections.abc import Mapping, Sequence

from relatum.studies.scales import ALL_IMAGES, CPU_UNLABELED, CPU_UNLABELED_TRIALS, HELD_OUT
from relatum.studies.study import Changes, Published, Scale, Selection, Study

THIRDS = (1 / 3, 1 / 3)
TEMPERATURES = (0.05, 0.1, 0.2, 0.5, 1.0)

_EQ4: Changes = {"method.relation": "jaccard", "method.alphas": THIRDS, "method.cosine_temperature": None}
ROWS: Mapping[str, Changes] = {
    "SimCLR": {"recipe": "simclr"},
    "SimCLR + Jaccard": {"recipe": "simclr", **_EQ4},
    "MoCo": {"recipe": "moco"},
    "MoCo + Jaccard": {"recipe": "moco", **_EQ4},
}
_PAPER_ROWS: Mapping[str, Changes] = {
    row: {**changes, "recipe": "paper-moco"} if "MoCo" in row else changes for row, changes in ROWS.items()
}
BASELINES = {"SimCLR + Jaccard": "SimCLR", "MoCo + Jaccard": "MoCo"}
COLUMNS: Mapping[str, Changes] = {
    "CIFAR-10": {"data.source": "cifar10"},
    "CIFAR-100": {"data.source": "cifar100"},
    "Tiny-ImageNet": {"data.source": "tiny-imagenet"},
}
_TINY: Changes = {"data.view.size": 64, "data.batch_size": 256, "model.stem": "tiny"}
_PAPER_COLUMNS: Mapping[str, Changes] = {**COLUMNS, "Tiny-ImageNet": {**COLUMNS["Tiny-ImageNet"], **_TINY}}
_PAPER: Changes = {
    **ALL_IMAGES,
    "model.name": "resnet50",
    "model.stem": "cifar",
    "data.batch_size": 512,
    "data.view.size": 32,
    "data.view.min_scale": 0.08,
    "data.view.grayscale": 0.2,
    "optim.name": "adam",
    "optim.lr": 1e-3,
    "optim.weight_decay": 0.0,
    "optim.schedule": "constant",
    "train.epochs": 500,
}
_GPU: Changes = {**ALL_IMAGES, "model.name": "resnet18", "train.epochs": 100}
_ABOUT_PAPER = "ResNet-50, 500 epochs, batches of 512 (Tiny-ImageNet: 64 pixels, 256), Adam at a constant 1e-3"
_ABOUT_GPU = "ResNet-18, 100 epochs, batches of 512 at 32 pixels, SGD with a cosine schedule"
ABOUT_CPU = "ResNet-20 in the place of ResNet-50, 10,000 images at 16 pixels, 20 epochs, Adam with a cosine schedule"


def _temperatures(rows: Sequence[str], trials: Changes = HELD_OUT) -> Selection:
    """Each arm chooses its temperature among the same five."""
    return Selection({row: [{"method.temperature": t} for t in TEMPERATURES] for row in rows}, changes=trials)


METRICS = {"knn_top1": "k-NN", "linear_top1": "linear"}

_TABLE_2 = Published(
    "Jiang et al. 2022, Table 2",
    "single runs; the best epoch and the best temperature, both seen on the test set; k of the k-NN not said",
    {
        row: {
            column: {"knn_top1": knn, "linear_top1": linear}
            for column, knn, linear in zip(COLUMNS, numbers[::2], numbers[1::2])
        }
        for row, numbers in {
            "SimCLR": (88.6, 91.5, 62.1, 68.6, 35.9, 50.7),
            "SimCLR + Jaccard": (88.6, 91.8, 63.9, 69.5, 39.5, 53.8),
            "MoCo": (85.5, 90.5, 56.8, 66.8, 33.5, 49.6),
            "MoCo + Jaccard": (85.1, 90.2, 59.2, 67.5, 35.4, 51.2),
        }.items()
    },
)

_TABLE_1 = Published(
    "Jiang et al. 2022, Table 1",
    "one epoch on a Tesla V100, a single measurement; the CIFAR set is not named",
    {
        "SimCLR": {"CIFAR": {"epoch_seconds": 96}, "Tiny-ImageNet": {"epoch_seconds": 831}},
        "SimCLR + Jaccard": {"CIFAR": {"epoch_seconds": 107}, "Tiny-ImageNet": {"epoch_seconds": 841}},
    },
)

_SIMCLR = {row: ROWS[row] for row in ("SimCLR", "SimCLR + Jaccard")}
_TIMED: Changes = {"train.epochs": 3, "evaluation.figures": False}

jaccard_1 = Study(
    name="jaccard-1",
    question="What does the Jaccard relation cost in time, by epoch?",
    recipe="simclr",
    rows=_SIMCLR,
    columns={"CIFAR": _PAPER_COLUMNS["CIFAR-10"], "Tiny-ImageNet": _PAPER_COLUMNS["Tiny-ImageNet"]},
    baseline="SimCLR",
    metrics={"epoch_seconds": "seconds an epoch"},
    smaller=True,
    scales={
        "paper": Scale("the paper's runs, three epochs of each", {**_PAPER, **_TIMED}, seeds=(0, 1, 2)),
        "gpu": Scale(f"{_ABOUT_GPU}; three epochs of each", {**_GPU, **_TIMED}),
        "cpu": Scale(f"{ABOUT_CPU}; three epochs of each", {**CPU_UNLABELED, **_TIMED}, columns=dict(COLUMNS)),
    },
    published=(_TABLE_1,),
)

jaccard_2 = Study(
    name="jaccard-2",
    question="Does the Jaccard relation in the place of the cosine give better features?",
    recipe="simclr",
    rows=ROWS,
    columns=_PAPER_COLUMNS,
    baseline=BASELINES,
    metrics=METRICS,
    scales={
        "paper": Scale(_ABOUT_PAPER, _PAPER, rows=_PAPER_ROWS, seeds=(0, 1, 2), selection=_temperatures(list(ROWS))),
        "gpu": Scale(_ABOUT_GPU, _GPU, selection=_temperatures(list(ROWS))),
        "cpu": Scale(
            f"{ABOUT_CPU}; Tiny-ImageNet: 50 images of each class, also at 16 pixels",
            CPU_UNLABELED,
            columns=COLUMNS,
            selection=_temperatures(list(ROWS)),
        ),
    },
    published=(_TABLE_2,),
)

_EACH_EPOCH: Changes = {"data.validation": 0.1, "evaluation.every": 1}

jaccard_fig2 = Study(
    name="jaccard-fig2",
    question="How does the k-NN accuracy grow over the epochs?",
    recipe="simclr",
    rows=_SIMCLR,
    columns=_PAPER_COLUMNS,
    baseline="SimCLR",
    metrics={"knn_top1": "k-NN"},
    curve="validation_knn_top1",
    scales={
        "paper": Scale(f"{_ABOUT_PAPER}; a tenth held out for the curve", {**_PAPER, **_EACH_EPOCH}, seeds=(0, 1, 2)),
        "gpu": Scale(f"{_ABOUT_GPU}; a tenth held out for the curve", {**_GPU, **_EACH_EPOCH}, seeds=(0, 1, 2)),
        "cpu": Scale(
            f"{ABOUT_CPU}; a tenth held out for the curve",
            {**CPU_UNLABELED, **_EACH_EPOCH},
            columns=COLUMNS,
            seeds=(0, 1, 2),
        ),
    },
    notes=("The paper measures the test set after each epoch; here the curve is of held-out training images.",),
)

_ARMS: Mapping[str, Changes] = {
    "cosine": {},
    "two cosine heads": {"method.relation": "jaccard", "method.alphas": (0.5, 0.5), "method.cosine_temperature": None},
    "Jaccard alone": {"method.relation": "jaccard"},
    "Eq. (4), weights 1/3": _EQ4,
    "Eq. (4), weights 0.45": {**_EQ4, "method.alphas": (0.45, 0.45)},
    "Tanimoto": {"method.relation": "tanimoto"},
}
_ARM_COLUMNS = {name: COLUMNS[name] for name in ("CIFAR-100", "CIFAR-10")}
_ARM_NOTES = (
    "two cosine heads: the second projector without the index (alphas 0.5 and 0.5 leave the third term no weight).",
    "Tanimoto: the index's form in one space, without the second projector.",
    "Eq. (4) has one temperature for its three terms, as printed; the paper gives no weights, so that two choices of "
    "them are two arms, and each arm has the same five trials.",
)


def _arms(name: str, method: str, question: str) -> Study:
    rows = {row: {"recipe": method, **changes} for row, changes in _ARMS.items()}
    return Study(
        name=name,
        question=question,
        recipe=method,
        rows=rows,
        columns=_ARM_COLUMNS,
        baseline="cosine",
        metrics=METRICS,
        scales={
            "gpu": Scale(_ABOUT_GPU, _GPU, selection=_temperatures(list(rows))),
            "cpu": Scale(ABOUT_CPU, CPU_UNLABELED, selection=_temperatures(list(rows), CPU_UNLABELED_TRIALS)),
        },
        notes=_ARM_NOTES,
    )


jaccard_arms = _arms(
    "jaccard-arms", "simclr", "In SimCLR: is it the index, its form, or the second projector that helps?"
)
jaccard_arms_moco = _arms(
    "jaccard-arms-moco", "moco", "In MoCo: is it the index, its form, or the second projector that helps?"
)

_CLASSES: Mapping[str, Changes] = {
    "10 classes (CIFAR-10)": {"data.source": "cifar10"},
    "20 classes (CIFAR-100, coarse)": {"data.source": "cifar100-coarse"},
    "100 classes (CIFAR-100)": {"data.source": "cifar100"},
    "200 classes (Tiny-ImageNet)": {"data.source": "tiny-imagenet"},
}

classes = Study(
    name="classes",
    question="Does the gain of the Jaccard relation grow with the number of classes?",
    recipe="simclr",
    rows={row: ROWS[row] for row in ("SimCLR", "SimCLR + Jaccard")},
    columns=_CLASSES,
    baseline="SimCLR",
    metrics=METRICS,
    scales={
        "gpu": Scale(_ABOUT_GPU, _GPU, selection=_temperatures(list(_SIMCLR))),
        "cpu": Scale(ABOUT_CPU, CPU_UNLABELED, selection=_temperatures(list(_SIMCLR))),
    },
    notes=("Tiny-ImageNet at the size of the other sets' images; at `cpu` 50 images of each of its classes.",),
)

STUDIES = (jaccard_1, jaccard_2, jaccard_fig2, jaccard_arms, jaccard_arms_moco, classes)
