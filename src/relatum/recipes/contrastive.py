"""Contrastive learning without labels on CIFAR (32 pixels): the first paper's methods and those it is compared with.

All share one budget and one setting, the careful public implementation's for SimCLR on CIFAR-10 (ResNet-18, batch 512,
SGD 0.03 per 256 images, weight decay 5e-4, cosine), so that the method is what differs. The paper itself has ResNet-50,
500 epochs and a constant rate of 1e-3 for Adam: `--optim.name adam --optim.lr 1e-3 --optim.schedule constant
--model.name resnet50 --train.epochs 500`. Its numbers were the best over epochs and temperatures; ours are of the last.
"""

from dataclasses import replace

from relatum.data.views import ContrastiveView
from relatum.recipe import Data, Evaluation, Model, Optim, Recipe, Train, options

_CIFAR = Recipe(
    name="simclr",
    method=options("simclr", temperature=0.5),
    model=Model(name="resnet18", stem="cifar"),
    data=Data(source="cifar10", batch_size=512, view=ContrastiveView(size=32, min_scale=0.2, grayscale=0.1)),
    optim=Optim(name="sgd", lr=0.06, momentum=0.9, weight_decay=5e-4, schedule="cosine"),
    train=Train(epochs=100),
    evaluation=Evaluation(every=5),
)


def cifar_simclr() -> Recipe:
    """SimCLR with the cosine.

    Source: Chen et al. 2020; settings of a public CIFAR-10 implementation (see the module).
    Command: relatum train simclr
    Cost: 100 epochs of ResNet-18: not yet measured on a GPU by us; days on a processor (see results/ for small runs).
    Expected: k-NN 83, linear 85 on CIFAR-10, as published by that implementation; not yet confirmed by us.
    """
    return _CIFAR


def cifar_simclr_jaccard() -> Recipe:
    """SimCLR with the paper's three terms: the cosine in each of two spaces, and the Jaccard index across them.

    Source: Jiang et al. 2022, Eq. (4). The paper gives no weights; equal ones are ours.
    Command: relatum train simclr-jaccard
    Cost: that of simclr, plus 1 to 2 %.
    Expected: the paper reports 88.6 (k-NN) and 91.8 (linear) on CIFAR-10 with ResNet-50 and 500 epochs.
    """
    method = options("simclr", relation="jaccard", temperature=0.2, alphas=(1 / 3, 1 / 3), cosine_temperature=0.5)
    return replace(_CIFAR, name="simclr-jaccard", method=method)


def cifar_moco() -> Recipe:
    """MoCo v2 with the cosine, symmetric.

    Source: He et al. 2020, Chen et al. 2020; queue, momentum and temperature of MoCo's CIFAR demonstration.
    Command: relatum train moco
    Cost: about 1.3 times simclr.
    Expected: k-NN 85.3 on CIFAR-10 after 200 epochs (the demonstration); not confirmed by us.
    """
    method = options("moco", temperature=0.1, queue_size=4096, momentum=0.99, symmetric=True)
    return replace(_CIFAR, name="moco", method=method)


def cifar_moco_jaccard() -> Recipe:
    """MoCo v2 with the paper's three terms.

    Source: Jiang et al. 2022, Eq. (4).
    Command: relatum train moco-jaccard
    Cost: that of moco.
    Expected: the paper reports 85.1 (k-NN) and 90.2 (linear) on CIFAR-10 with ResNet-50 and 500 epochs.
    """
    method = options(
        "moco",
        relation="jaccard",
        temperature=0.1,
        alphas=(1 / 3, 1 / 3),
        queue_size=4096,
        momentum=0.99,
        symmetric=True,
    )
    return replace(_CIFAR, name="moco-jaccard", method=method)


def cifar_byol() -> Recipe:
    """BYOL.

    Source: Grill et al. 2020.
    Command: relatum train byol
    Cost: about 1.3 times simclr.
    Expected: k-NN 86.9 after 200 epochs in a public benchmark (its best epoch); not confirmed by us.
    """
    return replace(_CIFAR, name="byol", method=options("byol"))


def cifar_simsiam() -> Recipe:
    """SimSiam.

    Source: Chen and He 2021.
    Command: relatum train simsiam
    Cost: that of simclr.
    Expected: k-NN 81.9 after 200 epochs in a public benchmark (its best epoch); not confirmed by us.
    """
    return replace(_CIFAR, name="simsiam", method=options("simsiam", layers=2))


def cifar_debiased() -> Recipe:
    """SimCLR with the debiased contrastive loss.

    Source: Chuang et al. 2020, with the class prior 0.1 of CIFAR-10.
    Command: relatum train debiased
    Cost: that of simclr.
    Expected: a linear probe about 1.5 points above SimCLR's in the paper (ResNet-50, 400 epochs); not confirmed by us.
    """
    return replace(_CIFAR, name="debiased", method=options("debiased", class_prior=0.1))


def cifar_supcon() -> Recipe:
    """SupCon: with labels, the bound for all others.

    Source: Khosla et al. 2020.
    Command: relatum train supcon
    Cost: that of simclr.
    Expected: 96.0 on CIFAR-10 with ResNet-50 and 1000 epochs (the authors' code); not confirmed by us.
    """
    return replace(_CIFAR, name="supcon", method=options("supcon", temperature=0.1))
