"""Contrastive learning without labels: the first paper's methods and those it is compared with, on 32 pixels.

All of `SHARED` but moco-cifar have one budget and one setting, the careful public implementation's for SimCLR on
CIFAR-10 (ResNet-18, batch 512, SGD 0.03 per 256 images, weight decay 5e-4, cosine), so that the method is what differs.
`PAPER` is the paper's own protocol: ResNet-50, 500 epochs, a constant rate of 1e-3, SimCLR's augmentation, a
measurement after each epoch. Its numbers were the best over epochs and temperatures; ours are of the last epoch.

Numbers of 50,000 images come from 50,000 images: nothing is held out here. Whoever chooses something (a temperature, a
weight) chooses with `--data.validation 0.1` first, and trains on all images then.
"""

from dataclasses import replace
from typing import Any

from relatum.data.views import ContrastiveView
from relatum.recipes.entry import Entry, Number, named
from relatum.recipes.options import options, options_of
from relatum.recipes.recipe import Data, Evaluation, Model, Optim, Recipe, Train

_VIEW = ContrastiveView(size=32, min_scale=0.2, grayscale=0.1)
_SHARED = Recipe(
    name="simclr",
    method=options("simclr", temperature=0.5),
    model=Model(name="resnet18", stem="cifar"),
    data=Data(source="cifar10", validation=0.0, batch_size=512, view=_VIEW),
    optim=Optim(name="sgd", lr=0.06, momentum=0.9, weight_decay=5e-4, schedule="cosine"),
    train=Train(epochs=100),
    evaluation=Evaluation(every=5),
)
_PAPER = replace(
    _SHARED,
    model=Model(name="resnet50", stem="cifar"),  # Section 3: "We use ResNet-50 as the backbone for all models"
    # Section 3: batches of 512, "the same set of augmentation methods as SimCLR": scale 0.08 to 1, gray 0.2, no blur.
    data=replace(_SHARED.data, view=ContrastiveView(size=32)),
    optim=Optim(name="adam", lr=1e-3, weight_decay=0.0, schedule="constant"),  # "a constant learning rate 10^-3"
    train=Train(epochs=500),  # "500 epochs on both CIFAR-10 and CIFAR-100 datasets"
    evaluation=Evaluation(every=1),  # "we fix the encoder after each training epoch and apply the k-NN"
)
# Eq. (4) has one temperature for all three terms, and weights that the paper does not give: equal ones are ours.
_THREE_TERMS: dict[str, Any] = {"relation": "jaccard", "alphas": (1 / 3, 1 / 3)}
# MoCo's CIFAR demonstration, apart from its head, its groups and its reduction.
_DEMONSTRATION: dict[str, Any] = {"temperature": 0.1, "queue_size": 4096, "momentum": 0.99}
# MoCo v2's head of two layers without batch norm: the paper's projector is "a 2-layer fully connected neural network".
_PAPER_MOCO: dict[str, Any] = {**_DEMONSTRATION, "key_splits": 8, "layers": 2, "projector_norm": False}


def _with(method: str, base: Recipe = _SHARED, **chosen: Any) -> Recipe:
    return replace(base, method=options_of(method)(**chosen))


def _table_2(*values: float) -> tuple[Number, ...]:
    """k-NN and linear on CIFAR-10, CIFAR-100 and Tiny-ImageNet, as Table 2 lists them."""
    sets = ("CIFAR-10", "CIFAR-100", "Tiny-ImageNet")
    what = [f"{metric} on {data}" for data in sets for metric in ("k-NN", "linear")]
    source = "Table 2 of Jiang et al. 2022, the best epoch and temperature"
    return tuple(Number(value, name, source) for name, value in zip(what, values, strict=True))


_DKOBAK = "README of dkobak/simclr-cifar10, 100 epochs, three runs"
_SOLO = "README of solo-learn, 1000 epochs, batch 256, a linear probe that is trained along, on the test set"
_LIGHTLY = "lightly's CIFAR-10 benchmark, 200 epochs in batches of 128, its best epoch on the test set"

