"""How fast the evaluators are: k-NN beside scikit-learn's brute force, eight linear probes at once beside one by one.

    python benchmarks/evaluation.py --out results/benchmarks/evaluation.json

Both sides of a row do the same work on the same float32 features in one process, take turns, and must agree:

- k-NN: top-1 and top-5 of weighted k-NN (k=200, T=0.1, cosine). Peer: `KNeighborsClassifier(metric="cosine",
  algorithm="brute", weights=...)`, one `predict_proba`, whose distances and votes give both numbers.
- probe: SGD with momentum on standardised features, eight learning rates, the same minibatches. Peers: this library's
  own probe eight times, and eight times the usual loop (`nn.Linear`, autograd, `torch.optim.SGD`).

What the ratios do not say: the k-NN's time is the matrix product, which both sides leave to BLAS, so that on one thread
no exact method wins much; scikit-learn selects and votes on one thread, so that the ratio grows with the cores. With
many classes the probe too is all matrix product, and the ratio falls. Time of the probe is linear in epochs, so a few
epochs tell the ratio. Peak memory is what a fresh process needs beyond
its state with data and libraries loaded.
"""

import argparse
import json
import math
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import sklearn
import threadpoolctl
import torch
import torch.nn.functional as F
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from relatum.evaluation import KNN, LinearProbe
from relatum.evaluation.linear import Heads
from relatum.types import Embeddings

Job = Callable[[], dict[str, float]]


def features(n: int, d: int, classes: int, seed: int) -> Embeddings:
    """Rectified Gaussian clusters: non-negative and half of them zero, as pooled features of a ResNet are."""
    g = torch.Generator().manual_seed(seed)
    centres = 0.15 * torch.randn(classes, d, generator=torch.Generator().manual_seed(99))
    labels = torch.randint(classes, (n,), generator=g)
    return Embeddings(F.relu(torch.randn(n, d, generator=g) + centres[labels]), labels)


def knn_scikit_learn(train: Embeddings, test: Embeddings, k: int) -> dict[str, float]:
    model = KNeighborsClassifier(
        k, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / 0.1)
    )
    probability = model.fit(train.features.numpy(), train.labels.numpy()).predict_proba(test.features.numpy())
    order = np.argsort(-probability, axis=1, kind="stable")[:, :5] == test.labels.numpy()[:, None]
    return {"top1": 100 * order[:, 0].mean().item(), "top5": 100 * order.any(1).mean().item()}


def fitted(heads: list[Heads], test: Embeddings) -> dict[str, float]:
    hits = torch.cat([h.ranks(h.inputs(test.features), test.labels) for h in heads], 1) == 0
    return {f"top1 {i}": 100 * value for i, value in enumerate(hits.double().mean(0).tolist())}


def probe_at_once(probe: LinearProbe, train: Embeddings, test: Embeddings, classes: int) -> dict[str, float]:
    with torch.no_grad():
        return fitted([probe.fit(train, classes, probe.learning_rates)], test)


def probe_one_by_one(probe: LinearProbe, train: Embeddings, test: Embeddings, classes: int) -> dict[str, float]:
    with torch.no_grad():
        return fitted([probe.fit(train, classes, (rate,)) for rate in probe.learning_rates], test)


def probe_autograd(probe: LinearProbe, train: Embeddings, test: Embeddings, classes: int) -> dict[str, float]:
    mean, deviation = train.features.mean(0), train.features.std(0, correction=0)
    x, t = ((e.features - mean) / deviation for e in (train, test))
    result = {}
    for i, rate in enumerate(probe.learning_rates):
        g = torch.Generator().manual_seed(probe.seed)
        model = nn.Linear(x.shape[1], classes)
        nn.init.zeros_(model.weight)
        nn.init.zeros_(model.bias)
        optimiser = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, probe.epochs)
        for _ in range(probe.epochs):
            for rows in torch.randperm(len(x), generator=g).tensor_split(math.ceil(len(x) / probe.batch_size)):
                optimiser.zero_grad()
                F.cross_entropy(model(x[rows]), train.labels[rows]).backward()
                optimiser.step()
            schedule.step()
        with torch.no_grad():
            result[f"top1 {i}"] = 100 * (model(t).argmax(1) == test.labels).double().mean().item()
    return result


