"""Views: torchvision's values for each operation, torchvision's law for each parameter, and purity given the seed."""

import dataclasses
import subprocess
import sys
from itertools import permutations

import PIL.Image
import pytest
import torch
from jaxtyping import TypeCheckError
from scipy import stats
from torch.fx.experimental.proxy_tensor import make_fx
from torchvision import transforms
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from relatum.data.views import ClassifierView, ContrastiveView, EvaluationView, View
from relatum.data.views.autoaugment import auto_augment
from relatum.data.views.color import (
    blend,
    color_jitter,
    cutout_mask,
    gaussian_blur,
    jitter_parameters,
    luma,
    shift_hue,
)
from relatum.data.views.crops import resample, resized_boxes
from relatum.data.views.pixels import normalize, to_unit

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
ZERO, ONE = (0.0,) * 3, (1.0,) * 3
STILL = {"min_scale": 1.0, "strength": 0.0, "grayscale": 0.0, "flip": 0.0}
VIEWS = {
    "contrastive": ContrastiveView(),
    "contrastive-all": ContrastiveView(strength=1.0, blur=0.5, solarize=0.5),
    "pad": ClassifierView(),
    "pad-all": ClassifierView(autoaugment=True, cutout=16),
    "resized": ClassifierView(crop="resized", cutout=9),
    "evaluation": EvaluationView(),
}
every_view = pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
RANDOM = {name: view for name, view in VIEWS.items() if name != "evaluation"}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(n: int, height: int = 32, width: int = 32, channels: int = 3) -> torch.Tensor:
    """Images with structure: smooth colors, noise, some pixels at the limits and some gray."""
    generator = seeded(7)
    coarse = torch.rand(n, channels, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    noisy = smooth + 0.2 * torch.randn(n, channels, height, width, generator=generator)
    noisy[:, :, :2] = noisy[:, :1, :2]
    return noisy.clamp(0, 1).mul(255).round().byte()


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values)[:, None, None, None]


# --- values -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(32, 32, 32), (64, 48, 32), (20, 30, 32), (96, 50, 24), (33, 17, 8)],
    ids=["equal", "larger", "smaller", "much-larger", "odd"],
)
def test_resample_is_resized_crop(height: int, width: int, size: int) -> None:
    images = pictures(6, height, width)
    boxes = resized_boxes(height, width, 0.08, torch.rand(6, 22, generator=seeded()))
    boxes[0] = torch.tensor([0.0, 0, height, width])
    boxes[1] = torch.tensor([height - 2.0, width - 1.0, 2, 1])
    flips = torch.arange(6) % 2 == 1
    found = resample(images, boxes, flips, size)
    for image, box, flip, crop in zip(images, boxes.int().tolist(), flips, found):
        expected = F.resized_crop(image.float() / 255, *box, [size, size], antialias=True)
        expected = expected.flip(2) if flip else expected
        torch.testing.assert_close(crop, expected, atol=2e-6, rtol=0)


def test_pad_crop_is_torchvisions_exactly() -> None:
    view, images = ClassifierView(padding=4), pictures(16)
    uniforms = torch.rand(16, view.crop_draws, generator=seeded())
    found = view.crop_batch(images, uniforms)
    padded = F.pad(images, [4])
    for i, (top, left, *_) in enumerate(view.boxes(32, 32, uniforms[:, :-1]).int().tolist()):
        expected = F.crop(padded[i], top + 4, left + 4, 32, 32)
        expected = expected.flip(2) if uniforms[i, -1] < 0.5 else expected
        assert torch.equal(found[i].mul(255).round().byte(), expected)
    torch.testing.assert_close(found.mul(255), found.mul(255).round(), atol=1e-4, rtol=0)


FACTORS = (0.0, 0.3, 1.0, 1.4, 1.8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("gray", "average", "reference"),
    [(0, 0, F.adjust_brightness), (0, 1, F.adjust_contrast), (1, 0, F.adjust_saturation)],
    ids=["brightness", "contrast", "saturation"],
)
def test_blend(gray: int, average: int, reference, channels: int) -> None:
    images = to_unit(pictures(len(FACTORS), channels=channels))
    ones = torch.ones(len(FACTORS), 1, 1, 1)
    found = blend(images, column(*FACTORS), gray * ones, average * ones)
    expected = torch.stack([reference(image, factor) for image, factor in zip(images, FACTORS)])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert torch.equal(found[2], images[2])  # factor 1 is exact: absent operations rely on it


