"""Methods of prototypes, multi-crop, and vision transformers: on CIFAR in the budget of `contrastive.py`, on ImageNet.

What DINO's transformers need: AdamW, warm-up, gradients cut at norm 3, no weight decay of biases and normalization.
What MoCo v3's need: AdamW, warm-up, a projection of patches that is not trained.
"""

from dataclasses import replace
from typing import Any

from relatum.data.views import ContrastiveView, SmallCrops
from relatum.recipes.contrastive import SHARED
from relatum.recipes.entry import Entry, Number, named
from relatum.recipes.options import options_of
from relatum.recipes.recipe import Data, Evaluation, Model, Optim, Recipe, Train

_SHARED = SHARED["simclr"].recipe
_LIGHTLY = "lightly's CIFAR-10 benchmark, 200 epochs in batches of 128, its best epoch on the test set"
_EPOCHS = _SHARED.train.epochs
# Half the side: a quarter of the pixels, as 96 of 224 are a fifth.
_SMALL = SmallCrops(count=6, size=16, max_scale=0.4)
_TWO_VIEWS = ContrastiveView(size=32, min_scale=0.2, grayscale=0.1)  # as simclr
# DINO's views but for the blur, which 32 pixels do not bear.
_VIEW = ContrastiveView(size=32, min_scale=0.4, second_solarize=0.2, small=_SMALL)


def _with(method: str, base: Recipe = _SHARED, **chosen: Any) -> Recipe:
    return replace(base, method=options_of(method)(**chosen))


def _transformer(base: Recipe, model: Model, batch_size: int, view: ContrastiveView) -> Recipe:
    return replace(
        base,
        model=model,
        data=replace(base.data, batch_size=batch_size, view=view),
        optim=Optim(
            name="adamw",
            lr=5e-4 * batch_size / 256,
            weight_decay=0.04,
            decay_all=False,
            schedule="cosine",
            warmup_epochs=10,
            clip=3.0,
        ),
    )


_IMAGENET = replace(
    _SHARED,
    data=Data(source="imagenet", validation=0.0, workers=8),
    train=Train(epochs=100),
    evaluation=Evaluation(every=0),
)
_TINY = Model(name="vit_tiny_patch16_224", stem="imagenet", patch_size=4)
_DINO: dict[str, Any] = {"prototypes": 4096, "frozen_share": 1 / _EPOCHS}

_MOCO_V3: dict[str, Any] = {"layers": 3, "freeze_patches": True}
_MOCO_V3_OPTIM = Optim(name="adamw", weight_decay=0.1, schedule="cosine")

