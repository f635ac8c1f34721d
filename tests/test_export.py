"""An exported encoder is the plain model: rebuilt without Relatum, it gives the same numbers."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from relatum.networks.backbones import Backbone
from relatum.networks.export import checksum, load_encoder, normalized_noise, save_encoder, save_onnx
from relatum.networks.small_resnets import SMALL_RESNETS

COLOR = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3), "size": 32}

CASES = [
    ("test_resnet", "imagenet", 3, 0),
    ("test_resnet", "cifar", 1, 4),
    ("test_resnet", "tiny", 3, 4),
    ("preact_resnet18", "cifar", 3, 4),
    ("mobilenetv1", "cifar", 3, 4),
    ("resnet20", "cifar", 1, 4),
    ("wrn_16_2", "cifar", 3, 0),
]


def trained(name: str, stem: str, channels: int = 3, classes: int = 0) -> Backbone:
    """A backbone whose weights and statistics are not those that it starts from."""
    backbone = Backbone(name, stem=stem, in_channels=channels, num_classes=classes)
    for parameter in backbone.parameters():
        if parameter.ndim == 1:
            nn.init.uniform_(parameter, 0.5, 1.0)
    with torch.no_grad():
        backbone(torch.randn(4, channels, 32, 32))
    return backbone.eval()


def described(channels: int) -> dict:
    return {"mean": (0.5,) * channels, "std": (0.25,) * channels, "size": 32}


# Imports of Relatum fail in here; the output goes back through a file.
REBUILD = """
import runpy, sys
sys.modules["relatum"] = None
import torch
from safetensors.torch import load_file, save_file
sys.path.insert(0, sys.argv[1])
for case in sys.argv[2:]:
    sys.modules.pop("small_resnets", None)
    sys.path[0] = case
    script = runpy.run_path(case + "/encoder.py")
    model = script["encoder"]()
    assert not model.training
    images = load_file(case + "/images")["images"]
    with torch.no_grad():
        embedding = model.forward_head(model.forward_features(images), pre_logits=True)
        save_file({"output": model(images), "embedding": embedding}, case + "/output")
    assert script["SIZE"] == 32 and len(script["MEAN"]) == len(script["STD"]) == images.shape[1]
    assert script["CLASSES"] is None or len(script["CLASSES"]) == 4
