"""The tables and figures of Yu et al. 2023, "CORSD: Class-Oriented Relational Self Distillation", and what they lack.

The paper says: batches of 129 images (255 on ImageNet), each image once an epoch, alpha = beta = sigma = 0.01,
gamma_p = 0.2, gamma_n = 0.05, lambda = 0.8. It does not say the schedule (here that of the released code: 100 epochs,
one cycle to 0.1), which TF-KD it has, its peer of DML (here the same network), nor how its teacher was trained.

More than 400 lines, because a third of them are the printed tables, which stand beside the arms that they are for.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from relatum.studies.scales import ALL_IMAGES, CPU_LABELED, CPU_LABELED_TRIALS, HELD_OUT
from relatum.studies.study import Changes, Published, Scale, Selection, Study, Teacher, Trained

AS_PRINTED: Changes = {"recipe": "paper-corsd"}
"""As the paper's text has it; `corsd` is the recipe with relation networks of capped widths and our readings."""

NETWORKS: Mapping[str, Changes] = {
    "ResNet18": {"model.name": "resnet18"},
    "ResNet101": {"model.name": "resnet101"},
    "ResNeXt50-4": {"model.name": "resnext50_32x4d"},
    "WideResNet50-2": {"model.name": "wide_resnet50_2"},
    "WideResNet101-2": {"model.name": "wide_resnet101_2"},
    "SEResNet18": {"model.name": "seresnet18"},
    "SEResNet50": {"model.name": "seresnet50"},
    "PreactResNet18": {"model.name": "preact_resnet18"},
    "PreactResNet50": {"model.name": "preact_resnet50"},
    "MobileNetV1": {"model.name": "mobilenetv1"},
}
METHODS: Mapping[str, Changes] = {
    "Baseline": {"recipe": "supervised"},
    "KD": {"recipe": "kd"},
    "FitNet": {"recipe": "fitnet"},
    "DML": {"recipe": "dml"},
    "RKD": {"recipe": "rkd"},
    "AT": {"recipe": "at"},
    "SP": {"recipe": "sp"},
    "CC": {"recipe": "cc"},
    "SD": {"recipe": "sd"},
    "CS-KD": {"recipe": "cs-kd"},
    "TF-KD": {"recipe": "tf-kd", "teacher": Trained("Baseline")},
    "PS-KD": {"recipe": "ps-kd"},
    "CORSD": AS_PRINTED,
}
NO_TERMS: Changes = {f"method.{name}": 0.0 for name in ("alpha", "beta", "gamma_p", "gamma_n", "sigma")}


def without(*terms: str) -> Changes:
    """CORSD less some of its terms, which are named by their weights."""
    return {"recipe": "corsd", **{f"method.{name}": 0.0 for name in terms}}


_WITH_A_TEACHER: Changes = {"teacher": Trained("teacher")}
_PAPER: Changes = {**ALL_IMAGES, **_WITH_A_TEACHER}
ABOUT_PAPER = "CIFAR-100 at 32 pixels, 100 epochs, batches of 129 (each image once an epoch), one cycle to 0.1"


