"""A torch Dataset in the place of a data set with a name.

python examples/torch_dataset.py
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

import relatum
from relatum import Record


class Rings(Dataset):
    """Rings and disks somewhere in a picture, as pairs (image, class): any Dataset of such pairs will do."""

    classes = ("disk", "ring")

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + i)
        label = i % 2
        y, x, radius = torch.rand(3, generator=generator).tolist()
        rows = torch.arange(32.0)
        distance = ((rows[:, None] - 10 - 12 * y).square() + (rows - 10 - 12 * x).square()).sqrt() / (5 + 4 * radius)
        inside = (distance < 1) & ((distance > 0.55) if label else (distance >= 0))
        noise = torch.rand(3, 32, 32, generator=generator)
        return ((0.6 * inside + 0.4 * noise) * 255).to(torch.uint8), label


def main(run: Path, epochs: int = 5, images: int = 800) -> Record:
    """Train a classifier of rings, starting from the recipe `supervised`."""
    recipe = relatum.RECIPES["supervised"]()
    recipe = replace(
        recipe,
        model=replace(recipe.model, name="resnet8"),
        data=replace(recipe.data, batch_size=32, validation=0.0),
        optim=replace(recipe.optim, lr=0.02, schedule="cosine", milestones=()),
        train=replace(recipe.train, epochs=epochs, accelerator="cpu"),
        evaluation=replace(recipe.evaluation, every=0, run=("classifier",), figures=False),
    )
    record = relatum.fit(recipe, run, data=(Rings(images, 0), Rings(images // 2, 1)))
    assert record is not None  # only of several processes do some get none
    return record


if __name__ == "__main__":
    print(main(Path(tempfile.mkdtemp()) / "run").metrics)
