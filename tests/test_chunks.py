"""Encoding in chunks: the gradient of the whole batch, in the memory of a chunk."""

import pytest
import torch

from relatum.core.types import Batch
from relatum.methods import SimCLR
from relatum.networks.backbones import Backbone
from relatum.training import loop as training
from test_training import TINY, changed

SIZE, N = 32, 7


def gradients(chunk: int, name: str, dropout: float = 0.0) -> tuple[float, list[torch.Tensor]]:
    torch.manual_seed(0)
    method = SimCLR(Backbone(name), out_width=8).double().train()
    for module in method.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    method.backbone.chunk = chunk
    views = tuple(torch.randn(N, 3, SIZE, SIZE, dtype=torch.float64) for _ in range(2))
    none = torch.zeros(2, N, dtype=torch.long)
    torch.manual_seed(1)
    loss = sum(method.losses(Batch(views, none, none)).values())
    loss.backward()
    return loss.item(), [p.grad for p in method.parameters()]


@pytest.mark.parametrize("chunk", [1, 5, 14, 100])  # of 14 views: ragged, whole, larger
def test_exact_without_batch_statistics(chunk):
    loss, expected = gradients(0, "test_convnext")
    found, chunked = gradients(chunk, "test_convnext")
    assert found == pytest.approx(loss, rel=1e-12)
    for a, b in zip(chunked, expected):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_not_exact_with_batch_statistics():
    """Why the trainer asks: the law above is no accident of an insensitive test."""
    loss, _ = gradients(0, "test_resnet")
    found, _ = gradients(5, "test_resnet")
    assert abs(found - loss) > 1e-6


def test_the_second_pass_has_the_randomness_of_the_first():
    """With dropout the loss is a function of the seed; its gradient must be that of the same draw."""
    torch.manual_seed(0)
    backbone = Backbone("test_vit", stem="imagenet").double().train()
    for module in backbone.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    backbone.chunk = 2
    images = torch.randn(4, 3, 160, 160, dtype=torch.float64)
    weight = next(p for n, p in backbone.named_parameters() if n.endswith("attn.proj.weight"))

    def value() -> torch.Tensor:
        torch.manual_seed(5)
        return backbone.embed(images).pow(2).sum()

    (gradient,) = torch.autograd.grad(value(), weight)
    step = 1e-6 * gradient / gradient.norm()
    weight.data += step
    above = value()
    weight.data -= 2 * step
    below = value()
    assert ((above - below) / 2e-6).item() == pytest.approx(gradient.norm().item(), rel=1e-4)


def saved_bytes(chunk: int, images: int) -> int:
    backbone = Backbone("test_convnext").train()
    backbone.chunk = chunk
    total = 0

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal total
        total += tensor.numel() * tensor.element_size() if tensor.grad_fn is not None else 0
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        backbone.embed(torch.randn(images, 3, SIZE, SIZE))
    return total


def test_what_is_held_for_the_gradient_does_not_grow_with_the_batch():
    assert saved_bytes(0, 32) > 4 * saved_bytes(0, 4)
    assert saved_bytes(4, 32) <= saved_bytes(4, 8) < saved_bytes(0, 4)


def test_batch_normalization_must_be_asked_for(tmp_path, caplog):
    recipe = changed(TINY, train={"chunk": 8, "epochs": 1}, evaluation={"every": 0})
    with pytest.raises(ValueError, match=r"batch normalization.*--train\.chunk-batchnorm"):
        training.fit(recipe, tmp_path / "refused", quiet=True)
    training.fit(changed(recipe, train={"chunk_batchnorm": True}), tmp_path / "asked", quiet=True)
    assert "running statistics move twice" in caplog.text
