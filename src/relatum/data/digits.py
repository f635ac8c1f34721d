"""The set of the demo, which needs no download: scikit-learn's digits on larger canvases."""

import numpy as np
import torch
from PIL import Image

from relatum.data.images import ResidentImages
from relatum.data.listing import Listing


def digits(canvas: int = 32, smallest: int = 10, largest: int = 24) -> Listing:
    """scikit-learn's 1,797 handwritten digits, each on a canvas at a random place and scale, as RGB.

    The side is uniform in `smallest` ... `largest` pixels (bilinear), the place uniform among those inside the canvas.
    With a fixed seed: the same bytes always. The test set is a random 50 of each class.

    Args:
        canvas: side of the images, in pixels.
        smallest, largest: side of the square that a digit fills.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    random = np.random.RandomState(0)  # the one NumPy generator whose stream is promised never to change
    images = np.zeros((len(data.images), canvas, canvas), np.uint8)
    for image, digit in zip(images, data.images):
        side = random.randint(smallest, largest + 1)
        top, left = random.randint(0, canvas + 1 - side, 2)
        small = Image.fromarray(np.round(digit * (255 / 16)).astype(np.uint8))
        large = small.resize((side, side), Image.Resampling.BILINEAR)
        image[top : top + side, left : left + side] = np.asarray(large)
    place = random.permutation(len(images))
    labels = torch.from_numpy(data.target.astype(np.int64))
    test = torch.zeros(len(images), dtype=torch.bool)
    for c in range(10):
        members = np.flatnonzero(data.target == c)
        test[members[np.argsort(place[members])[:50]]] = True
    pixels = torch.from_numpy(images)[:, None].expand(-1, 3, -1, -1)
    parts = [ResidentImages(pixels[mask].contiguous(), labels[mask]) for mask in (~test, test)]
    return Listing(parts[0], parts[1], tuple("0123456789"))
