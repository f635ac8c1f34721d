"""Self-distillation: values against loops written from the equations, limits, and what carries a gradient."""

import math

import pytest
import torch
from torch import nn

from relatum.core.types import Batch
from relatum.methods.distill import ps_kd as ps_kd_file
from relatum.methods.distill import sd as sd_file
from relatum.methods.distill.cs_kd import CSKD
from relatum.methods.distill.kd import KD
from relatum.methods.distill.label_smoothing import LabelSmoothing
from relatum.methods.distill.ps_kd import PSKD, refined_target
from relatum.methods.distill.sd import SD, hint_loss
from relatum.methods.distill.supervised import Supervised
from relatum.methods.distill.tf_kd import TFKD, TFKDVirtual, virtual_teacher
from relatum.networks.backbones import Backbone
from relatum.networks.heads import StageClassifier, separable_block

CLASSES = 5
IMAGES = 6
SAMPLES = 40


def network(num_classes=CLASSES, name="test_resnet"):
    return Backbone(name, stem="cifar", num_classes=num_classes)


def batch(n=IMAGES, views=1, dtype=torch.float32):
    return Batch(
        tuple(torch.randn(n, 3, 16, 16, dtype=dtype) for _ in range(views)),
        torch.randint(CLASSES, (1, n)).expand(views, n),
        torch.randperm(SAMPLES)[:n].expand(views, n),
    )


METHODS = {
    "sd": lambda b: SD(b),
    "sd-conference": lambda b: SD(b, attention=False, temperature_squared=True),
    "sd-code": lambda b: SD(b, hint="frobenius", hint_weight=0.03, exempt="second-deepest"),
    "sd-shallowest": lambda b: SD(b, exempt="shallowest"),
    "sd-no-hint": lambda b: SD(b, hint_weight=0.0),
    "sd-alpha-0": lambda b: SD(b, alpha=0.0),
    "sd-alpha-1": lambda b: SD(b, alpha=1.0),
    "cs-kd": lambda b: CSKD(b),
    "tf-kd": lambda b: TFKD(b, teacher=network()),
    "tf-kd-alpha-1": lambda b: TFKD(b, teacher=network(), alpha=1.0),
    "tf-kd-virtual": lambda b: TFKDVirtual(b),
    "tf-kd-virtual-code": lambda b: TFKDVirtual(b, form="code"),
    "ps-kd": lambda b: PSKD(b, num_samples=SAMPLES),
}
each_method = pytest.mark.parametrize("make", METHODS.values(), ids=METHODS.keys())


def batch_for(method, dtype=torch.float32):
    return batch(views=2 if method.pairing == "same-class-pairs" else 1, dtype=dtype)


def total(terms):
    return sum(terms.values())


# The equations, as loops over single numbers.


def softmax(z, temperature=1.0):
    e = [math.exp(v / temperature) for v in z]
    return [v / sum(e) for v in e]


def naive_cross_entropy(logits, labels):
    return -sum(math.log(softmax(z)[y]) for z, y in zip(logits, labels)) / len(logits)


def naive_kl(targets, logits, temperature=1.0):
    """Of given distributions from softmax(logits / T), without T^2."""
    total = 0.0
    for q, z in zip(targets, logits):
        total += sum(a * math.log(a / b) for a, b in zip(q, softmax(z, temperature)) if a > 0)
    return total / len(logits)


def softened(logits, temperature):
    return [softmax(z, temperature) for z in logits]


def naive_hint(shallow, deepest, frobenius):
    squares = sum((a - b) ** 2 for f, g in zip(shallow, deepest) for a, b in zip(f, g))
    return math.sqrt(squares) if frobenius else squares / len(shallow)


def lists(tensor):
    return tensor.detach().double().tolist()