@pytest.mark.parametrize("channels", [1, 3])
def test_hue(channels: int) -> None:
    turns = torch.tensor([-0.5, -0.31, -0.1, 0.0, 1e-3, 0.1, 0.25, 0.5])
    images = to_unit(pictures(len(turns), channels=channels))
    if channels == 3:  # all colors whose channels are 0, 1/2 or 1: every tie between channels
        cube = torch.cartesian_prod(*[torch.tensor([0.0, 0.5, 1.0])] * 3)
        images[:, :, -1, :27] = cube.T
    expected = torch.stack([F.adjust_hue(x, turn) for x, turn in zip(images, turns.tolist())])
    torch.testing.assert_close(shift_hue(images, turns), expected, atol=2e-6, rtol=0)


def test_luma() -> None:
    images = to_unit(pictures(4))
    torch.testing.assert_close(luma(images), F.rgb_to_grayscale(images), atol=1e-7, rtol=0)


@pytest.mark.parametrize("order", list(permutations(range(4))), ids=str)
def test_color_jitter_applies_the_order(order: tuple[int, ...]) -> None:
    images = to_unit(pictures(3))
    factors = torch.tensor([[1.3, 0.7, 1.5, 0.1], [0.6, 1.6, 0.2, -0.2], [1.0, 1.0, 1.0, 0.0]])
    steps = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
    expected = []
    for x, row in zip(images, factors.tolist()):
        for operation in order:
            x = steps[operation](x, row[operation])
        expected.append(x)
    found = color_jitter(images, factors, torch.tensor([order] * 3))
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("size", "kernel"), [(32, 3), (40, 23), (17, 9)], ids=str)
def test_gaussian_blur(size: int, kernel: int) -> None:
    sigma = torch.tensor([0.0, 0.1, 0.7, 2.0])
    images = to_unit(pictures(4, size, size))
    found = gaussian_blur(images, sigma, kernel)
    assert torch.equal(found[0], images[0])
    for image, s, blurred in zip(images[1:], sigma[1:].tolist(), found[1:]):
        expected = F.gaussian_blur(image, [kernel, kernel], [s, s])
        torch.testing.assert_close(blurred, expected, atol=1e-5, rtol=0)


def test_solarize() -> None:
    images = pictures(4)
    view = ContrastiveView(**STILL, solarize=1.0)
    torch.testing.assert_close(view(images, ZERO, ONE, seeded()), F.solarize(to_unit(images), 0.5), atol=1e-6, rtol=0)


def test_blur_and_grayscale_in_the_view() -> None:
    images = pictures(40)
    view = ContrastiveView(**STILL | {"grayscale": 1.0}, blur=0.4)
    uniforms = torch.rand(40, view.crop_draws + view.augment_draws, generator=seeded())
    found = view.transform(images, uniforms, ZERO, ONE)
    chosen = uniforms[:, -3] < 0.4
    assert 8 <= chosen.sum() <= 24
    for image, crop, blurred, u in zip(to_unit(images), found, chosen, uniforms[:, -2].tolist()):
        sigma = 0.1 + 1.9 * u
        expected = F.rgb_to_grayscale(image, 3)
        expected = F.gaussian_blur(expected, [3, 3], [sigma, sigma]) if blurred else expected
        torch.testing.assert_close(crop, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_normalize(dtype: torch.dtype) -> None:
    images = F.to_dtype(pictures(3), torch.float32, scale=True)
    found = normalize(images, MEAN, STD, dtype)
    assert torch.equal(found, F.normalize(images, list(MEAN), list(STD)).to(dtype))
    assert found.is_contiguous(memory_format=torch.channels_last)


# --- laws -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("height", "width", "scale"), [(32, 32, 0.08), (40, 64, 0.2), (20, 60, 0.5)], ids=["square", "wide", "fallback"]
)
def test_boxes_follow_torchvision(height: int, width: int, scale: float) -> None:
    image = PIL.Image.new("RGB", (width, height))
    draws = 1500
    drawn = [transforms.RandomResizedCrop.get_params(image, [scale, 1], [3 / 4, 4 / 3]) for _ in range(draws)]
    expected = torch.tensor(drawn).double()
    boxes = resized_boxes(height, width, scale, torch.rand(4 * draws, 22, generator=seeded())).double()
    assert torch.equal(boxes, boxes.round())
    assert (boxes >= 0).all()
    assert (boxes[:, 0] + boxes[:, 2] <= height).all()
    assert (boxes[:, 1] + boxes[:, 3] <= width).all()
    for values in (lambda b: b[:, 0], lambda b: b[:, 1], lambda b: b[:, 2], lambda b: b[:, 3]):
        assert stats.ks_2samp(values(boxes), values(expected)).pvalue > 0.01
    assert stats.ks_2samp(boxes[:, 2] * boxes[:, 3], expected[:, 2] * expected[:, 3]).pvalue > 0.01
    assert stats.ks_2samp(boxes[:, 3] / boxes[:, 2], expected[:, 3] / expected[:, 2]).pvalue > 0.01


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [(10, 90, [0, 38, 10, 13]), (90, 10, [38, 0, 13, 10]), (30, 32, [0, 0, 30, 32])],
    ids=["wide", "tall", "whole"],
)
def test_boxes_fall_back_to_the_center(height: int, width: int, box: list[int]) -> None:
    uniforms = torch.full((1, 22), 0.999)
    assert resized_boxes(height, width, 0.999, uniforms).tolist() == [box]


