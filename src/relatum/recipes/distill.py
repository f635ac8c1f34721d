"""CORSD and the methods that it is compared with, on CIFAR-100, ImageNet and CUB-200-2011.

On CIFAR-100 all methods share one recipe: ResNet-18, all 50,000 training images, batches of 129 images cropped with a
padding of 4 and mirrored, and the setting one-cycle-100. Nothing is chosen, so nothing is held out; whoever chooses
something adds `--data.validation 0.1`.

"Table 1" to "Table 4" are those of Yu et al. 2023, whose teacher is a ResNeXt-101 (32x8d) of 83.78 %, whose schedule is
not stated, and whose numbers may be of the best epoch. Ours are of the last.
"""

from dataclasses import replace
from typing import Any

from relatum.data.views import ClassifierView
from relatum.evaluation.linear import LinearProbe
from relatum.recipes.entry import Entry, Number, named
from relatum.recipes.options import options, options_of
from relatum.recipes.recipe import Data, Evaluation, Model, Optim, Recipe, Train

_CIFAR100 = Recipe(
    name="supervised",
    method=options("supervised"),
    model=Model(name="resnet18", stem="cifar"),
    data=Data(source="cifar100", validation=0.0, batch_size=129, view=ClassifierView(size=32)),
    optim=Optim(name="sgd", lr=0.1, momentum=0.9, weight_decay=5e-4, schedule="one-cycle"),
    train=Train(epochs=100),
    evaluation=Evaluation(every=10),
)
_LARGE_VIEW = ClassifierView(size=224, crop="resized")
_IMAGENET = replace(
    _CIFAR100,
    model=Model(name="resnet18", stem="imagenet"),
    data=Data(source="imagenet", validation=0.0, batch_size=255, view=_LARGE_VIEW, workers=8),
    optim=Optim(name="sgd", lr=0.1, weight_decay=1e-4, schedule="step", milestones=(30.0, 60.0, 90.0)),
    evaluation=Evaluation(every=0, linear=LinearProbe(learning_rates=(0.1,), epochs=10)),
)
_CUB200 = replace(
    _CIFAR100,
    model=Model(name="resnet18", stem="imagenet", pretrained=True),
    data=Data(source="cub200", validation=0.0, batch_size=129, view=_LARGE_VIEW, workers=8),
    optim=Optim(name="sgd", lr=0.01, weight_decay=5e-4, schedule="one-cycle"),
)
_TEACHER = replace(
    _CIFAR100,
    model=Model(name="resnext101_32x8d", stem="cifar"),
    data=replace(_CIFAR100.data, batch_size=128, view=ClassifierView(size=32, autoaugment=True, cutout=16)),
    optim=Optim(lr=0.1, schedule="step", milestones=(83.0, 166.0, 240.0)),
    train=Train(epochs=250),
)
_AS_PRINTED: dict[str, Any] = {
    # The authors' relation networks: twice the channels of the last stage, without the cap that is the default here.
    "width": None,
    # Section 2.1: the projection consists "of several convolutional layers" at every depth; the code has none at the
    # deepest, and 3, 2, 1 before it. One is the least that the text allows.
    "deepest_layers": 1,
    # Eq. (4): D_KL(shallow, deepest), the arguments in the order in which they are printed.
    "divergence": "from-shallow",
    # Section 2.2: "the stacked positive/negative backbone logit"; each triple counts as in all other terms (the code
    # sums over its batch of 129, which the text does not).
    "calibration_input": "logits",
    "calibration_loss": "mean",
}


def _with(method: str, base: Recipe = _CIFAR100, **chosen: Any) -> Recipe:
    return replace(base, method=options_of(method)(**chosen))


def _of(table: int, value: float, note: str = "") -> Number:
    return Number(value, "top-1", f"Table {table} of Yu et al. 2023{note}")


