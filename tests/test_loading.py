"""Loaders: what a step sees is a function of (seed, epoch, step), whoever loads it."""

import os
import signal
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from relatum.core.randomness import generator_of, seed_of
from relatum.core.types import Batch
from relatum.data.decoding import BadImage
from relatum.data.images import Images, ResidentImages
from relatum.data.loading import Loader, evaluation_batches
from relatum.data.pairing import shuffled, triples
from relatum.data.sources import load
from relatum.data.views import ContrastiveView, EvaluationView, View

COUNT, SIDE = 24, 12
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
RANDOM, PLAIN = ContrastiveView(size=8), EvaluationView(size=SIDE)
CROPS = ContrastiveView(size=8, jitter_probability=0.0, grayscale=0.0)  # all that workers draw

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # of fork


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for i in range(COUNT):
        (root / f"class{i % 3}").mkdir(exist_ok=True)
        picture = random.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(picture).save(root / f"class{i % 3}" / f"{i:02}.png")
    return root


@pytest.fixture(params=["yes", "no"], ids=["resident", "streamed"])
def images(request, folder) -> Images:
    return load(str(folder), resident=request.param).train


def loader(images: Images, *, view: View = RANDOM, batch_size: int = 8, seed: int = 0, **options) -> Loader:
    indices = partial(lambda n, epoch: shuffled(n, batch_size=batch_size, seed=seed, epoch=epoch), len(images))
    return Loader(images, indices, view, mean=MEAN, std=STD, seed=seed, device="cpu", **options)


def equal(a: list[Batch], b: list[Batch]) -> bool:
    same = [torch.equal(x.labels, y.labels) and torch.equal(x.index, y.index) for x, y in zip(a, b, strict=True)]
    return all(same) and pixels_equal(a, b)


def pixels_equal(a: list[Batch], b: list[Batch]) -> bool:
    return all(torch.equal(u, v) for x, y in zip(a, b, strict=True) for u, v in zip(x.views, y.views, strict=True))


def test_seeds_are_fixed_spread_and_in_range():
    parts = [(a, b) for a in range(30) for b in range(30)]
    seeds = [seed_of(*p) for p in parts]
    assert len(set(seeds)) == len(parts)
    assert all(0 <= s < 2**63 for s in seeds)
    assert abs(np.mean(seeds) / 2**63 - 0.5) < 0.05
    assert seed_of(1, 2, 3) == 6520558355739401531
    assert seed_of(-1) != seed_of(1)
    assert torch.equal(torch.rand(3, generator=generator_of(5, 6)), torch.rand(3, generator=generator_of(5, 6)))


def test_a_batch_is_of_the_planned_samples(images):
    batches = list(loader(images, views_per_image=2).epoch(3))
    plan = shuffled(COUNT, batch_size=8, seed=0, epoch=3)
    assert len(batches) == loader(images).steps_per_epoch == 3
    for batch, samples in zip(batches, plan):
        assert torch.equal(batch.index, samples.expand(2, -1))
        assert torch.equal(batch.labels, images.labels[samples].expand(2, -1))
        assert [v.shape for v in batch.views] == [(8, 3, 8, 8)] * 2