MULTI_CROP = named(
    "without labels: prototypes, multi-crop, transformers",
    {
        "swav": Entry(
            "SwAV: predict the cluster of one view from the other, clusters sharing out the batch.",
            _with("swav", prototypes=512, frozen_share=1 / _EPOCHS),
            source="Caron et al. 2020; 512 prototypes for a batch of 512, two views and no queue: ours.",
            cost="that of simclr; `relatum cost swav` measures it.",
            published=(Number(81.2, "k-NN", _LIGHTLY),),
        ),
        "simclr-multi-crop": Entry(
            "SimCLR with six small crops of 16 pixels beside its two views.",
            replace(
                _SHARED,
                data=replace(_SHARED.data, view=replace(_TWO_VIEWS, small=replace(_SMALL, max_scale=None))),
            ),
            source="Caron et al. 2020, section 3.3 and Eq. (6), for SimCLR; the settings of simclr.",
            cost="about 2.5 times simclr: six crops of a quarter of the pixels beside two.",
        ),
        "swav-multi-crop": Entry(
            "SwAV with six small crops of 16 pixels.",
            replace(
                _with("swav", prototypes=512, frozen_share=1 / _EPOCHS),
                data=replace(_SHARED.data, view=replace(_TWO_VIEWS, small=_SMALL)),
            ),
            source="Caron et al. 2020: 2 + 6 crops, their sizes for CIFAR are ours.",
            cost="that of simclr-multi-crop.",
        ),
        "dino": Entry(
            "DINO on a residual network with two views.",
            _with("dino", **_DINO, momentum=0.99),
            source="Caron et al. 2021; the network, views and optimizer of simclr, a momentum of 0.99 for short runs.",
            cost="about 1.3 times simclr.",
            published=(Number(84.0, "k-NN", _LIGHTLY),),
        ),
        "dino-vit-tiny": Entry(
            "DINO with a ViT-Tiny of patches of 4 pixels, two crops of 32 and six of 16 pixels.",
            _transformer(_with("dino", **_DINO), _TINY, 512, _VIEW),
            source="Caron et al. 2021; optimizer, momentum, temperatures and clipping are theirs, patches, small crops "
            "and 4096 prototypes are ours, for CIFAR. The weight decay stays at 0.04.",
            cost="not measured on a GPU.",
        ),
        "dino-vit-small": Entry(
            "DINO with a ViT-S/16 on ImageNet, as its authors' first command trains it.",
            _transformer(
                _with(
                    "dino",
                    _IMAGENET,
                    prototypes=65536,
                    teacher_temperature=0.04,
                    frozen_share=0.01,
                ),
                Model(name="vit_small_patch16_224", stem="imagenet"),
                512,
                ContrastiveView(
                    size=224,
                    min_scale=0.4,
                    blur=1.0,
                    second_blur=0.1,
                    second_solarize=0.2,
                    small=SmallCrops(count=8, size=96, blur=0.5),
                ),
            ),
            source="Caron et al. 2021, main_dino.py with its defaults: 8 small crops, a constant temperature of 0.04. "
            "Unlike it: the weight decay stays at 0.04 (there it rises to 0.4), no stochastic depth (there 0.1), the "
            "rate ends at 0 (there at 1e-6), and the jitter is SimCLR's, whose saturation varies by 0.4 (there 0.2).",
            cost="1.75 days on 8 GPUs with that code.",
            published=(
                Number(69.3, "k-NN", "README of DINO, 100 epochs"),
                Number(74.0, "linear", "README of DINO, 100 epochs"),
            ),
        ),
        "mocov3-vit-tiny": Entry(
            "MoCo v3 with a ViT-Tiny of patches of 4 pixels.",
            replace(
                _with("mocov3", **_MOCO_V3),
                model=_TINY,
                optim=replace(_MOCO_V3_OPTIM, lr=1.5e-4 * _SHARED.data.batch_size / 256, warmup_epochs=10),
            ),
            source="Chen et al. 2021, CONFIG.md of their code; network, patches, views and 2048 hidden units are ours, "
            "for CIFAR.",
            cost="not measured on a GPU.",
        ),
        "mocov3-vit-small": Entry(
            "MoCo v3 with a ViT-S/16 on ImageNet, as its authors train it on one machine.",
            replace(
                _with("mocov3", _IMAGENET, **_MOCO_V3 | {"hidden_width": 4096}),
                model=Model(name="vit_small_patch16_224", stem="imagenet"),
                data=replace(
                    _IMAGENET.data,
                    batch_size=1024,
                    view=ContrastiveView(size=224, blur=1.0, second_blur=0.1, second_solarize=0.2),
                ),
                optim=replace(_MOCO_V3_OPTIM, lr=1.5e-4 * 1024 / 256, warmup_epochs=40),
                train=Train(epochs=300),
            ),
            source="Chen et al. 2021, CONFIG.md of their code: batches of 1024. Unlike it: timm's ViT-S has 6 heads "
            "(there 12) and learns its position embedding, and the jitter is SimCLR's, whose saturation varies by 0.4 "
            "(there 0.2).",
            cost="one machine of 8 GPUs with that code.",
            published=(Number(73.2, "linear", "CONFIG.md of MoCo v3, 300 epochs in batches of 4096"),),
        ),
    },
)