def _tian(value: float, note: str = "") -> Number:
    return Number(value, "top-1", f"Tian et al. 2020, resnet56 -> resnet20 under step-240{note}")


_GUESSED = ", whose columns are guessed"

SUPERVISED = named(
    "with labels, on CIFAR-100",
    {
        "supervised": Entry(
            "Cross-entropy alone on CIFAR-100: the baseline.",
            _CIFAR100,
            source="batch, schedule and augmentation of the released CORSD code.",
            cost="2.6 hours in Yu et al. 2023, on a GPU that they do not name.",
            published=(_of(1, 77.09),),
        ),
        "label-smoothing": Entry(
            "Label smoothing on CIFAR-100: a baseline that ties several self-distillation methods.",
            _with("label-smoothing"),
            source="Szegedy et al. 2016, epsilon 0.1.",
            cost="that of supervised.",
            published=(Number(78.72, "top-1", "Self-KD-Lib, 200 epochs, its best on the test set"),),
        ),
        "teacher": Entry(
            "The teacher of Table 1, ResNeXt-101 (32x8d), with AutoAugment and Cutout.",
            _TEACHER,
            source="Yu et al. 2023 give no recipe; this is that of the same laboratory's self-distillation code "
            "(Zhang et al. 2021), without its self-distillation.",
            cost="about 24 times supervised, by its multiply-adds and epochs.",
            published=(_of(1, 83.78),),
        ),
    },
)


def _student(
    about: str, method: str, source: str, *published: Number, teacher: str = "runs/teacher", **chosen: Any
) -> Entry:
    return Entry(
        about,
        _with(method, **chosen),
        source=source,
        cost="supervised and a forward pass of the teacher.",
        published=published,
        options=f"--method.teacher {teacher}",
    )


FROM_A_TEACHER = named(
    "from a teacher, on CIFAR-100",
    {
        "kd": _student(
            "Knowledge distillation: the teacher's softened predictions.",
            "kd",
            "Hinton et al. 2015, with the weights 0.1 and 0.9 and T = 4 of Tian et al. 2020.",
            _of(1, 78.34),
            _tian(70.66),
        ),
        "dkd": _student(
            "Decoupled knowledge distillation: the true class and the wrong ones apart.",
            "dkd",
            "Zhao et al. 2022, with the weights 1 and 8, T = 4 and the warm-up of their code.",
            Number(71.97, "top-1", "Zhao et al. 2022, resnet56 -> resnet20 under step-240, the best epoch"),
            warmup=20 / 240,
        ),
        "kd-standardized": _student(
            "Knowledge distillation of standardized logits: their shape, not their size.",
            "kd",
            "Sun et al. 2024, with the weights 0.1 and 9 and T = 2 of their code.",
            Number(71.43, "top-1", "Sun et al. 2024, resnet56 -> resnet20 under step-240"),
            kd_weight=9.0,
            temperature=2.0,
            standardize=True,
        ),
        "dist": _student(
            "DIST: how the teacher's probabilities correlate, along classes and along images.",
            "dist",
            "Huang et al. 2022, with the weights 1 and 1 and T = 1 of their code.",
            Number(72.07, "top-1", "Huang et al. 2022, ResNet-34 -> ResNet-18 on ImageNet"),
        ),
        "fitnet": _student(
            "FitNet: a map inside the teacher as a hint.",
            "fitnet",
            "Romero et al. 2015, in the single stage and with the weight 100 of Tian et al. 2020.",
            _of(1, 78.57),
            _tian(69.21),
        ),
        "at": _student(
            "Attention transfer: where the teacher looks.",
            "at",
            "Zagoruyko and Komodakis 2017.",
            _of(1, 78.45),
            _tian(70.55, " and --method.norm squared"),
        ),
        "sp": _student(
            "Similarity-preserving distillation: which images the teacher finds alike.",
            "sp",
            "Tung and Mori 2019, with the weight 3000 of Tian et al. 2020.",
            _of(1, 79.02),
            _tian(69.67),
        ),
        "rkd": _student(
            "Relational knowledge distillation: distances and angles of the teacher's embeddings.",
            "rkd",
            "Park et al. 2019.",
            _of(1, 78.53),
            _tian(69.61),
        ),
        "cc": _student(
            "Correlation congruence: the kernel matrix of the teacher's embeddings.",
            "cc",
            "Peng et al. 2019; random batches, as in all public ports (--data.images-per-class for the paper's).",
            _of(1, 78.76),
            _tian(69.63, " and --method.kernel neighbors"),
        ),
        "crd": _student(
            "Contrastive representation distillation: each image's own teacher embedding, among those of all images.",
            "crd",
            "Tian et al. 2020, with the softmax over all images that their samples estimate; weight and temperature "
            "are theirs, tuned for the estimate (--method.samples 16384).",
            _tian(71.16, " and --method.samples 16384"),
        ),
        "review-kd": _student(
            "ReviewKD: each map of the teacher for all student maps that are as deep or deeper.",
            "review-kd",
            "Chen et al. 2021, with the warm-up of their code; the weight is that of ResNet-110 to 32, and depends on "
            "the pair (0.6 to 8).",
            Number(71.89, "top-1", "Chen et al. 2021, resnet56 -> resnet20 under step-240 and --method.weight 0.6"),
            warmup=20 / 240,
        ),
        "tf-kd": _student(
            "Teacher-free distillation: the teacher is the network itself, trained before.",
            "tf-kd",
            "Yuan et al. 2020.",
            _of(1, 78.43, ", which does not say of which variant"),
            teacher="runs/supervised",
        ),
    },
)

