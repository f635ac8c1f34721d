"""What CORSD is made of: its ablation (Table 4), its features by depth (Figure 2), its hyper-parameters (Figure 3)."""

from collections.abc import Mapping

from relatum.studies.corsd import ABOUT_CPU, ABOUT_GPU, ABOUT_PAPER, AS_PRINTED, NETWORKS, without
from relatum.studies.scales import ALL_IMAGES, CPU_LABELED
from relatum.studies.study import Changes, Published, Scale, Study

_ABLATION: Mapping[str, Changes] = {
    "BL": {"recipe": "supervised"},
    "+RD": {"recipe": "relation-l2"},
    "+LD": without("alpha", "beta", "gamma_p", "gamma_n"),
    "+RN": without("gamma_p", "gamma_n", "sigma"),
    "+RN +AC": without("sigma"),
    "+RN +AC +LD": without(),
}
_ABOUT_CPU = ABOUT_CPU.partition("; a teacher")[0]
_CPU_COLUMN: Mapping[str, Changes] = {"resnet8x4": {"model.name": "resnet8x4"}}


def _as_printed(rows: Mapping[str, Changes]) -> dict[str, Changes]:
    return {row: {**c, **AS_PRINTED} if c.get("recipe") == "corsd" else c for row, c in rows.items()}


corsd_4 = Study(
    name="corsd-4",
    question="Which part of CORSD helps?",
    recipe="supervised",
    rows=_as_printed(_ABLATION),
    columns={"ResNet18": NETWORKS["ResNet18"]},
    baseline="BL",
    scales={
        "paper": Scale(ABOUT_PAPER, ALL_IMAGES, seeds=(0, 1, 2)),
        "gpu": Scale(ABOUT_GPU, ALL_IMAGES, rows=_ABLATION),
        "cpu": Scale(_ABOUT_CPU, CPU_LABELED, rows=_ABLATION, columns=_CPU_COLUMN),
    },
    published=(
        Published(
            "Yu et al. 2023, Table 4",
            "single runs; the check marks of the table are damaged in our copy, and which row is which is our reading",
            {
                row: {"ResNet18": {"top1": number}}
                for row, number in zip(_ABLATION, (77.1, 77.9, 77.6, 79.1, 81.0, 81.1))
            },
        ),
    ),
)

_BY_DEPTH = {row: _ABLATION[row] for row in ("BL", "+RN", "+RN +AC")}
_MAPS: Changes = {"evaluation.run": ("classifier", "stages"), "evaluation.figures": True}

corsd_fig2 = Study(
    name="corsd-fig2",
    question="At which depth do the features part the classes?",
    recipe="supervised",
    rows=_as_printed(_BY_DEPTH),
    columns={"ResNeXt101-8": {"model.name": "resnext101_32x8d"}},
    baseline="BL",
    pictures="stages.png",
    metrics={
        "stage1_knn_top1": "stage 1",
        "stage2_knn_top1": "stage 2",
        "stage3_knn_top1": "stage 3",
        "stage4_knn_top1": "stage 4",
        "top1": "top-1",
    },
    scales={
        "paper": Scale(ABOUT_PAPER, {**ALL_IMAGES, **_MAPS}, seeds=(0,)),
        "gpu": Scale(
            ABOUT_GPU,
            {**ALL_IMAGES, **_MAPS},
            rows=_BY_DEPTH,
            columns={"ResNet18": NETWORKS["ResNet18"]},
            seeds=(0, 1, 2),
        ),
        "cpu": Scale(
            _ABOUT_CPU,
            {**CPU_LABELED, **_MAPS},
            rows=_BY_DEPTH,
            columns=_CPU_COLUMN,
            seeds=(0, 1),
        ),
    },
    notes=("k-NN on the pooled map of each stage; the maps themselves are stages.png in each run folder.",),
)

_VALUES: Mapping[str, tuple[float, ...]] = {
    "alpha": (0.001, 0.003, 0.03, 0.1),
    "beta": (0.001, 0.003, 0.03, 0.1),
    "sigma": (0.001, 0.003, 0.03, 0.1),
    "gamma_p": (0.05, 0.1, 0.5, 1.0),
    "gamma_n": (0.01, 0.02, 0.1, 0.2),
    "lam": (0.2, 0.4, 0.6, 1.0),
}
_SENSITIVITY: Mapping[str, Changes] = {
    "CORSD": {"recipe": "corsd"},
    **{
        f"{name} {value:g}": {"recipe": "corsd", f"method.{name}": value}
        for name, values in _VALUES.items()
        for value in values
    },
}

corsd_fig3 = Study(
    name="corsd-fig3",
    question="How sensitive is CORSD to each of its hyper-parameters?",
    recipe="corsd",
    rows=_as_printed(_SENSITIVITY),
    columns={"ResNet18": NETWORKS["ResNet18"]},
    baseline="CORSD",
    plot=tuple(f"method.{name}" for name in _VALUES),
    scales={
        "paper": Scale(ABOUT_PAPER, ALL_IMAGES, seeds=(0, 1, 2)),
        "gpu": Scale(ABOUT_GPU, ALL_IMAGES, rows=_SENSITIVITY, seeds=(0, 1, 2)),
        "cpu": Scale(_ABOUT_CPU, CPU_LABELED, rows=_SENSITIVITY, columns=_CPU_COLUMN),
    },
    notes=("CORSD: alpha = beta = sigma = 0.01, gamma_p = 0.2, gamma_n = 0.05, lam = 0.8; a row changes one of them.",),
)

STUDIES = (corsd_4, corsd_fig2, corsd_fig3)
