"""The set of the demo, which needs no download: scikit-learn's digits on larger canvases."""

import numpy as np
import torch
from PIL import Image

from relatum.data.images import ResidentImages
from relatum.data.listing import Listing


def digits() -> Listing:
    """scikit-learn's 1,797 handwritten digits, each on a 32 x 32 canvas at a random place and scale, as RGB.

    The side is uniform in 10 ... 24 pixels (bilinear), the place uniform among those inside the canvas. With a
    fixed seed: the same bytes always. The test set is a random 50 of each class.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    random = np.random.RandomState(0)  # the one NumPy generator whose stream is promised never to change
    canvas = np.zeros((len(data.images), 32, 32), np.uint8)
    for image, digit in zip(canvas, data.images):
        side = random.randint(10, 25)
        top, left = random.randint(0, 33 - side, 2)
        small = Image.fromarray(np.round(digit * (255 / 16)).astype(np.uint8))
        large = small.resize((side, side), Image.Resampling.BILINEAR)
        image[top : top + side, left : left + side] = np.asarray(large)
    place = random.permutation(len(canvas))
    labels = torch.from_numpy(data.target.astype(np.int64))
    test = torch.zeros(len(canvas), dtype=torch.bool)
    for c in range(10):
        members = np.flatnonzero(data.target == c)
        test[members[np.argsort(place[members])[:50]]] = True
    pixels = torch.from_numpy(canvas)[:, None].expand(-1, 3, -1, -1)
    parts = [ResidentImages(pixels[mask].contiguous(), labels[mask]) for mask in (~test, test)]
    return Listing(parts[0], parts[1], tuple("0123456789"))
