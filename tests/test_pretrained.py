"""Weights that others have published: from a file, or a clear word where there is no network."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from relatum.networks.backbones import Backbone
from relatum.networks.export import load_encoder, save_encoder
from relatum.recipes.building import build, prepare
from relatum.recipes.recipe import from_dict
from relatum.training.loop import fit
from test_before_decoding import MANY, SUPERVISED, decoded, merged, photos

__all__ = ["decoded"]  # a fixture


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A file as timm publishes it: 1,000 classes, three channels."""
    torch.manual_seed(5)
    model = timm.create_model("test_resnet", num_classes=1000)
    file = tmp_path_factory.mktemp("hub") / "model.safetensors"
    save_file(model.state_dict(), file)
    torch.save(model.state_dict(), file.with_suffix(".pth"))
    return model.state_dict(), file


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_backbone_starts_from_a_file_of_published_weights(published, suffix):
    state, file = published
    network = Backbone("test_resnet", num_classes=3, pretrained=file.with_suffix(suffix)).model.state_dict()
    same = {name for name in state if name in network and torch.equal(network[name], state[name])}
    assert set(state) - same == {"fc.weight", "fc.bias"}
    changed = Backbone("test_resnet", stem="cifar", pretrained=file).model.state_dict()
    assert not torch.equal(next(iter(changed.values())), next(iter(state.values())))


def test_a_recipe_starts_from_it_and_trains(published, tmp_path):
    state, file = published
    tree = merged(SUPERVISED, {"data": {"source": str(photos(tmp_path / "photos", **MANY)), "workers": 0}})
    model = {"name": "test_resnet", "stem": "imagenet", "initial": str(file), "pretrained": True}
    recipe = from_dict(merged(tree, {"model": model, "data": {"view": {"size": 64}}, "optim": {"lr": 0.0}}))
    weights = build(recipe, prepare(recipe)).backbone.model.state_dict()
    assert torch.equal(weights["layer1.0.conv1.weight"], state["layer1.0.conv1.weight"])
    fit(recipe, tmp_path / "run", quiet=True)
    trained, _ = load_encoder(tmp_path / "run")
    assert torch.equal(trained.model.state_dict()["layer1.0.conv1.weight"], state["layer1.0.conv1.weight"])


def test_a_file_of_other_weights_is_refused(published, tmp_path):
    _, file = published
    with pytest.raises(ValueError, match=r"does not hold the weights of resnet18 .*expected its published file"):
        Backbone("resnet18", pretrained=file)
    text = tmp_path / "weights.pth"
    text.write_text("not weights")
    with pytest.raises(ValueError, match="does not hold the weights of test_resnet"):
        Backbone("test_resnet", pretrained=text)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        Backbone("test_resnet", pretrained=tmp_path / "nowhere.safetensors")


def test_an_encoder_of_ours_is_still_known_by_its_header(tmp_path):
    save_encoder(Backbone("resnet8", stem="cifar"), tmp_path / "run", mean=(0.5,) * 3, std=(0.5,) * 3, size=24)
    tree = merged(SUPERVISED, {"data": {"source": str(photos(tmp_path / "photos", **MANY))}})
    for start in (tmp_path / "run", tmp_path / "run" / "encoder.safetensors"):
        recipe = from_dict(merged(tree, {"model": {"initial": str(start)}}))
        weights = build(recipe, prepare(recipe)).backbone.model.state_dict()
        expected = load_encoder(tmp_path / "run")[0].model.state_dict()
        assert torch.equal(weights["conv1.weight"], expected["conv1.weight"])


def test_without_a_network_the_error_says_what_to_do_and_comes_before_decoding(tmp_path, monkeypatch, decoded):
    def no_network(*args, **kwargs):
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", no_network)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_url", no_network)
    tree = merged(SUPERVISED, {"data": {"source": str(photos(tmp_path / "photos", **MANY)), "view": {"size": 64}}})
    model = {"name": "resnet18", "stem": "imagenet", "pretrained": True}
    with pytest.raises(OSError, match=r"could not be downloaded \(Name or service not known\).*--model\.initial FILE"):
        fit(from_dict(merged(tree, {"model": model})), tmp_path / "run", quiet=True)
    assert decoded == []
