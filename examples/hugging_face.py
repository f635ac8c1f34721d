"""A Hugging Face model as a backbone, trained by `fit`, and given back with what it has learned.

    pip install transformers
    python examples/hugging_face.py

The model here has random weights; `ViTModel.from_pretrained("facebook/dino-vits16")` is wrapped in the same way.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

from sklearn.datasets import load_digits
from torch import Tensor, tensor
from torch.nn import functional as F
from transformers import ViTConfig, ViTModel

import relatum
from relatum import Backbone, Record


def vit() -> ViTModel:
    """A vision transformer of two layers for images of 32 pixels, without its pooler."""
    config = ViTConfig(
        image_size=32, patch_size=8, hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=96
    )
    return ViTModel(config, add_pooling_layer=False)


def digits() -> tuple[Tensor, Tensor]:
    """Scikit-learn's 1,797 digits as color images of 32 pixels, and what they are."""
    found = load_digits()
    gray = F.interpolate(tensor(found.images).float()[:, None], (32, 32), mode="bilinear")
    return (gray * 255 / 16).byte().expand(-1, 3, -1, -1), tensor(found.target)


def main(run: Path, epochs: int = 5, images: int = 1200) -> tuple[Record, ViTModel]:
    """Train it to classify digits, starting from the recipe `supervised`."""
    # Its output has no `pooler_output`, and tokens are no embedding: which of them are, is said by `pool`.
    backbone = Backbone.wrap(vit(), pool="mean", size=32, num_classes=10)
    recipe = relatum.RECIPES["supervised"]()
    recipe = replace(
        recipe,
        data=replace(recipe.data, batch_size=32, validation=0.0, view=replace(recipe.data.view, flip=0.0)),
        optim=replace(recipe.optim, name="adam", lr=3e-3, weight_decay=0.0, schedule="cosine", milestones=()),
        train=replace(recipe.train, epochs=epochs, accelerator="cpu"),
        evaluation=replace(recipe.evaluation, every=0, run=("classifier",), figures=False),
    )
    pixels, labels = digits()
    data = ((pixels[:images], labels[:images]), (pixels[-500:], labels[-500:]))
    record = relatum.fit(recipe, run, data=data, backbone=backbone)
    assert record is not None  # only of several processes do some get none
    trained = vit()
    relatum.load_encoder(run, Backbone.wrap(trained, pool="mean", size=32, num_classes=10))
    return record, trained


if __name__ == "__main__":
    print(main(Path(tempfile.mkdtemp()) / "run")[0].metrics)