@pytest.mark.parametrize("highest", [0.0, 1 - 2**-24], ids=["zero", "below-one"])
def test_boxes_at_the_ends_of_the_random_numbers(highest: float) -> None:
    boxes = resized_boxes(300, 4000, 0.08, torch.full((1, 22), highest))
    assert (boxes[:, :2] >= 0).all()
    assert boxes[0, 0] + boxes[0, 2] <= 300
    assert boxes[0, 1] + boxes[0, 3] <= 4000


def test_jitter_follows_torchvision() -> None:
    n, s, p = 12000, 0.5, 0.8
    factors, order = jitter_parameters(s, p, torch.rand(n, 9, generator=seeded()))
    applied = (factors != torch.tensor([1.0, 1, 1, 0])).any(1)
    assert stats.binomtest(int(applied.sum()), n, p).pvalue > 0.01
    for values, (low, high) in zip(factors[applied].T, [(0.6, 1.4)] * 3 + [(-0.1, 0.1)]):
        assert stats.kstest(values.double(), stats.uniform(low, high - low).cdf).pvalue > 0.01
    correlation = torch.corrcoef(factors[applied].T) - torch.eye(4)
    assert correlation.abs().max() < 0.04
    codes = (order * torch.tensor([64, 16, 4, 1])).sum(1)
    counts = codes.unique(return_counts=True)[1]
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > 0.01


def test_strong_jitter_stays_in_torchvisions_range() -> None:
    factors, _ = jitter_parameters(2.0, 1.0, torch.rand(2000, 9, generator=seeded()))
    reference = transforms.ColorJitter(1.6, 1.6, 1.6, 0.4)
    for values, (low, high) in zip(
        factors.T, (reference.brightness, reference.contrast, reference.saturation, reference.hue)
    ):
        assert low <= values.min() < low + 0.01
        assert high - 0.01 < values.max() <= high


@pytest.mark.parametrize(
    ("view", "changed"),
    [
        (ContrastiveView(**STILL | {"flip": 0.3}), 0.3),
        (ContrastiveView(**STILL | {"grayscale": 0.3}), 0.3),
        (ContrastiveView(**STILL, solarize=0.3), 0.3),
        (ClassifierView(padding=0, flip=0.3), 0.3),
    ],
    ids=["flip", "grayscale", "solarize", "classifier-flip"],
)
def test_share_of_images_that_an_operation_meets(view: View, changed: float) -> None:
    images = pictures(1).expand(1500, -1, -1, -1)
    found = view(images, ZERO, ONE, seeded())
    different = ((found - to_unit(images)).abs() > 1e-6).flatten(1).any(1)
    assert stats.binomtest(int(different.sum()), len(images), changed).pvalue > 0.01


