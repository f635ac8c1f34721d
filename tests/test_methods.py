"""Laws of every method: what a method file gets for free when it is added to METHODS."""

import copy
import inspect

import pytest
import torch
from torch import nn

from relatum.core.types import Batch
from relatum.methods import METHODS, Method
from relatum.networks.backbones import Backbone
from relatum.networks.export import load_encoder, save_encoder
from relatum.recipes.recipe import RELATIONS, build_method, options, options_of

CLASSES, SAMPLES, SIZE, PAIRS = 5, 40, 16, 8
VIEWS = {"single": 1, "two-views": 2, "same-class-pairs": 2, "triples": 3}
SMALL = {
    "byol": {"hidden_width": 16, "out_width": 8},
    "moco": {"queue_size": 24, "key_splits": 2},
    "simsiam": {"out_width": 16, "bottleneck": 8},
}
every = pytest.mark.parametrize("name", METHODS)


def backbone(classes: int) -> Backbone:
    return Backbone("resnet8", stem="cifar", num_classes=classes)


def build(name: str, **chosen) -> Method:
    torch.manual_seed(1)
    method = METHODS[name]
    teacher = {"teacher": "somewhere"} if "teacher" in inspect.signature(method.__init__).parameters else {}
    return build_method(
        options(name, **SMALL.get(name, {}) | teacher | chosen),
        backbone(CLASSES if method.classifies else 0),
        num_samples=SAMPLES,
        load_teacher=lambda path: backbone(CLASSES),
    )


