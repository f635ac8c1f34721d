"""CORSD against loops written from the paper's equations, on pairs that are really concatenated; and its laws."""

from itertools import product

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from relatum.core.types import Batch
from relatum.methods.distill.corsd import CORSD, logit_distillation, pair_target, relation_distillation
from relatum.methods.distill.relation_l2 import RelationL2
from relatum.networks.backbones import Backbone
from relatum.networks.relation_networks import ImageProjection
from relatum.relations import Cosine, Euclidean, Jaccard

CLASSES = 5


RELATIONS = {"network": None, "euclidean": Euclidean(), "cosine": Cosine(), "jaccard": Jaccard()}
ALL_TERMS = {
    "task",
    "triplet",
    "relation",
    "positive_task",
    "positive_logits",
    "negative_task",
    "negative_logits",
    "calibration",
}


def classifier(name="test_resnet") -> Backbone:
    return Backbone(name, stem="cifar", num_classes=CLASSES)


def triples(n=3, pixels=8, dtype=torch.float32) -> Batch:
    views = tuple(torch.randn(n, 3, pixels, pixels, dtype=dtype) for _ in range(3))
    anchor = torch.arange(n) % CLASSES
    return Batch(views, torch.stack([anchor, anchor, (anchor + 2) % CLASSES]), torch.arange(3 * n).view(3, n))


# The paper's equations, pair by pair.


def leaves(module):
    return [m for m in module.modules() if not list(m.children())]


def normalized(x, bn):
    dims = [d for d in range(x.ndim) if d != 1]
    mean = x.mean(dims, keepdim=True)
    var = ((x - mean) ** 2).mean(dims, keepdim=True)
    shape = mean.shape
    return (x - mean) / (var + bn.eps).sqrt() * bn.weight.view(shape) + bn.bias.view(shape)


def through(layers, x):
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            x = F.conv2d(x, layer.weight, None, layer.stride, layer.padding, 1, layer.groups)
        elif isinstance(layer, nn.Linear):
            x = x @ layer.weight.T + (layer.bias if layer.bias is not None else 0)
        elif isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            x = normalized(x, layer)
        elif isinstance(layer, nn.ReLU):
            x = x.clamp(min=0)
        elif isinstance(layer, nn.AdaptiveAvgPool2d):
            x = x.mean((2, 3), keepdim=True)
        elif isinstance(layer, nn.Flatten):
            x = x.flatten(1)
        else:
            raise TypeError(layer)
    return x


def naive_projection(g, concatenated):
    """`g` of maps with 2C channels, the first two convolutions with the weights of both halves in one."""
    if isinstance(g, ImageProjection):
        return concatenated.mean((2, 3))
    (a_depth, a_point), (p_depth, p_point) = g.anchor, g.partner
    depth = torch.cat([a_depth.weight, p_depth.weight])
    x = F.conv2d(concatenated, depth, stride=2, padding=1, groups=len(depth))
    x = F.conv2d(x, torch.cat([a_point.weight, p_point.weight], dim=1))
    return through(leaves(g.rest), x)


