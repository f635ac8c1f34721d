"""How the features lie on the sphere: measures without labels."""

from dataclasses import dataclass
from math import ceil
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from relatum.core.precision import full_precision
from relatum.core.randomness import generator_of
from relatum.data.images import first
from relatum.evaluation.checks import refuse_features
from relatum.evaluation.evaluator import Encoders, Evaluator, Measured, Reading, Subject
from relatum.evaluation.retrieval import BUDGET


@torch.no_grad()
@full_precision
def alignment(a: Float[Tensor, "n d"], b: Float[Tensor, "n d"], alpha: float = 2.0) -> float:
    """`mean_i ||a_i - b_i||^alpha` of L2-normalized rows: how close two views of an image lie; 0 is best.

    Source: Wang & Isola 2020, "Understanding Contrastive Representation Learning through Alignment and
    Uniformity on the Hypersphere", Eq. 1.

    Args:
        a: features of one view of each image.
        b: features of the other view, row by row.
        alpha: the power, above 0.

    Raises:
        ValueError: for empty or non-finite features, or alpha <= 0.
    """
    refuse_features(a, "a")
    refuse_features(b, "b")
    if not alpha > 0:
        raise ValueError(f"alpha={alpha}; expected > 0 (2 is usual)")
    return (F.normalize(a) - F.normalize(b)).norm(dim=1).double().pow(alpha).mean().item()


@torch.no_grad()
@full_precision
def uniformity(x: Float[Tensor, "n d"], t: float = 2.0, *, budget: int = BUDGET) -> float:
    """`log mean_{i < j} exp(-t ||x_i - x_j||^2)` of L2-normalized rows: how evenly they fill the sphere.

    0 is one point; the smaller, the more even. Costs n^2 d: take some thousand images.
    Source: Wang & Isola 2020, Eq. 2.

    Args:
        x: features of different images.
        t: the scale, above 0.
        budget: bytes of distances held at once.

    Raises:
        ValueError: for fewer than two rows, non-finite features, or t <= 0.
    """
    refuse_features(x, "x")
    n = len(x)
    if n < 2:
        raise ValueError("uniformity of 1 image; expected at least 2, since it is a mean over pairs")
    if not t > 0:
        raise ValueError(f"t={t}; expected > 0 (2 is usual)")
    x = F.normalize(x)
    step = max(1, budget // (x.element_size() * n))
    sums = []
    for start in range(0, n, step):
        cosine = (x[start : start + step] @ x[start:].T).clamp(max=1)
        pairs = torch.ones_like(cosine, dtype=torch.bool).triu_(1)  # each pair once, none with itself
        sums.append((2 * t * (cosine - 1)).masked_fill(~pairs, -torch.inf).flatten().logsumexp(0).double())
    pairs_in_all = torch.tensor(n * (n - 1) / 2, dtype=torch.double)
    return (torch.stack(sums).logsumexp(0).cpu() - pairs_in_all.log()).item()


@torch.no_grad()
def effective_rank(x: Float[Tensor, "n d"]) -> float:
    """`exp(-sum_i p_i log p_i)`, p the singular values of `x` over their sum: from 1 to min(n, d).

    How many directions the features use; far below d tells of dimensional collapse. Not centered, not normalized.
    Sources: Roy & Vetterli 2007, "The effective rank"; Garrido et al. 2023, "RankMe", Eq. 1.

    Args:
        x: features of different images; n well above d, or n bounds the result.

    Returns:
        The effective rank; 0 for features that are all zero.

    Raises:
        ValueError: for empty or non-finite features.
    """
    refuse_features(x, "x")
    x = x if x.shape[0] >= x.shape[1] else x.T
    gram = x.new_zeros(x.shape[1], x.shape[1], dtype=torch.double)
    for rows in x.split(
        4096
    ):  # a singular value below 1e-8 of the largest is lost in the square: it counts for nothing
        gram += rows.double().T @ rows.double()
    singular = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    if singular.sum() == 0:
        return 0.0
    p = singular / singular.sum()
    return torch.special.entr(p).sum().exp().item()


@dataclass(frozen=True)
class Geometry(Evaluator):
    """Effective rank and uniformity of the training images' features: no class is looked at.

    Attributes:
        uniformity_images: a fixed random part of this size is compared pair by pair where there are more.
    """

    uniformity_images: int = 10_000

    reads_test: ClassVar[tuple[Reading, ...]] = ()
    labeled: ClassVar[bool] = False
    prefix: ClassVar[str | None] = ""

    def __post_init__(self) -> None:
        if self.uniformity_images < 2:
            raise ValueError(f"uniformity_images={self.uniformity_images}; expected at least 2, which make a pair")

    def measure(self, subject: Subject) -> Measured:
        """`effective_rank` and `uniformity`."""
        features = subject.train["embedding"].features
        order = torch.randperm(len(features), generator=generator_of(0))
        return Measured(
            {
                "effective_rank": effective_rank(features),
                "uniformity": uniformity(features[order[: self.uniformity_images]]),
            },
            f"backbone features of {len(features)} training images (uniformity: {self.uniformity_images:,} at most)",
        )


@dataclass(frozen=True)
class Alignment(Evaluator):
    """Mean squared distance of the normalized features of two training views of an image.

    Attributes:
        images: a fixed part of the training images of this size is looked at where there are more.
    """

    images: int = 1000

    reads_train: ClassVar[tuple[Reading, ...]] = ()
    reads_test: ClassVar[tuple[Reading, ...]] = ()
    labeled: ClassVar[bool] = False
    encoders: ClassVar[Encoders] = "two-views"
    prefix: ClassVar[str | None] = ""

    def __post_init__(self) -> None:
        if self.images < 1:
            raise ValueError(f"images={self.images}; expected at least 1")

    def measure(self, subject: Subject) -> Measured:
        """`alignment`."""
        images = first(subject.images, min(self.images, len(subject.images)), seed=0)
        steps = ceil(len(images) / subject.batch_size)
        rows = torch.arange(len(images) // steps * steps).view(steps, 1, -1)
        batches = subject.draw(images, lambda epoch: rows, subject.view, 2, 0)
        with torch.no_grad():
            views = [[subject.encode(view).float().cpu() for view in batch.views] for batch in batches(0)]
        a, b = (torch.cat(view) for view in zip(*views))
        protocol = (
            f"mean squared distance of the normalized backbone features of two training views, {len(a)} training "
            "images, last epoch"
        )
        return Measured({"alignment": alignment(a, b)}, protocol)
