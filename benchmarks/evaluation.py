"""The evaluators: k-NN beside scikit-learn's brute force, eight linear probes at once beside one by one."""

import argparse
import math
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from benchmarks.harness import Benchmark, Case, Job, Outcome, Target, run
from torch import nn

from relatum.core.types import Embeddings
from relatum.evaluation import KNN, LinearProbe
from relatum.evaluation.linear import Regressions


@cache
def features(n: int, d: int, classes: int, seed: int) -> Embeddings:
    """Rectified Gaussian clusters: non-negative and half of them zero, as pooled features of a ResNet are."""
    g = torch.Generator().manual_seed(seed)
    centers = 0.15 * torch.randn(classes, d, generator=torch.Generator().manual_seed(99))
    labels = torch.randint(classes, (n,), generator=g)
    return Embeddings(F.relu(torch.randn(n, d, generator=g) + centers[labels]), labels)


def sets(args: argparse.Namespace, classes: int) -> tuple[Embeddings, Embeddings]:
    return features(args.train, args.width, classes, 0), features(args.test, args.width, classes, 1)


def knn(args: argparse.Namespace, classes: int) -> Job:
    train, test = sets(args, classes)

    def job() -> Outcome:
        accuracies = KNN(args.k)(train, test)
        return lambda: accuracies

    return job


def knn_scikit_learn(args: argparse.Namespace, classes: int) -> Job:
    from sklearn.neighbors import KNeighborsClassifier

    train, test = sets(args, classes)

    def job() -> Outcome:
        model = KNeighborsClassifier(
            args.k, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / 0.1)
        )
        probability = model.fit(train.features.numpy(), train.labels.numpy()).predict_proba(test.features.numpy())
        order = np.argsort(-probability, axis=1, kind="stable")[:, :5] == test.labels.numpy()[:, None]
        return lambda: {"top1": 100 * order[:, 0].mean().item(), "top5": 100 * order.any(1).mean().item()}

    return job


def fitted(probes: list[Regressions], test: Embeddings) -> dict[str, float]:
    hits = torch.cat([p.classes_before(p.inputs(test.features), test.labels) for p in probes], 1) == 0
    return {f"top1 {i}": 100 * value for i, value in enumerate(hits.double().mean(0).tolist())}


def probe(args: argparse.Namespace, classes: int, at_once: bool) -> Job:
    train, test = sets(args, classes)
    linear = LinearProbe(epochs=args.epochs)
    rates = [linear.learning_rates] if at_once else [(rate,) for rate in linear.learning_rates]

    @torch.no_grad()
    def job() -> Outcome:
        accuracies = fitted([linear.fit(train, classes, group) for group in rates], test)
        return lambda: accuracies

    return job


def probe_autograd(args: argparse.Namespace, classes: int) -> Job:
    train, test = sets(args, classes)
    linear = LinearProbe(epochs=args.epochs)

    def job() -> Outcome:
        mean, deviation = train.features.mean(0), train.features.std(0, correction=0)
        x, t = ((e.features - mean) / deviation for e in (train, test))
        result = {}
        for i, rate in enumerate(linear.learning_rates):
            g = torch.Generator().manual_seed(linear.seed)
            model = nn.Linear(x.shape[1], classes)
            nn.init.zeros_(model.weight)
            nn.init.zeros_(model.bias)
            optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, linear.epochs)
            for _ in range(linear.epochs):
                for rows in torch.randperm(len(x), generator=g).tensor_split(math.ceil(len(x) / linear.batch_size)):
                    optimizer.zero_grad()
                    F.cross_entropy(model(x[rows]), train.labels[rows]).backward()
                    optimizer.step()
                schedule.step()
            with torch.no_grad():
                result[f"top1 {i}"] = 100 * (model(t).argmax(1) == test.labels).double().mean().item()
        return lambda: result

    return job


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--train", type=int, default=50_000)
    parser.add_argument("--test", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--k", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=1, help="of the probe; its time is linear in them")


def cases(args: argparse.Namespace) -> dict[str, Case]:
    found = {
        f"k-NN, {args.classes[0]} classes": Case(
            {
                "relatum": lambda: knn(args, args.classes[0]),
                "scikit-learn": lambda: knn_scikit_learn(args, args.classes[0]),
            },
            targets=[Target("scikit-learn", at_least=3)],
            tolerance=0.02,
        )
    }
    for classes in args.classes:
        found[f"eight probes, {classes} classes"] = Case(
            {
                "at once": lambda c=classes: probe(args, c, at_once=True),
                "one by one": lambda c=classes: probe(args, c, at_once=False),
                "one by one, autograd": lambda c=classes: probe_autograd(args, c),
            },
            targets=[Target("one by one", at_least=3), Target("one by one, autograd", at_least=3)],
            tolerance=0.02,
        )
    return found


BENCHMARK = Benchmark(
    name="evaluation",
    question="How fast are the evaluators?",
    work=(
        "the same float32 features, and accuracies that must agree to 2 %. k-NN: top-1 and top-5 of weighted k-NN "
        "(k = 200, T = 0.1, cosine); scikit-learn's `KNeighborsClassifier(metric='cosine', algorithm='brute')` with "
        "one `predict_proba`. Probe: SGD with momentum on standardised features, eight learning rates, the same "
        "minibatches; one by one, by Relatum's own probe and by the usual loop (`nn.Linear`, autograd, `SGD`)."
    ),
    limits=(
        "k-NN's time is the matrix product, which both leave to BLAS, so that on one thread no exact method wins much; "
        "scikit-learn selects and votes on one thread, so that the ratio grows with the cores. With many classes the "
        "probe too is all matrix product, and the ratio falls. A few epochs tell the ratio."
    ),
    arguments=arguments,
    cases=cases,
)

if __name__ == "__main__":
    run(BENCHMARK)