SHARED = named(
    "without labels, on CIFAR (one budget for all)",
    {
        "simclr": Entry(
            "SimCLR with the cosine.",
            _SHARED,
            source="Chen et al. 2020; settings of dkobak/simclr-cifar10.",
            cost="100 epochs of ResNet-18; 20 minutes on an A100 in that implementation, not measured by us.",
            published=(Number(83.2, "k-NN (k=10)", _DKOBAK), Number(85.6, "linear", _DKOBAK)),
        ),
        "speedrun": Entry(
            "SimCLR on all of CIFAR-10 for the best k-NN in ten minutes of one GPU.",
            replace(
                _with("simclr", temperature=0.5),
                data=replace(_SHARED.data, batch_size=1024),
                optim=replace(_SHARED.optim, lr=0.12, warmup_epochs=5.0),
                train=Train(epochs=200, precision="bf16-mixed", compile=True),
                evaluation=Evaluation(every=0, figures=False),
            ),
            source="simclr in batches of 1,024 at the rate that its rule gives, compiled, in bfloat16. Epochs, batch "
            "and rate are guesses until a GPU was at hand.",
            cost="nobody has measured it: 90 % in 10 minutes is what is aimed at.",
            published=(Number(84.7, "k-NN (98 minutes of an A100)", _LIGHTLY),),
        ),
        "simclr-jaccard": Entry(
            "SimCLR with the cosine in each of two spaces, and the Jaccard index across them.",
            _with("simclr", temperature=0.5, **_THREE_TERMS),
            source="Jiang et al. 2022, Eq. (4), with one temperature, that of simclr; equal weights are ours.",
            cost="that of simclr, plus 1 to 2 %.",
        ),
        "moco": Entry(
            "MoCo v2 with the cosine, symmetric.",
            _with("moco", symmetric=True, **_DEMONSTRATION),
            source="He et al. 2020, Chen et al. 2020; queue, momentum and temperature of MoCo's CIFAR demonstration. "
            "Unlike it: a projector of two layers with batch norm, the mean of both directions, 4 groups, and the "
            "views and the epochs of simclr. moco-cifar has its own settings.",
            cost="about 1.3 times simclr.",
        ),
        "moco-jaccard": Entry(
            "MoCo v2 with the three terms of Eq. (4).",
            _with("moco", symmetric=True, **_DEMONSTRATION, **_THREE_TERMS),
            source="Jiang et al. 2022, Eq. (4), with one temperature, that of moco; equal weights are ours.",
            cost="that of moco.",
        ),
        "moco-cifar": Entry(
            "MoCo as in its authors' demonstration on CIFAR-10, with its own views and 200 epochs.",
            replace(
                _with(
                    "moco",
                    symmetric=True,
                    symmetric_loss="sum",
                    key_splits=8,
                    layers=1,
                    projector_norm=False,
                    **_DEMONSTRATION,
                ),
                data=replace(_SHARED.data, view=ContrastiveView(size=32)),
                train=Train(epochs=200),
            ),
            source="the CIFAR demonstration of the authors of He et al. 2020, symmetric: a linear head, the sum of "
            "both directions, 8 groups, scale 0.08 to 1 and gray 0.2. It divides by 0.20 where the deviation of the "
            "pixels, and ours, is 0.25.",
            cost="about 2.6 times simclr.",
            published=(Number(85.3, "k-NN", "MoCo's CIFAR demonstration, 200 epochs, symmetric"),),
        ),
        "byol": Entry(
            "BYOL: predict the projection of a slowly moving copy, without negatives.",
            _with("byol"),
            source="Grill et al. 2020.",
            cost="about 1.3 times simclr.",
            published=(Number(86.9, "k-NN", _LIGHTLY),),
        ),
        "simsiam": Entry(
            "SimSiam: BYOL without the copy.",
            _with("simsiam", layers=2),
            source="Chen and He 2021.",
            cost="that of simclr.",
            published=(Number(81.9, "k-NN", _LIGHTLY),),
        ),
        "barlow-twins": Entry(
            "Barlow Twins: coordinates correlate with themselves alone.",
            _with("barlow-twins"),
            source="Zbontar et al. 2021, with a projector of 2048 instead of 8192.",
            cost="that of simclr, and two matrices of 512 x 512 a step.",
            published=(Number(84.2, "k-NN", _LIGHTLY),),
        ),
        "vicreg": Entry(
            "VICReg: variance, invariance and covariance of coordinates, each with a term of its own.",
            replace(
                _with("vicreg"),
                optim=Optim(name="lars", lr=0.4, weight_decay=1e-6, schedule="cosine", warmup_epochs=10),
            ),
            source="Bardes et al. 2022: LARS with 0.2 per 256 images and ten epochs of warm-up, a projector of 2048 "
            "instead of 8192. SGD at the rate of simclr diverges under weights of 25.",
            cost="that of simclr, and two matrices of 512 x 512 a step.",
            published=(Number(92.07, "linear", _SOLO),),
        ),
        "lejepa": Entry(
            "LeJEPA: views predict their mean, and SIGReg keeps the embeddings an isotropic Gaussian.",
            replace(
                _with("lejepa"),
                optim=Optim(name="adamw", lr=5e-4, weight_decay=5e-4, schedule="cosine", warmup_epochs=1),
            ),
            source="Balestriero and LeCun 2025: AdamW with the rate and the decay that their README names for ResNets, "
            "two views instead of eight.",
            cost="that of simclr, and 1024 lines through each view a step.",
        ),
        "nnclr": Entry(
            "NNCLR: the nearest neighbor of an image in a queue is its positive.",
            _with("nnclr", queue_size=16384),
            source="Dwibedi et al. 2021, with their widths and temperature, and a queue of a third of CIFAR.",
            cost="that of simclr, and a search in the queue.",
            published=(Number(91.88, "linear", _SOLO), Number(83.4, "k-NN", _LIGHTLY)),
        ),
        "ressl": Entry(
            "ReSSL: two views of an image relate alike to the images of a queue.",
            replace(
                _with("ressl", temperature=0.1, target_temperature=0.04, queue_size=4096, momentum=0.99),
                data=replace(
                    _SHARED.data,
                    view=replace(_VIEW, second_jitter=0.0, second_grayscale=0.0, second_blur=0.0),
                ),
            ),
            source="Zheng et al. 2021: their temperatures; the copy's view is cropped and mirrored only. Queue and "
            "momentum are those of moco, the hidden width 1024 ours.",
            cost="about that of simclr: one view with a gradient, one without.",
            published=(Number(90.63, "linear", _SOLO),),
        ),
        "mocov3": Entry(
            "MoCo v3: predictions against a momentum copy's keys of the same batch.",
            _with("mocov3"),
            source="Chen et al. 2021, with 2048 hidden units instead of 4096.",
            cost="about 1.3 times simclr.",
            published=(Number(93.1, "linear", _SOLO + "; a reproduction got about 90"),),
        ),
        "debiased": Entry(
            "SimCLR with the debiased contrastive loss.",
            _with("debiased", class_prior=0.1),
            source="Chuang et al. 2020, with the class prior 0.1 of CIFAR-10.",
            cost="that of simclr.",
        ),
    },
)

