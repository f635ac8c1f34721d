"""What a processor can run: the changes that the scale `cpu` makes, each said once."""

from relatum.studies.study import TRIAL, Changes

ALL_IMAGES: Changes = {"data.validation": 0.0, "evaluation.every": 0}
"""Runs that count train on every image of the part, and look at nothing before the end."""

HELD_OUT: Changes = {**TRIAL, "data.validation": 0.1}
"""Trials: a tenth of the training images is held out."""

CPU_UNLABELED: Changes = {
    **ALL_IMAGES,
    "model.name": "resnet20",
    "model.stem": "cifar",
    "data.train_images": 10_000,
    "data.view.size": 16,
    "data.view.min_scale": 0.2,
    "data.view.grayscale": 0.1,
    "data.batch_size": 256,
    "optim.name": "adam",
    "optim.lr": 1e-3,
    "optim.weight_decay": 0.0,
    "optim.schedule": "cosine",
    "train.epochs": 20,
    "train.threads": 1,
    "evaluation.figures": False,
}
"""Without labels: ResNet-20 (not the paper's ResNet-50), 10,000 images at 16 pixels, 20 epochs of two views."""

CPU_LABELED: Changes = {
    **ALL_IMAGES,
    "model.name": "resnet8x4",
    "model.stem": "cifar",
    "data.source": "cifar100",
    "data.train_images": 5_000,
    "data.view.size": 16,
    "data.view.crop": "resized",
    "data.view.min_scale": 0.7,
    "data.batch_size": 129,
    "optim.name": "sgd",
    "optim.lr": 0.1,
    "optim.weight_decay": 5e-4,
    "optim.schedule": "one-cycle",
    "train.epochs": 40,
    "train.threads": 1,
    "evaluation.figures": False,
}
"""With labels: few images and many epochs, so that the baseline knows its training images by heart (97.5 % of them), as
the paper's networks do: where a regularizer can pay. resnet8x4 is the small network of the field's wide pair."""

CPU_UNLABELED_TRIALS: Changes = {**TRIAL, "data.train_images": 20_000, "data.validation": 0.5}
"""Trials as long as a run that counts, on 10,000 images, with 10,000 others held out: a choice among 1,000 would be one
of noise. For sets that have 20,000 training images."""

CPU_LABELED_TRIALS: Changes = {**TRIAL, "data.train_images": 15_000, "data.validation": 2 / 3}
"""Trials as long as a run that counts, on 5,000 images, with 10,000 others held out."""