@pytest.mark.parametrize("temperature_squared", [False, True])
@pytest.mark.parametrize("hint", ["squared", "frobenius"])
@pytest.mark.parametrize(
    ("exempt", "hinted"), [("none", (0, 1, 2)), ("shallowest", (1, 2)), ("second-deepest", (0, 1))]
)
def test_sd_equals_the_loop(hint, exempt, hinted, temperature_squared):
    alpha, temperature, weight = 0.3, 3.0, 0.03
    method = SD(
        network().double(), hint=hint, hint_weight=weight, exempt=exempt, temperature_squared=temperature_squared
    ).double()
    given = batch(dtype=torch.float64)
    features = method.backbone(given.views[0])
    z, y, f = lists(features.logits), given.labels[0].tolist(), lists(features.embedding)
    expected = {"task": naive_cross_entropy(z, y), "stage_task": 0.0, "stage_logits": 0.0, "stage_hint": 0.0}
    for i in range(3):
        embedding, logits = method.classifiers[i](features.stages[i])
        divergence = naive_kl(softened(z, temperature), lists(logits), temperature)
        expected["stage_task"] += (1 - alpha) * naive_cross_entropy(lists(logits), y)
        expected["stage_logits"] += alpha * divergence * (temperature**2 if temperature_squared else 1)
        if i in hinted:
            adapted = lists(method.adapters[str(i)](embedding))
            expected["stage_hint"] += weight * naive_hint(adapted, f, hint == "frobenius")
    assert {k: v.item() for k, v in method.losses(given).items()} == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("weight", "temperature"), [(1.0, 4.0), (3.0, 1.0)])
def test_cs_kd_equals_the_loop(weight, temperature):
    backbone = network().double()
    method = CSKD(backbone, weight=weight, temperature=temperature)
    given = batch(views=2, dtype=torch.float64)
    anchors, partners = (lists(backbone(view).logits) for view in given.views)
    divergence = naive_kl(softened(partners, temperature), anchors, temperature)
    expected = {
        "task": naive_cross_entropy(anchors, given.labels[0].tolist()),
        "class": weight * temperature**2 * divergence,
    }
    assert {k: v.item() for k, v in method.losses(given).items()} == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("alpha", "temperature", "multiplier"), [(0.95, 6.0, 1.0), (0.4, 20.0, 0.5)])
def test_self_training_equals_the_loop(alpha, temperature, multiplier):
    backbone, teacher = network().double(), network().double()
    method = TFKD(backbone, teacher=teacher, alpha=alpha, temperature=temperature, multiplier=multiplier)
    given = batch(dtype=torch.float64)
    z, t = lists(backbone(given.views[0]).logits), lists(teacher(given.views[0]).logits)
    divergence = naive_kl(softened(t, temperature), z, temperature)
    expected = {
        "task": (1 - alpha) * naive_cross_entropy(z, given.labels[0].tolist()),
        "kd": alpha * multiplier * temperature**2 * divergence,
    }
    assert {k: v.item() for k, v in method.losses(given).items()} == pytest.approx(expected, rel=1e-9)


def naive_virtual_target(y, temperature, correct, form):
    u = [correct if c == y else (1 - correct) / (CLASSES - 1) for c in range(CLASSES)]
    if form == "code":
        return softmax(u, temperature)
    powers = [v ** (1 / temperature) for v in u]
    return [v / sum(powers) for v in powers]


@pytest.mark.parametrize("form", ["paper", "code"])
@pytest.mark.parametrize(("alpha", "temperature", "correct"), [(0.1, 20.0, 0.99), (0.6, 2.0, 0.9)])
def test_virtual_teacher_equals_the_loop(form, alpha, temperature, correct):
    backbone = network().double()
    method = TFKDVirtual(backbone, alpha=alpha, temperature=temperature, correct=correct, form=form, multiplier=0.7)
    given = batch(dtype=torch.float64)
    z, y = lists(backbone(given.views[0]).logits), given.labels[0].tolist()
    target = [naive_virtual_target(c, temperature, correct, form) for c in y]
    divergence = temperature**2 * naive_kl(target, z, temperature) if form == "paper" else naive_kl(target, z)
    expected = {"task": (1 - alpha) * naive_cross_entropy(z, y), "virtual": alpha * 0.7 * divergence}
    assert {k: v.item() for k, v in method.losses(given).items()} == pytest.approx(expected, rel=1e-9)