def test_views_are_of_the_images_that_the_index_names(images):
    for batch in loader(images, view=PLAIN).epoch(0):
        for view, sample in zip(batch.views[0], batch.index[0].tolist()):
            pixels = images.read(sample).double() / 255
            expected = (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
            torch.testing.assert_close(view.double(), expected, atol=1e-5, rtol=0)


def test_resident_and_streamed_agree_where_nothing_is_random(folder):
    both = [load(str(folder), resident=r).train for r in ("yes", "no")]
    a, b = (list(loader(images, view=PLAIN).epoch(1)) for images in both)
    assert equal(a, b)


def test_resident_and_streamed_obey_the_same_law(folder):
    # the mean over many draws of the views of one image, per pixel, within five standard errors
    draws = 400
    moments, indices = [], torch.zeros(1, 1, draws, dtype=torch.long)
    for resident in ("yes", "no"):
        image = load(str(folder), resident=resident).train.subset(torch.tensor([4]))
        one = Loader(image, lambda epoch: indices, RANDOM, mean=MEAN, std=STD, seed=1, device="cpu")
        (batch,) = one.epoch(0)
        moments.append((batch.views[0].mean(0), batch.views[0].var(0)))
    (a, va), (b, vb) = moments
    assert ((a - b).abs() < 5 * ((va + vb) / draws).sqrt() + 0.01).all()
    assert ((va / vb).log().abs().mean() < 0.2).all()


def test_copies_are_independent_draws_of_the_same_images(images):
    (first, second, third), *_ = (batch.views for batch in loader(images, views_per_image=3).epoch(0))
    for a, b in ((first, second), (first, third), (second, third)):
        assert all(not torch.equal(x, y) for x, y in zip(a, b))


def test_epochs_steps_and_seeds_differ_and_repeat(images):
    subject = loader(images)
    zero, one = list(subject.epoch(0)), list(subject.epoch(1))
    assert not pixels_equal(zero, one)
    assert equal(zero, list(subject.epoch(0)))
    assert equal(zero, list(loader(images).epoch(0)))
    assert not pixels_equal(zero, list(loader(images, seed=1).epoch(0)))


@pytest.mark.parametrize("view", [RANDOM, CROPS], ids=["all", "crops"])
def test_the_same_images_get_other_views_in_another_epoch_and_step(images, view):
    same = Loader(images, lambda epoch: torch.arange(4).expand(2, 1, 4), view, mean=MEAN, std=STD, seed=0, device="cpu")
    batches = [batch.views[0] for epoch in (0, 1) for batch in same.epoch(epoch)]
    assert all(not torch.equal(a, b) for i, a in enumerate(batches) for b in batches[:i])


def test_resume_within_an_epoch_goes_on_as_if_nothing_had_happened(images):
    whole = list(loader(images, views_per_image=2).epoch(2))
    resumed = list(loader(images, views_per_image=2).epoch(2, first_step=1))
    assert equal(whole[1:], resumed)


def test_an_epoch_may_be_broken_off(images):
    subject = loader(images)
    next(subject.epoch(0))
    assert equal(list(subject.epoch(1)), list(loader(images).epoch(1)))


@pytest.mark.parametrize("workers", [1, 2])
def test_number_of_workers_changes_nothing(workers, folder):
    images = load(str(folder), resident="no").train
    subject = loader(images, views_per_image=2, workers=workers)
    next(subject.epoch(0))  # broken off: the workers that live on must not serve its rest
    for epoch in (0, 1):
        assert equal(list(subject.epoch(epoch)), list(loader(images, views_per_image=2).epoch(epoch)))


def test_global_random_state_is_left_alone(images):
    before = torch.get_rng_state()
    list(loader(images, views_per_image=2).epoch(0))
    list(evaluation_batches(images, PLAIN, mean=MEAN, std=STD, batch_size=8, device="cpu"))
    assert torch.equal(before, torch.get_rng_state())


def test_ranks_share_the_images_of_one_process(images):
    alone = list(loader(images, view=PLAIN, views_per_image=2).epoch(1))
    ranks = [list(loader(images, view=PLAIN, views_per_image=2, rank=r, world_size=2).epoch(1)) for r in range(2)]
    for whole, *parts in zip(alone, *ranks, strict=True):
        assert torch.equal(torch.cat([p.index for p in parts], 1), whole.index)
        assert torch.equal(torch.cat([p.labels for p in parts], 1), whole.labels)
        for v in range(2):
            assert torch.equal(torch.cat([p.views[v] for p in parts]), whole.views[v])


@pytest.mark.parametrize("view", [RANDOM, CROPS], ids=["all", "crops"])
def test_ranks_draw_apart(images, view):
    same = [
        Loader(
            images, lambda epoch: torch.zeros(1, 1, 8, dtype=torch.long), view, mean=MEAN, std=STD, seed=0,
            device="cpu", rank=r, world_size=2,
        )
        for r in range(2)
    ]  # fmt: skip
    a, b = (next(s.epoch(0)).views[0] for s in same)
    assert not torch.equal(a, b)


def test_triples_are_rows_and_copies_come_last(images):
    def indices(epoch: int) -> torch.Tensor:
        return triples(images.labels, batch_size=6, seed=0, epoch=epoch)

    subject = Loader(images, indices, RANDOM, mean=MEAN, std=STD, views_per_image=2, seed=0, device="cpu")
    for step, batch in enumerate(subject.epoch(0)):
        plan = indices(0)[step]
        assert len(batch.views) == 6
        assert torch.equal(batch.index, plan[[0, 0, 1, 1, 2, 2]])
        assert torch.equal(batch.labels[0], batch.labels[2])
        assert (batch.labels[0] != batch.labels[4]).all()
    plain = Loader(images, indices, PLAIN, mean=MEAN, std=STD, views_per_image=2, seed=0, device="cpu")
    batch = next(plain.epoch(0))
    assert torch.equal(batch.views[2], batch.views[3])
    assert not torch.equal(batch.views[1], batch.views[2])


def test_dtype(images):
    assert next(loader(images, dtype=torch.bfloat16).epoch(0)).views[0].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views_per_image": 0}, "views_per_image=0"),
        ({"workers": -1}, "workers=-1"),
        ({"world_size": 3}, "world_size=3"),
        ({"rank": 2, "world_size": 2}, "rank=2"),
    ],
    ids=["views_per_image", "workers", "world_size", "rank"],
)
def test_refused(images, options, message):
    with pytest.raises(ValueError, match=message):
        loader(images, **options)


