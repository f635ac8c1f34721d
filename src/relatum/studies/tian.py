"""RepDistiller's CIFAR-100 table: Tian et al. 2020, "Contrastive representation distillation", with its networks.

Its narrow residual networks have projection shortcuts (option B), which ours call `resnet20_b` and so on. Of its 13
pairs these are the six whose networks are here; VGG, MobileNetV2 and ShuffleNet are not.
"""

from collections.abc import Mapping

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
}
_PAIRS = (
    ("resnet56", "resnet20"),
    ("resnet110", "resnet20"),
    ("resnet110", "resnet32"),
    ("resnet32x4", "resnet8x4"),
    ("wrn-40-2", "wrn-16-2"),
    ("wrn-40-2", "wrn-40-1"),
)
COLUMNS: Mapping[str, Changes] = {
    f"{teacher} to {student}": {"model.name": _NAMES[student], "teacher": Trained(teacher)}
    for teacher, student in _PAIRS
}
ROWS: Mapping[str, Changes] = {
    "Student": {"recipe": "supervised"},
    "KD": {"recipe": "kd"},
    "FitNet": {"recipe": "fitnet", "method.rectify": True},
    "AT": {"recipe": "at", "method.norm": "squared"},
    "SP": {"recipe": "sp"},
    "CC": {"recipe": "cc", "method.kernel": "neighbors"},
    "RKD": {"recipe": "rkd", "method.tuples": "all"},
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
    69.06 70.66 69.21 70.55 69.67 69.63 69.61
    69.06 70.67 68.99 70.22 70.04 69.48 69.25
    71.14 73.08 71.06 72.31 72.69 71.48 71.82
    72.50 73.33 73.50 73.44 72.94 72.97 71.90
    73.26 74.92 73.58 74.08 73.83 73.56 73.35
    71.98 73.54 72.24 72.77 72.43 72.21 72.22
"""
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
            columns={"resnet14x4 to resnet8x4": {"model.name": "resnet8x4", "teacher": Trained("resnet14x4")}},
            teachers={"resnet14x4": Teacher({"recipe": "supervised", "model.name": "resnet14x4", "train.epochs": 60})},
        ),
    },
    published=(
        Published(
            "Tian et al. 2020, Table 1",
            "the last epoch, means of five runs; users report 0.2 to 1.5 points less; teachers of 72.34, 74.31, 74.31, "
            "79.42, 75.61 and 75.61 %",
            {
                row: {
                    column: {"top1": float(line.split()[i])}
                    for column, line in zip(COLUMNS, _NUMBERS.strip().splitlines())
                }
                for i, row in enumerate(ROWS)
            },
        ),
    ),
)

STUDIES = (tian,)
