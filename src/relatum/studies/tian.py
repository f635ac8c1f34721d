"""RepDistiller's CIFAR-100 table: Tian et al. 2020, "Contrastive representation distillation", with its networks.

Its narrow residual networks have projection shortcuts (option B), which ours call `resnet20_b` and so on; its VGG,
MobileNetV2 and ShuffleNets are `cifar_vgg8` and so on. Rows below RKD are methods of later years, which have no number
in that table; CRD, the table's own method, is there as printed, with samples, and over all images.
"""

from collections.abc import Mapping
from typing import Any

from relatum.studies.scales import ALL_IMAGES, CPU_LABELED
from relatum.studies.study import Changes, Published, Scale, Study, Teacher, Trained

_NAMES = {
    "resnet20": "resnet20_b",
    "resnet32": "resnet32_b",
    "resnet56": "resnet56_b",
    "resnet110": "resnet110_b",
    "resnet8x4": "resnet8x4",
    "resnet32x4": "resnet32x4",
    "wrn-16-2": "wrn_16_2",
    "wrn-40-1": "wrn_40_1",
    "wrn-40-2": "wrn_40_2",
    "vgg8": "cifar_vgg8",
    "vgg13": "cifar_vgg13",
    "ResNet50": "resnet50",
    "MobileNetV2": "cifar_mobilenetv2_half",
    "ShuffleNetV1": "cifar_shufflenetv1",
    "ShuffleNetV2": "cifar_shufflenetv2",
}
_PAIRS = (
    ("resnet56", "resnet20"),
    ("resnet110", "resnet20"),
    ("resnet110", "resnet32"),
    ("resnet32x4", "resnet8x4"),
    ("wrn-40-2", "wrn-16-2"),
    ("wrn-40-2", "wrn-40-1"),
    ("vgg13", "vgg8"),
    ("vgg13", "MobileNetV2"),
    ("ResNet50", "MobileNetV2"),
    ("ResNet50", "vgg8"),
    ("resnet32x4", "ShuffleNetV1"),
    ("resnet32x4", "ShuffleNetV2"),
    ("wrn-40-2", "ShuffleNetV1"),
)
_SLOWER = ("MobileNetV2", "ShuffleNetV1", "ShuffleNetV2")
"""Students that the benchmark trains at a rate of 0.01 instead of 0.05."""


def _column(teacher: str, student: str) -> Changes:
    rate: Changes = {"optim.lr": 0.01} if student in _SLOWER else {}
    return {"model.name": _NAMES[student], "teacher": Trained(teacher), **rate}


COLUMNS: Mapping[str, Changes] = {f"{teacher} to {student}": _column(teacher, student) for teacher, student in _PAIRS}
ROWS: Mapping[str, Changes] = {
    "Student": {"recipe": "supervised"},
    "KD": {"recipe": "kd"},
    "FitNet": {"recipe": "fitnet", "method.rectify": True},
    "AT": {"recipe": "at", "method.norm": "squared"},
    "SP": {"recipe": "sp"},
    "CC": {"recipe": "cc", "method.kernel": "neighbors"},
    "RKD": {"recipe": "rkd", "method.tuples": "all"},
    "CRD": {"recipe": "crd", "method.samples": 16_384},
    "CRD, all images": {"recipe": "crd"},
    "KD, standardized": {"recipe": "kd-standardized"},
    "DKD": {"recipe": "dkd"},
    "DIST": {"recipe": "dist"},
    "ReviewKD": {"recipe": "review-kd"},
}
_STEP_240: Changes = {
    **ALL_IMAGES,
    "data.batch_size": 64,
    "optim.lr": 0.05,
    "optim.schedule": "step",
    "optim.milestones": (150.0, 180.0, 210.0),
    "train.epochs": 240,
}
_ABOUT = "CIFAR-100 at 32 pixels, 240 epochs in batches of 64, rate 0.05, a tenth of it after 150, 180 and 210"
_NUMBERS = """
    69.06 70.66 69.21 70.55 69.67 69.63 69.61 71.16
    69.06 70.67 68.99 70.22 70.04 69.48 69.25 71.46
    71.14 73.08 71.06 72.31 72.69 71.48 71.82 73.48
    72.50 73.33 73.50 73.44 72.94 72.97 71.90 75.51
    73.26 74.92 73.58 74.08 73.83 73.56 73.35 75.48
    71.98 73.54 72.24 72.77 72.43 72.21 72.22 74.14
    70.36 72.98 71.02 71.43 72.68 70.71 71.48 73.94
    64.60 67.37 64.14 59.40 66.30 64.86 64.52 69.73
    64.60 67.35 63.16 58.58 68.08 65.43 64.43 69.11
    70.36 73.81 70.69 71.84 73.34 70.25 71.50 74.30
    70.50 74.07 73.59 71.73 73.48 71.14 72.28 75.11
    71.82 74.45 73.54 72.73 74.56 71.29 73.21 75.65
    70.50 74.83 73.73 73.32 74.52 71.38 72.21 76.05
"""
_LATER = """
    71.43 71.97
    71.48 71.06
    74.17 74.11
    76.62 76.32
    76.11 76.24
    74.37 74.81
    74.36 74.68
    68.61 69.71
    69.02 70.35
    - -
    - -
    75.56 77.07
"""
"""KD of standardized logits and DKD, for the same pairs as far as they are printed."""


