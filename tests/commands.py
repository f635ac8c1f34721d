"""Commands that documents show, made short enough to be run, and the photos that they speak of."""

import shlex
from pathlib import Path

import pytest
from PIL import Image

from relatum import cli

# What makes a training run of a document short; an option that the command gives itself stays as it is.
SHORT = {
    "--train.epochs": "1",
    "--train.threads": "1",
    "--data.source": "digits",
    "--data.batch-size": "16",
    "--data.train-images": "40",
    "--data.view.size": "32",
    "--model.name": "resnet8",
    "--evaluation.knn.k": "5",
    "--evaluation.linear.epochs": "2",
}


def shortened(command: str) -> list[str]:
    """The words behind `relatum`; a training run has one epoch, and what else makes it short."""
    args = shlex.split(command, comments=True)[1:]
    if args[0] == "train":
        args += [word for option, value in SHORT.items() if option not in args for word in (option, value)]
        args[args.index("--train.epochs") + 1] = "1"
        if "--model.initial" in args:  # of a run that was made short, too
            args[args.index("--model.name") + 1] = SHORT["--model.name"]
    return args


def run(args: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a command in this process, and fail where it would end with an error."""
    monkeypatch.setattr("sys.argv", ["relatum", *args])
    try:
        cli.main()
    except SystemExit as stop:
        pytest.fail(f"relatum {shlex.join(args)} ends with status {stop}")


def make_photos(folder: Path) -> None:
    """Photos of two classes, of different sizes: they are streamed."""
    for name, size in (("cats", (40, 36)), ("dogs", (34, 60))):
        (folder / name).mkdir(parents=True)
        for i in range(24):
            Image.effect_noise(size, 60 + i).convert("RGB").save(folder / name / f"{i}.png")
