"""Odd images and images that were damaged: decoded to eight-bit RGB of their size, or refused by name."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from campaign.ledger import Ledger, child, flipped
from relatum.data.decoding import BadImage, decode

pytestmark = pytest.mark.campaign

SAVED = (
    ("JPEG", ("L", "RGB", "CMYK")),
    ("PNG", ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
    ("WEBP", ("RGB", "RGBA")),
    ("BMP", ("1", "L", "P", "RGB")),
    ("GIF", ("L", "P")),
    ("TIFF", ("1", "L", "RGB", "RGBA", "CMYK", "I;16", "F")),
    ("PPM", ("1", "L", "RGB")),
)


def images(rng, count: int):
    """Encoded images of every format and mode, in odd sizes."""
    kinds = [(form, mode) for form, modes in SAVED for mode in modes]
    for number in range(count):
        form, mode = kinds[number % len(kinds)]
        width, height = rng.choice((1, 2, 7, 33, 64)), rng.choice((1, 3, 32, 257))
        if mode == "I;16":
            pixels = np.frombuffer(rng.randbytes(width * height * 2), dtype="<u2").reshape(height, width)
            image = Image.fromarray(pixels)
        elif mode == "F":
            pixels = np.frombuffer(rng.randbytes(width * height), dtype=np.uint8).reshape(height, width)
            image = Image.fromarray(pixels.astype(np.float32))
        else:
            pixels = np.frombuffer(rng.randbytes(width * height * 3), dtype=np.uint8).reshape(height, width, 3)
            image = Image.fromarray(pixels).convert(mode)
        out = BytesIO()
        image.save(out, form)
        yield f"{form} {mode} {width}x{height}", out.getvalue(), (width, height)


def outcome(encoded: bytes) -> str:
    """What decoding gives, in a word that a parent can read."""
    try:
        image = decode(encoded, "attacked.img")
    except BadImage as error:
        return "refused" if "attacked.img" in str(error) else f"unnamed: {error}"
    return f"{image.mode} {image.width}x{image.height}"


def test_whole_images_of_every_kind(ledger: Ledger):
    area = "odd images: every format and mode, odd sizes"
    ledger.expects(area, "eight-bit RGB of the image's size, or refused by name (32-bit floats alone)")
    for name, encoded, (width, height) in images(ledger.rng(area), ledger.attempts(120)):
        found = outcome(encoded)
        expected = "refused" if name.startswith("TIFF F") else f"RGB {width}x{height}"
        ledger.count(area, found == expected, f"{name}: {found}")
    ledger.check(area)


def test_damaged_images(ledger: Ledger, tmp_path):
    area = "damaged images: flips, cuts, zeros, noise"
    ledger.expects(area, "an eight-bit RGB image or a refusal by name; no crash, no hang, bounded memory")
    rng = ledger.rng(area)
    for name, encoded, _ in images(rng, ledger.attempts(400)):
        data, damage = flipped(encoded, rng)

        def attack(data: bytes = data) -> None:
            found = outcome(data)
            assert found == "refused" or found.startswith("RGB "), found

        ended = child(attack, tmp_path, seconds=20, megabytes=1500)
        ledger.count(area, ended.done, f"{name}, {damage}: {ended}")
    ledger.check(area)
