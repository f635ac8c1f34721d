"""Image files as they are found, decoded to what a network eats: upright 8-bit RGB, or a clear error."""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

# Named, because Pillow would otherwise try all it knows: PostScript, for one, is run by an external program.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000")
# Files with these names must be images; others in a folder are none of our business.
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".jp2")

UPRIGHT = {  # EXIF orientation -> what makes the image upright (EXIF 2.32, tag 0x0112)
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BadImage(ValueError):
    """An image that cannot be decoded; the message names it, says what was expected, and the remedy."""

    def __init__(self, name: str, reason: str | None = None) -> None:
        self.name, self.reason = name, reason
        super().__init__(
            name  # already the whole message: so a data loader raises a worker's error anew
            if reason is None
            else f"cannot decode the image {name}: {reason}. Expected a whole file in one of the formats "
            f"{', '.join(FORMATS)}. Repair or remove it, or leave out all such files with "
            f"`--data.on-bad-image skip`."
        )


def decode(encoded: bytes | str | Path, name: str | None = None) -> Image.Image:
    """The first frame of an image file, upright (EXIF), as 8-bit RGB.

    CMYK and palettes are converted, transparency is laid on white, and 16-bit gray is scaled by 255 / 65535,
    where Pillow's own conversion would clip everything above 255 to white.

    Args:
        encoded: the bytes of a file, or its path.
        name: how to call it in an error; by default the path.

    Raises:
        FileNotFoundError: there is no such file.
        BadImage: truncated, not an image, over Pillow's pixel limit (a decompression bomb), or 32-bit pixels
            whose range no one knows.
    """
    if not isinstance(encoded, bytes):
        name, encoded = name or str(encoded), Path(encoded).read_bytes()
    try:
        with Image.open(BytesIO(encoded), formats=FORMATS) as image:
            return _to_rgb(image)
    except MemoryError:
        raise
    except Exception as error:  # whatever a decoder says of foreign bytes, they are not an image
        unknown = isinstance(error, UnidentifiedImageError | UserWarning)
        reason = "of no known format" if unknown else f"{type(error).__name__}: {error}"
        raise BadImage(name or "(bytes)", f"{len(encoded):,} bytes, {reason}") from error


def fit(image: Image.Image, size: int) -> Image.Image:
    """The center square of `image`, scaled to `size` x `size` pixels (bicubic); itself where it has that size."""
    return image if image.size == (size, size) else ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)


def _to_rgb(image: Image.Image) -> Image.Image:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:  # Pillow itself only warns up to twice the limit
        raise ValueError(f"{image.width} x {image.height} pixels, more than the limit of {limit:,}")
    turn = UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    if turn is not None:
        image = image.transpose(turn)
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return _eight_bits(image).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise ValueError(f"pixels of mode {image.mode} from {values.min()} to {values.max()}, not 8 or 16 bits")
    return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))
