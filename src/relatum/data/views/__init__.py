"""Views: what a method sees of an image. Batched, on the device of the images, every parameter per sample.

A view is a pure function of uint8 images and of uniform random numbers, one row per image, in two halves:

- the *crop*: a box of the image, resampled to `size x size` and perhaps mirrored;
- the *augmentation*: color operations and occlusions of those crops, in [0, 1]; then they are normalized.

Resident images pass both at once: `view(images, ...)`. Images of any size, streamed by workers, are cropped one by
one (`crop_image`), and a batch of such crops is finished on the device (`finish_crops`). Every operation has
torchvision's values, and every parameter torchvision's distribution.
"""

from relatum.data.views.classifier import ClassifierView
from relatum.data.views.contrastive import ContrastiveView, SmallCrops
from relatum.data.views.evaluation import EvaluationView
from relatum.data.views.interface import View

__all__ = ["ClassifierView", "ContrastiveView", "EvaluationView", "SmallCrops", "View"]