def naive_terms(method, batch, o):
    """All terms of `method` with the options `o`, from the equations in the docstring of its module."""
    n = batch.labels.shape[1]
    stages, _, logits = method.backbone(torch.cat(batch.views))
    y_o, y_p, y_n = batch.labels
    k = len(stages)

    def together(function, rows):  # rows: positive pairs, then negative pairs
        if o["statistics"] == "separate":
            return torch.cat([function(rows[:n]), function(rows[n:])])
        return function(rows)

    def concatenated(x):
        return torch.stack([torch.cat([x[i], x[n * j + i]]) for j in (1, 2) for i in range(n)])

    def distance(psi, rows):
        score = together(lambda r: through(leaves(psi.network), r), rows)[:, 0]
        return {"sigmoid": 1 / (1 + (-score).exp()), "softplus": (1 + score.exp()).log(), "none": score}[
            o["activation"]
        ]

    z = [together(lambda r, g=g: naive_projection(g, r), concatenated(f)) for g, f in zip(method.projections, stages)]
    r = [distance(psi, rows) for psi, rows in zip(method.interactions, z)]

    def sg(x):
        return x.detach() if o["detach_teacher"] else x

    def mean(values):
        return sum(values) / len(values)

    terms = {"task": mean([-logits[i].log_softmax(0)[batch.labels.flatten()[i]] for i in range(3 * n)])}
    terms["triplet"] = o["alpha"] * sum(
        mean([(r[i][j] - r[i][n + j] + o["margin"]).clamp(min=0) for j in range(n)]) for i in range(k)
    )
    power = {"squared": 2, "absolute": 1}[o["norm"]]
    terms["relation"] = o["beta"] * sum(
        mean([(r[i][j] - sg(r[k - 1][j])).abs() ** power for j in range(n)])
        + mean([(r[i][n + j] - sg(r[k - 1][n + j])).abs() ** power for j in range(n)])
        for i in range(k - 1)
    )
    t = o["temperature"]
    for kind, gamma, offset, partner in (("positive", o["gamma_p"], 0, y_p), ("negative", o["gamma_n"], n, y_n)):
        phi = method.classifiers["shared" if o["shared_classifier"] else kind]
        task, distilled = 0, 0
        for i, j in product(range(k), range(n)):
            row = z[i][offset + j] @ phi[i].weight.T + phi[i].bias
            log_p = row.log_softmax(0)
            task += -(0.5 * log_p[y_o[j]] + 0.5 * log_p[partner[j]]) / n
            if i < k - 1:
                deep = sg(z[k - 1][offset + j] @ phi[k - 1].weight.T + phi[k - 1].bias)
                q = (deep / t).softmax(0)
                p = (row / t).softmax(0)
                if o["divergence"] == "from-shallow":
                    p, q = q, p
                distilled += t**2 * sum(q[c] * (q[c].log() - p[c].log()) for c in range(CLASSES)) / n
        terms[f"{kind}_task"] = gamma * (1 - o["lam"]) * task
        terms[f"{kind}_logits"] = gamma * o["lam"] * distilled
    compared = logits.softmax(1) if o["calibration_input"] == "softmax" else logits
    r_logits = distance(method.calibrator, concatenated(compared))
    terms["calibration"] = o["sigma"] * sum(r_logits[j] - r_logits[n + j] for j in range(n)) / n
    if o["calibration_loss"] == "sum":  # over three images for each triple
        terms["calibration"] = 3 * n * terms["calibration"]
    return terms


DEFAULTS = {
    "alpha": 0.01,
    "beta": 0.01,
    "gamma_p": 0.2,
    "gamma_n": 0.05,
    "lam": 0.8,
    "sigma": 0.01,
    "margin": 1.0,
    "temperature": 1.0,
    "divergence": "from-deepest",
    "norm": "squared",
    "activation": "sigmoid",
    "detach_teacher": True,
    "shared_classifier": False,
    "calibration_input": "softmax",
    "calibration_loss": "mean",
    "statistics": "joint",
}
VARIANTS = {
    "defaults": {},
    "full width": {"width": None},
    "capped": {"width": 32},
    "margin": {"margin": 0.1},
    "temperature": {"temperature": 3.0},
    "absolute": {"norm": "absolute"},
    "softplus": {"activation": "softplus"},
    "other direction": {"divergence": "from-shallow", "temperature": 2.0},
    "summed calibration": {"calibration_loss": "sum"},
    "layers at the deepest": {"deepest_layers": 1},
    "unbounded": {"activation": "none", "calibration_input": "logits"},
    "weights": {"alpha": 0.3, "beta": 0.5, "gamma_p": 0.7, "gamma_n": 1.1, "lam": 0.3, "sigma": 1.3},
    "published code": {"detach_teacher": False, "shared_classifier": True, "statistics": "separate"},
}


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_losses_and_gradients_equal_the_equations_pair_by_pair(variant):
    options = DEFAULTS | variant
    method = CORSD(classifier().double(), **variant).double()
    batch = triples(dtype=torch.float64)
    terms, expected = method.losses(batch), naive_terms(method, batch, options)
    assert set(terms) == ALL_TERMS == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-12, atol=1e-12)
    names, parameters = zip(*method.named_parameters())
    grads = torch.autograd.grad(sum(terms.values()), parameters)
    for name, grad, right in zip(names, grads, torch.autograd.grad(sum(expected.values()), parameters)):
        torch.testing.assert_close(grad, right, rtol=1e-10, atol=1e-12, msg=lambda m, name=name: f"{name}: {m}")


