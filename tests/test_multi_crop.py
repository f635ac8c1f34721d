"""Multi-crop: large and small crops of an image, from the view over the loader to the pairs that a method compares."""

import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from cases import batch_for, build
from relatum.core.types import Batch
from relatum.data.images import Images
from relatum.data.loading import Loader
from relatum.data.pairing import shuffled
from relatum.data.sources import load
from relatum.data.views import ContrastiveView, SmallCrops
from relatum.data.views.crops import resized_boxes
from relatum.methods import METHODS
from relatum.methods.contrastive.crops import crop_pairs, embed_crops
from relatum.recipes.catalog import RECIPES
from relatum.recipes.recipe import from_dict, to_dict

COUNT, SIDE = 12, 16
TWO = ContrastiveView(size=8, min_scale=0.4, blur=1.0, second_blur=0.1, second_solarize=0.2)
FIVE = replace(TWO, small=SmallCrops(count=3, size=4, blur=0.5))

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # of fork


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for i in range(COUNT):
        Image.fromarray(random.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(root / f"{i:02}.png")
    return root


@pytest.fixture(params=["yes", "no"], ids=["resident", "streamed"])
def images(request, folder) -> Images:
    return load(str(folder), resident=request.param, labels="none").train


def batches(images: Images, view: ContrastiveView, **options) -> list[Batch]:
    indices = partial(lambda n, epoch: shuffled(n, batch_size=6, seed=0, epoch=epoch), len(images))
    count = view.large_crops + view.small_crops
    given = {"mean": (0.5,) * 3, "std": (0.25,) * 3, "seed": 0, "device": "cpu", "views_per_image": count}
    return list(Loader(images, indices, view, **given | options).epoch(0))


def test_each_view_of_an_image_is_made_as_it_should_be():
    first, second, *small = (FIVE.of(number) for number in range(5))
    assert (first.size, first.min_scale, first.max_scale, first.blur, first.solarize) == (8, 0.4, 1.0, 1.0, 0.0)
    assert (second.size, second.min_scale, second.max_scale, second.blur, second.solarize) == (8, 0.4, 1.0, 0.1, 0.2)
    assert small[0] == small[1] == small[2]
    assert (small[0].size, small[0].min_scale, small[0].max_scale, small[0].blur) == (4, 0.05, 0.4, 0.5)
    assert small[0].solarize == 0
    own = replace(FIVE, small=SmallCrops(count=1, max_scale=0.9)).of(2)
    assert (own.size, own.max_scale, own.blur) == (16, 0.9, 1.0)


def test_the_area_of_small_crops_is_uniform_in_its_range():
    uniforms = torch.rand(4000, 22)
    boxes = resized_boxes(400, 400, 0.05, uniforms, 0.25)
    share = (boxes[:, 2] * boxes[:, 3] / 400**2).numpy()
    assert stats.kstest(share, "uniform", (0.05, 0.2)).pvalue > 0.01
    assert torch.equal(resized_boxes(40, 40, 0.1, uniforms, 1.0), resized_boxes(40, 40, 0.1, uniforms))


def test_a_batch_has_large_crops_first_and_says_how_many_are_small(images):
    for batch in batches(images, FIVE):
        assert [tuple(view.shape) for view in batch.views] == [(6, 3, 8, 8)] * 2 + [(6, 3, 4, 4)] * 3
        assert (batch.large, batch.small) == (2, 3)
        assert batch.index.shape == batch.labels.shape == (5, 6)
        assert (batch.index == batch.index[0]).all()
        assert all(not torch.equal(a, b) for a, b in zip(batch.views[2:], batch.views[3:]))


def test_small_crops_leave_the_large_ones_as_they_are(images):
    for with_small, without in zip(batches(images, FIVE), batches(images, TWO), strict=True):
        assert without.small == 0
        assert all(torch.equal(a, b) for a, b in zip(with_small.views, without.views))


def test_workers_make_the_same_crops_in_any_number(folder):
    streamed = load(str(folder), resident="no", labels="none").train
    for one, other in zip(batches(streamed, FIVE), batches(streamed, FIVE, workers=2), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.views, other.views, strict=True))


