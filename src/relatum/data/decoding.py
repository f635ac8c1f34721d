"""Image files as they are found, decoded to what a network eats: upright 8-bit RGB, or a clear error."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from io import BytesIO
from pathlib import Path
from threading import Lock

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

# Named, because Pillow would otherwise try all it knows: PostScript, for one, is run by an external program.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000")
# Files with these names must be images; others in a folder are counted and left out.
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".jp2")
HEIC = (".heic", ".heif")  # read where pillow-heif is installed
HEIC_HINT = "pip install 'relatum[heic]' reads .heic"

SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange width and height (EXIF 2.32, tag 0x0112)
LARGE = 2**24  # pixels of a picture beyond which a process decodes one at a time: threads bound no memory
_ONE_AT_A_TIME = Lock()


@cache
def reads_heic() -> bool:
    """Whether HEIC, the format of many phones, can be decoded: it can with the extra `heic`."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def suffixes() -> tuple[str, ...]:
    """The endings, in lower case, of the names of files that must be images."""
    return SUFFIXES + (HEIC if reads_heic() else ())


def formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are decoded."""
    return FORMATS + (("HEIF",) if reads_heic() else ())


class BadImage(ValueError):
    """An image that cannot be decoded; the message names it, says what was expected, and the remedy."""

    def __init__(self, name: str, reason: str | None = None, kind: str = "not decodable") -> None:
        self.name, self.reason, self.kind = name, reason, kind  # the kind is what such images are counted under
        super().__init__(
            name  # already the whole message: so a data loader raises a worker's error anew
            if reason is None
            else f"cannot decode the image {name}: {reason}. Expected a whole file in one of the formats "
            f"{', '.join(formats())}. Repair or remove it, or leave out all such files with "
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
        name, encoded = name or str(encoded), read_file(encoded)
    with (
        _opened(encoded, name or "(bytes)") as image,
        _ONE_AT_A_TIME if image.width * image.height > LARGE else nullcontext(),
    ):
        return to_rgb(image)


def size_of(encoded: bytes, name: str) -> tuple[int, int]:
    """(width, height) of what `decode` gives, from the head of the file alone.

    Raises:
        BadImage: not an image; that its pixels can be decoded is not said.
    """
    with _opened(encoded, name) as image:
        sideways = image.getexif().get(ExifTags.Base.Orientation, 1) in SIDEWAYS
        return (image.height, image.width) if sideways else image.size


@contextmanager
def _opened(encoded: bytes, name: str) -> Iterator[Image.Image]:
    """An image whose pixels are yet to be decoded; whatever goes wrong with them is a `BadImage`."""
    try:
        with Image.open(BytesIO(encoded), formats=formats()) as image:
            yield image
    except MemoryError:
        raise
    except Exception as error:  # whatever a decoder says of foreign bytes, they are not an image
        unknown = isinstance(error, UnidentifiedImageError | UserWarning)
        reason = "of no known format" if unknown else f"{type(error).__name__}: {error}"
        kind = "not an image" if unknown else "truncated" if "truncated" in str(error).lower() else "not decodable"
        raise BadImage(name, f"{len(encoded):,} bytes, {reason}", kind) from error


def read_file(path: str | Path) -> bytes:
    """The bytes of a regular file; a pipe or a device, which might never end, is refused without waiting.

    Raises:
        FileNotFoundError: there is no such file.
        BadImage: it is no regular file, or may not be read.
    """
    try:
        opened = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(opened, "rb") as file:
            if not stat.S_ISREG(os.fstat(opened).st_mode):
                raise BadImage(str(path), "it is no regular file", "not a regular file")
            return file.read()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise BadImage(str(path), error.strerror or str(error), "unreadable") from error


def fit(image: Image.Image, size: int) -> Image.Image:
    """The center square of `image`, scaled to `size` x `size` pixels (bicubic); itself where it has that size."""
    return image if image.size == (size, size) else ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)


def to_rgb(image: Image.Image) -> Image.Image:
    """An opened image, upright, as 8-bit RGB; what `decode` says of its values holds."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:  # Pillow itself only warns up to twice the limit
        raise ValueError(f"{image.width} x {image.height} pixels, more than the limit of {limit:,}")
    image.getexif()
    image.info.pop("exif", None)  # Pillow would write it anew after turning, and fail at tags that cannot be written
    ImageOps.exif_transpose(image, in_place=True)
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