def test_ps_kd_equals_a_loop_over_two_epochs():
    """With a network that learns between the steps, and images that come in another order."""
    backbone = network().double()
    method = PSKD(backbone, num_samples=SAMPLES, alpha=0.8).double()
    optimizer = torch.optim.SGD(method.parameters(), lr=0.05)
    images = torch.randn(12, 3, 16, 16, dtype=torch.float64)
    labels = torch.randint(CLASSES, (12,))
    numbers = torch.randperm(SAMPLES)[:12]
    past: dict[int, list[float]] = {}
    steps = [*torch.arange(12).chunk(2), *torch.randperm(12).chunk(2)]
    for step, rows in enumerate(steps):
        alpha = 0.8 * step / len(steps)
        z = lists(backbone(images[rows]).logits)
        expected = 0.0
        for row, one in zip(rows.tolist(), z):
            hard = [float(c == labels[row]) for c in range(CLASSES)]
            soft = past.get(row, hard)
            for c, p in enumerate(softmax(one)):
                expected -= ((1 - alpha) * hard[c] + alpha * soft[c]) * math.log(p) / len(rows)
        terms = method.losses(Batch((images[rows],), labels[rows][None], numbers[rows][None]))
        assert {k: v.item() for k, v in terms.items()} == {"task": pytest.approx(expected, rel=1e-6)}
        total(terms).backward()
        optimizer.step()
        optimizer.zero_grad()
        method.after_step((step + 1) / len(steps))
        past |= {row: softmax(one) for row, one in zip(rows.tolist(), z)}
    for row, p in past.items():
        assert method.bank.rows[numbers[row]].tolist() == pytest.approx(p, rel=1e-6)
    unseen = [n for n in range(SAMPLES) if n not in numbers.tolist()]
    assert (method.bank.rows[unseen] == 0).all()


# Laws of all of them.


