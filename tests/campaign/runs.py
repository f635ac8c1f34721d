"""A run of a second that the campaign kills, damages and resumes."""

import dataclasses
import hashlib
from pathlib import Path

from relatum import ContrastiveView, Recipe, fit, options
from relatum.recipes.recipe import Data, Evaluation, Model, Optim, Train

EPOCHS = 4

RECIPE = Recipe(
    name="attacked",
    method=options("moco", queue_size=64, key_splits=2, relation="jaccard", alphas=(0.3, 0.3)),
    model=Model(name="resnet8"),
    data=Data(source="digits", train_images=96, validation=0.0, batch_size=32, view=ContrastiveView(size=16)),
    optim=Optim(name="adam", lr=1e-3, weight_decay=0.0),
    train=Train(epochs=EPOCHS, accelerator="cpu", precision="32-true", threads=1, log_every=2),
    evaluation=Evaluation(every=0, figures=False),
)


def quick(recipe: Recipe = RECIPE) -> Recipe:
    """The recipe with the cheapest measurement: k-NN with few neighbors."""
    evaluation = dataclasses.replace(recipe.evaluation, knn=dataclasses.replace(recipe.evaluation.knn, k=5))
    if hasattr(evaluation, "run"):
        evaluation = dataclasses.replace(evaluation, run=("knn",))
    return dataclasses.replace(recipe, evaluation=evaluation)


def train(run: Path, recipe: Recipe | None = None, resume: bool = False) -> None:
    fit(recipe or quick(), run, resume=resume, quiet=True)


def weights(run: Path) -> str:
    """A hash of the encoder's weights."""
    from safetensors.torch import load_file

    digest = hashlib.sha256()
    for name, tensor in sorted(load_file(run / "encoder.safetensors").items()):
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