SELF_DISTILLATION = named(
    "from oneself or a peer, on CIFAR-100",
    {
        "tf-kd-virtual": Entry(
            "Teacher-free distillation: the teacher is a distribution made by hand.",
            _with("tf-kd-virtual"),
            source="Yuan et al. 2020.",
            cost="that of supervised.",
            published=(_of(1, 78.43, ", which does not say of which variant"),),
        ),
        "dml": Entry(
            "Deep mutual learning: two networks of one architecture teach each other.",
            _with("dml"),
            source="Zhang et al. 2018; Yu et al. do not name their peer.",
            cost="twice supervised: the peer is trained too.",
            published=(_of(1, 78.72),),
        ),
        "sd": Entry(
            "Self-distillation: the deepest classifier teaches one at each stage.",
            _with("sd"),
            source="Zhang et al. 2019 and 2021.",
            cost="`relatum cost sd` measures it.",
            published=(_of(1, 78.64, ", a number of the 2019 paper"),),
        ),
        "cs-kd": Entry(
            "Class-wise self-distillation: another image of the class is the teacher.",
            _with("cs-kd"),
            source="Yun et al. 2020, at the weight decay of all methods here, which is five times its own.",
            cost="supervised and a forward pass of as many partners: twice its image passes.",
            published=(_of(1, 79.51),),
        ),
        "ps-kd": Entry(
            "Progressive self-distillation: past predictions soften the labels.",
            _with("ps-kd"),
            source="Kim et al. 2021.",
            cost="that of supervised.",
            published=(_of(1, 79.90),),
        ),
        "relation-l2": Entry(
            "Table 4, +RD: relational self-distillation with the handcrafted L2 distance, and no network for it.",
            _with("relation-l2"),
            source="Yu et al. 2023.",
            cost="that of supervised.",
            published=(_of(4, 77.9),),
        ),
    },
)


def _corsd(about: str, source: str, *published: Number, base: Recipe = _CIFAR100, **chosen: Any) -> Entry:
    cost = "`relatum cost` and its name measure it beside the baseline."
    return Entry(about, _with("corsd", base, **chosen), source=source, cost=cost, published=published)