@each_method
def test_every_trainable_parameter_has_a_gradient_and_every_term_is_finite(make):
    method = make(network())
    terms = method.losses(batch_for(method))
    assert all(term.shape == () and term.isfinite() for term in terms.values())
    total(terms).backward()
    without = [name for name, p in method.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
    assert all(p.grad.isfinite().all() for p in method.parameters())


@each_method
def test_the_state_goes_round(make):
    one, other = make(network()), make(network())
    given = batch_for(one)
    one.losses(given)
    one.after_step(0.5)
    if hasattr(one, "teacher"):  # a teacher comes from the recipe, not from the state
        other.teacher.network.load_state_dict(one.teacher.network.state_dict())
    other.load_state_dict(one.state_dict())
    expected = one.losses(given)
    assert {k: v.item() for k, v in other.losses(given).items()} == {k: v.item() for k, v in expected.items()}


@each_method
def test_the_terms_of_a_seed_are_a_function_of_it(make):
    def run():
        torch.manual_seed(3)
        method = make(network())
        return {k: v.item() for k, v in method.losses(batch_for(method)).items()}

    assert run() == run()


@each_method
def test_it_says_what_it_eats_and_trains(make):
    method = make(network())
    assert method.needs_labels
    assert method.classifies
    assert method.pairing == ("same-class-pairs" if isinstance(method, CSKD) else "single")


@each_method
def test_a_backbone_without_classes_is_refused(make):
    with pytest.raises(ValueError, match="num_classes=0"):
        make(network(num_classes=0))


@each_method
def test_losses_are_in_full_precision_under_autocast(make):
    method = make(network())
    given = batch_for(method)
    with torch.autocast("cpu", torch.bfloat16):
        terms = method.losses(given)
    assert all(term.dtype == torch.float32 for term in terms.values())
    total(terms).backward()
    method.after_step(0.5)


BAD_OPTIONS = {
    "sd-alpha": (lambda b: SD(b, alpha=1.5), "alpha is 1.5"),
    "sd-temperature": (lambda b: SD(b, temperature=0.0), "temperature is 0.0"),
    "sd-hint-weight": (lambda b: SD(b, hint_weight=-1.0), "hint_weight is -1.0"),
    "cs-kd-weight": (lambda b: CSKD(b, weight=-1.0), "weight is -1.0"),
    "cs-kd-temperature": (lambda b: CSKD(b, temperature=-4.0), "temperature is -4.0"),
    "tf-kd-alpha": (lambda b: TFKD(b, teacher=network(), alpha=-0.1), "alpha is -0.1"),
    "tf-kd-multiplier": (lambda b: TFKD(b, teacher=network(), multiplier=math.nan), "multiplier is nan"),
    "tf-kd-temperature": (lambda b: TFKD(b, teacher=network(), temperature=0.0), "temperature is 0.0"),
    "tf-kd-classes": (lambda b: TFKD(b, teacher=network(CLASSES + 1)), "has 6 classes"),
    "virtual-correct": (lambda b: TFKDVirtual(b, correct=1.0), "correct is 1.0"),
    "virtual-temperature": (lambda b: TFKDVirtual(b, temperature=0.0), "temperature is 0.0"),
    "virtual-alpha": (lambda b: TFKDVirtual(b, alpha=2.0), "alpha is 2.0"),
    "virtual-one-class": (lambda b: TFKDVirtual(network(num_classes=1)), "has 1 class"),
    "ps-kd-alpha": (lambda b: PSKD(b, num_samples=SAMPLES, alpha=1.1), "alpha is 1.1"),
    "ps-kd-samples": (lambda b: PSKD(b, num_samples=0), "bank of 0 rows"),
}


@pytest.mark.parametrize(("make", "message"), BAD_OPTIONS.values(), ids=BAD_OPTIONS.keys())
def test_options_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make(network())


# Self-distillation at the stages.


@pytest.mark.parametrize("name", ["stage_task", "stage_logits", "stage_hint"])
def test_sd_trains_neither_the_deepest_stage_nor_its_classifier_by_the_shallow_terms(name):
    method = SD(network())
    method.losses(batch())[name].backward()
    model = method.backbone.model
    assert all(p.grad is None for m in (model.layer4, model.fc) for p in m.parameters())
    assert sum(p.grad.abs().sum() for p in model.layer3.parameters()) > 0


def test_sd_hint_has_no_gradient_into_the_deepest_and_is_zero_on_equal_embeddings():
    shallow, deepest = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    for hint in ("squared", "frobenius"):
        assert torch.autograd.grad(hint_loss(shallow, deepest, hint), [shallow, deepest], allow_unused=True)[1] is None
        zero = hint_loss(shallow, shallow.detach(), hint)
        assert zero.item() == 0
        assert torch.autograd.grad(zero, shallow)[0].isfinite().all()


@pytest.mark.parametrize(("hint", "factor"), [("squared", 1.0), ("frobenius", math.sqrt(2))])
def test_sd_hint_is_one_of_the_batch_of_all_ranks(monkeypatch, hint, factor):
    """A second rank with the same images doubles the batch: the mean stays, the norm grows."""
    method, given = SD(network(), hint=hint), batch()
    alone = method.losses(given)["stage_hint"].item()
    monkeypatch.setattr(sd_file, "gather", lambda x: torch.cat([x, x]))
    assert method.losses(given)["stage_hint"].item() == pytest.approx(factor * alone, rel=1e-5)


def test_sd_without_a_hint_has_no_adapters():
    method = SD(network(), hint_weight=0.0)
    assert not list(method.adapters.parameters())
    assert set(method.losses(batch())) == {"task", "stage_task", "stage_logits"}


def test_sd_temperature_squared_keeps_the_gradient_of_the_teaching_the_same_size():
    """The gradient at T = 40 and 20: as large with the factor, a quarter without."""

    def size(temperature, squared):
        torch.manual_seed(0)
        method = SD(network(), temperature=temperature, temperature_squared=squared)
        method.losses(batch())["stage_logits"].backward()
        return method.classifiers[0].classifier.bias.grad.norm().item()

    assert size(40.0, True) == pytest.approx(size(20.0, True), rel=0.05)
    assert size(40.0, False) == pytest.approx(size(20.0, False) / 4, rel=0.05)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (7, 5), (32, 32)], ids=str)
