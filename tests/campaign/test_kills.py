"""Runs that are killed, at any moment and at the worst ones: resumed, they end in the same bits."""

import os
import signal
import sys
from pathlib import Path

import pytest

from campaign.ledger import Ledger, child
from campaign.runs import quick, train, weights
from relatum import METHODS, options
from relatum.recipes.recipe import ViewOptions  # noqa: F401 - loads what every child uses

pytestmark = pytest.mark.campaign

VIEWED_TWICE = {name for name, method in METHODS.items() if method.pairing == "two-views"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, str, float]:
    """A run that nobody disturbs: its folder, its weights, its seconds."""
    folder = tmp_path_factory.mktemp("whole")
    ended = child(lambda: train(folder / "run"), folder, seconds=120)
    assert ended.done, ended
    return folder / "run", weights(folder / "run"), ended.seconds


def finish(run: Path, folder: Path) -> tuple[bool, str]:
    """Resume until it is done, or twice in vain."""
    for _ in range(2):
        ended = child(lambda: train(run, resume=True), folder, seconds=120)
        if ended.done:
            return True, ""
    return False, str(ended)


def test_killed_at_random_moments(ledger: Ledger, whole, tmp_path):
    area = "SIGKILL at a random moment, five times a run"
    ledger.expects(area, "resumed, the run ends in the weights of one that was never killed, bit for bit")
    rng, (_, expected, seconds) = ledger.rng(area), whole
    for number in range(ledger.attempts(12)):
        run = tmp_path / f"run-{number}"
        moments = [rng.uniform(0.02, 1.1) * seconds for _ in range(5)]
        for moment in moments:
            child(lambda run=run: train(run, resume=run.exists()), tmp_path, kill_after=moment)
        done, said = finish(run, tmp_path) if run.exists() else (True, "")
        if not run.exists():
            child(lambda run=run: train(run), tmp_path, seconds=120)
        survived = done and weights(run) == expected
        ledger.count(area, survived, f"killed after {[f'{m:.2f}' for m in moments]} s: {said or 'other weights'}")
    ledger.check(area)


def test_killed_at_a_file_operation(ledger: Ledger, whole, tmp_path):
    area = "SIGKILL at the n-th change of a file"
    ledger.expects(area, "the folder is resumed or started anew, and ends in the same weights")
    rng, (_, expected, _) = ledger.rng(area), whole

    def dying(run: Path, at: int) -> None:
        seen = 0

        def watch(event: str, args: tuple) -> None:
            nonlocal seen
            writes = event == "open" and isinstance(args[1], str) and any(c in args[1] for c in "wax+")
            ours = any(str(run) in str(arg) for arg in args[:2])
            if ours and (writes or event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")):
                seen += 1
                if seen == at:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        train(run)

    for number in range(ledger.attempts(40)):
        run, at = tmp_path / f"run-{number}", rng.randint(1, 60)
        ended = child(lambda run=run, at=at: dying(run, at), tmp_path, seconds=120)
        done, said = (True, "") if ended.done else (False, str(ended))
        if not ended.done:
            again = child(lambda run=run: train(run, resume=run.exists()), tmp_path, seconds=120)
            done, said = (True, "") if again.done else (False, str(again))
        survived = done and weights(run) == expected
        ledger.count(area, survived, f"killed at operation {at}: {said or 'other weights'}")
    ledger.check(area)


def recipe_of(name: str, teacher: Path | None):
    from dataclasses import replace

    from relatum import ClassifierView

    base = quick()
    small = {
        "byol": {"hidden_width": 16, "out_width": 8},
        "moco": {"queue_size": 64, "key_splits": 2},
        "simsiam": {"out_width": 16, "bottleneck": 8},
    }.get(name, {})
    needs = {"teacher": str(teacher)} if "teacher" in options(name).__dataclass_fields__ else {}
    view = base.data.view if name in VIEWED_TWICE else ClassifierView(size=32)
    data = replace(base.data, batch_size=30, view=view)
    return replace(base, method=options(name, **small, **needs), data=data, train=replace(base.train, epochs=2))


def test_killed_inside_an_epoch(ledger: Ledger, tmp_path):
    area = "SIGKILL inside an epoch, every method"
    ledger.expects(area, "resumed, the run ends in the weights of one that was never killed, bit for bit")
    rng = ledger.rng(area)
    teacher = tmp_path / "teacher"
    ended = child(lambda: train(teacher, recipe_of("supervised", None)), tmp_path, seconds=120)
    assert ended.done, ended
    names = list(METHODS)
    rng.shuffle(names)

    def dying(run: Path, recipe, at: int) -> None:
        method = METHODS[recipe.method.name]
        after, seen = method.after_step, 0

        def watched(self, progress: float) -> None:
            nonlocal seen
            seen += 1
            if seen == at:
                os.kill(os.getpid(), signal.SIGKILL)
            after(self, progress)

        method.after_step = watched
        train(run, recipe)

    for name in names[: ledger.attempts(len(names))]:
        recipe = recipe_of(name, teacher)
        whole, run, at = tmp_path / f"{name}-whole", tmp_path / f"{name}-killed", rng.randint(1, 5)
        first = child(lambda recipe=recipe, run=whole: train(run, recipe), tmp_path, seconds=120)
        child(lambda recipe=recipe, run=run, at=at: dying(run, recipe, at), tmp_path, seconds=120)
        again = child(lambda recipe=recipe, run=run: train(run, recipe, resume=True), tmp_path, seconds=120)
        survived = first.done and again.done and weights(whole) == weights(run)
        ledger.count(area, survived, f"{name}, killed at step {at}: {first if not first.done else again}")
    ledger.check(area)