DISTILLED = named(
    "from a teacher, without labels, on CIFAR",
    {
        "seed": Entry(
            "SEED: a small encoder relates images to a queue as a large one does, without labels.",
            replace(_with("seed"), model=Model(name="resnet20", stem="cifar")),
            source="Fang et al. 2021, with a queue of 4,096; the budget and the views of simclr, and the small network "
            "of the CIFAR benchmarks.",
            cost="a forward and backward pass of one view, and a forward pass of the teacher.",
            options="--method.teacher runs/simclr",
        ),
        "seed-jaccard": Entry(
            "SEED with the Jaccard index of the halves of the teacher's embedding.",
            replace(_with("seed", relation="jaccard"), model=Model(name="resnet20", stem="cifar")),
            source="Fang et al. 2021; the index of Jiang et al. 2022 in the place of their cosine is ours.",
            cost="that of seed.",
            options="--method.teacher runs/simclr",
        ),
    },
)

SUPERVISED_CONTRAST = named(
    "with labels, on CIFAR",
    {
        "supcon": Entry(
            "SupCon: all images of a class attract, the bound for those without labels.",
            _with("supcon", temperature=0.1),
            source="Khosla et al. 2020.",
            cost="that of simclr.",
            published=(Number(96.0, "linear", "README of SupContrast, ResNet-50, batch 1024, 1000 epochs"),),
        ),
    },
)