def _table(rows: tuple[str, ...], numbers: str) -> dict[str, Any]:
    """A printed table, a line for each pair, as row -> column -> metric."""
    lines = [line.split() for line in numbers.strip().splitlines()]
    return {
        row: {column: {"top1": float(line[i])} for column, line in zip(COLUMNS, lines) if line[i] != "-"}
        for i, row in enumerate(rows)
    }


_GPU_PAIRS = ("resnet56 to resnet20", "resnet32x4 to resnet8x4")

tian = Study(
    name="tian",
    question="How well do methods with a teacher distill into small networks, in the field's benchmark?",
    recipe="supervised",
    rows=ROWS,
    columns=COLUMNS,
    baseline="Student",
    teachers={
        name: Teacher({"recipe": "supervised", "model.name": _NAMES[name]})
        for name in dict.fromkeys(teacher for teacher, _ in _PAIRS)
    },
    scales={
        "paper": Scale(_ABOUT, _STEP_240, seeds=(0, 1, 2, 3, 4)),
        "gpu": Scale(
            f"{_ABOUT}: the paper's protocol, of which two pairs",
            _STEP_240,
            columns={pair: COLUMNS[pair] for pair in _GPU_PAIRS},
            seeds=(0, 1, 2),
        ),
        "cpu": Scale(
            "resnet14x4 to resnet8x4 in the place of the paper's pairs, 5,000 images of CIFAR-100 at 16 pixels, 40 "
            "epochs of one cycle",
            CPU_LABELED,
            rows={**ROWS, "CRD": {"recipe": "crd", "method.samples": 1_638}},  # a third of the images, as in the paper
            columns={"resnet14x4 to resnet8x4": {"model.name": "resnet8x4", "teacher": Trained("resnet14x4")}},
            teachers={"resnet14x4": Teacher({"recipe": "supervised", "model.name": "resnet14x4", "train.epochs": 60})},
        ),
    },
    published=(
        Published(
            "Tian et al. 2020, Table 1 and 2",
            "the last epoch, means of five runs; users report 0.2 to 1.5 points less; teachers of 72.34, 74.31, 74.31, "
            "79.42, 75.61, 75.61, 74.64, 74.64, 79.34, 79.34, 79.42, 79.42 and 75.61 %",
            _table(tuple(ROWS)[:8], _NUMBERS),
        ),
        Published(
            "Sun et al. 2024, their repository's tables",
            "the best epoch on the test set, as in the code that it is built on; temperature 2 or 3, chosen by pair",
            _table(("KD, standardized", "DKD"), _LATER),
        ),
    ),
    notes=(
        "The weight of ReviewKD is 1 in all columns; its authors have one for each pair, from 0.6 to 8. The weight of "
        "CRD over all images is its authors' for samples.",
    ),
)

STUDIES = (tian,)
