"""ReviewKD (Chen et al. 2021)."""

import pytest
import torch

import reference
from distilling import batch, compared, student, teacher, values
from relatum.methods.distill.review_kd import Fusion, ReviewKD, hierarchical_context_loss
from relatum.networks.backbones import Backbone


def nearest(maps, size):
    """Each pixel of the new grid is the one whose part it lies in."""
    n, c, h, w = maps.shape
    rows, columns = ([i * old // new for i in range(new)] for old, new in ((h, size[0]), (w, size[1])))
    return torch.stack([maps[:, :, i, j] for i in rows for j in columns], -1).reshape(n, c, *size)


def fused(fusion, maps, deeper, size):
    """The fusion of the paper's Figure 3, pixel by pixel, of what its layers give."""
    own = fusion.narrow(maps)
    if deeper is not None:
        deeper = nearest(deeper, maps.shape[2:])
        mixed = torch.empty_like(own)
        weight, bias = fusion.attention.weight[:, :, 0, 0], fusion.attention.bias
        for i in range(own.shape[2]):
            for j in range(own.shape[3]):
                a, b = own[:, :, i, j], deeper[:, :, i, j]
                share = 1 / (1 + (-(torch.cat([a, b], 1) @ weight.T + bias)).exp())
                mixed[:, :, i, j] = share[:, :1] * a + share[:, 1:] * b
        own = mixed
    own = nearest(own, size)
    return fusion.adapt(own), own


def test_the_common_width_is_that_of_the_embedding_up_to_512():
    """Of ShuffleNetV2 the last stage has 464 channels, and the embedding 1,024."""
    network = Backbone("cifar_shufflenetv2", stem="cifar", num_classes=10)
    assert (network.stage_channels[-1], network.embedding_dim) == (464, 1024)
    assert {fusion.narrow[0].out_channels for fusion in ReviewKD(network, teacher=teacher()).fusions} == {512}
    assert {fusion.narrow[0].out_channels for fusion in ReviewKD(student(), teacher=teacher()).fusions} == {
        student().embedding_dim
    }


@pytest.mark.parametrize("kind", ["three-stages", "four-stages"])
def test_review_kd_equals_the_loop(kind):
    method = ReviewKD(student().double(), teacher=teacher(kind).double(), weight=0.6, kd_weight=0.5, width=8)
    method = method.double().eval()
    given = batch(dtype=torch.float64)
    s, t, y = compared(method, given)
    maps, goals = ([torch.tensor(f.embedding)[:, :, None, None], *map(torch.tensor, f.stages[::-1])] for f in (s, t))
    assert len(method.fusions) == 4  # three stages of the student and its embedding
    total, deeper = 0.0, None
    with torch.no_grad():
        for fusion, own, goal in zip(method.fusions, maps, goals):
            adapted, deeper = fused(fusion, own, deeper, goal.shape[2:])
            total += reference.hierarchical_context(adapted.numpy(), goal.numpy())
    expected = {
        "task": reference.cross_entropy(s.logits, y),
        "kd": 0.5 * reference.distillation(s.logits, t.logits, 4.0),
        "review": 0.6 * total,
    }
    assert values(method.losses(given)) == pytest.approx(expected, rel=1e-9)


def test_what_is_deeper_reaches_every_shallower_map_and_not_the_other_way():
    """The gradient of one map's term: in the layers of its depth and of all deeper ones, and in no shallower."""
    method = ReviewKD(student(), teacher=teacher())
    features = method.backbone(batch().views[0])
    maps = [features.embedding[:, :, None, None], *features.stages[::-1]]
    for depth in range(4):
        reviewed = None
        for fusion, own in zip(method.fusions[: depth + 1], maps):
            adapted, reviewed = fusion(own, reviewed, (4, 4))
        method.zero_grad()
        adapted.sum().backward(retain_graph=True)
        trained = [fusion.narrow[0].weight.grad is not None for fusion in method.fusions]
        assert trained == [i <= depth for i in range(4)]


def test_the_weight_grows_during_the_warm_up():
    method, given = ReviewKD(student(), teacher=teacher(), warmup=0.2).eval(), batch()
    found = []
    for progress in (0.0, 0.1, 0.2, 0.8):
        method.after_step(progress)
        found.append(values(method.losses(given))["review"])
    assert found == pytest.approx([0, 0.5 * found[3], found[3], found[3]], rel=1e-6)
    assert found[3] > 0


def test_maps_of_one_pixel_and_of_any_shape_compare():
    a, b = torch.randn(2, 3, 5, 1, 1)
    assert hierarchical_context_loss(a, b).item() == pytest.approx(((a - b) ** 2).mean().item())
    fusion = Fusion(5, 4, 6, alone=True).eval()
    adapted, handed_on = fusion(torch.randn(2, 5, 3, 7), None, (2, 9))
    assert adapted.shape == (2, 6, 2, 9)
    assert handed_on.shape == (2, 4, 2, 9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ReviewKD(student(), teacher=teacher(), weight=-1.0), "weight is -1.0"),
        (lambda: ReviewKD(student(), teacher=teacher(), width=0), "width is 0"),
        (lambda: ReviewKD(student(), teacher=teacher(), warmup=1.0), "warmup is 1.0"),
        (lambda: ReviewKD(student(), teacher=teacher(num_classes=7), kd_weight=1.0), "7 classes .* 5"),
        (lambda: ReviewKD(student(0), teacher=teacher()), "num_classes=0"),
    ],
)
def test_what_cannot_work_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