PAPER = named(
    "without labels, the protocol of Jiang et al. 2022",
    {
        "paper-simclr": Entry(
            "SimCLR as the first paper trains it: ResNet-50, 500 epochs, a constant rate of 1e-3.",
            _with("simclr", _PAPER, temperature=0.5),
            source="Jiang et al. 2022, Section 3; Adam and the temperature, SimCLR's for CIFAR-10, are ours. "
            "Tiny-ImageNet with the setting tiny-imagenet.",
            cost="1m36s an epoch on a V100 in the paper (CIFAR), 13m51s (Tiny-ImageNet).",
            published=_table_2(88.6, 91.5, 62.1, 68.6, 35.9, 50.7),
        ),
        "paper-simclr-jaccard": Entry(
            "SimCLR with the three terms of Eq. (4) as the first paper trains it.",
            _with("simclr", _PAPER, temperature=0.5, **_THREE_TERMS),
            source="Jiang et al. 2022, Section 3 and Eq. (4), one temperature for its terms; Adam, the weights and the "
            "temperature, that of paper-simclr, are ours, and so is the clamp of the index.",
            cost="1m47s an epoch on a V100 in the paper (CIFAR), 14m01s (Tiny-ImageNet).",
            published=_table_2(88.6, 91.8, 63.9, 69.5, 39.5, 53.8),
        ),
        "paper-simclr-jaccard-printed": Entry(
            "As paper-simclr-jaccard, with the Jaccard index as printed, which may be negative and has a pole.",
            _with("simclr", _PAPER, temperature=0.5, **{**_THREE_TERMS, "relation": "jaccard-signed"}),
            source="Jiang et al. 2022, Eq. (2) and (4); all else is that of paper-simclr-jaccard. "
            "--method.relation-eps sets how far it stays away from the pole.",
            cost="that of paper-simclr-jaccard.",
            published=_table_2(88.6, 91.8, 63.9, 69.5, 39.5, 53.8),
        ),
        "paper-moco": Entry(
            "MoCo as the first paper trains it: ResNet-50, 500 epochs, a constant rate of 1e-3.",
            _with("moco", _PAPER, **_PAPER_MOCO),
            source="Jiang et al. 2022, Section 3; Adam is ours; queue, momentum, temperature and 8 groups are those of "
            "MoCo's CIFAR demonstration, the head without batch norm that of MoCo v2, one direction as in both.",
            cost="the paper gives none.",
            published=_table_2(85.5, 90.5, 56.8, 66.8, 33.5, 49.6),
        ),
        "paper-moco-jaccard": Entry(
            "MoCo with the three terms of Eq. (4) as the first paper trains it.",
            _with("moco", _PAPER, **_PAPER_MOCO, **_THREE_TERMS),
            source="Jiang et al. 2022, Section 3 and Eq. (4), one temperature for its terms; equal weights are ours, "
            "all else is that of paper-moco.",
            cost="the paper gives none.",
            published=_table_2(85.1, 90.2, 59.2, 67.5, 35.4, 51.2),
        ),
    },
)
