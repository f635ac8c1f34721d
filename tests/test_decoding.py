"""Files as people have them: each is decoded to what one sees in a viewer, or refused with its name."""

import io
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from relatum.data.decoding import BadImage, decode, fit, size_of

GRADIENT = np.linspace(0, 255, 12 * 8).astype(np.uint8).reshape(8, 12)
COLORS = np.stack([GRADIENT, GRADIENT[::-1], GRADIENT[:, ::-1]], 2)


def encoded(image: Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def values(content: bytes) -> np.ndarray:
    image = decode(content)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_keep_every_value(form):
    assert (values(encoded(Image.fromarray(COLORS), form)) == COLORS).all()


def test_lossless_webp_keeps_every_value():
    assert (values(encoded(Image.fromarray(COLORS), "WEBP", lossless=True)) == COLORS).all()


def test_path_and_bytes_agree(tmp_path: Path):
    content = encoded(Image.fromarray(COLORS), "JPEG")
    (tmp_path / "a.jpg").write_bytes(content)
    assert (np.asarray(decode(tmp_path / "a.jpg")) == values(content)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(orientation):
    # stored pixels -> what a viewer shows, from the definition of the tag: where row 0 and column 0 lie
    shown = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: a.swapaxes(0, 1)[:, ::-1],
        7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
        8: lambda a: a.swapaxes(0, 1)[::-1],
    }[orientation](COLORS)
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(COLORS), "PNG", exif=exif)
    assert (values(content) == shown).all()
    assert size_of(content, "") == shown.shape[1::-1]


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_gray_is_scaled_not_clipped(form):
    deep = np.linspace(0, 65535, 96).astype(np.uint16).reshape(8, 12)
    expected = np.round(deep / 65535 * 255)[..., None].repeat(3, 2)
    assert np.abs(values(encoded(Image.fromarray(deep), form)) - expected).max() == 0


def test_big_endian_sixteen_bit_tiff_is_scaled():
    deep = np.linspace(0, 65535, 96).astype(">u2").reshape(8, 12)
    content = encoded(Image.frombytes("I;16B", (12, 8), deep.tobytes()), "TIFF")
    assert np.abs(values(content)[..., 0] - np.round(deep.astype(float) / 257)).max() == 0


def test_one_bit_and_gray_with_alpha():
    bits = Image.fromarray(GRADIENT > 127)
    assert (values(encoded(bits, "PNG"))[..., 1] == np.where(GRADIENT > 127, 255, 0)).all()
    alpha = np.full_like(GRADIENT, 128)
    layered = Image.merge("LA", [Image.fromarray(GRADIENT), Image.fromarray(alpha)])
    expected = GRADIENT * (128 / 255) + 255 * (127 / 255)
    assert np.abs(values(encoded(layered, "PNG"))[..., 0] - expected).max() <= 1


@pytest.mark.parametrize("transparency", [None, 0, b"\x00\xff\x80"], ids=["opaque", "index", "bytes"])
def test_palette_lies_on_white(transparency):
    image = Image.new("P", (3, 1))
    image.putpalette([200, 10, 10, 10, 200, 10, 10, 10, 200])
    image.putdata([0, 1, 2])
    options = {} if transparency is None else {"transparency": transparency}
    found = values(encoded(image, "PNG", **options))[0]
    assert found[0].tolist() == ([200, 10, 10] if transparency is None else [255, 255, 255])
    assert found[1].tolist() == [10, 200, 10]
    assert np.abs(found[2] - ([132, 132, 227] if isinstance(transparency, bytes) else [10, 10, 200])).max() <= 1


def test_cmyk_jpeg_has_its_colors():
    red = Image.new("RGB", (16, 16), (250, 20, 30)).convert("CMYK")
    assert np.abs(values(encoded(red, "JPEG")).reshape(-1, 3).mean(0) - [250, 20, 30]).max() < 6


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animation_gives_its_first_frame(form):
    frames = [Image.new("RGB", (9, 7), color) for color in ("#ff0000", "#00ff00", "#0000ff")]
    options = {"lossless": True} if form == "WEBP" else {}
    content = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
    assert (values(content) == [255, 0, 0]).all()


def truncated(form: str) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    content = encoded(Image.fromarray(noise), form)
    return content[: len(content) // 2]


BAD = {
    "truncated-jpeg": truncated("JPEG"),
    "truncated-png": truncated("PNG"),
    "truncated-webp": truncated("WEBP"),
    "text": b"not an image at all",
    "empty": b"",
    "header-only": encoded(Image.fromarray(COLORS), "PNG")[:20],
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n",
    "float": encoded(Image.fromarray(GRADIENT.astype(np.float32)), "TIFF"),
    "pdf": encoded(Image.fromarray(COLORS), "PDF"),
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_what_cannot_be_decoded_is_named_with_the_remedy(content, tmp_path):
    path = tmp_path / "holiday.jpg"
    path.write_bytes(content)
    with pytest.raises(BadImage, match=r"holiday\.jpg.*JPEG, PNG.*--data\.on-bad-image skip"):
        decode(path)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # a user's run only prints it
@pytest.mark.parametrize("factor", [1.5, 3], ids=["pillow-warns", "pillow-raises"])
def test_decompression_bomb_is_refused(factor, monkeypatch):
    content = encoded(Image.new("1", (100, 30)), "PNG")
    assert decode(content).size == (100, 30)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(3000 / factor))
    with pytest.raises(BadImage, match=r"bomb\.png.*pixels"):
        decode(content, "bomb.png")


def test_an_exif_block_that_cannot_be_written_does_not_hide_the_picture(monkeypatch):
    """Pillow's own turning writes the block anew, and fails at fields of odd types; the pixels are all we want."""
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(Image.fromarray(COLORS), "PNG", exif=exif)

    def unwritable(self, offset=8):
        raise struct.error("required argument is not an integer")

    monkeypatch.setattr(Image.Exif, "tobytes", unwritable)
    assert values(content).shape == (12, 8, 3)


def test_missing_file_is_not_called_a_bad_image(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        decode(tmp_path / "gone.png")


def test_error_survives_the_way_from_a_worker():
    error = BadImage("a.png", "it is cut off")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_fit_takes_the_centre_square_and_leaves_what_fits():
    image = Image.new("RGB", (30, 10), "white")
    image.paste("black", (10, 0, 20, 10))
    assert (np.asarray(fit(image, 10)) == 0).all()
    assert fit(image.crop((0, 0, 10, 10)), 10).tobytes() == image.crop((0, 0, 10, 10)).tobytes()
