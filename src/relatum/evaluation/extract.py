"""Images to embeddings, once, so that every evaluator after it is cheap."""

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from relatum.core.types import Embeddings


@torch.no_grad()
def extract(
    embed: Callable[[Tensor], Float[Tensor, "n d"]],
    batches: Iterable[tuple[Float[Tensor, "n c h w"], Int[Tensor, " n"]]],
) -> Embeddings:
    """`embed(images)` over all batches, in float32 on the CPU, in the order given.

    Args:
        embed: images to features; the caller puts the encoder behind it into eval mode, since a function cannot.
        batches: (images, labels), the images where `embed` wants them; labels are -1 where there are none.

    Raises:
        ValueError: if there is no batch.
    """
    parts = [(embed(images).float().cpu(), labels.cpu()) for images, labels in batches]
    if not parts:
        raise ValueError("no batch to embed; expected at least one: is the data set empty?")
    return Embeddings(torch.cat([f for f, _ in parts]), torch.cat([y for _, y in parts]))
