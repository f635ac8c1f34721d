"""Comparisons at the scale of a processor: what can be run, with seeds, on two cores.

They are small on purpose, and say nothing about ImageNet or about 500 epochs: 10,000 training images of CIFAR at 16x16
pixels, ResNet-20, one budget for all methods of a comparison. Temperatures are not tuned: 0.2 for every relation.
A tenth of the training images is held out, and measured while training; the test set is measured once, at the end.
`results/small-cifar10` and `results/small-cifar100` hold their Records, the README their tables.
"""

from dataclasses import replace
from typing import Any

from relatum.data.views import ClassifierView, ContrastiveView
from relatum.recipes.recipe import Data, Evaluation, Model, Optim, Recipe, Train, options

_CONTRASTIVE = Recipe(
    name="small-simclr",
    method=options("simclr", temperature=0.2),
    model=Model(name="resnet20"),
    data=Data(source="cifar10", train_images=10_000, batch_size=256, view=ContrastiveView(size=16, min_scale=0.2)),
    optim=Optim(name="adam", lr=1e-3, weight_decay=0.0, schedule="cosine"),
    train=Train(epochs=10),
    evaluation=Evaluation(every=5),
)
_CLASSIFIED = replace(
    _CONTRASTIVE,
    name="small-supervised",
    method=options("supervised"),
    data=Data(
        source="cifar100",
        train_images=10_000,
        batch_size=129,
        view=ClassifierView(size=16, crop="resized", min_scale=0.5),
    ),
    optim=Optim(name="sgd", lr=0.1, momentum=0.9, weight_decay=5e-4, schedule="one-cycle"),
    train=Train(epochs=12),
)


def _contrastive(name: str, method: str, **chosen: Any) -> Recipe:
    return replace(_CONTRASTIVE, name=f"small-{name}", method=options(method, temperature=0.2, **chosen))


def _classified(name: str, method: str, **chosen: Any) -> Recipe:
    return replace(_CLASSIFIED, name=f"small-{name}", method=options(method, **chosen))


def simclr() -> Recipe:
    """SimCLR with the cosine on a small part of CIFAR-10.

    Source: the leads of our own first trials; Adam and its rate are the first paper's.
    Command: relatum train small-simclr
    Cost: about 7 minutes on one core.
    Expected: the table in results/.
    """
    return _contrastive("simclr", "simclr")


def simclr_jaccard() -> Recipe:
    """SimCLR with the three terms of Eq. (4) on a small part of CIFAR-10.

    Source: Jiang et al. 2022, Eq. (4), equal weights.
    Command: relatum train small-simclr-jaccard
    Cost: that of small-simclr.
    Expected: the table in results/.
    """
    return _contrastive("simclr-jaccard", "simclr", relation="jaccard", alphas=(1 / 3, 1 / 3))


def simclr_jaccard_alone() -> Recipe:
    """SimCLR with the clamped Jaccard index alone on a small part of CIFAR-10.

    Source: Jiang et al. 2022, Eq. (3), with a temperature.
    Command: relatum train small-simclr-jaccard-alone
    Cost: that of small-simclr.
    Expected: the table in results/.
    """
    return _contrastive("simclr-jaccard-alone", "simclr", relation="jaccard")


def moco() -> Recipe:
    """MoCo v2, symmetric, with the cosine on a small part of CIFAR-10.

    Source: He et al. 2020; a queue of 2,048 keys for 9,000 images.
    Command: relatum train small-moco
    Cost: 1.3 times small-simclr.
    Expected: the table in results/.
    """
    return _contrastive("moco", "moco", queue_size=2048, symmetric=True)


def moco_jaccard() -> Recipe:
    """MoCo v2, symmetric, with the three terms of Eq. (4) on a small part of CIFAR-10.

    Source: Jiang et al. 2022, Eq. (4), equal weights.
    Command: relatum train small-moco-jaccard
    Cost: that of small-moco.
    Expected: the table in results/.
    """
    return _contrastive(
        "moco-jaccard", "moco", relation="jaccard", alphas=(1 / 3, 1 / 3), queue_size=2048, symmetric=True
    )


def supervised() -> Recipe:
    """Cross-entropy alone on a small part of CIFAR-100: the baseline.

    Source: batch and schedule of the released CORSD code (129 images, one cycle to 0.1); 12 epochs instead of 100.
    Command: relatum train small-supervised
    Cost: about 4 minutes on one core.
    Expected: the table in results/.
    """
    return _classified("supervised", "supervised")


def label_smoothing() -> Recipe:
    """Label smoothing: the baseline that no table may miss.

    Source: Szegedy et al. 2016, epsilon 0.1.
    Command: relatum train small-label-smoothing
    Cost: that of small-supervised.
    Expected: the table in results/.
    """
    return _classified("label-smoothing", "label-smoothing")


def corsd() -> Recipe:
    """CORSD with its relation networks.

    Source: Yu et al. 2023, their weights; disjoint triples, so that each image passes once an epoch as in the baseline.
    Command: relatum train small-corsd
    Cost: 1.3 times small-supervised.
    Expected: the table in results/.
    """
    return _classified("corsd", "corsd")


def corsd_l2() -> Recipe:
    """CORSD with the Euclidean distance of projected features in the place of the relation networks' last part.

    Source: row "+RD" of Table 4 of Yu et al. 2023 has a handcrafted distance; this is it with all other terms.
    Command: relatum train small-corsd-l2
    Cost: that of small-corsd.
    Expected: the table in results/.
    """
    return _classified("corsd-l2", "corsd", relation="euclidean")


