"""Laws of every method and its variants: what a method file gets for free when it is added to METHODS."""

import copy
import inspect

import pytest
import torch

from cases import (
    RELATIONS,
    SIZE,
    VARIANTS,
    WITH_RELATION,
    WITH_TEACHER,
    backbone,
    batch_for,
    build,
    optimizer_of,
    train,
)
from relatum.methods import METHODS, Method
from relatum.methods.classifying import Classifying
from relatum.methods.distill.distiller import Distiller
from relatum.networks.backbones import Backbone
from relatum.networks.export import load_encoder, save_encoder

every = pytest.mark.parametrize("variant", VARIANTS)
ABSTRACT = (Method, Classifying, Distiller)


@every
def test_terms_are_scalar_finite_and_named(variant):
    terms = build(variant).train().losses(batch_for(build(variant)))
    assert terms
    for term, value in terms.items():
        assert value.shape == (), term
        assert value.isfinite(), term


@every
def test_no_trainable_parameter_without_a_gradient(variant):
    method = build(variant).train()
    sum(method.losses(batch_for(method)).values()).backward()
    idle = {name for name, p in method.named_parameters() if p.requires_grad and p.grad is None}
    assert bool(idle) == method.trains_in_phases
    if method.trains_in_phases:  # what waits at the start is trained at the end, and the other way round
        method.after_step(1.0)
        sum(method.losses(batch_for(method)).values()).backward()
        idle = {name for name, p in method.named_parameters() if p.requires_grad and p.grad is None}
        assert not idle
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.requires_grad)


@every
def test_same_seed_same_numbers(variant):
    first, _ = train(build(variant), 3)
    second, _ = train(build(variant), 3)
    assert first == second


@every
def test_stops_and_resumes_with_the_same_numbers(variant):
    whole, _ = train(build(variant), 4)
    method = build(variant)
    _, optimizer = train(method, 2)
    state = copy.deepcopy((method.state_dict(), optimizer.state_dict()))
    torch.manual_seed(99)
    other = build(variant)
    train(other, 1, first=7)  # whatever it was before
    other.load_state_dict(state[0])
    fresh = optimizer_of(other)
    fresh.load_state_dict(state[1])
    rest, _ = train(other, 2, first=2, optimizer=fresh)
    assert rest == whole[2:]


@pytest.mark.parametrize("name", METHODS)
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
def test_terms_and_gradients_are_finite_and_in_full_precision_under_autocast(variant):
    method = build(variant).train()
    with torch.autocast("cpu", torch.bfloat16):
        terms = method.losses(batch_for(method))
    sum(terms.values()).backward()
    assert all(value.isfinite() and value.dtype == torch.float32 for value in terms.values())
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)
    method.after_step(0.5)


@pytest.mark.parametrize("variant", WITH_TEACHER)
def test_a_teacher_stays_as_it_was_and_out_of_the_state(variant):
    master = backbone()
    before = copy.deepcopy(master.state_dict())
    method = build(variant, teacher=master)
    train(method, 3)
    assert not any(m.training for m in master.modules())
    assert all(p.grad is None and not p.requires_grad for p in master.parameters())
    assert all(torch.equal(v, before[k]) for k, v in master.state_dict().items())
    assert not any(p is q for p in method.parameters() for q in master.parameters())
    assert not any(k.startswith("teacher.") for k in method.state_dict())


@pytest.mark.parametrize("variant", WITH_TEACHER)
def test_a_teacher_may_have_other_stages(variant):
    """One of four stages, where the student has three, in bfloat16."""
    method = build(variant, teacher=Backbone("test_resnet", stem="cifar", num_classes=5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = method.losses(batch_for(method))
    assert all(term.dtype == torch.float32 and term.isfinite() for term in terms.values())
    sum(terms.values()).backward()
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)


@pytest.mark.parametrize("relation", RELATIONS.values(), ids=RELATIONS)
@pytest.mark.parametrize("name", WITH_RELATION)
def test_takes_every_relation(name, relation):
    (first, *_), _ = train(build(name, relation=relation), 2)
    assert torch.tensor(first).isfinite()


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_method_is_final_and_says_what_it_is(method):
    assert method.__bases__[0] in ABSTRACT
    assert len(method.__bases__) == 1
    assert not inspect.isabstract(method)
    assert method.pairing in ("single", "two-views", "triples", "same-class-pairs")
    classifying = issubclass(method, Classifying)
    assert method.classifies == classifying
    assert method.needs_labels >= classifying


@pytest.mark.parametrize("base", ABSTRACT)
def test_what_methods_inherit_from_is_abstract(base):
    assert inspect.isabstract(base)


@every
def test_predictions_beside_the_backbones_are_logits_of_the_classes(variant):
    method = build(variant).eval()
    predictions = method.predictions(torch.randn(3, 3, SIZE, SIZE))
    assert bool(predictions) == (VARIANTS[variant][0] in ("sd", "dml"))
    assert all(logits.shape == (3, 5) and logits.isfinite().all() for logits in predictions.values())