def test_a_stage_classifier_takes_maps_of_any_size(size):
    head = StageClassifier((8, 12, 20), CLASSES)
    embedding, logits = head(torch.randn(4, 8, *size))
    assert embedding.shape == (4, 20)
    assert logits.shape == (4, CLASSES)


@pytest.mark.parametrize("attention", [False, True])
def test_a_stage_classifier_has_the_parameters_of_its_definition(attention):
    def block(before, after):  # depthwise and pointwise twice, scale and shift of two batch norms
        return 9 * before + before**2 + 9 * before + before * after + 2 * before + 2 * after

    widths = (8, 16, 32)
    expected = block(8, 16) + block(16, 32) + 33 * CLASSES + (block(8, 8) if attention else 0)
    head = StageClassifier(widths, CLASSES, attention=attention)
    assert sum(p.numel() for p in head.parameters()) == expected


def test_the_attention_halves_what_it_does_not_favor():
    """A block that gives zero everywhere gives an attention of sigmoid(0) = 1/2."""
    head = StageClassifier((8, 8), CLASSES).eval()
    plain = StageClassifier((8, 8), CLASSES, attention=False).eval()
    plain.load_state_dict({k: v for k, v in head.state_dict().items() if not k.startswith("attention")})
    nn.init.zeros_(head.attention[4].weight)
    nn.init.zeros_(head.attention[4].bias)
    maps = torch.randn(3, 8, 6, 6)
    torch.testing.assert_close(head(maps), plain(maps / 2))


