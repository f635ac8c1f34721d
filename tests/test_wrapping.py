"""Any module as a backbone: what its embedding is, its stages, what is refused, and that it trains and is exported."""

import copy
import re
import runpy
from types import SimpleNamespace

import pytest
import torch
import torchvision
from torch import nn

from relatum import AT, SP, Backbone, Batch, FitNet, SimCLR, load_encoder, save_encoder
from relatum.methods import METHODS


class Tiny(nn.Module):
    """Two convolutions of stride 2, a pool and a classifier, as people write them."""

    def __init__(self, classes: int = 7) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1), nn.ReLU())
        self.fc = nn.Linear(6, classes)

    def forward(self, images):
        return self.fc(self.second(self.first(images)).mean((2, 3)))


class Returns(nn.Module):
    """A module that returns what a function makes of its images."""

    def __init__(self, output) -> None:
        super().__init__()
        self.output = output
        self.body = nn.Conv2d(3, 5, 4, 4)

    def forward(self, images):
        return self.output(self.body(images))


def tokens(maps):
    return maps.flatten(2).transpose(1, 2)


MAPS, TOKENS = torch.rand(2, 5, 3, 3), torch.rand(2, 9, 5)


@pytest.mark.parametrize(
    ("output", "pool", "expected"),
    [
        (lambda x: x.mean((2, 3)), "auto", lambda x: x.mean((2, 3))),
        (lambda x: x, "auto", lambda x: x.mean((2, 3))),
        (lambda x: SimpleNamespace(pooler_output=x[:, :, 0, 0], last_hidden_state=x), "auto", lambda x: x[:, :, 0, 0]),
        (lambda x: SimpleNamespace(pooler_output=x), "auto", lambda x: x.mean((2, 3))),
        (lambda x: SimpleNamespace(pooler_output=None, last_hidden_state=x), "auto", lambda x: x.mean((2, 3))),
        (lambda x: SimpleNamespace(pooler_output=x, last_hidden_state=tokens(x)), "first", lambda x: x[:, :, 0, 0]),
        (tokens, "first", lambda x: x[:, :, 0, 0]),
        (tokens, "mean", lambda x: x.mean((2, 3))),
        (lambda x: {"deep": [x]}, lambda out: out["deep"][0].amax((2, 3)), lambda x: x.amax((2, 3))),
    ],
    ids=["rows", "map", "pooler", "pooler-map", "hidden-map", "object-first", "first", "mean", "function"],
)  # fmt: skip
def test_the_embedding_follows_the_rule(output, pool, expected):
    module = Returns(output)
    backbone = Backbone.wrap(module, pool=pool, size=12)
    images = torch.rand(3, 3, 12, 12)
    assert backbone.embedding_dim == 5
    torch.testing.assert_close(backbone.embed(images), expected(module.body(images)))
    assert backbone(images).logits is None


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (tokens, r'returns a tensor 2 x 9 x 5, of which .* pool="first"'),
        (lambda x: (x, x), "returns a tuple"),
        (lambda x: {"out": x}, "returns a dict of out"),
        (lambda x: SimpleNamespace(logits=x.mean((2, 3))), "returns a SimpleNamespace"),
    ],
)
def test_an_output_without_a_plain_embedding_is_refused(output, said):
    with pytest.raises(ValueError, match=said):
        Backbone.wrap(Returns(output), size=12)


def test_stages_are_the_outputs_of_named_children_and_a_classifier_keeps_its_weights():
    plain = Tiny()
    twin = copy.deepcopy(plain)
    backbone = Backbone.wrap(plain, stages=("first", "second.0"), classifier="fc", num_classes=7, size=16)
    images = torch.rand(4, 3, 16, 16)
    found = backbone.train()(images)
    maps = twin.first(images)
    torch.testing.assert_close(found.stages[0], maps)
    torch.testing.assert_close(found.stages[1], twin.second[0](maps))
    torch.testing.assert_close(found.logits, twin.fc(found.embedding))
    assert (backbone.stage_channels, backbone.stage_strides, backbone.embedding_dim) == ((4, 6), (2, 4), 6)
    assert all(not part._forward_hooks for part in backbone.modules())
    fresh = Backbone.wrap(Tiny(), classifier="fc", num_classes=3, size=16)
    assert fresh(images).logits.shape == (4, 3)