def corsd_jaccard() -> Recipe:
    """CORSD with the bi-projector Jaccard index: where the two papers meet. New; neither has it.

    Source: ours.
    Command: relatum train small-corsd-jaccard
    Cost: that of small-corsd.
    Expected: the table in results/.
    """
    return _classified("corsd-jaccard", "corsd", relation="jaccard")


def relation_l2() -> Recipe:
    """Relational self-distillation with the handcrafted L2 distance of pooled features.

    Source: row "+RD" of Table 4 of Yu et al. 2023.
    Command: relatum train small-relation-l2
    Cost: that of small-supervised.
    Expected: the table in results/.
    """
    return _classified("relation-l2", "relation-l2")


def sd() -> Recipe:
    """Self-distillation from the deepest classifier to those at each stage.

    Source: Zhang et al. 2019 and 2021.
    Command: relatum train small-sd
    Cost: 1.3 times small-supervised.
    Expected: the table in results/.
    """
    return _classified("sd", "sd")


def cs_kd() -> Recipe:
    """Class-wise self-distillation: the prediction for another image of the class is the teacher.

    Source: Yun et al. 2020. 129 anchors a step and as many partners, which pass forward only.
    Command: relatum train small-cs-kd
    Cost: 1.3 times small-supervised, at twice its image passes.
    Expected: the table in results/.
    """
    return _classified("cs-kd", "cs-kd")


def ps_kd() -> Recipe:
    """Progressive self-distillation: the network's own predictions of the epoch before soften the labels.

    Source: Kim et al. 2021.
    Command: relatum train small-ps-kd
    Cost: that of small-supervised.
    Expected: the table in results/.
    """
    return _classified("ps-kd", "ps-kd")


def tf_kd_virtual() -> Recipe:
    """Teacher-free distillation from a virtual teacher.

    Source: Yuan et al. 2020.
    Command: relatum train small-tf-kd-virtual
    Cost: that of small-supervised.
    Expected: the table in results/.
    """
    return _classified("tf-kd-virtual", "tf-kd-virtual")


def teacher() -> Recipe:
    """The teacher of the recipes below: WRN-16-2, three times as long.

    Source: a teacher of the field's benchmark is wider than its student and trained to the end; the choice is ours.
    Command: relatum train small-teacher --run runs/small-teacher
    Cost: about five times small-supervised.
    Expected: the table in results/.
    """
    return replace(_classified("teacher", "supervised"), model=Model(name="wrn_16_2"), train=Train(epochs=36))


def kd() -> Recipe:
    """Knowledge distillation: the teacher's softened predictions.

    Source: Hinton et al. 2015; weights of Tian et al. 2020.
    Command: relatum train small-kd --method.teacher runs/small-teacher
    Cost: small-supervised and a forward pass of the teacher.
    Expected: the table in results/.
    """
    return _classified("kd", "kd")


def fitnet() -> Recipe:
    """FitNet: a map inside the teacher as a hint.

    Source: Romero et al. 2015; weight of Tian et al. 2020.
    Command: relatum train small-fitnet --method.teacher runs/small-teacher
    Cost: small-supervised and a forward pass of the teacher.
    Expected: the table in results/.
    """
    return _classified("fitnet", "fitnet")


def at() -> Recipe:
    """Attention transfer: where the teacher looks.

    Source: Zagoruyko and Komodakis 2017.
    Command: relatum train small-at --method.teacher runs/small-teacher
    Cost: small-supervised and a forward pass of the teacher.
    Expected: the table in results/.
    """
    return _classified("at", "at")


def sp() -> Recipe:
    """Similarity-preserving distillation: which images the teacher finds alike.

    Source: Tung and Mori 2019.
    Command: relatum train small-sp --method.teacher runs/small-teacher
    Cost: small-supervised and a forward pass of the teacher.
    Expected: the table in results/.
    """
    return _classified("sp", "sp")


def rkd() -> Recipe:
    """Relational knowledge distillation: distances and angles of the teacher's embeddings.

    Source: Park et al. 2019.
    Command: relatum train small-rkd --method.teacher runs/small-teacher
    Cost: small-supervised and a forward pass of the teacher.
    Expected: the table in results/.
    """
    return _classified("rkd", "rkd")


def cc() -> Recipe:
    """Correlation congruence: the kernel matrix of the teacher's embeddings.

    Source: Peng et al. 2019.
    Command: relatum train small-cc --method.teacher runs/small-teacher
    Cost: small-supervised and a forward pass of the teacher.
    Expected: the table in results/.
    """
    return _classified("cc", "cc")


def dml() -> Recipe:
    """Deep mutual learning: two networks teach each other; the first is evaluated.

    Source: Zhang et al. 2018.
    Command: relatum train small-dml
    Cost: twice small-supervised.
    Expected: the table in results/.
    """
    return _classified("dml", "dml")


def tf_kd() -> Recipe:
    """Teacher-free distillation: the teacher is the network itself, trained before.

    Source: Yuan et al. 2020.
    Command: relatum train small-tf-kd --method.teacher runs/small-supervised
    Cost: small-supervised and a forward pass of the teacher.
    Expected: the table in results/.
    """
    return _classified("tf-kd", "tf-kd")
