"""The demonstration: an encoder learns handwritten digits without their labels, from data that is already there."""

from relatum.data.views import ContrastiveView
from relatum.evaluation.knn import KNN
from relatum.measurement.evaluators import DEFAULT_RUN
from relatum.recipes.entry import Entry, Number, named
from relatum.recipes.options import options
from relatum.recipes.recipe import Data, Evaluation, Model, Optim, Recipe, Train

_QUIET = "seed 0 on two cores of a Xeon at 2.5 GHz; 47.2 on pixels, 30.4 with the untrained encoder"

DEMO = named(
    "to start with",
    {
        "demo": Entry(
            "SimCLR with the Jaccard relation on digits that lie anywhere and in any size on their canvas.",
            Recipe(
                name="demo",
                method=options("simclr", relation="jaccard", temperature=0.2),
                model=Model(name="resnet8"),
                # Mirrored digits are no digits, and a crop must show enough of one to be told from another.
                data=Data(source="digits", batch_size=64, view=ContrastiveView(size=32, min_scale=0.35, flip=0.0)),
                optim=Optim(name="adam", lr=3e-3, weight_decay=0.0, schedule="cosine"),
                train=Train(epochs=20),
                evaluation=Evaluation(knn=KNN(k=20), run=("baselines", *DEFAULT_RUN)),
            ),
            source="scikit-learn's 1,797 digits, each laid on 32x32 pixels at a place and a scale of its own, so that "
            "pixels alone do not tell them apart.",
            cost="102 seconds in all on two cores of a Xeon at 2.5 GHz, 64 of them training.",
            ours=(Number(72.6, "k-NN", _QUIET),),
        ),
    },
)