def test_tokens_of_a_stage_become_a_square_without_the_class_token():
    class Transformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch, self.block = nn.Conv2d(3, 5, 4, 4), nn.Identity()

        def forward(self, images):
            patches = tokens(self.patch(images))
            return self.block(torch.cat([patches.mean(1, keepdim=True), patches], 1))[:, 0]

    module = Transformer()
    images = torch.rand(2, 3, 12, 12)
    found = Backbone.wrap(module, stages=("block",), size=12)(images)
    torch.testing.assert_close(found.stages[0], module.patch(images))
    with pytest.raises(ValueError, match="tokens n x t x c of a square image"):
        Backbone.wrap(module, stages=("block",), size=12)(torch.rand(2, 3, 8, 16))


def test_a_trial_leaves_the_module_and_random_numbers_as_they_were():
    module = Tiny().train()
    module.first.eval()
    before = copy.deepcopy(module.state_dict())
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    Backbone.wrap(module, size=16)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())
    assert module.training
    assert not module.first[1].training


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"stages": ("firts",)}, "stages names 'firts', and Tiny has no such child; it has first, second, fc"),
        ({"classifier": "head"}, "classifier is 'head', and Tiny has no such child"),
        ({"classifier": "first"}, "classifier is 'first', and that is a Sequential; expected the linear layer"),
        ({"in_channels": 1}, "tried with images 2 x 1 x 16 x 16 and failed .*in_channels="),
        ({"stages": ("fc",)}, "stage 'fc' of wrapped:Tiny gives a tensor 2 x 7; expected a map"),
        ({"stages": ("second.0",), "size": 0}, "size 0; expected at least"),
        ({"num_classes": -1}, "num_classes is -1"),
    ],
)
def test_what_does_not_fit_is_refused(chosen, said):
    with pytest.raises(ValueError, match=said):
        Backbone.wrap(Tiny(), **{"size": 16, **chosen})


def test_a_stage_that_is_overwritten_is_refused():
    module = Tiny()
    module.second[1] = nn.ReLU(inplace=True)
    with pytest.raises(ValueError, match=r"'second\.0' of wrapped:Tiny is overwritten by the layer behind it"):
        Backbone.wrap(module, stages=("second.0",), size=16)


def test_images_of_other_channels_are_refused():
    with pytest.raises(ValueError, match="images have 1 channels; wrapped:Tiny was wrapped for 3"):
        Backbone.wrap(Tiny(), size=16).embed(torch.rand(2, 1, 16, 16))


def teacher():
    return Backbone("resnet8", stem="cifar", num_classes=5)


@pytest.mark.parametrize("kind", [FitNet, AT, SP])
def test_methods_on_stages_refuse_a_module_without_them(kind):
    bare = Backbone.wrap(Tiny(), classifier="fc", num_classes=5, size=16)
    with pytest.raises(ValueError, match=r"wrapped:Tiny has 0 stage\(s\) .*stages=\("):
        kind(bare, teacher=teacher())
    with pytest.raises(ValueError, match=r"wrapped:Tiny has 0 stage\(s\)"):
        kind(teacher(), teacher=bare)


@pytest.mark.parametrize("name", ["sd", "corsd", "relation-l2"])
def test_methods_that_teach_themselves_refuse_a_module_without_stages(name):
    with pytest.raises(ValueError, match=r"wrapped:Tiny has 0 stage\(s\)"):
        METHODS[name](Backbone.wrap(Tiny(), classifier="fc", num_classes=5, size=16))


def test_mutual_learning_needs_the_name_of_its_peers():
    backbone = Backbone.wrap(Tiny(), classifier="fc", num_classes=5, size=16)
    with pytest.raises(ValueError, match="wrapped:Tiny is a module that was wrapped in Python, and no name builds it"):
        METHODS["dml"](backbone)