CORSD = named(
    "CORSD, on CIFAR-100",
    {
        "corsd": _corsd(
            "CORSD: relation networks at every stage, of which the deepest teaches; of bounded width.",
            "Yu et al. 2023, with their weights; the width of the relation networks is capped, which theirs is not.",
        ),
        "paper-corsd": _corsd(
            "CORSD as printed: relation networks of the paper's widths, at the deepest stage too.",
            "Yu et al. 2023, Section 2; widths of the authors' code, twice the channels of the last stage; one layer "
            "at the deepest stage, KL from shallow to deepest as Eq. (4) is printed, calibration of logits, its mean. "
            "4.3 hours beside 2.6 of the baseline in the paper.",
            _of(1, 81.10),
            **_AS_PRINTED,
        ),
        "corsd-rn": _corsd(
            "Table 4, +RN: the relation networks alone, without auxiliary classifiers and logit calibration.",
            "Yu et al. 2023; gamma_p = gamma_n = sigma = 0.",
            _of(4, 79.1, _GUESSED),
            **_AS_PRINTED,
            gamma_p=0.0,
            gamma_n=0.0,
            sigma=0.0,
        ),
        "corsd-rn-ac": _corsd(
            "Table 4, +RN +AC: relation networks and auxiliary classifiers, without logit calibration.",
            "Yu et al. 2023; sigma = 0.",
            _of(4, 81.0, _GUESSED),
            **_AS_PRINTED,
            sigma=0.0,
        ),
        "corsd-ld": _corsd(
            "Table 4, +LD: the logit calibration alone.",
            "Yu et al. 2023; alpha = beta = gamma_p = gamma_n = 0.",
            _of(4, 77.6, _GUESSED),
            **_AS_PRINTED,
            alpha=0.0,
            beta=0.0,
            gamma_p=0.0,
            gamma_n=0.0,
        ),
        "corsd-l2": _corsd(
            "CORSD with the Euclidean distance of projected images in the place of the relation networks.",
            "ours: all terms of CORSD with the handcrafted relation of Table 4's row +RD.",
            relation="euclidean",
        ),
        "corsd-jaccard": _corsd(
            "CORSD with the bi-projector Jaccard index in the place of the relation networks.",
            "ours: where Yu et al. 2023 and Jiang et al. 2022 meet.",
            relation="jaccard",
        ),
    },
)

LARGE = named(
    "with labels, on ImageNet and CUB-200-2011",
    {
        "imagenet-supervised": Entry(
            "Cross-entropy alone on ImageNet: the baseline.",
            _IMAGENET,
            source="He et al. 2016 (rate, decay, crops), in the 100 epochs of Tian et al. 2020; batch of Yu et al. "
            "2023.",
            cost="not measured by us.",
            published=(_of(2, 69.57, ", which looks like a published model and not a run of the authors"),),
            options="--data.root DIR",
        ),
        "imagenet-corsd": replace(
            _corsd(
                "CORSD on ImageNet: 85 triples a step.",
                "Yu et al. 2023; the schedule is that of imagenet-supervised.",
                _of(2, 71.02),
                base=_IMAGENET,
                **_AS_PRINTED,
            ),
            options="--data.root DIR",
        ),
        "cub200-supervised": Entry(
            "Cross-entropy alone on CUB-200-2011, from an ImageNet encoder: the baseline.",
            _CUB200,
            source="batch of Yu et al. 2023, who state no more; the start from ImageNet is our guess from their "
            "numbers, the rate is ours and not tuned. Without a network start from a run of yours: "
            "--model.no-pretrained --model.initial runs/imagenet-supervised.",
            cost="not measured by us.",
            published=(_of(3, 73.72),),
        ),
        "cub200-corsd": _corsd(
            "CORSD on CUB-200-2011, from an ImageNet encoder.",
            "Yu et al. 2023; all else is that of cub200-supervised.",
            _of(3, 77.30),
            base=_CUB200,
            **_AS_PRINTED,
        ),
    },
)
