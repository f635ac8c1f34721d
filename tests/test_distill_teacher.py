"""Baselines and distillation from a teacher or a peer: values against loops from the equations, and the laws."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from relatum.core.types import Batch
from relatum.losses.objectives import kl_divergence
from relatum.methods.distill import rkd
from relatum.methods.distill.at import AT, attention, attention_loss
from relatum.methods.distill.cc import CC, correlation_loss, neighbor_loss
from relatum.methods.distill.common import same_size
from relatum.methods.distill.dml import DML, mutual_divergences
from relatum.methods.distill.fitnet import FitNet, hint_loss, regressor
from relatum.methods.distill.kd import KD
from relatum.methods.distill.label_smoothing import LabelSmoothing
from relatum.methods.distill.rkd import RKD, Triangles, angle_loss, distance_loss, distances
from relatum.methods.distill.sp import SP, similarity_loss
from relatum.methods.distill.supervised import Supervised
from relatum.networks.backbones import Backbone

CLASSES = 5
IMAGES = 6

TEACHERS = {"three-stages": ("wrn_16_2", "cifar"), "four-stages": ("test_resnet", "cifar")}
"""The student has three stages of 16, 32 and 64 channels; the teachers differ in channels, and in number and size."""

WITH_TEACHER = {
    "kd": lambda s, t: KD(s, teacher=t),
    "fitnet": lambda s, t: FitNet(s, teacher=t, kd_weight=0.5),
    "fitnet-two-stages": lambda s, t: FitNet(s, teacher=t, hint_share=0.5, rectify=True),
    "rkd": lambda s, t: RKD(s, teacher=t),
    "rkd-all": lambda s, t: RKD(s, teacher=t, tuples="all", kd_weight=0.5),
    "at": lambda s, t: AT(s, teacher=t),
    "at-squared": lambda s, t: AT(s, teacher=t, norm="squared", kd_weight=0.5),
    "sp": lambda s, t: SP(s, teacher=t, kd_weight=0.5),
    "cc": lambda s, t: CC(s, teacher=t, kd_weight=0.5),
    "cc-neighbors": lambda s, t: CC(s, teacher=t, kernel="neighbors"),
}

each_method = pytest.mark.parametrize("make", WITH_TEACHER.values(), ids=WITH_TEACHER.keys())


def student(num_classes=CLASSES):
    return Backbone("resnet20", stem="cifar", num_classes=num_classes)


def teacher(kind="three-stages", num_classes=CLASSES):
    name, stem = TEACHERS[kind]
    return Backbone(name, stem=stem, num_classes=num_classes)


def batch(n=IMAGES, views=1, dtype=torch.float32):
    return Batch(
        tuple(torch.randn(n, 3, 8, 8, dtype=dtype) for _ in range(views)),
        torch.randint(CLASSES, (views, n)),
        torch.arange(n).expand(views, n),
    )


def features_of(method, given):
    """What the losses of `method` are functions of, as numpy arrays in float64."""
    s, t = method.backbone(given.views[0]), method.teacher(given.views[0])
    return array(s), array(t), given.labels[0].numpy()


def array(features):
    return features._replace(
        stages=tuple(stage.detach().numpy() for stage in features.stages),
        embedding=features.embedding.detach().numpy(),
        logits=features.logits.detach().numpy(),
    )


# The equations, as loops over single numbers.


def softmax(z, temperature=1.0):
    e = [math.exp(v / temperature) for v in z]
    return [v / sum(e) for v in e]


def naive_cross_entropy(logits, labels, epsilon=0.0):
    total = 0.0
    for z, y in zip(logits, labels):
        for c, p in enumerate(softmax(z)):
            total -= ((1 - epsilon) * (c == y) + epsilon / len(z)) * math.log(p)
    return total / len(logits)


def naive_kl(student_logits, teacher_logits, temperature):
    total = 0.0
    for zs, zt in zip(student_logits, teacher_logits):
        for p, q in zip(softmax(zs, temperature), softmax(zt, temperature)):
            total += q * math.log(q / p)
    return temperature**2 * total / len(student_logits)


def huber(x):
    return 0.5 * x * x if abs(x) < 1 else abs(x) - 0.5


def naive_rkd_distance(s, t, distinct):
    n = len(s)
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j or not distinct]

    def psi(f):
        d = {(i, j): math.sqrt(sum((f[i] - f[j]) ** 2)) for i, j in itertools.product(range(n), repeat=2)}
        counted = [v for v in d.values() if v > 0]
        mu = sum(counted) / len(counted)
        return {pair: v / mu for pair, v in d.items()}

    a, b = psi(s), psi(t)
    return sum(huber(a[p] - b[p]) for p in pairs) / len(pairs)


def naive_rkd_angle(s, t, distinct):
    triples = [x for x in itertools.product(range(len(s)), repeat=3) if len(set(x)) == 3 or not distinct]

    def towards(f, i, j):
        difference = f[i] - f[j]
        return difference / max(math.sqrt(sum(difference**2)), 1e-12)

    total = 0.0
    for i, j, k in triples:
        total += huber(sum(towards(s, i, j) * towards(s, k, j)) - sum(towards(t, i, j) * towards(t, k, j)))
    return total / len(triples)


def naive_attention(stages_s, stages_t, squared):
    total = 0.0
    for a, b in zip(stages_s[::-1], stages_t[::-1]):
        n, _, h, w = a.shape
        for one, other in zip(a, b):
            maps = [(m**2).mean(0).ravel() for m in (one, other)]
            maps = [m / math.sqrt(sum(m**2)) for m in maps]
            gap = sum((maps[0] - maps[1]) ** 2)
            total += (gap if squared else math.sqrt(gap) / 2) / (h * w * n)
    return total


def naive_similarity(map_s, map_t):
    n = len(map_s)

    def rows(f):
        g = [[float((a * b).sum()) for b in f] for a in f]
        return [[v / math.sqrt(sum(u * u for u in row)) for v in row] for row in g]

    a, b = rows(map_s), rows(map_t)
    return sum((a[i][j] - b[i][j]) ** 2 for i in range(n) for j in range(n)) / n**2


def naive_correlation(s, t, gamma, order):
    n = len(s)

    def kernel(f, i, j):
        x = sum(f[i] * f[j]) / math.sqrt(sum(f[i] ** 2) * sum(f[j] ** 2))
        return sum(math.exp(-2 * gamma) * (2 * gamma) ** p / math.factorial(p) * x**p for p in range(order + 1))

    return sum((kernel(s, i, j) - kernel(t, i, j)) ** 2 for i in range(n) for j in range(n)) / n**2


def naive_neighbors(s, t):
    total = 0.0
    for i in range(len(s) - 1):
        for d in range(s.shape[1]):
            total += abs(s[i, d] - t[i, d]) * abs(s[i + 1, d] - t[i + 1, d])
    return total / (len(s) - 1)


def expected_terms(name, method, s, t, y):
    """The terms of the named method, with the published weights written out."""
    ce, kl = naive_cross_entropy(s.logits, y), naive_kl(s.logits, t.logits, 4.0)
    if name == "kd":
        return {"task": 0.1 * ce, "kd": 0.9 * kl}
    terms = {"task": ce}
    if method.classification.kd_weight:
        terms["kd"] = 0.5 * kl
    if name == "fitnet":
        regressed = method.regressor(torch.from_numpy(s.stages[1])).detach().numpy()
        terms["hint"] = 100 * np.mean([(a - b) ** 2 for a, b in zip(regressed.ravel(), t.stages[1].ravel())])
    if name == "fitnet-two-stages":
        regressed = method.regressor(torch.from_numpy(s.stages[1])).detach().numpy()
        terms = {"task": 0.0, "hint": 100 * ((regressed - t.stages[1]) ** 2).mean()}
    if name.startswith("rkd"):
        terms["distance"] = 25 * naive_rkd_distance(s.embedding, t.embedding, name == "rkd")
        terms["angle"] = 50 * naive_rkd_angle(s.embedding, t.embedding, name == "rkd")
    if name.startswith("at"):
        terms["attention"] = 1000 * naive_attention(s.stages, t.stages, name == "at-squared")
    if name == "sp":
        terms["similarity"] = 3000 * naive_similarity(s.stages[-1], t.stages[-1])
    if name.startswith("cc"):
        a = method.student_embed(torch.from_numpy(s.embedding)).detach().numpy()
        b = method.teacher_embed(torch.from_numpy(t.embedding)).detach().numpy()
        taylor = name == "cc"
        terms["correlation"] = 100 * naive_correlation(a, b, 0.4, 2) if taylor else 0.02 * naive_neighbors(a, b)
    return terms


@pytest.mark.parametrize("name", WITH_TEACHER)
def test_terms_equal_loops_written_from_the_equations(name):
    method = WITH_TEACHER[name](student().double(), teacher().double()).double()
    given = batch(dtype=torch.float64)
    expected = expected_terms(name, method, *features_of(method, given))
    actual = method.losses(given)
    assert set(actual) == set(expected)
    for term, value in expected.items():
        assert actual[term].item() == pytest.approx(value, rel=1e-9, abs=1e-12), term


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("epsilon", [None, 0.0, 0.1, 0.4])
def test_baselines_equal_the_loop_over_all_views(epsilon, views):
    backbone = student().double()
    method = Supervised(backbone) if epsilon is None else LabelSmoothing(backbone, epsilon=epsilon)
    given = batch(views=views, dtype=torch.float64)
    logits = backbone(torch.cat(given.views)).logits.detach().numpy()
    expected = naive_cross_entropy(logits, given.labels.flatten().numpy(), epsilon or 0.0)
    assert {k: v.item() for k, v in method.losses(given).items()} == {"task": pytest.approx(expected, rel=1e-12)}


def test_label_smoothing_has_the_published_default():
    assert LabelSmoothing(student()).epsilon == 0.1


@pytest.mark.parametrize("peers", [1, 2])
def test_mutual_learning_equals_the_loop(peers):
    method = DML(student().double(), peers=peers).double()
    given = batch(dtype=torch.float64)
    logits = [n(given.views[0]).logits.detach().numpy() for n in (method.backbone, *method.peers)]
    y = given.labels[0].numpy()
    task = [naive_cross_entropy(z, y) for z in logits]
    mutual = [
        sum(naive_kl(logits[k], logits[j], 1.0) for j in range(peers + 1) if j != k) / peers for k in range(peers + 1)
    ]
    expected = {
        "task": task[0],
        "mutual": mutual[0],
        "peer_task": sum(task[1:]),
        "peer_mutual": sum(mutual[1:]),
    }
    assert {k: v.item() for k, v in method.losses(given).items()} == pytest.approx(expected, rel=1e-9)


# Laws of every method with a teacher.


@each_method
def test_three_steps_train_the_student_and_leave_the_teacher_as_it_was(make):
    master = teacher()
    method = make(student(), master)
    before = copy.deepcopy(master.state_dict())
    start = copy.deepcopy(method.backbone.state_dict())
    trained = dict(method.named_parameters())
    optimizer = torch.optim.SGD([p for p in trained.values() if p.requires_grad], lr=1e-3)
    for step in range(3):
        method.train()
        terms = method.losses(batch())
        assert all(term.shape == () and term.isfinite() for term in terms.values())
        optimizer.zero_grad()
        sum(terms.values()).backward()
        without = [name for name, p in trained.items() if p.requires_grad and p.grad is None]
        assert not without
        optimizer.step()
        method.after_step((step + 1) / 3)
    assert not any(m.training for m in master.modules())
    assert all(p.grad is None and not p.requires_grad for p in master.parameters())
    assert all(torch.equal(v, before[k]) for k, v in master.state_dict().items())
    assert not any(p is q for p in trained.values() for q in master.parameters())
    assert not any(key.startswith("teacher.") for key in method.state_dict())
    assert not all(torch.equal(v, start[k]) for k, v in method.backbone.state_dict().items())


@each_method
def test_a_teacher_of_other_depth_and_bfloat16_give_finite_float32_terms(make):
    method = make(student(), teacher("four-stages"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = method.losses(batch())
    assert all(term.dtype == torch.float32 and term.isfinite() for term in terms.values())
    sum(terms.values()).backward()
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", ["fitnet-two-stages", "cc"])
def test_what_a_method_holds_beside_the_student_survives_a_round_trip(name):
    first, second = (WITH_TEACHER[name](student(), teacher()) for _ in range(2))
    first.after_step(0.7)
    second.teacher.network.load_state_dict(first.teacher.network.state_dict())
    second.load_state_dict(first.state_dict())
    given = batch()
    a, b = first.losses(given), second.losses(given)
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", ["kd", "rkd", "rkd-all", "at", "at-squared", "sp"])
def test_a_student_equal_to_its_teacher_has_nothing_to_learn_but_the_classes(name):
    master = teacher().double()
    method = WITH_TEACHER[name](copy.deepcopy(master), master).double().eval()
    terms = method.losses(batch(dtype=torch.float64))
    assert terms.pop("task") > 0
    assert terms
    assert all(term.item() == pytest.approx(0, abs=1e-12) for term in terms.values())
    sum(terms.values()).backward()
    assert all(p.grad.abs().max() < 1e-9 for p in method.parameters() if p.grad is not None)


def test_fitnet_and_cc_are_zero_for_equal_maps():
    maps, rows = torch.randn(3, 4, 5, 5), torch.randn(4, 7)
    assert hint_loss(maps, maps) == 0
    assert correlation_loss(rows, 3 * rows) == pytest.approx(0, abs=1e-12)
    assert neighbor_loss(rows, rows) == 0


# KD.


def test_the_gradient_of_the_divergence_tends_to_a_limit_with_temperature():
    zs, zt = torch.randn(8, CLASSES, dtype=torch.float64), torch.randn(8, CLASSES, dtype=torch.float64)
    zs.requires_grad_()

    def gradient(temperature):
        return torch.autograd.grad(kl_divergence(zs, zt, temperature), zs)[0]

    gap = (zs - zt).detach()
    limit = (gap - gap.mean(1, keepdim=True)) / (8 * CLASSES)  # Hinton et al., Eq. (4)
    assert torch.allclose(gradient(1e4), limit, rtol=1e-3, atol=1e-6)
    norms = [gradient(temperature).norm().item() for temperature in (4.0, 20.0, 1000.0)]
    assert max(norms) < 1.2 * min(norms)


# How the losses depend on the size of the batch, each image standing in it twice.

TWICE = {
    "kd": (lambda a, b: kl_divergence(a.flatten(1), b.flatten(1), 4.0), 1),
    "attention": (lambda a, b: attention_loss((a,), (b,)), 1),
    "attention-squared": (lambda a, b: attention_loss((a,), (b,), "squared"), 1),
    "similarity": (similarity_loss, 0.5),  # the rows have length one, twice as many entries share it
    "correlation": (lambda a, b: correlation_loss(a.flatten(1), b.flatten(1)), 1),
    "distance": (lambda a, b: distance_loss(distances(a.flatten(1)), distances(b.flatten(1)), "all"), 1),
    "angle": (lambda a, b: angle_loss(distances(a.flatten(1)), distances(b.flatten(1)), "all"), 1),
}


@pytest.mark.parametrize(("loss", "factor"), TWICE.values(), ids=TWICE.keys())
def test_a_batch_that_holds_every_image_twice(loss, factor):
    a, b = torch.randn(2, 5, 3, 4, 4, dtype=torch.float64)
    once, twice = loss(a, b), loss(torch.cat([a, a]), torch.cat([b, b]))
    assert twice.item() == pytest.approx(factor * once.item(), rel=1e-9)


# RKD.


def naive_cosines(f):
    e = F.normalize(f[:, None] - f, dim=2)
    return torch.einsum("jid,jkd->jik", e, e)


def near_points(norm, gap):
    """Two tight groups, far from the origin: what a trained network gives for two classes."""
    center = F.normalize(torch.randn(1, 64)) * norm
    return torch.cat([center + gap * torch.randn(4, 64), center + 1 + gap * torch.randn(4, 64)])


@pytest.mark.parametrize(("norm", "gap"), [(1, 1.0), (1, 1e-2), (700, 1e-2), (1000, 1e-3)])
def test_distances_and_angles_of_near_points_far_from_the_origin(norm, gap):
    f = near_points(float(norm), gap)
    exact = f.double()
    d = torch.stack([torch.stack([(a - b).norm() for b in exact]) for a in exact])
    assert torch.allclose(distances(f).double(), d, rtol=1e-6, atol=0)
    cosines = Triangles(distances(f)).cosines(slice(None), torch.empty(8, 8, 8))
    assert torch.allclose(cosines.double(), naive_cosines(exact), rtol=0, atol=2e-4)


def test_distance_survives_where_the_product_form_in_float32_does_not():
    f = near_points(700.0, 1e-2)
    float32 = (f.square().sum(1)[:, None] + f.square().sum(1) - 2 * f @ f.T).clamp(min=0).sqrt()
    exact = torch.cdist(f.double(), f.double(), compute_mode="donot_use_mm_for_euclid_dist")
    assert (float32 - exact).abs().max() > 0.1 * exact[exact > 0].min()  # the trap is real
    assert (distances(f) - exact).abs().max() < 1e-5 * exact.max()


def test_gradients_of_distances_and_angles_equal_those_of_the_naive_form():
    f, g = (torch.randn(6, d, dtype=torch.float64, requires_grad=True) for d in (4, 9))
    other = distances(g.detach())
    assert torch.autograd.gradcheck(lambda x: distance_loss(distances(x), other), f)
    assert torch.autograd.gradcheck(lambda x, y: angle_loss(distances(x), distances(y)), (f, g))
    # A side of length 0, whose unit vector the naive form differentiates by 1e12, has no part in this.
    proper = 1 - torch.eye(6, dtype=torch.float64)
    naive = F.smooth_l1_loss(naive_cosines(f), naive_cosines(g), reduction="none") * proper[:, :, None] * proper
    ours = angle_loss(distances(f), distances(g), "all")
    assert ours.item() == pytest.approx(naive.mean().item(), rel=1e-12)
    for a, b in zip(torch.autograd.grad(ours, (f, g)), torch.autograd.grad(naive.mean(), (f, g))):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("triples", [1, 150, 10**6], ids=["a-vertex", "ragged", "whole"])
def test_angles_do_not_depend_on_how_many_are_at_hand(triples, monkeypatch):
    a, b = (distances(torch.randn(7, 5, dtype=torch.float64)).requires_grad_() for _ in range(2))
    expected = angle_loss(a, b)
    gradients = torch.autograd.grad(expected, (a, b))
    monkeypatch.setitem(rkd.TRIPLES, "cpu", triples)
    again = angle_loss(a, b)
    assert torch.allclose(again, expected, rtol=1e-12)
    for one, two in zip(torch.autograd.grad(again, (a, b)), gradients):
        assert torch.allclose(one, two, rtol=1e-10)


@pytest.mark.parametrize("collapsed", [False, True], ids=["two-equal", "all-equal"])
@pytest.mark.parametrize("tuples", ["distinct", "all"])
def test_equal_points_have_distance_zero_and_finite_gradients(collapsed, tuples):
    f = 100 * torch.randn(6, 16)
    f = f[:1].repeat(6, 1) if collapsed else torch.cat([f, f[:1]])
    f.requires_grad_()
    d = distances(f)
    assert d[0, -1] == 0
    other = distances(torch.randn(len(f), 8))
    loss = distance_loss(d, other, tuples) + angle_loss(d, other, tuples)
    loss.backward()
    assert loss.isfinite()
    assert f.grad.isfinite().all()


def test_relations_do_not_see_scale_rotation_or_translation():
    f, other = torch.randn(7, 5, dtype=torch.float64), distances(torch.randn(7, 9, dtype=torch.float64))
    rotation = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q
    moved = distances(3 * f @ rotation + 10)
    for loss in (distance_loss, angle_loss):
        assert loss(distances(f), other).item() == pytest.approx(loss(moved, other).item(), rel=1e-9)


def test_the_code_averages_over_tuples_that_cost_nothing():
    a, b = distances(torch.randn(7, 5, dtype=torch.float64)), distances(torch.randn(7, 5, dtype=torch.float64))
    assert distance_loss(a, b, "all") / distance_loss(a, b) == pytest.approx(6 / 7)
    assert angle_loss(a, b, "all") / angle_loss(a, b) == pytest.approx(6 * 5 / 49)


def test_no_angles_are_computed_at_weight_zero():
    method = RKD(student(), teacher=teacher(), angle_weight=0.0)
    assert set(method.losses(batch(n=2))) == {"task", "distance"}


# AT.


def test_attention_maps_have_length_one_and_forget_scale():
    f = torch.randn(3, 4, 5, 6)
    assert attention(f).shape == (3, 30)
    assert torch.allclose(attention(f).norm(dim=1), torch.ones(3))
    assert torch.allclose(attention(f), attention(7 * f), atol=1e-6)


def test_the_two_norms_of_attention_are_one_weight_apart_in_the_square():
    a, b = torch.randn(2, 1, 4, 5, 5, dtype=torch.float64)
    pixels = 25
    gap = 2 * pixels * attention_loss((a,), (b,))  # of a single image
    assert attention_loss((a,), (b,), "squared").item() == pytest.approx((gap**2 / pixels).item())


def test_stages_are_paired_from_the_deepest():
    deep = [torch.randn(2, 3, 8 // 2**i, 8 // 2**i) for i in range(3)]
    more = [torch.randn(2, 5, 16, 16), *deep]
    assert attention_loss(deep, more) == 0
    assert attention_loss(deep, [*deep, torch.randn(2, 5, 1, 1)]) > 0


def test_the_larger_map_is_averaged():
    a, b = torch.randn(2, 3, 8, 4), torch.randn(2, 5, 4, 8)
    small_a, small_b = same_size(a, b)
    assert small_a.shape == (2, 3, 4, 4)
    assert torch.allclose(small_a, a.reshape(2, 3, 4, 2, 4).mean(3))
    assert torch.allclose(small_b, b.reshape(2, 5, 4, 4, 2).mean(4))
    assert same_size(a, a)[0] is a


# FitNet.


@pytest.mark.parametrize(("side", "ratio"), [(8, 1.0), (16, 0.5), (4, 2.0)], ids=["equal", "larger", "smaller"])
def test_the_regressor_gives_the_size_and_width_of_the_hint(side, ratio):
    assert regressor(6, 10, ratio, False)(torch.randn(2, 6, side, side)).shape == (2, 10, 8, 8)


@pytest.mark.parametrize("rectify", [False, True])
def test_only_a_rectified_regressor_is_bound_to_positive_hints(rectify):
    lowest = regressor(6, 10, 1.0, rectify)(torch.randn(4, 6, 8, 8)).min()
    assert (lowest >= 0) == rectify


@pytest.mark.parametrize(("guided", "hint"), [(0, 0), (0, 3), (2, 0), (-1, -1), (1, 2)])
def test_any_stage_guides_any_stage(guided, hint):
    method = FitNet(student(), teacher=teacher("four-stages"), guided=guided, hint=hint)
    assert method.losses(batch())["hint"] > 0


def test_hints_come_first_and_then_the_classes():
    method = FitNet(student(), teacher=teacher(), hint_share=0.5)
    for progress, first in ((0.0, True), (0.49, True), (0.5, False), (1.0, False)):
        method.after_step(progress)
        terms = method.losses(batch())
        assert (terms["hint"] > 0) == first
        assert (terms["task"] > 0) == (not first)


def test_the_first_stage_trains_nothing_behind_the_guided_map():
    method = FitNet(student(), teacher=teacher(), hint_share=0.5)
    sum(method.losses(batch()).values()).backward()
    moved = {name for name, p in method.backbone.model.named_parameters() if p.grad.abs().max() > 0}
    assert moved
    assert all(name.startswith(("conv1", "bn1", "layer1", "layer2")) for name in moved)


# CC.


def test_the_series_tends_to_the_gaussian_kernel():
    a, b = torch.randn(2, 6, 4, dtype=torch.float64)

    def gaussian(f):
        return (-0.4 * torch.cdist(F.normalize(f), F.normalize(f)).square()).exp()

    expected = F.mse_loss(gaussian(a), gaussian(b))
    assert correlation_loss(a, b, 0.4, order=12).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize(("kernel", "trained"), [("taylor", False), ("neighbors", True)])
def test_the_teachers_embedding_is_fixed_unless_the_benchmarks_loss_is_chosen(kernel, trained):
    method = CC(student(), teacher=teacher(), kernel=kernel)
    assert all(p.requires_grad == trained for p in method.teacher_embed.parameters())
    assert "teacher_embed.weight" in method.state_dict()


# DML.


def test_peers_start_apart_and_do_not_feel_each_others_loss():
    method = DML(student(), peers=2)
    networks = (method.backbone, *method.peers)
    for a, b in itertools.combinations(networks, 2):
        assert not torch.equal(a.model.conv1.weight, b.model.conv1.weight)
    terms = method.losses(batch())
    (terms["task"] + terms["mutual"]).backward(retain_graph=True)
    assert all(p.grad is None for p in method.peers.parameters())
    assert all(p.grad is not None for p in method.backbone.parameters())
    before = [p.grad.clone() for p in method.backbone.parameters()]
    (terms["peer_task"] + terms["peer_mutual"]).backward()
    assert all(p.grad is not None for p in method.peers.parameters())
    assert all(torch.equal(p.grad, g) for p, g in zip(method.backbone.parameters(), before))


def test_equal_peers_agree():
    z = torch.randn(4, CLASSES)
    assert all(d == 0 for d in mutual_divergences([z, z.clone(), z.clone()]))


def test_a_peer_may_be_another_network():
    method = DML(student(), peer="wrn_16_2")
    assert [peer.name for peer in method.peers] == ["wrn_16_2"]
    assert method.peers[0].num_classes == CLASSES
    assert all(term.isfinite() for term in method.losses(batch()).values())


# What cannot work says so.

ERRORS = {
    "no-classes": (lambda s, t: Supervised(student(0)), "num_classes=0"),
    "smoothing": (lambda s, t: LabelSmoothing(s, epsilon=1.0), "epsilon is 1.0"),
    "kd-student": (lambda s, t: KD(student(0), teacher=t), "num_classes=0"),
    "kd-teacher": (lambda s, t: KD(s, teacher=teacher(num_classes=7)), "7 classes .* 5"),
    "kd-teacher-without": (lambda s, t: KD(s, teacher=teacher(num_classes=0)), "0 classes .* 5"),
    "temperature": (lambda s, t: KD(s, teacher=t, temperature=0.0), "temperature is 0.0"),
    "weight": (lambda s, t: KD(s, teacher=t, kd_weight=-1.0), "kd_weight is -1.0"),
    "not-a-number": (lambda s, t: SP(s, teacher=t, weight=math.nan), "weight is nan"),
    "rkd": (lambda s, t: RKD(s, teacher=t, angle_weight=-2.0), "angle_weight is -2.0"),
    "at": (lambda s, t: AT(s, teacher=t, weight=-3.0), "weight is -3.0"),
    "guided": (lambda s, t: FitNet(s, teacher=t, guided=3), "guided is stage 3; resnet20"),
    "hint": (lambda s, t: FitNet(s, teacher=t, hint=-4), "hint is stage -4; wrn_16_2"),
    "hint-share": (lambda s, t: FitNet(s, teacher=t, hint_share=1.0), "hint_share is 1.0"),
    "cc": (lambda s, t: CC(s, teacher=t, order=0), "order 0"),
    "peers": (lambda s, t: DML(s, peers=0), "peers is 0"),
    "mutual-weight": (lambda s, t: DML(s, weight=-1.0), "weight is -1.0"),
    "pairs": (lambda s, t: distance_loss(torch.zeros(1, 1), torch.zeros(1, 1)), "1 image has no pairs"),
    "triples": (lambda s, t: angle_loss(torch.zeros(2, 2), torch.zeros(2, 2)), "2 image.* no triples"),
    "neighbors": (lambda s, t: neighbor_loss(torch.zeros(1, 2), torch.zeros(1, 2)), "1 image has no neighbors"),
}


@pytest.mark.parametrize(("build", "message"), ERRORS.values(), ids=ERRORS.keys())
def test_what_cannot_work_is_refused_by_name(build, message):
    with pytest.raises(ValueError, match=message):
        build(student(), teacher())


@pytest.mark.parametrize("make", [RKD, AT, SP, CC, FitNet])
def test_a_teacher_without_classes_teaches_by_its_features(make):
    terms = make(student(), teacher=teacher(num_classes=0)).losses(batch())
    assert "kd" not in terms
    assert all(term.isfinite() for term in terms.values())