@pytest.mark.parametrize("name", ["fitnet", "at", "sp", "rkd", "cc", "kd"])
def test_a_wrapped_student_learns_from_a_wrapped_teacher(name):
    student, taught = (
        Backbone.wrap(Tiny(), stages=("first", "second"), classifier="fc", num_classes=7, size=16) for _ in range(2)
    )
    method = METHODS[name](student, teacher=taught)
    batch = Batch((torch.rand(4, 3, 16, 16),), torch.arange(4)[None], torch.arange(4)[None])
    sum(method.losses(batch).values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in student.parameters())


def test_chunks_of_a_wrapped_module_have_the_gradient_of_the_batch():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.Tanh())
    gradients = []
    for chunk in (0, 2):
        backbone = Backbone.wrap(copy.deepcopy(module), size=16).double()
        backbone.chunk = chunk
        images = torch.rand(5, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        backbone.embed(images).square().sum().backward()
        gradients.append(backbone.module[0].weight.grad)
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=0)


def test_torchvision_s_network_is_the_same_network():
    """Its embedding is the input of its classifier, its stages those that `Backbone` finds in timm's twin."""
    theirs = torchvision.models.resnet18(num_classes=6)
    backbone = Backbone.wrap(
        copy.deepcopy(theirs), stages=[f"layer{i}" for i in range(1, 5)], classifier="fc", num_classes=6, size=64
    ).eval()
    theirs.eval()
    images = torch.rand(2, 3, 64, 64)
    found = backbone(images)
    torch.testing.assert_close(found.logits, theirs(images))
    ours = Backbone("resnet18", num_classes=6)
    ours.model.load_state_dict(theirs.state_dict())
    twin = ours.eval()(images)
    assert backbone.stage_channels == ours.stage_channels
    assert backbone.stage_strides == ours.stage_strides
    for a, b in zip(found.stages, twin.stages, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_an_export_gives_the_weights_back_and_its_program_runs_without_relatum(tmp_path):
    def wrapped():
        return Backbone.wrap(Tiny(), classifier="fc", num_classes=4, size=16)

    backbone = wrapped().eval()
    save_encoder(backbone, tmp_path, mean=(0.5,) * 3, std=(0.2,) * 3, size=16)
    other, info = load_encoder(tmp_path, wrapped())
    images = torch.ones(1, 3, 16, 16)
    assert torch.equal(other(images).logits, backbone(images).logits)
    assert info.architecture == "wrapped:Tiny"
    with pytest.raises(ValueError, match=r"no name builds it: give it as .*load_encoder\(run, backbone\)"):
        load_encoder(tmp_path)
    with pytest.raises(ValueError, match="do not agree"):
        load_encoder(tmp_path, Backbone.wrap(Tiny(), size=16))
    program = runpy.run_path(str(tmp_path / "encoder.py"))
    module = Tiny()
    module.fc = nn.Identity()
    model = program["encoder"](module)
    assert torch.equal(model["classifier"](model["module"](images)), backbone(images).logits)
    assert not re.search(r"^\s*(import|from) relatum", (tmp_path / "encoder.py").read_text(), re.MULTILINE)


def test_onnx_of_a_wrapped_module_with_stages(tmp_path):
    from relatum import save_onnx

    backbone = Backbone.wrap(Tiny(), stages=("first",), classifier="fc", num_classes=7, size=16)
    save_onnx(backbone, tmp_path / "tiny.onnx", torch.rand(3, 3, 16, 16))


def test_a_contrastive_method_takes_it():
    backbone = Backbone.wrap(Tiny(), classifier="fc", size=16)
    method = SimCLR(backbone)
    sum(method.losses(Batch.unlabeled(torch.rand(4, 3, 16, 16), torch.rand(4, 3, 16, 16))).values()).backward()
    assert all(p.grad is not None for p in backbone.parameters())
