"""A Hugging Face model as a backbone, trained by `fit`, and given back with what it has learned.

    pip install transformers
    python examples/hugging_face.py

The model here has random weights; `ViTModel.from_pretrained("facebook/dino-vits16")` is wrapped in the same way.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

from transformers import ViTConfig, ViTModel

import relatum
from relatum import Backbone, Record


def vit() -> ViTModel:
    """A vision transformer of two layers for images of 32 pixels, without its pooler."""
    config = ViTConfig(
        image_size=32, patch_size=8, hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=96
    )
    return ViTModel(config, add_pooling_layer=False)


def main(run: Path, epochs: int = 5, images: int = 1200) -> tuple[Record, ViTModel]:
    """Train it on digits without labels, starting from the recipe `demo`."""
    # Its output has no `pooler_output`, and tokens are no embedding: which of them are, is said by `pool`.
    backbone = Backbone.wrap(vit(), pool="first", size=32)
    recipe = relatum.RECIPES["demo"]()
    recipe = replace(
        recipe,
        data=replace(recipe.data, source="digits", train_images=images, validation=0.0),
        train=replace(recipe.train, epochs=epochs, accelerator="cpu"),
        evaluation=replace(recipe.evaluation, every=0, run=("knn",), figures=False),
    )
    record = relatum.fit(recipe, run, backbone=backbone)
    trained = vit()
    relatum.load_encoder(run, Backbone.wrap(trained, pool="first", size=32))
    return record, trained


if __name__ == "__main__":
    print(main(Path(tempfile.mkdtemp()) / "run")[0].metrics)