# Weights and rows of Table 4.

OFF = {"alpha": 0.0, "beta": 0.0, "gamma_p": 0.0, "gamma_n": 0.0, "sigma": 0.0}
GONE = {
    "alpha": {"triplet"},
    "beta": {"relation"},
    "gamma_p": {"positive_task", "positive_logits"},
    "gamma_n": {"negative_task", "negative_logits"},
    "sigma": {"calibration"},
}
CONFIGURATIONS = {
    "all": {},
    "no triplet": {"alpha": 0.0},
    "no relation": {"beta": 0.0},
    "no logit distillation": {"lam": 0.0},
    "only logit distillation": {"lam": 1.0},
    "shared": {"shared_classifier": True},
    "shared, positive only": {"shared_classifier": True, "gamma_n": 0.0},
    "not detached": {"detach_teacher": False, "alpha": 0.0, "lam": 1.0},
    "BL": OFF,
    "RN": OFF | {"alpha": 0.01, "beta": 0.01},
    "AC": OFF | {"gamma_p": 0.2, "gamma_n": 0.05},
    "RN+AC": {"sigma": 0.0},
    "LD": OFF | {"sigma": 0.01},
    "checkpoint": {"checkpoint": True},
}
TABLE_4 = {
    "BL": {"task"},
    "RN": {"task", "triplet", "relation"},
    "RN+AC": ALL_TERMS - {"calibration"},
    "LD": {"task", "calibration"},
    "all": ALL_TERMS,
}


@pytest.mark.parametrize("weight", GONE)
def test_weight_zero_removes_its_term_and_no_other(weight):
    batch, backbone = triples(), classifier()
    full, reduced = CORSD(backbone), CORSD(backbone, **{weight: 0.0})
    assert set(reduced.state_dict()) <= set(full.state_dict())
    # With the same weights all other terms keep their values.
    reduced.load_state_dict({name: full.state_dict()[name] for name in reduced.state_dict()})
    before, after = full.losses(batch), reduced.losses(batch)
    assert set(before) - set(after) == GONE[weight]
    for name, value in after.items():
        torch.testing.assert_close(value, before[name])


@pytest.mark.parametrize("row", TABLE_4)
def test_rows_of_table_4(row):
    method = CORSD(classifier(), **CONFIGURATIONS[row])
    assert set(method.losses(triples())) == TABLE_4[row]
    built = {name.split(".")[0] for name, _ in method.named_parameters()}
    expected = {"backbone"}
    if "triplet" in TABLE_4[row]:
        expected |= {"projections", "interactions"}
    if "positive_task" in TABLE_4[row]:
        expected |= {"projections", "classifiers"}
    if "calibration" in TABLE_4[row]:
        expected |= {"calibrator"}
    assert built == expected


def trained(gradient) -> bool:
    """Slices of stacked depths give zeros, not None, to what they leave out."""
    return gradient is not None and bool(gradient.any())


@pytest.mark.parametrize(
    ("options", "relation"),
    [
        *[
            pytest.param(o, RELATIONS[r], id=f"{name}-{r}")
            for name, o in CONFIGURATIONS.items()
            for r in ("network", "jaccard")
        ],
        *[pytest.param({}, RELATIONS[r], id=f"all-{r}") for r in ("euclidean", "cosine")],
    ],
)
def test_no_trainable_parameter_without_a_gradient(options, relation):
    method = CORSD(classifier("resnet8x4"), relation=relation, **options)
    terms = method.losses(triples(n=4))
    assert all(term.ndim == 0 and term.isfinite() for term in terms.values())
    sum(terms.values()).backward()
    assert [name for name, p in method.named_parameters() if p.requires_grad and not trained(p.grad)] == []