def rows(args: argparse.Namespace) -> dict[str, dict[str, Job]]:
    """Each row's jobs by name; the first is ours."""
    out: dict[str, dict[str, Job]] = {}
    probe = LinearProbe(epochs=args.epochs)
    for classes in args.classes:
        train = features(args.train, args.width, classes, 0)
        test = features(args.test, args.width, classes, 1)
        if not out:
            out[f"knn, {classes} classes"] = {
                "relatum": lambda a=train, b=test: KNN(args.k)(a, b),
                "scikit-learn": lambda a=train, b=test: knn_scikit_learn(a, b, args.k),
            }
        out[f"probe, {classes} classes"] = {
            "at once": lambda a=train, b=test, c=classes: probe_at_once(probe, a, b, c),
            "one by one": lambda a=train, b=test, c=classes: probe_one_by_one(probe, a, b, c),
            "autograd, one by one": lambda a=train, b=test, c=classes: probe_autograd(probe, a, b, c),
        }
    return out


def high_water() -> float:
    """Peak resident memory of this process in MiB (Linux)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def peak(row: str, side: str) -> float:
    """MiB that one run of a side adds to the peak of a fresh process."""
    command = [sys.executable, __file__, *sys.argv[1:], "--peak-of", row, side]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=50_000)
    parser.add_argument("--test", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--k", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path)
    parser.add_argument("--peak-of", nargs=2, metavar=("ROW", "SIDE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with threadpoolctl.threadpool_limits(args.threads):
        jobs = rows(args)
        if args.peak_of:
            Path("/proc/self/clear_refs").write_text("5")  # forget the peak of making the data
            before = high_water()
            jobs[args.peak_of[0]][args.peak_of[1]]()
            print(high_water() - before)
            return
        table = []
        for row, sides in jobs.items():
            times: dict[str, list[float]] = {side: [] for side in sides}
            numbers = {}
            for turn in range(args.repeats):
                for side in list(sides)[:: 1 if turn % 2 == 0 else -1]:
                    start = time.perf_counter()
                    numbers[side] = sides[side]()
                    times[side].append(time.perf_counter() - start)
            ours = next(iter(sides))
            for side in sides:
                gap = max(abs(numbers[side][key] - numbers[ours][key]) for key in numbers[ours])
                if gap > 1.0:
                    raise SystemExit(f"{row}: {side} and {ours} differ by {gap:.2f} points: not the same work")
                median = statistics.median(times[side])
                entry = {
                    "row": row,
                    "side": side,
                    "seconds": times[side],
                    "median": median,
                    "ratio": median / statistics.median(times[ours]),
                    "peak_mib": peak(row, side),
                    "largest_difference_points": gap,
                    "numbers": numbers[side],
                }
                table.append(entry)
                print(
                    f"{row:20} {side:22} {median:8.2f} s [{min(times[side]):.2f}, {max(times[side]):.2f}] "
                    f"{entry['ratio']:6.2f} x  {entry['peak_mib']:7.0f} MiB  differs by {gap:.2f} points",
                    flush=True,
                )
    if args.out:
        processor = next(
            (
                line.split(":")[1].strip()
                for line in Path("/proc/cpuinfo").read_text().splitlines()
                if "model name" in line
            ),
            platform.processor(),
        )
        versions = {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "scikit-learn": sklearn.__version__,
        }
        settings = {key: value for key, value in vars(args).items() if key not in ("out", "peak_of")}
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(
            json.dumps({"settings": settings, "processor": processor, "versions": versions, "table": table}, indent=2)
        )


if __name__ == "__main__":
    main()
