"""Nearest neighbors by cosine, exactly and in bounded memory, and what they say of retrieval."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from relatum.core.precision import at_least_float32
from relatum.core.types import Embeddings
from relatum.evaluation.checks import refuse_embeddings, refuse_features, refuse_pair
from relatum.evaluation.evaluator import Evaluator, Labels, Measured, Subject

BUDGET = 2**27  # bytes of similarities held at once


class Neighbors(NamedTuple):
    """The k nearest of each query: cosine, falling, and row in the bank; equal cosines: the lower row first."""

    similarities: Float[Tensor, "n k"]
    indices: Int[Tensor, "n k"]


@torch.no_grad()
def nearest(
    queries: Float[Tensor, "n d"],
    bank: Float[Tensor, "m d"],
    k: int,
    *,
    exclude_self: bool = False,
    budget: int = BUDGET,
) -> Neighbors:
    """The `k` rows of `bank` with the largest cosine to each query.

    Args:
        queries: vectors of any length; a zero vector has cosine 0 with everything.
        bank: where to search.
        k: how many, at most the rows of `bank` (less one with `exclude_self`).
        exclude_self: `queries` is `bank`, and no row finds itself.
        budget: bytes of similarities held at once; the whole takes a few times as much.

    Raises:
        ValueError: if k is out of range, features are empty or not finite, or `exclude_self` is asked for two sets.
    """
    found = [top for _, top in scan(queries, bank, k, exclude_self=exclude_self, budget=budget)]
    return Neighbors(torch.cat([f.similarities for f in found]), torch.cat([f.indices for f in found]))


def scan(
    queries: Float[Tensor, "n d"], bank: Float[Tensor, "m d"], k: int, *, exclude_self: bool, budget: int = BUDGET
) -> Iterator[tuple[slice, Neighbors]]:
    """`nearest` chunk by chunk, with the rows of `queries` that each chunk answers."""
    refuse_features(queries, "queries")
    refuse_features(bank, "bank")
    if exclude_self and queries.shape != bank.shape:
        raise ValueError(
            f"exclude_self with {len(queries)} queries and a bank of {len(bank)}; expected the same set twice"
        )
    most = len(bank) - exclude_self
    if not 1 <= k <= most:
        raise ValueError(
            f"k={k} neighbors of a bank with {most} candidates; expected 1 <= k <= {most}: lower k, or add images"
        )
    queries, bank = F.normalize(at_least_float32(queries)), F.normalize(at_least_float32(bank))
    step = max(1, budget // (bank.element_size() * len(bank)))
    # One buffer for all chunks: fresh pages for each cost as much as half the product.
    buffer = bank.new_empty(min(step, len(queries)), len(bank))
    for start in range(0, len(queries), step):
        rows = slice(start, min(start + step, len(queries)))
        similarities = torch.mm(queries[rows], bank.T, out=buffer[: rows.stop - start])
        if exclude_self:
            similarities[:, rows].fill_diagonal_(-torch.inf)
        yield rows, top(similarities, k)


def top(similarities: Float[Tensor, "n m"], k: int) -> Neighbors:
    """The k largest of each row, falling; equal values: the lower column first, on every device."""
    values, columns = largest(similarities, min(k + 1, similarities.shape[1]))
    tied = (values[:, 1:] == values[:, :-1]).any(1)  # `topk` promises no order, and no choice at the k-th, for these
    cut = (values[:, k - 1] == values[:, -1]) & (values.shape[1] > k)
    values, columns = values[:, :k], columns[:, :k]
    if cut.any():  # more rows of the bank share the k-th value than have a place
        s, last = similarities[cut], values[cut, -1:]
        above, equal = s > last, s == last
        places = k - above.sum(1, keepdim=True)
        kept = above | (equal & (equal.cumsum(1, dtype=torch.int32) <= places))
        columns[cut] = kept.nonzero()[:, 1].view(-1, k)
        values[cut] = s.gather(1, columns[cut])
    if tied.any():
        rising, order = columns[tied].sort(dim=1)
        values[tied], order = values[tied].gather(1, order).sort(dim=1, descending=True, stable=True)
        columns[tied] = rising.gather(1, order)
    return Neighbors(values, columns)


def largest(values: Float[Tensor, "n m"], k: int) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """`values.topk(k)`, faster for small k: the k largest lie in the k groups with the largest maxima.

    Those groups are found in the same way, by groups of groups.
    """
    m = values.shape[1]
    size = round((m / k) ** (1 / 3))  # balances the maxima of groups of groups against k * size candidates, twice
    if size < 3:
        return values.topk(k)
    width = m // size
    groups = values[:, : size * width].unflatten(1, (size, width))
    _, best = largest(groups.amax(1), k)
    candidates = groups.gather(2, best[:, None, :].expand(-1, size, -1)).flatten(1)
    found, place = torch.cat([candidates, values[:, size * width :]], dim=1).topk(k)
    inside = place < size * k
    column = place // k * width + best.gather(1, place % k)
    return found, torch.where(inside, column, place - size * k + size * width)


@dataclass(frozen=True)
class Retrieval(Evaluator):
    """Search by cosine: recall@k, and mean average precision at R (Musgrave et al. 2020, section 3.2).

    Recall@k is the percentage of queries with one of their class among the k nearest. MAP@R is the mean over queries of
    `1 / R sum_{i <= R} P(i) [i-th neighbor is of the query's class]`, R the images of that class in the bank and
    `P(i)` the precision among the first i. Queries whose class the bank does not hold are left out of both.

    Attributes:
        recall: the k of each recall.
        leave_one_out: search each test image among the other test images, as metric learning does; otherwise
            among the training images.
    """

    recall: tuple[int, ...] = (1, 5, 10)
    leave_one_out: bool = True

    columns: ClassVar[Mapping[str, str]] = {"recall@1": "recall@1", "map@r": "MAP@R"}

    def __post_init__(self) -> None:
        if not self.recall or min(self.recall) < 1:
            raise ValueError(f"recall={self.recall}; expected at least one cut-off, each at least 1")

    def __str__(self) -> str:
        bank = "leave-one-out on test" if self.leave_one_out else "test against train"
        return f"retrieval (cosine, {bank})"

    @torch.no_grad()
    def __call__(self, train: Embeddings, test: Embeddings) -> dict[str, float]:
        """`{"recall@k": ..., "map@r": ...}` in percent.

        Raises:
            ValueError: for unusable embeddings, a cut-off beyond the bank, or if no query has its class in the bank.
        """
        if self.leave_one_out:
            refuse_embeddings(test, "test")
            bank = test
        else:
            refuse_pair(train, test)
            bank = train
        size = int(max(bank.labels.max(), test.labels.max())) + 1
        relevant = torch.bincount(bank.labels, minlength=size)[test.labels] - int(self.leave_one_out)
        queries = relevant > 0
        if not queries.any():
            raise ValueError(
                f"none of {len(test.labels)} queries has an image of its class in the bank; "
                "expected at least one: use a set with two images of a class"
            )
        depth = max(*self.recall, int(relevant.max()))
        place = torch.arange(1, depth + 1, device=bank.labels.device)
        sums = dict.fromkeys([*(f"recall@{k}" for k in self.recall), "map@r"], 0.0)
        for rows, found in scan(test.features, bank.features, depth, exclude_self=self.leave_one_out):
            asked, r = queries[rows], relevant[rows][queries[rows], None]
            hit = bank.labels[found.indices[asked]] == test.labels[rows][asked, None]
            for k in self.recall:
                sums[f"recall@{k}"] += hit[:, :k].any(1).sum().item()
            precision = hit.cumsum(1).double() / place
            sums["map@r"] += (precision * (hit & (place <= r)) / r).sum().item()
        return {name: 100 * total / int(queries.sum()) for name, total in sums.items()}

    def measure(self, subject: Subject) -> Measured:
        """Search in backbone features."""
        found = self(subject.train["embedding"], subject.test["embedding"])
        where = subject.against if self.leave_one_out else subject.sets
        return Measured(found, f"{self}; backbone features, clean views, {where}, last epoch")

    def fitted(self, labels: Labels) -> tuple[Evaluator | None, str]:
        """Without the cut-offs that reach beyond the bank; not at all where no query has its class in the bank."""
        fitting, why = super().fitted(labels)
        if fitting is None or labels.test is None:
            return None, why
        bank = labels.test if self.leave_one_out else labels.train
        size = int(max(bank.max(), labels.test.max())) + 1
        found = torch.bincount(bank, minlength=size)[labels.test] - int(self.leave_one_out)
        most = len(bank) - int(self.leave_one_out)
        recall = tuple(k for k in self.recall if k <= most)
        if not (found > 0).any() or not recall:
            return None, f"none of {len(labels.test)} test images has another of its class to be found"
        if recall == self.recall:
            return self, ""
        return replace(self, recall=recall), f"recall is measured at {recall} alone: there are {most} images to search"