@pytest.mark.parametrize("batch_size", [1, 7, 24, 100])
def test_evaluation_keeps_order_and_drops_nothing(images, batch_size):
    batches = list(evaluation_batches(images, PLAIN, mean=MEAN, std=STD, batch_size=batch_size, device="cpu"))
    assert len(batches) == -(-COUNT // batch_size)
    assert torch.equal(torch.cat([labels for _, labels in batches]), images.labels)
    whole = torch.stack([images.read(i) for i in range(COUNT)])
    expected = PLAIN(whole, MEAN, STD, torch.Generator())
    torch.testing.assert_close(torch.cat([x for x, _ in batches]), expected, atol=1e-6, rtol=0)


def test_evaluation_with_workers_and_images_of_all_sizes(tmp_path):
    for i in range(5):
        Image.new("RGB", (5 + 7 * i, 40 - 6 * i), (i * 50, 0, 0)).save(tmp_path / f"{i}.png")
    images = load(str(tmp_path)).train
    options = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "batch_size": 2, "device": "cpu"}
    batches = list(evaluation_batches(images, EvaluationView(size=6), workers=2, **options))
    assert [len(x) for x, _ in batches] == [2, 2, 1]
    reds = torch.cat([x for x, _ in batches])[:, 0].mean((1, 2))
    torch.testing.assert_close(reds, torch.arange(5) * 50 / 255, atol=1e-3, rtol=0)


def test_evaluation_refuses_an_empty_batch(images):
    with pytest.raises(ValueError, match="batch_size=0"):
        next(evaluation_batches(images, PLAIN, mean=MEAN, std=STD, batch_size=0, device="cpu"))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_went_bad_is_named(workers, tmp_path):
    for i in range(4):
        Image.new("RGB", (9, 9)).save(tmp_path / f"{i}.png")
    images = load(str(tmp_path), resident="no").train
    (tmp_path / "2.png").write_bytes(b"hello")
    with pytest.raises(BadImage, match=r"2\.png"):
        list(loader(images, batch_size=4, workers=workers).epoch(0))


@dataclass(frozen=True)
class OutOfSharedMemory(EvaluationView):
    """What a full /dev/shm does to a worker: writing to a mapped page that it has no room for is a bus error."""

    def crop_image(self, image, generator):
        os.kill(os.getpid(), signal.SIGBUS)


def test_workers_without_shared_memory_name_the_remedy(folder):
    images = load(str(folder), resident="no").train
    options = {"mean": MEAN, "std": STD, "batch_size": 4, "device": "cpu", "workers": 1}
    with pytest.raises(RuntimeError, match=r"--data\.workers 0.*DataLoader worker"):
        list(evaluation_batches(images, OutOfSharedMemory(size=SIDE), **options))
    with pytest.raises(RuntimeError, match=r"--data\.workers 0.*DataLoader worker"):
        list(loader(images, view=OutOfSharedMemory(size=SIDE), workers=1).epoch(0))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_resident_images_move_to_the_gpu(folder):
    images = load(str(folder)).train
    assert isinstance(images, ResidentImages)
    indices = partial(lambda n, epoch: shuffled(n, batch_size=8, seed=0, epoch=epoch), len(images))
    subject = Loader(images, indices, RANDOM, mean=MEAN, std=STD, views_per_image=2, seed=0, device="cuda")
    assert subject.images.images.is_cuda
    batches = list(subject.epoch(0))
    assert all(v.is_cuda for b in batches for v in b.views)
    assert batches[0].labels.is_cuda
    assert equal(batches, list(subject.epoch(0)))