def batch_for(method: Method, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    count = VIEWS[method.pairing]
    views = tuple(torch.randn(PAIRS, 3, SIZE, SIZE, generator=generator) for _ in range(count))
    index = torch.stack([torch.randperm(SAMPLES, generator=generator)[:PAIRS] for _ in range(count)])
    labels = torch.arange(PAIRS).remainder(CLASSES).repeat(count, 1)
    if method.pairing == "triples":
        labels[2] = (labels[2] + 1 + torch.arange(PAIRS) % (CLASSES - 1)) % CLASSES
    if method.pairing == "two-views":
        index[1] = index[0]
    return Batch(views, labels, index)


def train(method: Method, steps: int, first: int = 0, optimizer: torch.optim.Optimizer | None = None):
    optimizer = optimizer or torch.optim.SGD((p for p in method.parameters() if p.requires_grad), 0.05, momentum=0.9)
    method.train()
    totals = []
    for step in range(first, first + steps):
        torch.manual_seed(step)
        total = sum(method.losses(batch_for(method, step)).values())
        total.backward()
        optimizer.step()
        optimizer.zero_grad()
        method.after_step((step + 1) / 10)
        totals.append(total.item())
    return totals, optimizer


@every
def test_terms_are_scalar_finite_and_named(name):
    terms = build(name).train().losses(batch_for(build(name)))
    assert terms
    for term, value in terms.items():
        assert value.shape == (), term
        assert value.isfinite(), term


@every
def test_no_trainable_parameter_without_a_gradient(name):
    method = build(name).train()
    sum(method.losses(batch_for(method)).values()).backward()
    idle = [p for p, value in method.named_parameters() if value.requires_grad and value.grad is None]
    assert idle == []


@every
def test_same_seed_same_numbers(name):
    first, _ = train(build(name), 3)
    second, _ = train(build(name), 3)
    assert first == second


@every
def test_stops_and_resumes_with_the_same_numbers(name):
    whole, _ = train(build(name), 4)
    method = build(name)
    _, optimizer = train(method, 2)
    state = copy.deepcopy((method.state_dict(), optimizer.state_dict()))
    torch.manual_seed(99)
    other = build(name)
    train(other, 1, first=7)  # whatever it was before
    other.load_state_dict(state[0])
    fresh = torch.optim.SGD((p for p in other.parameters() if p.requires_grad), 0.05, momentum=0.9)
    fresh.load_state_dict(state[1])
    rest, _ = train(other, 2, first=2, optimizer=fresh)
    assert rest == whole[2:]


@every
def test_training_moves_the_backbone_and_exports_the_plain_model(name, tmp_path):
    method = build(name)
    before = copy.deepcopy(method.backbone.state_dict())
    train(method, 2)
    assert any(not torch.equal(before[k], v) for k, v in method.backbone.state_dict().items())
    save_encoder(method.backbone, tmp_path, mean=(0.5,) * 3, std=(0.2,) * 3, size=SIZE)
    loaded, _ = load_encoder(tmp_path / "encoder.safetensors")
    plain = backbone(method.backbone.num_classes).model.state_dict()
    assert loaded.model.state_dict().keys() == plain.keys()
    images = torch.randn(2, 3, SIZE, SIZE)
    method.eval()
    torch.testing.assert_close(loaded.embed(images), method.embed(images), rtol=0, atol=0)


@every
def test_works_under_autocast(name):
    method = build(name).train()
    with torch.autocast("cpu", torch.bfloat16):
        terms = method.losses(batch_for(method))
    sum(terms.values()).backward()
    assert all(value.isfinite() and value.dtype == torch.float32 for value in terms.values())


@every
def test_frozen_networks_stay_bit_identical(name):
    method = build(name)
    frozen = {k: v.clone() for k, v in teachers_of(method).items()}
    train(method, 3)
    assert all(torch.equal(v, frozen[k]) for k, v in teachers_of(method).items())
    assert not any(k.startswith("teacher.") for k in method.state_dict())


def teachers_of(method: Method) -> dict[str, torch.Tensor]:
    teacher = getattr(method, "teacher", None)
    return teacher.network.state_dict() if teacher is not None else {}


WITH_RELATION = [name for name in METHODS if "relation" in options_of(name).__dataclass_fields__]


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("name", WITH_RELATION)
def test_takes_every_relation(name, relation):
    method = build(name, relation=relation)
    (first, *_), _ = train(method, 2)
    assert torch.tensor(first).isfinite()


# MoCo: what is special about its memory.


def test_moco_key_network_starts_as_an_exact_copy_without_gradients():
    method = build("moco")
    for own, copied in zip([method.backbone, method.projector], method.copy.networks):
        assert own.state_dict().keys() == copied.state_dict().keys()
        assert all(torch.equal(v, copied.state_dict()[k]) for k, v in own.state_dict().items())
    assert not any(p.requires_grad for p in method.copy.parameters())


def test_moco_follows_by_its_equation():
    method = build("moco", momentum=0.9)
    before = [p.clone() for p in method.copy.parameters()]
    for p in [*method.backbone.parameters(), *method.projector.parameters()]:
        p.data.add_(1.0)
    method.after_step(0.5)
    for old, new in zip(before, method.copy.parameters()):
        torch.testing.assert_close(new, old + 0.1)


def test_moco_momentum_rises_along_half_a_cosine():
    method = build("moco", momentum=0.9, final_momentum=1.0)
    for progress, expected in ((0.5, 0.95), (1.0, 1.0)):
        before = [p.clone() for p in method.copy.parameters()]
        for p, copied in zip([*method.backbone.parameters(), *method.projector.parameters()], before):
            p.data = copied + 1.0
        method.after_step(progress)
        for old, new in zip(before, method.copy.parameters()):
            torch.testing.assert_close(new, old + 1 - expected)


@pytest.mark.parametrize("symmetric", [False, True])
def test_moco_query_never_meets_the_keys_of_its_own_images(symmetric, monkeypatch):
    method = build("moco", symmetric=symmetric).train()
    seen = []
    from relatum.methods.contrastive import moco

    original = moco.query_key_contrast

    def watch(query, keys, negatives, terms):
        seen.append((keys.clone(), negatives.clone()))
        return original(query, keys, negatives, terms)

    monkeypatch.setattr(moco, "query_key_contrast", watch)
    method.losses(batch_for(method))
    assert len(seen) == 1 + symmetric
    for keys, _ in seen:
        for _, negatives in seen:
            assert torch.cdist(keys, negatives).min() > 1e-3
    method.after_step(0.1)
    for keys, _ in seen:
        assert torch.cdist(keys, method.queue.keys).min(dim=1).values.max() < 1e-3


def test_moco_shuffled_keys_come_back_in_order():
    """Without batch statistics (evaluation mode) the groups are invisible."""
    images = batch_for(build("moco")).views[0]
    plain, split = build("moco", key_splits=1).eval(), build("moco", key_splits=4).eval()
    torch.testing.assert_close(split._keys(images), plain._keys(images))


def test_moco_queue_wraps_at_any_batch_size():
    method = build("moco", queue_size=11)
    queue = method.queue
    rows = torch.arange(100.0)[:, None].expand(-1, queue.keys.shape[1])
    written: list[float] = []
    for start, stop in ((0, 4), (4, 9), (9, 16), (16, 40), (40, 41)):
        queue.update(rows[start:stop])
        written += range(start, stop)
        # The last eleven of all that was written are there, each once.
        assert sorted(queue.keys[:, 0].tolist())[-min(11, len(written)) :] == written[-11:] or len(written) < 11
        if len(written) >= 11:
            assert sorted(queue.keys[:, 0].tolist()) == written[-11:]
    # The oldest is the next to go.
    assert queue.keys[queue.position, 0] == written[-11]


def test_moco_refuses_groups_that_do_not_divide_the_batch():
    method = build("moco", key_splits=3)
    with pytest.raises(ValueError, match=r"8 images cannot be split in key_splits=3.*divisor"):
        method.losses(batch_for(method))


@pytest.mark.parametrize(
    ("name", "chosen", "message"),
    [
        ("moco", {"momentum": 1.5}, "momentum is 1.5"),
        ("moco", {"final_momentum": 2.0}, "momentum is 2.0"),
        ("moco", {"queue_size": 0}, "queue of 0 keys"),
        ("moco", {"key_splits": 0}, "key_splits is 0"),
        ("byol", {"momentum": -1.0}, "momentum is -1.0"),
        ("simclr", {"temperature": 0.0}, "temperature is 0.0"),
        ("simclr", {"alphas": (0.5,), "relation": "jaccard"}, "one weight for each"),
        ("simclr", {"out_width": 0}, "expected positive numbers"),
    ],
)
def test_errors_say_what_was_expected(name, chosen, message):
    with pytest.raises(ValueError, match=message):
        build(name, **chosen)


def test_every_method_is_final_and_abstract_ones_are_not():
    for method in METHODS.values():
        assert method.__bases__ == (Method,)
        assert not inspect.isabstract(method)
    assert inspect.isabstract(Method)


def test_byol_momentum_rises_to_one():
    method = build("byol", momentum=0.5)
    before = [p.clone() for p in method.copy.parameters()]
    for p in [*method.backbone.parameters(), *method.projector.parameters()]:
        p.data.add_(1.0)
    method.after_step(1.0)
    assert all(torch.equal(a, b) for a, b in zip(before, method.copy.parameters()))


def test_projector_branches_are_separate_networks():
    method = build("simclr", relation="jaccard")
    first, second = method.projector.branches
    features = torch.randn(4, method.backbone.embedding_dim)
    z = method.projector(features)
    torch.testing.assert_close(z.chunk(2, 1)[0], nn.functional.normalize(first(features)))
    torch.testing.assert_close(z.chunk(2, 1)[1], nn.functional.normalize(second(features)))
    assert not torch.equal(first[0].weight, second[0].weight)
