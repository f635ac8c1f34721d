"""CORSD and the methods that it is compared with, on CIFAR-100, ImageNet and CUB-200-2011.

On CIFAR-100 all methods share one recipe: ResNet-18, all 50,000 training images, batches of 129 images cropped with a
padding of 4 and mirrored, and the schedule `one_cycle_100`. Nothing is chosen, so nothing is held out; whoever chooses
something adds `--data.validation 0.1`. Numbers under different schedules do not compare, and published tables mix
them: `SETTINGS` has the three that most published numbers come from, and any recipe takes any of them:

    relatum train supervised step-240 --model.name resnet56 --run runs/resnet56
    relatum train kd step-240 --model.name resnet20 --method.teacher runs/resnet56

"Table 1" to "Table 4" are those of Yu et al. 2023, whose teacher is a ResNeXt-101 (32x8d) of 83.78 %, whose schedule is
not stated, and whose numbers may be of the best epoch. Ours are of the last.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from relatum.data.views import ClassifierView
from relatum.evaluation.linear import LinearProbe
from relatum.methods import METHODS
from relatum.recipes.recipe import Data, Evaluation, Model, Optim, Recipe, Train, options

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
_IMAGENET = Recipe(
    name="imagenet-supervised",
    method=options("supervised"),
    model=Model(name="resnet18", stem="imagenet"),
    data=Data(source="imagenet", validation=0.0, batch_size=255, view=_LARGE_VIEW, workers=8),
    optim=Optim(name="sgd", lr=0.1, weight_decay=1e-4, schedule="step", milestones=(30.0, 60.0, 90.0)),
    train=Train(epochs=100),
    evaluation=Evaluation(every=0, linear=LinearProbe(learning_rates=(0.1,), epochs=10)),
)
_CUB200 = Recipe(
    name="cub200-supervised",
    method=options("supervised"),
    model=Model(name="resnet18", stem="imagenet", pretrained=True),
    data=Data(source="cub200", validation=0.0, batch_size=129, view=_LARGE_VIEW, workers=8),
    optim=Optim(name="sgd", lr=0.01, weight_decay=5e-4, schedule="one-cycle"),
    train=Train(epochs=100),
    evaluation=Evaluation(every=10),
)


def _with(method: str, name: str = "", base: Recipe = _CIFAR100, **chosen: Any) -> Recipe:
    """`base` with another method, called like it where no name is given."""
    return replace(base, name=name or method, method=options(method, **chosen))


# Settings: how long and at what rate, for any recipe


def one_cycle_100(recipe: Recipe) -> Recipe:
    """100 epochs in batches of 129, one cycle to a rate of 0.1: the released CORSD code, and the default here.

    That code lets the momentum swing with the rate, between 0.95 and 0.85; here it is 0.9 throughout.
    """
    return _set(recipe, "one-cycle-100", 100, 129, Optim(lr=0.1, schedule="one-cycle"))


def step_200(recipe: Recipe) -> Recipe:
    """200 epochs in batches of 128, rate 0.1, a fifth of it after 60, 120 and 160: TF-KD, and AT without the warm-up.

    TF-KD's recipe, and that of the public CIFAR-100 zoo which it took over, also rotate images by up to 15 degrees.
    """
    step = Optim(lr=0.1, schedule="step", milestones=(60.0, 120.0, 160.0), gamma=0.2, warmup_epochs=1.0)
    return _set(recipe, "step-200", 200, 128, step)


def step_240(recipe: Recipe) -> Recipe:
    """240 epochs in batches of 64, rate 0.05, a tenth of it after 150, 180 and 210: the benchmark of Tian et al."""
    return _set(recipe, "step-240", 240, 64, Optim(lr=0.05, schedule="step", milestones=(150.0, 180.0, 210.0)))


SETTINGS: dict[str, Callable[[Recipe], Recipe]] = {
    "one-cycle-100": one_cycle_100,
    "step-200": step_200,
    "step-240": step_240,
}
"""Every setting by the name that the command line uses: `relatum train RECIPE SETTING`."""


def _set(recipe: Recipe, setting: str, epochs: int, batch_size: int, optim: Optim) -> Recipe:
    """The recipe under a setting, and called so; triples take the nearest batch that holds whole ones."""
    if METHODS[recipe.method.name].pairing == "triples":
        batch_size = 3 * round(batch_size / 3)
    return replace(
        recipe,
        name=f"{recipe.name}-{setting}",
        data=replace(recipe.data, batch_size=batch_size),
        optim=optim,
        train=replace(recipe.train, epochs=epochs),
    )


# CIFAR-100


def supervised() -> Recipe:
    """Cross-entropy alone on CIFAR-100: the baseline.

    Source: batch, schedule and augmentation of the released CORSD code.
    Command: relatum train supervised
    Cost: Yu et al. report 2.6 hours on a GPU that they do not name; not measured by us.
    Expected: 77.09 in Table 1; not confirmed by us.
    """
    return _with("supervised")


def teacher() -> Recipe:
    """The teacher of Table 1, ResNeXt-101 (32x8d), with AutoAugment and Cutout.

    Source: Yu et al. 2023 give no recipe; this is that of the same laboratory's self-distillation code (Zhang et al.
        2021), without its self-distillation.
    Command: relatum train teacher
    Cost: about 24 times supervised, by its multiply-adds and epochs.
    Expected: 83.78 in Table 1; not confirmed by us.
    """
    return replace(
        _CIFAR100,
        name="teacher",
        model=Model(name="resnext101_32x8d", stem="cifar"),
        data=replace(_CIFAR100.data, batch_size=128, view=ClassifierView(size=32, autoaugment=True, cutout=16)),
        optim=Optim(lr=0.1, schedule="step", milestones=(83.0, 166.0, 240.0)),
        train=Train(epochs=250),
    )


def label_smoothing() -> Recipe:
    """Label smoothing on CIFAR-100: a baseline that ties several self-distillation methods.

    Source: Szegedy et al. 2016, epsilon 0.1.
    Command: relatum train label-smoothing
    Cost: that of supervised.
    Expected: 78.72 in a public library of self-distillation (200 epochs, its best); not confirmed by us.
    """
    return _with("label-smoothing")


def kd() -> Recipe:
    """Knowledge distillation on CIFAR-100: the teacher's softened predictions.

    Source: Hinton et al. 2015, with the weights 0.1 and 0.9 and T = 4 of Tian et al. 2020.
    Command: relatum train kd --method.teacher runs/teacher
    Cost: supervised and a forward pass of the teacher.
    Expected: 78.34 in Table 1; resnet56 -> resnet20 under step-240: 70.66 (Tian et al.); not confirmed by us.
    """
    return _with("kd")


def fitnet() -> Recipe:
    """FitNet on CIFAR-100: a map inside the teacher as a hint.

    Source: Romero et al. 2015, in the single stage and with the weight 100 of Tian et al. 2020.
    Command: relatum train fitnet --method.teacher runs/teacher
    Cost: supervised and a forward pass of the teacher.
    Expected: 78.57 in Table 1; resnet56 -> resnet20 under step-240: 69.21 (Tian et al.); not confirmed by us.
    """
    return _with("fitnet")


def at() -> Recipe:
    """Attention transfer on CIFAR-100: where the teacher looks.

    Source: Zagoruyko and Komodakis 2017.
    Command: relatum train at --method.teacher runs/teacher
    Cost: supervised and a forward pass of the teacher.
    Expected: 78.45 in Table 1; resnet56 -> resnet20 under step-240 and --method.norm squared: 70.55 (Tian et al.); not
        confirmed by us.
    """
    return _with("at")


def sp() -> Recipe:
    """Similarity-preserving distillation on CIFAR-100.

    Source: Tung and Mori 2019, with the weight 3000 of Tian et al. 2020.
    Command: relatum train sp --method.teacher runs/teacher
    Cost: supervised and a forward pass of the teacher.
    Expected: 79.02 in Table 1; resnet56 -> resnet20 under step-240: 69.67 (Tian et al.); not confirmed by us.
    """
    return _with("sp")


def rkd() -> Recipe:
    """Relational knowledge distillation on CIFAR-100: distances and angles of the teacher's embeddings.

    Source: Park et al. 2019.
    Command: relatum train rkd --method.teacher runs/teacher
    Cost: supervised and a forward pass of the teacher.
    Expected: 78.53 in Table 1; resnet56 -> resnet20 under step-240: 69.61 (Tian et al.); not confirmed by us.
    """
    return _with("rkd")


def cc() -> Recipe:
    """Correlation congruence on CIFAR-100.

    Source: Peng et al. 2019; random batches, as in all public ports (`--data.images-per-class` for the paper's).
    Command: relatum train cc --method.teacher runs/teacher
    Cost: supervised and a forward pass of the teacher.
    Expected: 78.76 in Table 1; resnet56 -> resnet20 under step-240 and --method.kernel neighbors: 69.63 (Tian et al.);
        not confirmed by us.
    """
    return _with("cc")


def dml() -> Recipe:
    """Deep mutual learning on CIFAR-100, with one peer of the same architecture.

    Source: Zhang et al. 2018; Yu et al. do not name their peer.
    Command: relatum train dml
    Cost: twice supervised: the peer is trained too.
    Expected: 78.72 in Table 1; not confirmed by us.
    """
    return _with("dml")


def sd() -> Recipe:
    """Self-distillation on CIFAR-100: the deepest classifier teaches one at each stage.

    Source: Zhang et al. 2019 and 2021.
    Command: relatum train sd
    Cost: `relatum cost sd` measures it.
    Expected: 78.64 in Table 1, a number of the 2019 paper; not confirmed by us.
    """
    return _with("sd")


def cs_kd() -> Recipe:
    """Class-wise self-distillation on CIFAR-100: another image of the class is the teacher.

    Source: Yun et al. 2020, at the weight decay of all methods here, which is five times its own.
    Command: relatum train cs-kd
    Cost: supervised and a forward pass of as many partners: twice its image passes.
    Expected: 79.51 in Table 1; not confirmed by us.
    """
    return _with("cs-kd")


def tf_kd() -> Recipe:
    """Teacher-free distillation on CIFAR-100: the teacher is the network itself, trained before.

    Source: Yuan et al. 2020.
    Command: relatum train tf-kd --method.teacher runs/supervised
    Cost: supervised and a forward pass of the teacher.
    Expected: 78.43 in Table 1, which does not say of which variant; not confirmed by us.
    """
    return _with("tf-kd")


def tf_kd_virtual() -> Recipe:
    """Teacher-free distillation on CIFAR-100: the teacher is a distribution made by hand.

    Source: Yuan et al. 2020.
    Command: relatum train tf-kd-virtual
    Cost: that of supervised.
    Expected: 78.43 in Table 1, which does not say of which variant; not confirmed by us.
    """
    return _with("tf-kd-virtual")


def ps_kd() -> Recipe:
    """Progressive self-distillation on CIFAR-100: past predictions soften the labels.

    Source: Kim et al. 2021.
    Command: relatum train ps-kd
    Cost: that of supervised.
    Expected: 79.90 in Table 1; not confirmed by us.
    """
    return _with("ps-kd")


def corsd() -> Recipe:
    """CORSD on CIFAR-100: relation networks at every stage, of which the deepest teaches.

    Source: Yu et al. 2023, with their weights; the width of the relation networks is capped. With all weights it is the
        last column of Table 4.
    Command: relatum train corsd
    Cost: 4.3 hours beside 2.6 of the baseline in the paper; `relatum cost corsd` measures ours.
    Expected: 81.10 in Table 1; no third party has reproduced it, and neither have we.
    """
    return _with("corsd")


def corsd_paper_widths() -> Recipe:
    """CORSD on CIFAR-100 with relation networks as wide as the paper's.

    Source: Yu et al. 2023 and the authors' code: twice the channels of the last stage.
    Command: relatum train corsd-paper-widths
    Cost: `relatum cost corsd-paper-widths` measures it.
    Expected: 81.10 in Table 1; not confirmed by us.
    """
    return _with("corsd", "corsd-paper-widths", width=None)


def corsd_l2() -> Recipe:
    """CORSD on CIFAR-100 with the Euclidean distance of projected images in the place of the relation networks.

    Source: ours: all terms of CORSD with the handcrafted relation of Table 4's row "+RD".
    Command: relatum train corsd-l2
    Cost: `relatum cost corsd-l2` measures it.
    Expected: no number is published.
    """
    return _with("corsd", "corsd-l2", relation="euclidean")


def corsd_jaccard() -> Recipe:
    """CORSD on CIFAR-100 with the bi-projector Jaccard index in the place of the relation networks.

    Source: ours: where Yu et al. 2023 and Jiang et al. 2022 meet.
    Command: relatum train corsd-jaccard
    Cost: `relatum cost corsd-jaccard` measures it.
    Expected: no number is published.
    """
    return _with("corsd", "corsd-jaccard", relation="jaccard")


def relation_l2() -> Recipe:
    """Table 4, +RD: relational self-distillation with the handcrafted L2 distance, and no network for it.

    Source: Yu et al. 2023.
    Command: relatum train relation-l2
    Cost: that of supervised.
    Expected: 77.9 in Table 4; not confirmed by us.
    """
    return _with("relation-l2")


def corsd_rn() -> Recipe:
    """Table 4, +RN: the relation networks alone, without auxiliary classifiers and logit calibration.

    Source: Yu et al. 2023; `gamma_p = gamma_n = sigma = 0`.
    Command: relatum train corsd-rn
    Cost: `relatum cost corsd-rn` measures it.
    Expected: 79.1 in Table 4, whose columns we had to guess; not confirmed by us.
    """
    return _with("corsd", "corsd-rn", gamma_p=0.0, gamma_n=0.0, sigma=0.0)


def corsd_rn_ac() -> Recipe:
    """Table 4, +RN +AC: relation networks and auxiliary classifiers, without logit calibration.

    Source: Yu et al. 2023; `sigma = 0`.
    Command: relatum train corsd-rn-ac
    Cost: `relatum cost corsd-rn-ac` measures it.
    Expected: 81.0 in Table 4, whose columns we had to guess; not confirmed by us.
    """
    return _with("corsd", "corsd-rn-ac", sigma=0.0)


def corsd_ld() -> Recipe:
    """Table 4, +LD: the logit calibration alone.

    Source: Yu et al. 2023; `alpha = beta = gamma_p = gamma_n = 0`.
    Command: relatum train corsd-ld
    Cost: that of supervised.
    Expected: 77.6 in Table 4, whose columns we had to guess; not confirmed by us.
    """
    return _with("corsd", "corsd-ld", alpha=0.0, beta=0.0, gamma_p=0.0, gamma_n=0.0)


# ImageNet and CUB-200-2011


def imagenet_supervised() -> Recipe:
    """Cross-entropy alone on ImageNet: the baseline.

    Source: He et al. 2016 (rate, decay, crops), in the 100 epochs of Tian et al. 2020; batch of Yu et al. 2023.
    Command: relatum train imagenet-supervised --data.root DIR
    Cost: not measured by us.
    Expected: 69.57 in Table 2, which looks like a published model and not a run of the authors; not confirmed by us.
    """
    return _with("supervised", "imagenet-supervised", _IMAGENET)


def imagenet_corsd() -> Recipe:
    """CORSD on ImageNet: 85 triples a step.

    Source: Yu et al. 2023; the schedule is that of imagenet-supervised.
    Command: relatum train imagenet-corsd --data.root DIR
    Cost: `relatum cost imagenet-corsd` measures it relative to imagenet-supervised.
    Expected: 71.02 in Table 2; not confirmed by us.
    """
    return _with("corsd", "imagenet-corsd", _IMAGENET)


def cub200_supervised() -> Recipe:
    """Cross-entropy alone on CUB-200-2011, from an ImageNet encoder: the baseline.

    Source: batch of Yu et al. 2023, who state no more; the start from ImageNet is our guess from their numbers, the
        rate is ours and not tuned. Without a network start from a run of yours: --model.no-pretrained --model.initial
        runs/imagenet-supervised.
    Command: relatum train cub200-supervised
    Cost: not measured by us.
    Expected: 73.72 in Table 3; not confirmed by us.
    """
    return _with("supervised", "cub200-supervised", _CUB200)


def cub200_corsd() -> Recipe:
    """CORSD on CUB-200-2011, from an ImageNet encoder.

    Source: Yu et al. 2023; all else is that of cub200-supervised.
    Command: relatum train cub200-corsd
    Cost: `relatum cost cub200-corsd` measures it relative to cub200-supervised.
    Expected: 77.30 in Table 3; not confirmed by us.
    """
    return _with("corsd", "cub200-corsd", _CUB200)