"""


def test_the_script_rebuilds_every_family_without_relatum(tmp_path: Path) -> None:
    backbones, folders = [], []
    for i, (name, stem, channels, classes) in enumerate(CASES):
        backbone = trained(name, stem, channels, classes)
        folder = tmp_path / str(i)
        names = ['a"', "b'", "{c}", "d\\"] if classes else None
        save_encoder(backbone, folder, **described(channels), classes=names)
        save_file({"images": torch.randn(2, channels, 32, 32)}, folder / "images")
        backbones.append(backbone)
        folders.append(folder)
    run = subprocess.run(
        [sys.executable, "-c", REBUILD, "", *map(str, folders)], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    for case, backbone, folder in zip(CASES, backbones, folders, strict=True):
        with torch.no_grad():
            features = backbone(load_file(folder / "images")["images"])
        found = load_file(folder / "output")
        expected = features.embedding if features.logits is None else features.logits
        torch.testing.assert_close(found["embedding"], features.embedding, msg=str(case))
        torch.testing.assert_close(found["output"], expected, msg=str(case))


def test_the_script_alone_runs_where_it_lies(tmp_path: Path) -> None:
    save_encoder(trained("resnet20", "cifar"), tmp_path / "student.safetensors", **COLOR)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["small_resnets.py", "student.py", "student.safetensors"]
    run = subprocess.run([sys.executable, "student.py"], cwd=tmp_path, capture_output=True, text=True)
    assert run.stdout.startswith("SmallResNet("), run.stderr


@pytest.mark.parametrize(("name", "stem", "channels", "classes"), CASES)
def test_load_gives_back_what_was_saved(name: str, stem: str, channels: int, classes: int, tmp_path: Path) -> None:
    backbone = trained(name, stem, channels, classes)
    names = tuple("abcd") if classes else None
    file = save_encoder(backbone, tmp_path, **described(channels), classes=names)
    for path in (tmp_path, str(file)):
        loaded, info = load_encoder(path)
        assert (info.architecture, info.stem) == (name, stem)
        assert (info.in_channels, info.num_classes, info.classes) == (channels, classes, names)
        assert (info.mean, info.std, info.size) == ((0.5,) * channels, (0.25,) * channels, 32)
        images = torch.randn(2, channels, 32, 32)
        assert not loaded.training
        assert torch.equal(loaded.embed(images), backbone.embed(images))


def test_only_the_plain_model_is_left(tmp_path: Path) -> None:
    backbone = trained("test_resnet", "imagenet", classes=4)
    backbone.head_for_training = nn.Linear(96, 8)
    keys = set(load_file(save_encoder(backbone, tmp_path / "timm", **COLOR)))
    assert keys == set(timm.create_model("test_resnet", num_classes=4).state_dict())
    keys = set(load_file(save_encoder(trained("resnet20", "cifar"), tmp_path / "small", **COLOR)))
    assert keys == set(SMALL_RESNETS["resnet20"]().state_dict())


def test_weights_of_another_memory_layout_are_saved_and_an_old_file_is_replaced(tmp_path: Path) -> None:
    save_encoder(trained("resnet20", "cifar", classes=3), tmp_path, **COLOR)
    backbone = trained("test_resnet", "cifar").to(memory_format=torch.channels_last)
    save_encoder(backbone, tmp_path, **COLOR)
    loaded, _ = load_encoder(tmp_path)
    for name, tensor in backbone.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor)
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": (0.5,)}, r"mean is \(0.5,\).*expected 3 numbers each"),
        ({"std": (0.2, 0.0, 0.2)}, "std above 0"),
        ({"size": 3}, "size is 3; resnet20 takes at least"),
        ({"classes": ["cat"]}, "classes has 1 names; expected 0"),
    ],
    ids=["mean", "std", "size", "classes"],
)
def test_a_description_that_contradicts_the_backbone_is_refused(change: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        save_encoder(Backbone("resnet20", stem="cifar"), tmp_path / "x", **{**COLOR, **change})
    assert not (tmp_path / "x").exists()


def test_a_missing_encoder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no encoder at .*encoder\.safetensors"):
        load_encoder(tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 500, -1], ids=["empty", "length", "header", "last-byte"])
def test_a_truncated_file_is_refused(keep: int, tmp_path: Path) -> None:
    file = save_encoder(trained("resnet20", "cifar"), tmp_path, **COLOR)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match="is damaged"):
        load_encoder(file)


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    file = tmp_path / "encoder.safetensors"
    torch.save({"weight": torch.zeros(3)}, file)
    with pytest.raises(ValueError, match="is damaged"):
        load_encoder(file)


def rewritten(file: Path, tensors: dict | None = None, **changes: object) -> None:
    _, info = load_encoder(file)
    header = json.dumps({**info.__dict__, **changes})
    sealed(file, load_file(file) if tensors is None else tensors, header)


def sealed(file: Path, tensors: dict, header: str) -> None:
    """A file whose checksum is right, whatever it holds."""
    save_file(tensors, file, metadata={"relatum": header, "sha256": checksum(header, tensors)})


def test_foreign_and_contradictory_files_are_refused(tmp_path: Path) -> None:
    file = save_encoder(trained("resnet20", "cifar"), tmp_path, **COLOR)
    state = load_file(file)
    fewer = {name: tensor for name, tensor in state.items() if name != "conv1.weight"}

    rewritten(file, {**state, "extra": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"do not agree .*extra"):
        load_encoder(file)
    save_encoder(trained("resnet20", "cifar"), tmp_path, **COLOR)
    rewritten(file, fewer)
    with pytest.raises(ValueError, match=r"do not agree .*conv1\.weight"):
        load_encoder(file)
    save_encoder(trained("resnet20", "cifar"), tmp_path, **COLOR)
    rewritten(file, architecture="resnet21")
    with pytest.raises(ValueError, match=r"unknown backbone 'resnet21'.*If it is of a plugin, name its file"):
        load_encoder(file)
    sealed(file, state, "not json")
    with pytest.raises(ValueError, match="do not agree"):
        load_encoder(file)
    save_file(state, file)
    with pytest.raises(ValueError, match="no description"):
        load_encoder(file)


def test_no_flipped_bit_is_accepted(tmp_path: Path) -> None:
    """One bit anywhere: header, description, names, weights. What is still read must be what was written."""
    file = save_encoder(trained("resnet8", "cifar", classes=3), tmp_path, classes=("a", "b", "c"), **COLOR)
    raw = file.read_bytes()
    state, (_, info) = load_file(file), load_encoder(file)
    header = int.from_bytes(raw[:8], "little") + 8
    generator = torch.Generator().manual_seed(0)
    places = torch.cat([torch.randint(0, header, (60,), generator=generator), torch.randint(header, len(raw), (40,))])
    refused = 0
    for place in places.tolist():
        bit = 1 << int(torch.randint(0, 8, (), generator=generator))
        file.write_bytes(raw[:place] + bytes([raw[place] ^ bit]) + raw[place + 1 :])
        try:
            backbone, found = load_encoder(file)
        except ValueError:
            refused += 1
            continue
        assert found == info
        assert all(torch.equal(v, state[k]) for k, v in backbone.model.state_dict().items())
    assert refused >= 98, "a bit that changes nothing, such as one of the padding, is rare"


def test_a_file_without_a_checksum_is_refused(tmp_path: Path) -> None:
    file = save_encoder(trained("resnet8", "cifar"), tmp_path, **COLOR)
    _, info = load_encoder(file)
    save_file(load_file(file), file, metadata={"relatum": json.dumps(info.__dict__)})
    with pytest.raises(ValueError, match="do not match the checksum"):
        load_encoder(file)


def test_onnx_equals_pytorch_for_any_batch(tmp_path: Path) -> None:
    backbone = trained("test_resnet", "cifar", classes=4).train().to(memory_format=torch.channels_last)
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    file = save_onnx(backbone, tmp_path / "deep" / "encoder.onnx", torch.randn(1, 3, 32, 32))
    assert [p.name for p in file.parent.iterdir()] == ["encoder.onnx"]
    assert backbone.training
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    assert [o.name for o in session.get_outputs()] == ["embedding", "logits"]
    images = torch.randn(5, 3, 32, 32)
    with torch.no_grad():
        _, *expected = backbone.eval()(images)
    for y, found in zip(expected, session.run(None, {"images": images.numpy()}), strict=True):
        np.testing.assert_allclose(found, y.numpy(), atol=1e-3 * y.abs().max().item())


def test_an_onnx_file_that_differs_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(onnxruntime.InferenceSession):
        def run(self, names: object, feed: dict) -> list:
            return [y * 1.01 for y in super().run(names, feed)]

    backbone, images = trained("resnet20", "cifar"), torch.randn(2, 3, 16, 16)
    programs = []
    export = torch.onnx.export
    monkeypatch.setattr(torch.onnx, "export", lambda *a, **k: programs.append(export(*a, **k)) or programs[0])
    right = save_onnx(backbone, tmp_path / "encoder.onnx", images)
    assert [o.name for o in onnxruntime.InferenceSession(right).get_outputs()] == ["embedding"]

    monkeypatch.setattr(torch.onnx, "export", lambda *a, **k: programs[0])  # the same file, seen by a wrong runtime
    monkeypatch.setattr(onnxruntime, "InferenceSession", Wrong)
    with pytest.raises(RuntimeError, match=r"embedding of 2 images differs by .* expected at most 0.001"):
        save_onnx(backbone, tmp_path / "other.onnx", images)
    assert list(tmp_path.iterdir()) == [right]


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_onnx_without_its_packages_names_the_extra(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"needs {package}, .*pip install 'relatum\[onnx\]'"):
        save_onnx(Backbone("resnet20", stem="cifar"), tmp_path / "x.onnx", torch.randn(1, 3, 8, 8))


def test_onnx_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="images is empty"):
        save_onnx(Backbone("resnet20", stem="cifar"), tmp_path / "x.onnx", torch.empty(0, 3, 8, 8))


def test_onnx_states_its_preprocessing_and_checks_itself_on_noise(tmp_path: Path) -> None:
    backbone = trained("resnet20", "cifar", classes=4)
    _, info = load_encoder(save_encoder(backbone, tmp_path, **COLOR, classes=list("abcd")))
    session = onnxruntime.InferenceSession(save_onnx(backbone, tmp_path / "encoder.onnx", info=info))
    assert json.loads(session.get_modelmeta().custom_metadata_map["relatum"]) == json.loads(json.dumps(asdict(info)))
    model = onnx.load(tmp_path / "encoder.onnx")
    assert model.graph.input[0].doc_string == (
        "RGB, values in [0, 1], 32 x 32 pixels, less mean [0.5, 0.4, 0.3] and over std [0.2, 0.25, 0.3] of each "
        "channel; n x 3 x 32 x 32, float32"
    )
    noise = normalized_noise(info)
    assert noise.shape == (8, 3, 32, 32)
    pixels = noise * torch.tensor(COLOR["std"]).view(-1, 1, 1) + torch.tensor(COLOR["mean"]).view(-1, 1, 1)
    assert -1e-6 <= pixels.min() <= pixels.max() <= 1 + 1e-6
    with pytest.raises(ValueError, match="neither images nor info is given"):
        save_onnx(backbone, tmp_path / "other.onnx")
