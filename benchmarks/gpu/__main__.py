"""The first minutes on a GPU: what is to be known there, in the order in which it is worth knowing.

    python -m benchmarks.gpu works --out OUT
    python -m benchmarks.gpu speedrun --out OUT --minutes 9

A step is a list of commands that run one after another, each a command of Relatum or of the benchmarks. When the
minutes are over, what runs is stopped as Ctrl-C stops it, and the same line goes on where it was: OUT holds the run
folders. `--tiny` runs the same commands on a processor, in seconds, with numbers that say nothing.
"""

import argparse
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE = 30.0  # seconds that a command has to stop by itself


@dataclass(frozen=True)
class Place:
    """Where a step runs.

    Attributes:
        out: the folder for what it writes.
        data: the folder of the named image sets.
        tiny: on a processor, with numbers that say nothing.
        seeds: of trained networks.
    """

    out: Path
    data: Path
    tiny: bool
    seeds: Sequence[int] = (0, 1, 2)

    @property
    def device(self) -> str:
        return "cpu" if self.tiny else "cuda"


Commands = list[list[str]]
PYTHON = sys.executable


def works(place: Place) -> Commands:
    """Does every method train there: losses and gradients beside the processor's, bf16, compiled, seconds a step?"""
    size = ["--recipes", "simclr-jaccard", "corsd", "--images", "12", "--repeats", "1"] if place.tiny else []
    return [_benchmark("gpu.works", place, *size)]


def blocks(place: Place) -> Commands:
    """From which number of rows on do blocks pay, and what does a contrast of a million rows take?"""
    tasks = ["--tasks", "cosine", "jaccard", "three-term"]
    sizes = ["1024", "2048", "4096", "8192", "16384", "32768", "65536"]
    if place.tiny:
        return [_benchmark("losses", place, "--tasks", "cosine", "--sizes", "64", "--repeats", "1", "--no-memory")]
    return [
        _benchmark("losses", place, *tasks, "--sizes", *sizes, "--largest-plain", sizes[-1]),
        _benchmark(
            "losses", place, "--tasks", "cosine", "--sizes", str(2**20), "--largest-plain", "0", "--repeats", "1",
            file="million.json",
        ),
    ]  # fmt: skip


def speedrun(place: Place) -> Commands:
    """What does k-NN read from a ResNet-18 that one GPU has trained for ten minutes, without labels, on CIFAR-10?"""
    tiny = "--data.source digits --data.batch-size 16 --data.train-images 64 --model.name resnet8 --train.epochs 1"
    tiny += (
        " --optim.warmup-epochs 0 --train.no-compile --train.accelerator cpu --evaluation.knn.k 5 --evaluation.run knn"
    )
    changes = tiny.split() if place.tiny else ["--data.root", str(place.data)]
    runs = [
        _relatum(
            "train", "speedrun", *changes, "--train.seed", str(seed), "--run",
            str(place.out / "runs" / "speedrun" / str(seed)), "--resume",
        )
        for seed in place.seeds
    ]  # fmt: skip
    return [*runs, _relatum("table", str(place.out / "runs" / "speedrun"))]


def jaccard(place: Place) -> Commands:
    """SimCLR against SimCLR with Eq. (4) on CIFAR-100, ResNet-18, each at the temperature that it chose."""
    return _study(place, "jaccard-arms", "cosine", "Eq. (4), weights 1/3", column="CIFAR-100")


def corsd(place: Place) -> Commands:
    """A tuned baseline against CORSD, as printed and tuned, on CIFAR-100, ResNet-18, at equal image passes."""
    rows = ("supervised", "CORSD", "supervised, rate and decay chosen", "CORSD, weights chosen")
    return _study(place, "corsd-1", *rows, column="ResNet18")


def tian(place: Place) -> Commands:
    """The field's benchmark of distillation, of which two pairs: the student alone, KD, FitNet and SP."""
    return _study(place, "tian", "Student", "KD", "FitNet", "SP", column="*")


STEPS: Mapping[str, Callable[[Place], Commands]] = {
    step.__name__: step for step in (works, blocks, speedrun, jaccard, corsd, tian)
}


def _benchmark(name: str, place: Place, *options: str, file: str = "") -> list[str]:
    out = place.out / (file or f"{name.rpartition('.')[2]}.json")
    return [PYTHON, "-m", f"benchmarks.{name}", "--device", place.device, "--out", str(out), *options]


def _relatum(*words: str) -> list[str]:
    return [PYTHON, "-m", "relatum", *words]


def _study(place: Place, name: str, *rows: str, column: str) -> Commands:
    """A study at the scale of a GPU. Tiny, it is planned only: small studies are run by the tests of studies."""
    only = ["--only", *(f"{row}--{column}" for row in rows)]
    words = [*only, "--seeds", ",".join(map(str, place.seeds)), "--set", f"data.root={place.data}"]
    kept = ["--runs", str(place.out / "runs"), "--results", str(place.out / "results"), "--collect"]
    plan = ["--dry-run"] if place.tiny else ["--out", str(place.out / f"{name}.md")]
    return [_relatum("study", name, "--scale", "gpu", *words, *kept, *plan)]


def run(commands: Commands, out: Path, seconds: float) -> bool:
    """Run commands one after another, and stop what runs when the time is over.

    Args:
        commands: words of each.
        out: the folder of their logs.
        seconds: for all of them.

    Returns:
        Whether all of them ended.

    Raises:
        RuntimeError: for a command that failed, with its last lines.
    """
    out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + seconds
    for number, command in enumerate(commands):
        print("+", shlex.join(command), flush=True)
        log = out / f"{number}.log"
        with log.open("w") as file:
            process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
            try:
                code = process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(PATIENCE)
                except subprocess.TimeoutExpired:
                    process.kill()
                print(_last(log), flush=True)
                return False
        if code:
            raise RuntimeError(f"{shlex.join(command)} ended with {code}:\n{_last(log)}")
        print(_last(log), flush=True)
    return True


def _last(log: Path, lines: int = 40) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument(
        "step", choices=STEPS, help="; ".join(f"{name}: {step.__doc__}" for name, step in STEPS.items())
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder for run folders, JSON and logs")
    parser.add_argument("--data", type=Path, default=ROOT / ".data", help="the folder of the named image sets")
    parser.add_argument("--minutes", type=float, default=9.0, help="stop what runs after this time")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tiny", action="store_true", help="on a processor, in seconds, to see that it runs")
    args = parser.parse_args(argv)
    place = Place(args.out.resolve(), args.data.resolve(), args.tiny, args.seeds)
    ended = run(STEPS[args.step](place), place.out / args.step, 60 * args.minutes)
    print("done" if ended else "the minutes are over; the same line goes on where it was")


if __name__ == "__main__":
    main()