def _table(rows: str, columns: Mapping[str, Changes] | list[str], transposed: str) -> dict[str, Any]:
    """A printed table, a line for each network, as method -> network -> metric."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for network, line in zip(columns, transposed.strip().splitlines()):
        for method, number in zip(rows.split(), line.split()):
            found.setdefault(method, {})[network] = {"top1": float(number)}
    return found


_ORDER = "Baseline KD FitNet DML RKD AT SP CC SD CS-KD TF-KD PS-KD CORSD"
_TABLE_1 = Published(
    "Yu et al. 2023, Table 1",
    "single runs, the best epoch on the test set in the released code; the teacher of KD, FitNet, RKD, AT, SP and CC "
    "is a ResNeXt101-8 of 83.78 %; baselines and SD agree with a paper of 2019, so columns may have other recipes; "
    "the means printed in the text do not follow from the table",
    _table(
        _ORDER,
        NETWORKS,
        """
        77.09 78.34 78.57 78.72 78.53 78.45 79.02 78.76 78.64 79.51 78.43 79.90 81.10
        77.98 78.97 79.12 79.82 79.59 79.65 80.12 79.91 80.23 81.12 80.04 81.59 82.21
        79.49 80.46 79.54 80.39 80.94 81.05 80.67 80.72 82.45 81.63 80.14 82.10 82.50
        79.13 80.15 79.52 79.95 80.54 80.42 80.78 80.94 82.16 81.71 80.45 82.15 83.02
        79.53 80.52 79.65 80.69 80.46 80.71 81.05 81.19 82.56 82.16 80.93 82.41 83.55
        77.27 78.43 78.49 78.58 78.17 78.81 78.42 78.56 79.01 79.86 78.96 79.67 80.70
        77.69 78.89 78.82 79.72 79.11 79.02 78.74 78.82 80.56 80.01 79.23 80.12 82.54
        76.05 77.41 78.79 77.03 78.20 78.01 78.77 78.34 78.12 78.87 78.01 79.03 79.83
        77.74 78.26 79.12 78.48 79.15 79.15 79.57 79.59 80.12 79.77 78.96 80.10 81.08
        67.82 67.55 71.78 67.73 69.42 71.33 71.57 70.78 71.39 71.45 70.67 71.23 71.90
        """,
    ),
)

ARMS: Mapping[str, Changes] = {
    "supervised": {"recipe": "supervised"},
    "CORSD": {"recipe": "corsd"},
    "label smoothing": {"recipe": "label-smoothing"},
    "cross-entropy on triples": {"recipe": "corsd", **NO_TERMS},
    "CORSD, anchors spread": {"recipe": "corsd", "data.triples": "spread"},
    "cross-entropy on triples, anchors spread": {"recipe": "corsd", **NO_TERMS, "data.triples": "spread"},
    "supervised, 1.3 times the epochs": {"recipe": "supervised", "train.epochs": 52},
    "supervised, rate and decay chosen": {"recipe": "supervised"},
    "CORSD, weights chosen": {"recipe": "corsd"},
    "PS-KD, weight chosen": {"recipe": "ps-kd"},
    "CORSD with Jaccard": {"recipe": "corsd", "method.relation": "jaccard"},
    "CORSD with cosine": {"recipe": "corsd", "method.relation": "cosine"},
    "CORSD with L2": {"recipe": "corsd", "method.relation": "euclidean"},
    "L2 alone": {"recipe": "relation-l2"},
    "SD": {"recipe": "sd"},
    "CS-KD": {"recipe": "cs-kd"},
    "CS-KD, half the epochs": {"recipe": "cs-kd", "train.epochs": 20},
    "PS-KD": {"recipe": "ps-kd"},
    "TF-KD virtual": {"recipe": "tf-kd-virtual"},
    "DML": {"recipe": "dml"},
    "KD": {"recipe": "kd"},
    "FitNet": {"recipe": "fitnet"},
    "AT": {"recipe": "at"},
    "SP": {"recipe": "sp"},
    "RKD": {"recipe": "rkd"},
    "CC": {"recipe": "cc"},
    "TF-KD": {"recipe": "tf-kd", "teacher": Trained("supervised")},
}
"""What Table 1 has, and what it lacks: label smoothing, cross-entropy on CORSD's own batches, and equal time."""

_CHOSEN = Selection(
    {
        "CORSD, weights chosen": [
            {"method.alpha": w, "method.beta": w, "method.sigma": w, "method.gamma_p": gamma}
            for w in (0.01, 0.1)
            for gamma in (0.1, 0.2, 0.5)
        ],
        "PS-KD, weight chosen": [{"method.alpha": alpha} for alpha in (0.2, 0.4, 0.6, 0.7, 0.8, 0.9)],
        "supervised, rate and decay chosen": [
            {"optim.lr": rate, "optim.weight_decay": decay} for rate in (0.05, 0.1, 0.2) for decay in (5e-4, 2e-3)
        ],
    },
    metric="validation_top1",
    changes=HELD_OUT,
)
ABOUT_CPU = (
    "resnet8x4 in the place of the paper's networks, 5,000 images of CIFAR-100 at 16 pixels, 40 epochs of one cycle; a "
    "teacher is a resnet14x4 trained on the same images"
)
_CPU_TEACHER = Teacher({"recipe": "supervised", "model.name": "resnet14x4", "train.epochs": 60})
_GPU_ARMS = {row: changes for row, changes in ARMS.items() if "train.epochs" not in changes}
ABOUT_GPU = "ResNet-18, CIFAR-100 at 32 pixels, 100 epochs, one cycle to 0.1; relation networks with capped widths"

