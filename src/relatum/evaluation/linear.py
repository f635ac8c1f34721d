"""The linear probe: multinomial logistic regression on frozen features, all learning rates at once."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import ceil, cos, isfinite, pi
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from relatum.core.precision import at_least_float32
from relatum.core.types import Batch, Embeddings
from relatum.evaluation.checks import count_classes, refuse_pair
from relatum.evaluation.classification import classes_before, hit_rates
from relatum.evaluation.evaluator import Evaluator, Labels, Measured, Subject

MOMENTUM = 0.9


class Regressions:
    """One softmax classifier per learning rate, side by side in one matrix "d (l k)": one product serves them all.

    Starts from zero, which for a convex problem is as good as any start and needs no seed.

    Args:
        train: gives the mean and standard deviation that standardize every input.
        classes: k.
        rates: l learning rates of SGD with momentum 0.9.
        decay: weight decay.
    """

    def __init__(self, train: Float[Tensor, "n d"], classes: int, rates: tuple[float, ...], decay: float) -> None:
        self.mean = train.mean(0)
        variance = (train - self.mean).square_().mean(0)
        # Directions with less than a millionth of the mean variance are dead units: left small, not blown up.
        floor = 1e-6 * variance.mean() + torch.finfo(train.dtype).tiny
        self.scale = (variance + floor).rsqrt()
        self.classes, self.decay = classes, decay
        self.rates = train.new_tensor(rates).repeat_interleave(classes)
        self.weight = train.new_zeros(train.shape[1] + 1, len(self.rates))
        self.momentum = torch.zeros_like(self.weight)

    def inputs(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n e"]:
        """Standardized features and a one for the bias."""
        return F.pad((features - self.mean) * self.scale, (0, 1), value=1.0)

    def logits(self, x: Float[Tensor, "n e"]) -> Float[Tensor, "n l k"]:
        """The scores of every classifier."""
        return (x @ self.weight).unflatten(1, (-1, self.classes))

    def step(self, x: Float[Tensor, "n e"], labels: Int[Tensor, " n"], progress: float) -> None:
        """One step on the mean cross-entropy, its gradient `x' (softmax - onehot) / n` written out."""
        logits = self.logits(x)
        # Softmax by hand: torch's is several times slower where classes are few. The floor e^-50 is below all rounding;
        # without it denormal probabilities of samples long learned make the product below fifty times slower.
        error = logits.sub_(logits.amax(2, keepdim=True)).clamp_(min=-50).exp_()
        error /= error.sum(2, keepdim=True)
        error[torch.arange(len(x), device=x.device), :, labels] -= 1
        gradient = torch.addmm(self.weight, x.T, error.flatten(1), beta=self.decay, alpha=1 / len(x))
        self.momentum.mul_(MOMENTUM).add_(gradient)
        self.weight.addcmul_(self.momentum, self.rates, value=-(1 + cos(pi * progress)) / 2)

    def classes_before(self, x: Float[Tensor, "n e"], labels: Int[Tensor, " n"]) -> Int[Tensor, "n l"]:
        """How many classes score above the true one, by every classifier."""
        chunks = zip(x.split(4096), labels.split(4096))
        return torch.cat([classes_before(self.logits(part), y[:, None]) for part, y in chunks])


class Probed(NamedTuple):
    """What a probe found.

    Attributes:
        before: for each test image, how many classes score above the true one: 0 is a hit.
        classes: how many there are.
        choice: the `learning_rate` chosen, and its candidates' `validation@<rate>`.
    """

    before: Int[Tensor, " n"]
    classes: int
    choice: dict[str, float]

    @property
    def metrics(self) -> dict[str, float]:
        """Accuracies and choice."""
        return hit_rates(self.before, self.classes) | self.choice


@dataclass(frozen=True)
class LinearProbe(Evaluator):
    """Multinomial logistic regression on standardized features by SGD with momentum 0.9 and a cosine over the epochs.

    The learning rate is the one that is most often right on a part held out of the training set, class by class (of
    a draw the middle one); the classifier is then trained anew on the whole training set, and reported at its
    last epoch. The test set decides nothing. Features are standardized with the training set's mean and deviation, so
    that one grid of learning rates suits encoders of any scale (He et al. 2022, "Masked Autoencoders", A.1, for
    the same reason); the classifier stays linear. `seed` orders the minibatches and draws the held-out part.

    Attributes:
        learning_rates: the candidates; with one there is nothing to choose and nothing is held out.
        epochs: passes over the training set.
        batch_size: samples per step at most; batches are cut to nearly equal size.
        validation: fraction of each class held out for the choice.
        weight_decay: the decay of the weights and the bias.
        seed: what the held-out part and the order depend on.
    """

    learning_rates: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
    epochs: int = 100
    batch_size: int = 512
    validation: float = 0.1
    weight_decay: float = 0.0
    seed: int = 0

    columns: ClassVar[Mapping[str, str]] = {"top1": "linear"}

    def __post_init__(self) -> None:
        if not self.learning_rates or not all(rate > 0 and isfinite(rate) for rate in self.learning_rates):
            raise ValueError(f"learning_rates={self.learning_rates}; expected at least one, each > 0 and finite")
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError(f"epochs={self.epochs}, batch_size={self.batch_size}; expected at least 1 of each")
        if not 0 < self.validation < 1:
            raise ValueError(f"validation={self.validation}; expected a fraction in (0, 1), 0.1 is usual")
        if not (self.weight_decay >= 0 and isfinite(self.weight_decay)):
            raise ValueError(f"weight_decay={self.weight_decay}; expected >= 0 and finite")

    def __str__(self) -> str:
        rates = ", ".join(f"{rate:g}" for rate in self.learning_rates)
        held = f", chosen on {self.validation:.0%} of train" if len(self.learning_rates) > 1 else ""
        return (
            f"linear probe (SGD, lr {rates}{held}, {self.epochs} epochs, batch {self.batch_size}, "
            f"wd {self.weight_decay:g}, standardised features)"
        )

    @torch.no_grad()
    def __call__(self, train: Embeddings, test: Embeddings) -> dict[str, float]:
        """The probe on precomputed features.

        Returns:
            `top1`, `top5` in percent on `test` (top-5 only with more than five classes), the `learning_rate`
            chosen, and its candidates' `validation@<rate>`: top-1 in percent on the held-out part.

        Raises:
            ValueError: for unlabeled, empty or non-finite embeddings, or if no class has two images to hold one out.
        """
        return self.probe(train, test).metrics

    @torch.no_grad()
    def probe(self, train: Embeddings, test: Embeddings) -> Probed:
        """The same, image by image. Raises: as the call."""
        train, test = prepare(train, test)
        classes = count_classes(train, test)
        rate, accuracies = self.learning_rates[0], dict[str, float]()
        if len(self.learning_rates) > 1:
            held = self.held_out(train.labels)
            fitted = Embeddings(train.features[~held], train.labels[~held])
            regressions = self.fit(fitted, classes, self.learning_rates)
            rate, accuracies = self.choose(regressions, Embeddings(train.features[held], train.labels[held]))
        return report(self.fit(train, classes, (rate,)), 0, test, {"learning_rate": rate} | accuracies)

    @torch.no_grad()
    def augmented(
        self,
        embed: Callable[[Tensor], Float[Tensor, "n d"]],
        batches: Callable[[int], Iterable[Batch]],
        train: Embeddings,
        test: Embeddings,
    ) -> Probed:
        """The probe on features of augmented images, made anew in every epoch by the frozen encoder.

        Each batch is embedded once and trains two sets of classifiers: one without the held-out images, which
        chooses the learning rate on their clean features, and one with all, which is reported. `batch_size` plays
        no part: `batches` decides.

        Args:
            embed: images to features; the caller puts the encoder behind it into eval mode, and nothing here
                asks for its gradient.
            batches: epoch -> batches whose `index` counts the rows of `train`; every view is a training image.
            train: clean features of the training set, in the order of its sample numbers.
            test: clean features of the test set.

        Returns:
            As `probe` on precomputed features.

        Raises:
            ValueError: as there, and if a batch's labels are not those of `train` at its index.
        """
        train, test = prepare(train, test)
        classes, device = count_classes(train, test), train.features.device
        choice = len(self.learning_rates) > 1
        held = self.held_out(train.labels) if choice else torch.zeros_like(train.labels, dtype=torch.bool)
        probing, final = (
            Regressions(part, classes, self.learning_rates, self.weight_decay)
            for part in (train.features[~held], train.features)
        )
        for epoch in range(self.epochs):
            for batch in batches(epoch):
                for images, labels, index in zip(batch.views, batch.labels.to(device), batch.index.to(device)):
                    if index.min() < 0 or index.max() >= len(held) or (train.labels[index] != labels).any():
                        raise ValueError(
                            "a batch's labels are not those of `train` at the batch's index; expected `train` in the "
                            "order of the sample numbers: embed the training set unshuffled"
                        )
                    features = embed(images).to(train.features)
                    final.step(final.inputs(features), labels, epoch / self.epochs)
                    rest = ~held[index]
                    if choice and rest.any():
                        x = probing.inputs(features[rest])
                        probing.step(x, labels[rest], epoch / self.epochs)
        rate, accuracies = self.learning_rates[0], dict[str, float]()
        if choice:
            rate, accuracies = self.choose(probing, Embeddings(train.features[held], train.labels[held]))
        chosen = self.learning_rates.index(rate)
        return report(final, chosen, test, {"learning_rate": rate} | accuracies)

    def measure(self, subject: Subject) -> Measured:
        """The probe on backbone features of clean views."""
        found = self.probe(subject.train["embedding"], subject.test["embedding"])
        protocol = f"{self}; backbone features, clean views, {subject.sets}, last epoch"
        return Measured(found.metrics, protocol, found.before == 0)

    def fitted(self, labels: Labels) -> tuple[Evaluator | None, str]:
        """Itself, unless no class has an image to hold out for the choice of the learning rate."""
        fitting, why = super().fitted(labels)
        if fitting is not None and len(self.learning_rates) > 1 and int(torch.bincount(labels.train).max()) < 2:
            return None, (
                f"no class of {len(labels.train)} training images has two, and none can be held out to choose among "
                f"{len(self.learning_rates)} learning rates (a single one needs no choice)"
            )
        return fitting, why

    def held_out(self, labels: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
        """Which training images choose the learning rate: `validation` of each class, at least one, never all."""
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(self.seed)).to(labels.device)
        order = order[labels[order].argsort(stable=True)]  # class by class, random within
        count = torch.bincount(labels)
        first = count.cumsum(0) - count
        sorted_labels = labels[order]
        place = torch.arange(len(labels), device=labels.device) - first[sorted_labels]
        quota = torch.minimum((count * self.validation).round().clamp(min=1), count - 1)
        held = torch.zeros_like(labels, dtype=torch.bool)
        held[order] = place < quota[sorted_labels]
        if not held.any():
            raise ValueError(
                f"no class of {len(labels)} training images has two: none can be held out to choose among "
                f"{len(self.learning_rates)} learning rates; give more images, or a single learning rate"
            )
        return held

    def fit(self, train: Embeddings, classes: int, rates: tuple[float, ...]) -> Regressions:
        """Classifiers of all `rates`, trained on the same minibatches."""
        regressions = Regressions(train.features, classes, rates, self.weight_decay)
        x, n = regressions.inputs(train.features), len(train.labels)
        generator = torch.Generator().manual_seed(self.seed)
        for epoch in range(self.epochs):
            order = torch.randperm(n, generator=generator).to(x.device)
            for rows in order.tensor_split(ceil(n / self.batch_size)):
                regressions.step(x[rows], train.labels[rows], epoch / self.epochs)
        return regressions

    def choose(self, regressions: Regressions, held: Embeddings) -> tuple[float, dict[str, float]]:
        """The learning rate that is most often right on the held-out part, and what each reached."""
        before = regressions.classes_before(regressions.inputs(held.features), held.labels)
        hits = (before == 0).double().mean(0).tolist()
        draws = [i for i, hit in enumerate(hits) if hit == max(hits)]
        best = draws[len(draws) // 2]
        accuracies = {f"validation@{rate:g}": 100 * hit for rate, hit in zip(self.learning_rates, hits)}
        return self.learning_rates[best], accuracies


def prepare(train: Embeddings, test: Embeddings) -> tuple[Embeddings, Embeddings]:
    """Both sets checked, in float32 at least, and where `train` is."""
    refuse_pair(train, test)
    features = at_least_float32(train.features)
    return Embeddings(features, train.labels), Embeddings(test.features.to(features), test.labels.to(train.labels))


def report(regressions: Regressions, number: int, test: Embeddings, choice: dict[str, float]) -> Probed:
    """What one of the classifiers says of the test set."""
    before = regressions.classes_before(regressions.inputs(test.features), test.labels)
    return Probed(before[:, number], regressions.classes, choice)