@pytest.mark.parametrize("size", [1, 2, 3, 8, 9])
def test_a_separable_block_halves_the_map(size):
    assert separable_block(4, 6)(torch.randn(2, 4, size, size)).shape == (2, 6, -(-size // 2), -(-size // 2))


@pytest.mark.parametrize(("widths", "classes"), [((8,), 5), ((8, 0), 5), ((8, 16), 0)], ids=str)
def test_a_stage_classifier_of_nothing_is_refused(widths, classes):
    with pytest.raises(ValueError, match="has nothing in it"):
        StageClassifier(widths, classes)


@pytest.mark.parametrize("name", ["resnet20", "test_resnet", "mobilenetv1"])
def test_the_stage_classifiers_of_sd_end_at_the_width_of_the_deepest_stage(name):
    backbone = network(name=name)
    method = SD(backbone)
    assert len(method.classifiers) == len(backbone.stage_channels) - 1
    for i, head in enumerate(method.classifiers):
        assert len(head.blocks) == len(backbone.stage_channels) - 1 - i
        assert head.classifier.in_features == backbone.stage_channels[-1]
    assert total(method.losses(batch())).isfinite()


# Class-wise.


def test_cs_kd_has_no_gradient_into_the_partner():
    method, given = CSKD(network()), batch(views=2)
    for view in given.views:
        view.requires_grad_(True)
    total(method.losses(given)).backward()
    assert given.views[0].grad.abs().sum() > 0
    assert given.views[1].grad is None


def test_cs_kd_normalizes_the_partners_apart_and_counts_them():
    method, given = CSKD(network()), batch(views=2)
    method.losses(given)
    norms = [m for m in method.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {int(m.num_batches_tracked) for m in norms} == {2}


def test_cs_kd_of_an_image_with_itself_is_cross_entropy():
    method, given = CSKD(network().double()), batch(dtype=torch.float64)
    given = Batch(given.views * 2, given.labels.expand(2, -1), given.index.expand(2, -1))
    terms = method.losses(given)
    assert terms["class"].item() == pytest.approx(0, abs=1e-12)
    assert (
        terms["task"].item()
        == Supervised(method.backbone)
        .losses(given._replace(views=given.views[:1], labels=given.labels[:1]))["task"]
        .item()
    )


# Teacher-free.


def gradient(method, given):
    method.zero_grad()
    total(method.losses(given)).backward()
    return torch.cat([p.grad.flatten() for p in method.backbone.parameters()])


def test_self_training_is_knowledge_distillation_with_a_share():
    backbone, teacher, given = network(), network(), batch()
    ours = TFKD(backbone, teacher=teacher, alpha=0.7, temperature=5.0, multiplier=0.5).losses(given)
    kd = KD(backbone, teacher=teacher, task_weight=0.3, kd_weight=0.35, temperature=5.0).losses(given)
    assert {k: v.item() for k, v in ours.items()} == pytest.approx({k: v.item() for k, v in kd.items()})


def test_a_network_that_is_its_own_teacher_learns_nothing_from_it():
    backbone = network()
    teacher = network()
    teacher.load_state_dict(backbone.state_dict())
    method = TFKD(backbone.eval(), teacher=teacher)
    assert method.losses(batch())["kd"].item() == pytest.approx(0, abs=1e-6)


def test_the_teacher_stays_as_it_was_and_out_of_the_state():
    teacher = network()
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    method = TFKD(network(), teacher=teacher).train()
    total(method.losses(batch())).backward()
    assert not teacher.training
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())
    assert all(name.startswith("backbone.") for name in method.state_dict())


def test_the_virtual_teacher_is_a_distribution():
    u = virtual_teacher(torch.tensor([0, 3]), 100, 0.99, torch.float64)
    torch.testing.assert_close(u.sum(1), torch.ones(2, dtype=torch.float64))
    assert u[1, 3] == 0.99
    assert u[1, 4] == pytest.approx(0.01 / 99)


def test_the_official_virtual_target_is_all_but_uniform():
    """At K = 100 and T = 20: 0.0105 at the true class, 0.0100 elsewhere."""
    target = (virtual_teacher(torch.tensor([7]), 100) / 20).softmax(1)[0]
    assert target[7].item() == pytest.approx(0.0105, abs=5e-5)
    assert target[8].item() == pytest.approx(0.0100, abs=5e-5)


@pytest.mark.parametrize(("temperature", "tolerance"), [(20.0, 6e-4), (1e6, 1e-7)], ids=["official", "limit"])
def test_the_official_virtual_teacher_is_label_smoothing(temperature, tolerance):
    """With m = K, so that `multiplier` is 1: the gradient of the logits is alpha |q - 1/K| apart, and vanishes."""
    backbone, given = network(num_classes=100).double(), batch(dtype=torch.float64)
    virtual = TFKDVirtual(backbone, alpha=0.1, temperature=temperature, form="code")
    smooth = LabelSmoothing(backbone, epsilon=0.1)
    assert relative_distance(gradient(virtual, given), gradient(smooth, given)) < tolerance
    constant = 0.1 * math.log(100)
    difference = total(smooth.losses(given)) - total(virtual.losses(given))
    assert difference.item() == pytest.approx(constant, rel=10 * tolerance)


def relative_distance(a, b):
    return ((a - b).norm() / b.norm()).item()


def test_the_virtual_teacher_of_the_paper_at_temperature_one_is_label_smoothing():
    """KL(u || p) with u_y = a: the target (1 - alpha) onehot + alpha u smooths by alpha (1 - a) K / (K - 1)."""
    backbone, given = network().double(), batch(dtype=torch.float64)
    virtual = TFKDVirtual(backbone, alpha=0.5, temperature=1.0, correct=0.9)
    smooth = LabelSmoothing(backbone, epsilon=0.5 * 0.1 * CLASSES / (CLASSES - 1))
    assert relative_distance(gradient(virtual, given), gradient(smooth, given)) < 1e-10


@pytest.mark.parametrize("form", ["paper", "code"])
def test_a_virtual_teacher_without_a_share_is_cross_entropy(form):
    backbone, given = network().double(), batch(dtype=torch.float64)
    plain = gradient(Supervised(backbone), given)
    assert relative_distance(gradient(TFKDVirtual(backbone, alpha=0.0, form=form), given), plain) < 1e-12


# Progressive.


def test_ps_kd_is_cross_entropy_before_an_image_was_seen():
    backbone = network().double()
    method = PSKD(backbone, num_samples=SAMPLES).double()
    method.after_step(1.0)  # at the full share
    given = batch(dtype=torch.float64)
    expected = Supervised(backbone).losses(given)["task"].item()
    assert method.losses(given)["task"].item() == pytest.approx(expected, rel=1e-12)


def test_ps_kd_without_a_share_is_cross_entropy_after_it_was_seen():
    backbone = network().double()
    method, given = PSKD(backbone, num_samples=SAMPLES, alpha=0.0).double(), batch(dtype=torch.float64)
    expected = Supervised(backbone).losses(given)["task"].item()
    for progress in (0.5, 1.0):
        assert method.losses(given)["task"].item() == pytest.approx(expected, rel=1e-12)
        method.after_step(progress)


def test_ps_kd_writes_the_bank_after_the_step_and_not_before():
    method, given = PSKD(network(), num_samples=SAMPLES), batch()
    logits = method.backbone(given.views[0]).logits
    method.losses(given)
    assert (method.bank.rows == 0).all()
    method.after_step(0.1)
    torch.testing.assert_close(method.bank(given.index[0]), logits.softmax(1).detach())
    assert method.bank.rows.sum().item() == pytest.approx(IMAGES, rel=1e-5)


def test_ps_kd_keeps_the_bank_and_the_progress_in_the_state():
    method, given = PSKD(network(), num_samples=SAMPLES), batch()
    method.losses(given)
    method.after_step(0.25)
    state = method.state_dict()
    assert torch.equal(state["bank.rows"], method.bank.rows)
    assert state["progress"].item() == 0.25
    assert (state["bank.rows"].sum(1) > 0).sum() == IMAGES


def test_ps_kd_writes_the_predictions_of_all_ranks(monkeypatch):
    method, given = PSKD(network(), num_samples=SAMPLES), batch()
    others = torch.tensor([n for n in range(SAMPLES) if n not in given.index[0].tolist()][:IMAGES])
    theirs = torch.rand(IMAGES, CLASSES).softmax(1)
    monkeypatch.setattr(ps_kd_file, "gather", lambda x: torch.cat([x, theirs if x.is_floating_point() else others]))
    method.losses(given)
    method.after_step(0.5)
    assert torch.equal(method.bank(others), theirs)
    assert (method.bank(given.index[0]).sum(1) > 0).all()


def test_a_refined_target_is_a_distribution_with_and_without_a_past():
    past = torch.stack([torch.randn(CLASSES).softmax(0), torch.zeros(CLASSES)])
    target = refined_target(torch.tensor([1, 2]), past, torch.tensor(0.8))
    torch.testing.assert_close(target.sum(1), torch.ones(2))
    torch.testing.assert_close(target[0], 0.8 * past[0] + 0.2 * torch.eye(CLASSES)[1])
    assert torch.equal(target[1], torch.eye(CLASSES)[2])