def test_pad_crop_is_uniform() -> None:
    boxes = ClassifierView(padding=4).boxes(32, 32, torch.rand(8100, 22, generator=seeded()))
    counts = torch.zeros(9, 9)
    counts.index_put_(tuple((boxes[:, :2] + 4).long().T), torch.ones(8100), accumulate=True)
    assert counts.sum() == 8100
    assert stats.chisquare(counts.flatten()).pvalue > 0.01


@pytest.mark.parametrize("side", [8, 9])
def test_cutout(side: int) -> None:
    size, n = 16, 4000
    uniforms = torch.rand(n, 2, generator=seeded())
    mask = cutout_mask(size, side, uniforms)
    for row, center in zip(mask[:50], (uniforms[:50] * size).long().tolist()):
        expected = torch.zeros(size, size, dtype=torch.bool)
        edges = [(max(c - side // 2, 0), c - side // 2 + side) for c in center]
        expected[edges[0][0] : edges[0][1], edges[1][0] : edges[1][1]] = True
        assert torch.equal(row, expected)
    share = mask.double().mean(0)[size // 2, size // 2]  # hidden if both distances fit: (side / size)^2
    assert share == pytest.approx((side / size) ** 2, abs=0.03)


def test_cutout_fills_with_the_mean_color() -> None:
    view = ClassifierView(padding=0, flip=0.0, cutout=16)
    images = pictures(8)
    uniforms = torch.rand(8, view.crop_draws + view.augment_draws, generator=seeded())
    hidden = cutout_mask(32, 16, uniforms[:, -2:])[:, None].expand(-1, 3, -1, -1)
    found = view.transform(images, uniforms, MEAN, STD)
    expected = F.normalize(to_unit(images), list(MEAN), list(STD))
    assert (found[hidden] == 0).all()
    torch.testing.assert_close(found[~hidden], expected[~hidden], atol=1e-5, rtol=0)


def test_auto_augment_follows_torchvision() -> None:
    """The outcomes for one image, compared bit for bit, are as frequent as torchvision's."""
    image, n = pictures(1), 2500
    reference = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)
    theirs = [reference(image[0]).numpy().tobytes() for _ in range(n)]
    ours = auto_augment(image.expand(2 * n, -1, -1, -1), torch.rand(2 * n, 5, generator=seeded()))
    counts: dict[bytes, list[int]] = {}
    for outcomes, index in ((theirs, 0), ([row.numpy().tobytes() for row in ours], 1)):
        for outcome in outcomes:
            counts.setdefault(outcome, [0, 0])[index] += 1
    frequent = [c for c in counts.values() if sum(c) >= 15]
    rare = [sum(c[i] for c in counts.values() if sum(c) < 15) for i in (0, 1)]
    assert len(frequent) > 50
    assert stats.chi2_contingency([*frequent, rare]).pvalue > 0.01


def test_auto_augment_on_gray() -> None:
    images = pictures(64, channels=1)
    found = auto_augment(images, torch.rand(64, 5, generator=seeded()))
    assert found.shape == images.shape
    assert not torch.equal(found, images)


# --- every view -------------------------------------------------------------------------------------------------


@every_view
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_view_of_a_batch(view: View, channels: int, dtype: torch.dtype) -> None:
    images = pictures(5, channels=channels)
    copy = images.clone()
    found = view(images, MEAN[:channels], STD[:channels], seeded(), dtype)
    assert found.shape == (5, channels, 32, 32)
    assert found.dtype == dtype
    assert found.is_contiguous(memory_format=torch.channels_last)
    low = [(0 - m) / s - 0.05 for m, s in zip(MEAN, STD)][:channels]
    high = [(1 - m) / s + 0.05 for m, s in zip(MEAN, STD)][:channels]
    assert (found >= torch.tensor(low)[:, None, None]).all()
    assert (found <= torch.tensor(high)[:, None, None]).all()
    assert torch.equal(images, copy)


@pytest.mark.parametrize("view", RANDOM.values(), ids=RANDOM)
def test_the_seed_decides(view: View) -> None:
    images, generator = pictures(8), seeded(3)
    first, second = (view(images, MEAN, STD, generator) for _ in range(2))
    assert torch.equal(first, view(images, MEAN, STD, seeded(3)))
    assert all(not torch.equal(a, b) for a, b in zip(first, second))


@every_view
def test_no_global_randomness(view: View) -> None:
    state = torch.get_rng_state()
    view(pictures(4), MEAN, STD, seeded())
    assert torch.equal(state, torch.get_rng_state())


@every_view
def test_images_of_a_batch_are_independent(view: View) -> None:
    """An image's view depends on its own row alone, whatever part of the batch it is worked on in."""
    images = pictures(150)
    uniforms = torch.rand(150, view.crop_draws + view.augment_draws, generator=seeded())
    whole = view.transform(images, uniforms, MEAN, STD)
    last = view.transform(images[147:], uniforms[147:], MEAN, STD)
    torch.testing.assert_close(whole[147:], last, atol=1e-5, rtol=0)


@every_view
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_worker_makes_the_same_geometry(view: View, mode: str) -> None:
    """Pillow's crop of one image is within its rounding of the batch's, from the same random numbers."""
    array = pictures(1, 40, 50, channels=len(mode) if mode == "RGB" else 1)
    image = F.to_pil_image(array[0])
    crop = view.crop_image(image, seeded(5))
    uniforms = torch.rand(1, view.crop_draws, generator=seeded(5))
    expected = view.crop_batch(array, uniforms)[0].mul(255)
    assert (crop.float() - expected).abs().max() <= 1.6


@every_view
def test_finish_is_the_second_half(view: View) -> None:
    images = pictures(6)
    uniforms = torch.rand(6, view.augment_draws, generator=seeded(2))
    expected = normalize(view.augment_crops(to_unit(images), MEAN, uniforms), MEAN, STD)
    assert torch.equal(view.finish_crops(images, MEAN, STD, seeded(2)), expected)


@pytest.mark.parametrize(
    "view",
    [ContrastiveView(**STILL), ContrastiveView(**STILL | {"strength": 1.0}, jitter_probability=0.0), EvaluationView()],
    ids=["strength-0", "jitter-0", "evaluation"],
)
def test_without_randomness_a_view_normalizes(view: View) -> None:
    images = pictures(4)
    expected = F.normalize(F.to_dtype(images, torch.float32, scale=True), list(MEAN), list(STD))
    found = view(images, MEAN, STD, seeded())
    tolerance = 0 if isinstance(view, EvaluationView) else 3e-6
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(48, 40), (20, 31)])
def test_evaluation_resizes_and_takes_the_center(height: int, width: int) -> None:
    images = pictures(3, height, width)
    found = EvaluationView(size=32, resize=36)(images, ZERO, ONE, seeded())
    reference = v2.Compose([v2.Resize(36, antialias=True), v2.CenterCrop(32)])
    torch.testing.assert_close(found, reference(to_unit(images)), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("view", "side"),
    [(EvaluationView(), 32), (EvaluationView(64), 64), (EvaluationView(224), 256), (EvaluationView(96, 96), 96)],
    ids=str,
)
def test_evaluation_default_side(view: EvaluationView, side: int) -> None:
    assert view.shorter_side == side


def test_the_contrastive_view_needs_no_value_on_the_host() -> None:
    """Traced with tensors that have no values: `.item()`, boolean indexing and `nonzero` would raise."""
    view, images = VIEWS["contrastive-all"], pictures(6)
    uniforms = torch.rand(6, 36, generator=seeded())
    graph = make_fx(lambda x, u: view.transform(x, u, MEAN, STD), tracing_mode="fake")(images, uniforms)
    expected = view.transform(images, uniforms, MEAN, STD)
    torch.testing.assert_close(graph(images, uniforms), expected, atol=1e-6, rtol=0)


COMPILED = """
import torch
from relatum.data.views import ClassifierView, ContrastiveView

view = ContrastiveView(blur=0.5, solarize=0.5)
images = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
statistics = (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)
uniforms = torch.rand(6, 36)
found = torch.compile(view.transform, fullgraph=True, backend="eager")(images, uniforms, *statistics)
torch.testing.assert_close(found, view.transform(images, uniforms, *statistics), atol=1e-5, rtol=0)
assert found.is_contiguous(memory_format=torch.channels_last)

compiler = torch.compile
torch.compile = lambda function: compiler(function, backend="eager")  # without the code generator, for its time
for view in (view, ClassifierView(autoaugment=True, cutout=8)):
    compiled = view.compiled()
    for one, two in ((view, compiled), (view.finish_crops, compiled.finish_crops)):
        a, b = (make(images, *statistics, torch.Generator().manual_seed(1)) for make in (one, two))
        torch.testing.assert_close(b, a, atol=1e-5, rtol=0)
assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 2
"""


def test_the_contrastive_view_compiles_to_one_graph() -> None:
    """In a process of its own: the compiler cannot read the shape checks that pytest puts around functions."""
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_autocast_leaves_the_views_exact() -> None:
    view, images = VIEWS["contrastive-all"], pictures(6)
    expected = view(images, MEAN, STD, seeded())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(view(images, MEAN, STD, seeded()), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_contrastive_view_never_waits_for_the_gpu() -> None:
    view, images = VIEWS["contrastive-all"], pictures(64).cuda()
    uniforms = torch.rand(64, 36, generator=seeded())
    on_cpu = view.transform(images.cpu(), uniforms, MEAN, STD)
    torch.testing.assert_close(view.transform(images, uniforms.cuda(), MEAN, STD).cpu(), on_cpu, atol=1e-4, rtol=0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        view(images, MEAN, STD, torch.Generator("cuda").manual_seed(0))
    finally:
        torch.cuda.set_sync_debug_mode("default")


# --- bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ContrastiveView(size=0), "size is 0"),
        (lambda: ContrastiveView(min_scale=0.0), "min_scale is 0.0"),
        (lambda: ContrastiveView(min_scale=1.5), "min_scale is 1.5"),
        (lambda: ContrastiveView(strength=3.0), "strength is 3.0.*0.5 is SimCLR's"),
        (lambda: ContrastiveView(strength=float("nan")), "strength is nan"),
        (lambda: ContrastiveView(jitter_probability=-0.1), "jitter_probability is -0.1"),
        (lambda: ContrastiveView(grayscale=2.0), "grayscale is 2.0.*probability"),
        (lambda: ContrastiveView(blur=1.1), "blur is 1.1"),
        (lambda: ContrastiveView(solarize=1.1), "solarize is 1.1"),
        (lambda: ContrastiveView(flip=-1.0), "flip is -1.0"),
        (lambda: ClassifierView(padding=-1), "padding is -1"),
        (lambda: ClassifierView(cutout=65), "cutout is 65"),
        (lambda: ClassifierView(min_scale=0.0), "min_scale is 0.0"),
        (lambda: EvaluationView(size=32, resize=16), "resize is 16"),
    ],
)
def test_fields_out_of_range(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_unknown_crop() -> None:
    with pytest.raises((ValueError, TypeCheckError), match="center"):
        ClassifierView(crop="center")


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ((0.5,), (0.2,), "mean has 1 and std 1 numbers: expected one for each of the 3 channels"),
        (MEAN, (0.2, 0.0, 0.2), r"std is \(0.2, 0.0, 0.2\)"),
    ],
    ids=["channels", "zero"],
)
def test_wrong_statistics(mean: tuple[float, ...], std: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EvaluationView()(pictures(2), mean, std, seeded())


@pytest.mark.parametrize("half", ["__call__", "finish_crops"])
def test_images_that_are_not_bytes(half: str) -> None:
    with pytest.raises((ValueError, TypeCheckError), match=r"torch.float32.*uint8|UInt8"):
        getattr(EvaluationView(), half)(torch.rand(2, 3, 32, 32), MEAN, STD, seeded())


def test_image_too_small_for_the_window() -> None:
    with pytest.raises(ValueError, match=r"20 x 32 with a border of 4 .* 32 x 32.*resized"):
        ClassifierView()(pictures(2, 20, 32), MEAN, STD, seeded())


def test_colors_of_four_channels() -> None:
    with pytest.raises(ValueError, match="4 channels"):
        ContrastiveView()(pictures(2, channels=4), (0.5,) * 4, (0.5,) * 4, seeded())


@every_view
def test_views_are_frozen_and_compare_by_value(view: View) -> None:
    assert dataclasses.replace(view) == view
    with pytest.raises(dataclasses.FrozenInstanceError):
        view.size = 64