corsd_1 = Study(
    name="corsd-1",
    question="Does CORSD beat its baseline and eleven other distillers on CIFAR-100?",
    recipe="supervised",
    rows=METHODS,
    columns=NETWORKS,
    baseline="Baseline",
    teachers={"teacher": Teacher({"recipe": "teacher"})},
    scales={
        "paper": Scale(ABOUT_PAPER, _PAPER, seeds=(0, 1, 2)),
        "gpu": Scale(
            ABOUT_GPU,
            _PAPER,
            rows=_GPU_ARMS,
            columns={"ResNet18": NETWORKS["ResNet18"]},
            baseline="supervised",
            selection=_CHOSEN,
        ),
        "cpu": Scale(
            ABOUT_CPU,
            {**CPU_LABELED, **_WITH_A_TEACHER},
            rows=ARMS,
            baseline="supervised",
            columns={"resnet8x4": {"model.name": "resnet8x4"}},
            teachers={"teacher": _CPU_TEACHER},
            selection=replace(_CHOSEN, changes=CPU_LABELED_TRIALS),
        ),
    },
    published=(_TABLE_1,),
    notes=(
        "CORSD and cross-entropy on triples see each image once an epoch, as the baseline does; CS-KD passes twice as "
        "many images, DML trains two networks.",
    ),
)

_IMAGENET: Changes = {
    "model.stem": "imagenet",
    "data.source": "imagenet",
    "data.validation": 0.0,
    "data.batch_size": 255,
    "data.workers": 8,
    "data.view.size": 224,
    "data.view.crop": "resized",
    "optim.lr": 0.1,
    "optim.weight_decay": 1e-4,
    "optim.schedule": "step",
    "optim.milestones": (30.0, 60.0, 90.0),
    "train.epochs": 100,
    "evaluation.every": 0,
}
_TINY: Changes = {
    **CPU_LABELED,
    "data.source": "tiny-imagenet",
    "data.train_images": None,
    "data.view.size": 32,
    "train.epochs": 20,
}
_ABOUT_TINY = "Tiny-ImageNet (50 images of each of 200 classes) at 32 pixels, 20 epochs"
_SELF = ("Baseline", "SD", "CS-KD", "PS-KD", "CORSD")
_WIDE = ("ResNet18", "ResNeXt50-4", "WideResNet50-2")

corsd_2 = Study(
    name="corsd-2",
    question="Does CORSD beat other self-distillers on ImageNet?",
    recipe="supervised",
    rows={row: METHODS[row] for row in _SELF},
    columns={column: NETWORKS[column] for column in _WIDE},
    baseline="Baseline",
    scales={
        "paper": Scale("ImageNet, 100 epochs, batches of 255, steps at 30, 60 and 90", _IMAGENET, seeds=(0,)),
        "gpu": Scale(
            "Tiny-ImageNet at 64 pixels in the place of ImageNet, ResNet-18, 100 epochs of one cycle",
            {**ALL_IMAGES, "data.source": "tiny-imagenet", "data.view.size": 64, "model.stem": "tiny"},
            columns={"ResNet18": NETWORKS["ResNet18"]},
        ),
        "cpu": Scale(
            f"{_ABOUT_TINY}, in the place of ImageNet; small networks in the place of the paper's",
            _TINY,
            columns={name: {"model.name": name} for name in ("resnet8x4", "wrn_16_2")},
        ),
    },
    published=(
        Published(
            "Yu et al. 2023, Table 2",
            "single runs; two baselines are those of published models and the third nearly so, not of the same recipe",
            _table(
                "Baseline SD CS-KD PS-KD CORSD",
                list(_WIDE),
                """
                69.57 70.51 70.39 70.59 71.02
                77.62 78.47 78.35 78.76 79.13
                78.47 79.02 78.76 78.91 79.45
                """,
            ),
        ),
    ),
)