def test_which_crops_meet():
    batch = Batch.unlabeled(*torch.zeros(2, 1, 3, 8, 8), *torch.zeros(2, 1, 3, 4, 4), small=2)
    assert dict(crop_pairs(batch)) == {(0, 1): 2, (0, 2): 1, (0, 3): 1, (1, 2): 1, (1, 3): 1}
    with pytest.raises(ValueError, match="0 large and 1 small crops has no pair"):
        crop_pairs(Batch.unlabeled(torch.zeros(1, 3, 4, 4), small=1))


def test_crops_of_one_size_pass_the_backbone_together(monkeypatch):
    method = build("simclr-multi-crop").eval()
    batch = batch_for(method)
    sizes = []
    embed = method.backbone.embed
    monkeypatch.setattr(method.backbone, "embed", lambda images: (sizes.append(tuple(images.shape)), embed(images))[1])
    features = embed_crops(method.backbone, batch.views)
    assert sizes == [(16, 3, 16, 16), (16, 3, 8, 8)]
    torch.testing.assert_close(features, torch.cat([embed(view) for view in batch.views]))


def nt_xent(a: list[list[float]], b: list[list[float]], temperature: float) -> float:
    """Chen et al. 2020, Eq. (1) and Algorithm 1, as a loop over 2N anchors."""
    z, n = a + b, len(a)
    total = 0.0
    for i in range(2 * n):
        alike = [sum(x * y for x, y in zip(z[i], other)) / temperature for other in z]
        others = sum(math.exp(s) for k, s in enumerate(alike) if k != i)
        total -= alike[(i + n) % (2 * n)] - math.log(others)
    return total / (2 * n)


def test_simclr_compares_each_large_crop_with_each_other_crop():
    method = build("simclr-multi-crop", temperature=0.3).double().eval()
    batch = batch_for(method, dtype=torch.double)
    z = [method.projector(method.backbone.embed(view)).tolist() for view in batch.views]
    terms = [nt_xent(z[i], z[v], 0.3) for i in range(2) for v in range(4) if v != i]
    assert len(terms) == 6
    (found,) = method.losses(batch).values()
    assert found.item() == pytest.approx(sum(terms) / 6, rel=1e-12)


def test_without_small_crops_the_loss_is_that_of_two_views():
    method = build("simclr").double().eval()
    batch = batch_for(method, dtype=torch.double)
    a, b = (method.projector(method.backbone.embed(view)).tolist() for view in batch.views)
    (found,) = method.losses(batch).values()
    assert found.item() == pytest.approx(nt_xent(a, b, 0.5), rel=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"large": 1}, "large is 1: expected at least 2"),
        ({"max_scale": 0.05}, "min_scale is 0.08: expected at most max_scale, 0.05"),
        ({"max_scale": 1.5}, "max_scale is 1.5: expected a share"),
        ({"second_solarize": -1.0}, "second_solarize is -1.0: expected a probability"),
        ({"small": {"count": -1}}, "small.count is -1"),
        ({"small": {"size": 0}}, "small.size is 0"),
        ({"small": {"max_scale": 0.0}}, "small.max_scale is 0.0"),
        ({"small": {"count": 2, "min_scale": 0.3}}, "small.min_scale is 0.3, above the largest share .* 0.08"),
    ],
)
def test_views_that_cannot_be_are_refused(change: dict, message: str):
    if "small" in change:
        with pytest.raises(ValueError, match=message):
            ContrastiveView(small=SmallCrops(**change["small"]))
    else:
        with pytest.raises(ValueError, match=message):
            ContrastiveView(**change)


@pytest.mark.parametrize("name", ["moco", "byol", "supcon"])
def test_a_method_of_two_views_refuses_more(name: str):
    tree = to_dict(RECIPES[name]())
    tree["data"]["view"] |= {"small": {"count": 4}}
    with pytest.raises(ValueError, match=f"data.view.small.count is 4, and the method {name} .*multi-crop .simclr"):
        from_dict(tree)
    tree["data"]["view"] |= {"small": {"count": 0}, "large": 3}
    with pytest.raises(ValueError, match=f"data.view.large is 3, and the method {name}"):
        from_dict(tree)


def test_the_methods_that_take_multi_crop_can_be_told_so():
    takers = [name for name, method in METHODS.items() if method.multi_crop]
    assert "simclr" in takers
    for name in takers:
        tree = to_dict(RECIPES[name]())
        tree["data"]["view"] |= {"small": {"count": 4, "min_scale": 0.01}}
        assert from_dict(tree).data.view.small_crops == 4
