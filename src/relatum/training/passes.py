"""A pass through the training images, step by step."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from relatum.core.distributed import mean_over_ranks
from relatum.core.randomness import seed_of
from relatum.core.schedules import learning_rate
from relatum.core.types import Batch
from relatum.recipes.recipe import Recipe
from relatum.training import checkpoints
from relatum.training.assembly import Assembled
from relatum.training.logs import Logs
from relatum.training.profiler import labeled, part


class NonFiniteLossError(RuntimeError):
    """A loss term or a weight became infinite, or not a number."""


@dataclass(frozen=True)
class StepClock:
    """Where a step stands in the run, and what follows from it.

    Attributes:
        steps: how many an epoch has.
        recipe: the recipe of the run.
    """

    steps: int
    recipe: Recipe

    def progress(self, done: int) -> float:
        """The share of all steps, in [0, 1], when `done` are done."""
        return done / (self.steps * self.recipe.train.epochs)

    def rate(self, at: int) -> float:
        """The learning rate of step number `at`, counted from 0 at the start of the run."""
        optim, epochs = self.recipe.optim, self.recipe.train.epochs
        return optim.lr * learning_rate(
            self.progress(at),
            optim.schedule,
            warmup=optim.warmup_epochs / epochs,
            milestones=tuple(m / epochs for m in optim.milestones),
            gamma=optim.gamma,
        )


@dataclass(frozen=True)
class Passes:
    """Passes through the training images.

    Attributes:
        parts: the run.
        learner, optimizer: as Fabric has set them up.
        run_folder: named in errors.
        logs: where it is told.
    """

    parts: Assembled
    learner: Any
    optimizer: Any
    run_folder: Path
    logs: Logs

    def run(self, epoch: int, profile: Any = None) -> tuple[dict[str, float], int]:
        """One pass.

        Args:
            epoch: its number, counted from 0.
            profile: is told of each step.

        Returns:
            The mean of each loss term with the last learning rate; the images that passed the backbones of all ranks.

        Raises:
            NonFiniteLossError: a loss or a weight is no number any more.
        """
        recipe, loader, fabric = self.parts.recipe, self.parts.loader, self.parts.fabric
        steps = loader.steps_per_epoch
        clock, losses, images, rate = StepClock(steps, recipe), LossWindow(), 0, 0.0
        if self.parts.online is not None:
            self.parts.online.probe.start_epoch()
        bar = self.logs.bar(labeled(loader.epoch(epoch), "loading and views"), epoch)
        for step, batch in enumerate(bar):
            at = epoch * steps + step
            rate = clock.rate(at)
            torch.manual_seed(seed_of(recipe.train.seed, epoch, step, fabric.global_rank))
            losses.add(self._step(batch, rate, clock.progress(at), clock.progress(at + 1)))
            images += sum(len(view) for view in batch.views) * fabric.world_size
            if profile is not None:
                profile.step()
            if (step + 1) % recipe.train.log_every == 0 or step + 1 == steps:
                means = losses.look(at + 1, self.run_folder)
                self.logs.look(means, rate, at + 1)
                bar.set_description_str(self.logs.title(epoch, step + 1))
                bar.set_postfix({name: f"{mean:.3f}" for name, mean in means.items()})
        self._refuse_non_finite_weights(epoch)
        return losses.means() | {"learning_rate": rate}, images

    def _step(self, batch: Batch, rate: float, before: float, after: float) -> dict[str, Tensor]:
        """Forward, backward, the optimizer, and what the method does afterwards. Returns the loss terms."""
        online = self.parts.online
        clip = self.parts.recipe.optim.clip
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with part("forward and losses"), online.listening() if online is not None else nullcontext():
            terms = self.learner(batch)
        with part("backward"):
            self.parts.fabric.backward(sum(terms.values()))
        with part("optimizer"):
            if clip:
                self.parts.fabric.clip_gradients(self.learner, self.optimizer, max_norm=clip, error_if_nonfinite=False)
            self.optimizer.step()
            self.optimizer.zero_grad()
        with part("after the step"):
            self.parts.method.after_step(after)
        if online is not None:
            with part("online probe"):
                online.step(batch, before)
        return terms

    def _refuse_non_finite_weights(self, epoch: int) -> None:
        try:
            state = {"method": self.parts.method.state_dict(), "optimizer": self.parts.optimizer.state_dict()}
            checkpoints.refuse_non_finite(state)
        except checkpoints.NonFiniteWeightsError as error:
            raise NonFiniteLossError(f"after epoch {epoch + 1}, {error}. {_remedy(self.run_folder)}") from None


class LossWindow:
    """The loss terms of an epoch, and those since the last look, which waits for the device: it is not each step's."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.steps = 0
        self._since: list[Tensor] = []
        self._sums: dict[str, float] = {}

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """The terms of one step."""
        self.names = list(terms)
        self.steps += 1
        self._since.append(torch.stack([term.detach().float() for term in terms.values()]))

    def look(self, done: int, run: Path) -> dict[str, float]:
        """The mean of each term since the last look, over all processes: all of them look after the same steps.

        Args:
            done: steps of the run so far.
            run: whose last checkpoint an error names.

        Raises:
            NonFiniteLossError: naming the first term that is not finite, and its step.
        """
        losses = mean_over_ranks(torch.stack(self._since)).cpu()
        self._since = []
        bad = (~losses.isfinite()).nonzero()
        if len(bad):
            step, term = bad[0].tolist()
            raise NonFiniteLossError(
                f"the loss term {self.names[term]!r} is {losses[step, term].item()} at step "
                f"{done - len(losses) + step + 1}. {_remedy(run)}"
            )
        means = dict(zip(self.names, losses.mean(0).tolist()))
        for name, mean in means.items():
            self._sums[name] = self._sums.get(name, 0.0) + mean * len(losses)
        return means

    def means(self) -> dict[str, float]:
        """The mean of each term over the epoch, up to the last look."""
        return {name: total / self.steps for name, total in self._sums.items()}


def _remedy(run: Path) -> str:
    last = checkpoints.found(run)
    return (
        "Lower --optim.lr, set --optim.clip 1, or raise the temperature. The last good checkpoint is "
        f"{last[-1] if last else 'none: no epoch was finished'}."
    )