@pytest.mark.parametrize("relation", RELATIONS.values(), ids=RELATIONS)
def test_distillation_does_not_train_the_deepest(relation):
    def reached(detach_teacher):
        method = CORSD(classifier(), relation=relation, detach_teacher=detach_teacher)
        deepest = [*method.interactions[-1].parameters(), *method.classifiers["positive"][-1].parameters()]
        deepest += [*method.classifiers["negative"][-1].parameters(), *method.backbone.model.layer4.parameters()]
        terms = method.losses(triples())
        distilled = terms["relation"] + terms["positive_logits"] + terms["negative_logits"]
        return [trained(g) for g in torch.autograd.grad(distilled, deepest, allow_unused=True)]

    assert not any(reached(True))
    assert any(reached(False))


def test_targets_of_pairs():
    target = pair_target(torch.tensor([0, 1, 4]), torch.tensor([0, 3, 2]), CLASSES)
    expected = [[1, 0, 0, 0, 0], [0, 0.5, 0, 0.5, 0], [0, 0, 0.5, 0, 0.5]]
    assert target.tolist() == expected
    assert target.sum(1).tolist() == [1, 1, 1]


def test_distillation_vanishes_where_all_depths_agree():
    same = torch.randn(1, 2, 4).expand(3, 2, 4)
    assert relation_distillation(same) == 0
    torch.testing.assert_close(logit_distillation(torch.randn(1, 2, 4).expand(3, 2, 4), 4.0), torch.tensor(0.0))


def test_logit_distillation_of_negative_logits_is_finite_and_positive():
    assert 0 < logit_distillation(torch.randn(3, 4, 5) * 50 - 100) < float("inf")


@pytest.mark.parametrize("relation", [None, Jaccard()], ids=["network", "jaccard"])
def test_checkpointing_changes_nothing_but_memory(relation):
    plain, saving = (CORSD(classifier(), relation=relation, checkpoint=c) for c in (False, True))
    saving.load_state_dict(plain.state_dict())
    batch = triples()

    def kept(method):
        sizes = {}

        def pack(tensor):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = sum(method.losses(batch).values())
        loss.backward()
        return sum(sizes.values())

    assert kept(saving) < kept(plain)
    for (name, p), (_, q) in zip(plain.named_parameters(), saving.named_parameters()):
        torch.testing.assert_close(p.grad, q.grad, msg=lambda m, name=name: f"{name}: {m}")
    for name, value in plain.state_dict().items():
        assert torch.equal(value, saving.state_dict()[name]), name


@pytest.mark.parametrize("relation", [None, Jaccard()], ids=["network", "jaccard"])
def test_bfloat16_autocast_is_close(relation):
    method, batch = CORSD(classifier(), relation=relation), triples(n=8)
    full = method.losses(batch)
    with torch.autocast("cpu", torch.bfloat16):
        half = method.losses(batch)
    for name, value in half.items():
        assert value.dtype == torch.float32, name
        torch.testing.assert_close(value, full[name], rtol=0.1, atol=2e-3)


def test_a_few_steps_teach_the_relation():
    method, batch = CORSD(classifier("resnet8x4"), alpha=1.0, beta=0.1), triples(n=6)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.05, momentum=0.9)
    history = []
    for _ in range(12):
        terms = method.losses(batch)
        history.append({name: term.item() for name, term in terms.items()})
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
    # Equal distances of positive and negative pairs cost 1 at each of the three depths.
    assert history[0]["triplet"] > 2.5
    assert history[-1]["triplet"] < 1.5
    assert history[-1]["negative_task"] < history[0]["negative_task"]


@pytest.mark.parametrize("make", [CORSD, RelationL2], ids=["corsd", "relation-l2"])
def test_the_backbone_stays_plain(make):
    backbone = classifier()
    before = {name: value.clone() for name, value in backbone.model.state_dict().items()}
    method = make(backbone)
    after = method.backbone.model.state_dict()
    assert list(before) == list(after) == list(classifier().model.state_dict())
    assert all(torch.equal(value, after[name]) for name, value in before.items())
