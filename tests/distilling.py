"""A student, teachers and batches for the tests of single distillation papers, and their terms as plain numbers."""

import torch

from relatum.core.types import Batch
from relatum.networks.backbones import Backbone

CLASSES, IMAGES, SAMPLES = 5, 6, 40

TEACHERS = {"three-stages": ("wrn_16_2", "cifar"), "four-stages": ("test_resnet", "cifar")}
"""The student has three stages of 16, 32 and 64 channels; the teachers differ in channels, and in number and size."""


def student(num_classes=CLASSES):
    return Backbone("resnet20", stem="cifar", num_classes=num_classes)


def teacher(kind="three-stages", num_classes=CLASSES):
    name, stem = TEACHERS[kind]
    return Backbone(name, stem=stem, num_classes=num_classes)


def network(num_classes=CLASSES, name="test_resnet"):
    return Backbone(name, stem="cifar", num_classes=num_classes)


def batch(n=IMAGES, views=1, dtype=torch.float32, size=16):
    """Images of random classes, alike in all views, and numbers below SAMPLES."""
    return Batch(
        tuple(torch.randn(n, 3, size, size, dtype=dtype) for _ in range(views)),
        torch.randint(CLASSES, (1, n)).expand(views, n),
        torch.randperm(SAMPLES)[:n].expand(views, n),
    )


def values(terms):
    return {name: term.item() for name, term in terms.items()}


def total(terms):
    return sum(terms.values())


def lists(tensor):
    return tensor.detach().double().tolist()


def arrays(features):
    """The parts of `Features` as numpy arrays."""
    return features._replace(
        stages=tuple(stage.detach().numpy() for stage in features.stages),
        embedding=features.embedding.detach().numpy(),
        logits=features.logits.detach().numpy(),
    )


def compared(method, given):
    """What the losses of a distiller are functions of: student, teacher and classes, as numpy arrays."""
    images = given.views[0]
    return arrays(method.backbone(images)), arrays(method.teacher(images)), given.labels[0].numpy()