_CUB: Changes = {
    "model.stem": "imagenet",
    "model.pretrained": True,
    "data.source": "cub200",
    "data.validation": 0.0,
    "data.batch_size": 129,
    "data.workers": 8,
    "data.view.size": 224,
    "data.view.crop": "resized",
    "optim.lr": 0.01,
    "evaluation.every": 0,
    **_WITH_A_TEACHER,
}
_OWN_START: Changes = {"model.pretrained": False, "model.initial": Trained("SEResNet18 on ImageNet")}
_FINE = ("ResNet18", "ResNet50", "ResNeXt50-4", "WideResNet50-2", "SEResNet18", "PreactResNet18")

corsd_3 = Study(
    name="corsd-3",
    question="Does CORSD beat its baseline and RKD on fine-grained classes?",
    recipe="supervised",
    rows={row: METHODS[row] for row in ("Baseline", "RKD", "CORSD")},
    columns={
        name: {
            **NETWORKS.get(name, {"model.name": "resnet50"}),
            **(_OWN_START if name == "SEResNet18" else {}),
        }
        for name in _FINE
    },
    baseline="Baseline",
    teachers={
        "teacher": Teacher({"recipe": "supervised", "model.name": "resnext101_32x8d"}),
        "SEResNet18 on ImageNet": Teacher(
            {"recipe": "supervised", **_IMAGENET, "model.pretrained": False, "model.name": "seresnet18"}
        ),
    },
    scales={
        "paper": Scale(
            "CUB-200-2011 at 224 pixels from an ImageNet encoder, 100 epochs of one cycle", _CUB, seeds=(0, 1, 2)
        ),
        "gpu": Scale(
            "CUB-200-2011 at 224 pixels from an ImageNet encoder, 100 epochs of one cycle: the smallest network alone",
            _CUB,
            columns={"ResNet18": NETWORKS["ResNet18"]},
        ),
        "cpu": Scale(
            f"{_ABOUT_TINY}, in the place of CUB-200-2011, from an encoder of CIFAR-100; a teacher is a resnet14x4",
            {**_TINY, **_WITH_A_TEACHER, "data.train_images": 6_000, "optim.lr": 0.03},
            columns={"resnet8x4": {"model.name": "resnet8x4", "model.initial": Trained("resnet8x4 on CIFAR-100")}},
            teachers={
                "teacher": Teacher(
                    {
                        "recipe": "supervised",
                        "model.name": "resnet14x4",
                        "model.initial": Trained("resnet14x4 on CIFAR-100"),
                        "optim.lr": 0.03,
                    }
                ),
                **{
                    f"{name} on CIFAR-100": Teacher(
                        {
                            "recipe": "supervised",
                            **CPU_LABELED,
                            "model.name": name,
                            "data.train_images": 20_000,
                            "data.view.size": 32,
                            "train.epochs": 10,
                        }
                    )
                    for name in ("resnet8x4", "resnet14x4")
                },
            },
        ),
    },
    published=(
        Published(
            "Yu et al. 2023, Table 3",
            "single runs; the start from ImageNet is inferred; RKD's teacher is a ResNeXt101-8 of 79.12 %",
            _table(
                "Baseline RKD CORSD",
                list(_FINE),
                """
                73.72 75.78 77.30
                74.02 76.80 78.33
                74.20 77.32 78.92
                74.57 77.42 78.97
                73.79 77.17 78.71
                73.02 75.61 77.12
                """,
            ),
        ),
    ),
    notes=("SEResNet18 has no published ImageNet weights in timm: it starts from an ImageNet run of ours.",),
)

STUDIES = (corsd_1, corsd_2, corsd_3)
