"""Recipes for a folder of photos: some hundreds of them, in minutes."""

from relatum.data.views import ClassifierView, ContrastiveView
from relatum.evaluation.knn import KNN
from relatum.measurement.evaluators import DEFAULT_RUN
from relatum.recipes.entry import Entry, named
from relatum.recipes.options import options
from relatum.recipes.recipe import Data, Evaluation, Model, Optim, Recipe, Train

PHOTOS = named(
    "your photos (some hundreds)",
    {
        "photos": Entry(
            "SimCLR from scratch on a folder of photos, with or without labels, beside raw pixels.",
            Recipe(
                name="photos",
                method=options("simclr", temperature=0.2),
                model=Model(name="resnet20"),
                data=Data(
                    source="photos",
                    validation=0.0,
                    batch_size=64,
                    view=ContrastiveView(size=32, min_scale=0.2, grayscale=0.1),
                ),
                optim=Optim(name="adam", lr=2e-3, weight_decay=0.0, schedule="cosine"),
                train=Train(epochs=60, threads=1),
                evaluation=Evaluation(every=10, knn=KNN(k=10), run=("baselines", *DEFAULT_RUN)),
            ),
            source="ours. The least scale of a crop, 0.2 and not 0.4, was chosen on ten classes (k-NN 41.6 and 37.2 %, "
            "one seed; pixels 27.6 %).",
            cost="about 4 minutes on one core of a Xeon that others shared.",
            options="--data.source DIR",
        ),
        "fine-tune": Entry(
            "A classifier for a folder of labeled photos, from weights that were learned on ImageNet.",
            Recipe(
                name="fine-tune",
                method=options("supervised"),
                model=Model(name="resnet18", stem="imagenet", pretrained=True),
                data=Data(
                    source="photos",
                    validation=0.0,
                    batch_size=32,
                    view=ClassifierView(size=160, crop="resized", min_scale=0.35),
                ),
                optim=Optim(name="sgd", lr=0.01, weight_decay=1e-4, schedule="cosine", warmup_epochs=1.0),
                train=Train(epochs=15),
                evaluation=Evaluation(every=1, knn=KNN(k=10)),
            ),
            source="ours, as transfer is usually done: a small rate, images of 160 pixels. --model.initial starts from "
            "a run of yours, or from a file of published weights where there is no network.",
            cost="about as many forward and backward passes of ResNet-18 as 15 times the images; not measured.",
            options="--data.source DIR",
        ),
    },
)
