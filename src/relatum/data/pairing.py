"""Which images meet in a step: shuffled batches, triples, same-class pairs, class-balanced batches.

Everything happens in index space: each function returns the sample numbers of a whole epoch as one tensor of
shape (steps, rows, n), with a row for each view of `Batch`, and is a function of (seed, epoch) alone. The
number of images that pass through the backbone in the epoch is therefore the tensor's `numel()`. Any loader can
read it; step s of epoch e is `indices[s]`, also after a resume; `shard` gives each rank its part of every step.

What does not fill a last batch is left out, a different random part in each epoch.
"""

from itertools import pairwise
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Int, Int64
from torch import Generator, Tensor

from relatum.core.randomness import generator_of

TripleMode = Literal["disjoint", "spread", "anchor"]


def shuffled(num_samples: int, *, batch_size: int, seed: int, epoch: int) -> Int64[Tensor, "steps 1 n"]:
    """A random permutation of the data, cut into batches.

    The `num_samples % batch_size` images of a ragged last batch are left out; they are uniformly random, so that
    over the epochs every image is left out equally often.

    Args:
        num_samples: number of images in the set.
        batch_size: images per step, `n`; 1 ... num_samples.
        seed, epoch: what the order depends on.

    Raises:
        ValueError: the set is smaller than a batch.
    """
    order = torch.randperm(num_samples, generator=generator_of(seed, epoch))
    return _batches(order[None], batch_size, batch_size, "images")


def triples(
    labels: Int[Tensor, " num_samples"],
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    mode: TripleMode = "disjoint",
) -> Int64[Tensor, "steps 3 n"]:
    """Triples (anchor o, positive p, negative n): class(p) = class(o) != class(n), and p != o.

    `"disjoint"`, the paper's protocol: every image is used at most once in an epoch. A class of n_c images gives
    floor(n_c / 3) pairs (o, p); all its other images may serve as negatives, and meet the pairs at random. Hence
    T = Σ_c floor(n_c / 3) triples, and all but Σ_c (n_c mod 3) images are used. This is exact for any classes of
    which none holds more than half of the images. A class c beyond that may have more pairs than there are
    negatives for them, and is cut to Σ_{b≠c} (n_b - 2 floor(n_b / 3)) pairs. A class of two images gives
    negatives only. Which images are pairs, negatives or left over is drawn anew in every epoch.

    `"spread"`, of ours: the triples of `"disjoint"`, dealt to the steps so that the anchors of a step are of as many
    classes as they can be: a class with a triples in S steps has floor(a / S) or ceil(a / S) of them in each. A step
    of few triples then has no class by chance twice as an anchor, and therefore more classes.

    `"anchor"`, the protocol of the released code: every image is an anchor once, its positive is uniform in its
    class, and its negative uniform in a class that is uniform among the others, so that images of small classes
    are negatives more often. An epoch passes three times as many images as there are. (The released code can
    draw the anchor as its own positive; here it cannot.)

    Source: Yu et al. 2023, Class-Oriented Relational Self Distillation, section 2.

    Args:
        labels: the class of each image, non-negative; at least two classes, of at least two images each.
        batch_size: images per step, three for each triple: 129 gives n = 43.
        seed, epoch: what the triples depend on.
        mode: how images are drawn.

    Raises:
        ValueError: `batch_size` is not a multiple of three, there are no labels, a single class, a class with
            one image, or fewer triples than a batch needs.
    """
    if batch_size < 3 or batch_size % 3:
        near = max(3, round(batch_size / 3) * 3)
        raise ValueError(
            f"batch_size={batch_size} does not hold whole triples: it counts images and must be a positive multiple "
            f"of three (43 triples are 129 images); use {near}"
        )
    classes = _group(labels)
    if len(classes.counts) < 2:
        raise ValueError(
            f"all {len(labels)} images are of class {int(classes.names[0])}: a negative needs a second class; "
            f"train on data with at least two classes, or with a method that needs no negatives"
        )
    _require(classes, at_least=2, purpose="an anchor needs a positive other than itself")
    generator = generator_of(seed, epoch)
    match mode:
        case "disjoint":
            matched = _disjoint_triples(classes, generator)
        case "spread":
            matched = _disjoint_triples(classes, generator)
            matched = matched[:, _spread(classes.of[matched[0]], batch_size // 3, generator)]
        case "anchor":
            matched = _anchored_triples(classes, generator)
        case _:
            raise ValueError(
                f"mode={mode!r} is not a way to draw triples; use {', '.join(map(repr, get_args(TripleMode)))}"
            )
    return _batches(matched, batch_size // 3, batch_size, "triples")


def same_class_pairs(
    labels: Int[Tensor, " num_samples"],
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    exclude_self: bool = False,
) -> Int64[Tensor, "steps 2 n"]:
    """Pairs (anchor, partner) of one class: every image is an anchor once, its partner uniform in its class.

    Source: Yun et al. 2020, Regularizing Class-wise Predictions via Self-knowledge Distillation, section 2.2. As
    there, `batch_size` counts the anchors, and a step passes twice as many images; as in the released code, an
    image may be its own partner unless `exclude_self`.

    Args:
        labels: the class of each image, non-negative.
        batch_size: anchors per step, `n`.
        seed, epoch: what the pairs depend on.
        exclude_self: draw the partner among the other images of the class.

    Raises:
        ValueError: there are no labels, fewer images than a batch has anchors, or, with `exclude_self`, a class
            with one image.
    """
    classes = _group(labels)
    if exclude_self:
        _require(classes, at_least=2, purpose="exclude_self=True needs a partner other than the anchor")
    generator = generator_of(seed, epoch)
    anchor = torch.randperm(len(labels), generator=generator)
    partner = _partner(classes, anchor, exclude_self, generator)
    return _batches(torch.stack([anchor, partner]), batch_size, batch_size, "anchors")


def class_balanced(
    labels: Int[Tensor, " num_samples"], *, batch_size: int, per_class: int, seed: int, epoch: int
) -> Int64[Tensor, "steps 1 n"]:
    """Batches of `batch_size / per_class` different classes, with `per_class` different images of each.

    Every image is used at most once in an epoch. A class of n_c images gives g_c = floor(n_c / per_class) groups,
    and an epoch has the largest number of steps S with Σ_c min(g_c, S) >= S batch_size / per_class: as many as
    the groups fill, unless large classes, which can be in a batch only once, have no others left to meet. Images
    of a class are adjacent in the batch.

    Source: class-uniform sampling of Peng et al. 2019, Correlation Congruence for Knowledge Distillation.

    Args:
        labels: the class of each image, non-negative.
        batch_size: images per step, `n`; a multiple of `per_class`.
        per_class: images of each class of a batch; at most the size of the smallest class.
        seed, epoch: what the batches depend on.

    Raises:
        ValueError: `per_class` does not divide `batch_size`, there are no labels, fewer classes than a batch
            needs, or a class with fewer than `per_class` images.
    """
    if per_class < 1 or batch_size < 1 or batch_size % per_class:
        raise ValueError(
            f"batch_size={batch_size} does not hold whole groups of per_class={per_class} images: both must be "
            f"positive and the first a multiple of the second; change one of them"
        )
    slots = batch_size // per_class
    classes = _group(labels)
    if len(classes.counts) < slots:
        raise ValueError(
            f"batch_size={batch_size} with per_class={per_class} needs {slots} classes, and the data have "
            f"{len(classes.counts)}; lower batch_size to at most {len(classes.counts) * per_class}, or raise per_class"
        )
    _require(classes, at_least=per_class, purpose=f"per_class={per_class} needs as many of each class")
    generator = generator_of(seed, epoch)

    # total[S - 1] = Σ_c min(g_c, S) is concave in S: the S that can be filled are 1 ... steps
    groups = classes.counts // per_class
    of_size = torch.bincount(groups, minlength=int(groups.sum()) // slots + 1)
    total = (len(groups) - of_size.cumsum(0))[:-1].cumsum(0)
    steps = int((total >= slots * torch.arange(1, len(total) + 1)).sum())

    # dealt to the batches in the order of their classes, at most `steps` groups of a class go to different batches
    groups = groups.clamp(max=steps)
    owner = torch.arange(len(groups)).repeat_interleave(groups)
    number = torch.arange(len(owner)) - _starts(groups)[owner]
    first = classes.start[owner] + per_class * number
    dealt = torch.randperm(len(owner), generator=generator)[: steps * slots]
    dealt = dealt[_class_order(owner[dealt], generator)].view(slots, steps)
    batch_of = _dealing(owner[dealt], generator)
    slot_first = torch.empty_like(dealt).scatter_(1, batch_of, first[dealt])
    members = _members(classes, generator)
    return members[slot_first.T[..., None] + torch.arange(per_class)].reshape(steps, 1, batch_size)


def shard(indices: Int[Tensor, "steps rows n"], rank: int, world_size: int) -> Int[Tensor, "steps rows m"]:
    """The part of every step that belongs to one rank: n / world_size tuples, whole.

    The parts are disjoint, and in the order of the ranks they make up the batch of one process: what `gather`
    returns is then that batch.

    Args:
        indices: the epoch of all ranks.
        rank: 0 ... world_size - 1.
        world_size: number of ranks; divides n.

    Raises:
        ValueError: `n` is not a multiple of `world_size`, or `rank` is outside its range.
    """
    if not 0 <= rank < world_size:
        raise ValueError(f"rank={rank} is outside 0 ... {world_size - 1} (world_size={world_size})")
    rows, n = indices.shape[1:]
    if n % world_size:
        raise ValueError(
            f"{n} tuples of {rows} images per step do not divide among world_size={world_size} ranks; choose a "
            f"batch_size with a multiple of {world_size} tuples, such as {max(1, n // world_size) * world_size}"
        )
    return indices.unflatten(2, (world_size, n // world_size))[:, :, rank]


class _Classes(NamedTuple):
    """The classes of a data set, numbered 0 ... C-1 whatever their labels are."""

    of: Int64[Tensor, " num_samples"]  # the class of each image
    names: Int[Tensor, " classes"]  # the label of each class
    counts: Int64[Tensor, " classes"]  # the images of each class
    start: Int64[Tensor, " classes"]  # where each class begins among the images in the order of their classes


def _group(labels: Int[Tensor, " num_samples"]) -> _Classes:
    if len(labels) == 0:
        raise ValueError("there are no labels, so no images: pairing needs labeled data")
    if unlabeled := int((labels < 0).sum()):
        raise ValueError(
            f"{unlabeled} of {len(labels)} images have no class (label {int(labels.min())}): classes are numbered "
            f"from 0; keep only labeled images, or use a method that needs no labels"
        )
    names, of, counts = labels.cpu().unique(return_inverse=True, return_counts=True)
    return _Classes(of, names, counts, _starts(counts))


def _require(classes: _Classes, at_least: int, purpose: str) -> None:
    small = classes.counts < at_least
    if small.any():
        smallest = int(classes.counts.argmin())
        count = int(classes.counts[smallest])
        raise ValueError(
            f"class {int(classes.names[smallest])} has {count} image{'s' if count > 1 else ''}, where at least "
            f"{at_least} are expected (so in {int(small.sum())} of {len(small)} classes): {purpose}; "
            f"add images to such a class, or leave it out"
        )


def _batches(tuples: Int64[Tensor, "rows count"], n: int, batch_size: int, unit: str) -> Int64[Tensor, "steps rows n"]:
    rows, count = tuples.shape
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} is not a number of images; use at least 1")
    if count < n:
        raise ValueError(
            f"batch_size={batch_size} needs {n} {unit} for a step, and the data give {count} in an epoch; "
            f"lower it to at most {batch_size // n * count}, or use more images"
        )
    return tuples[:, : count // n * n].view(rows, -1, n).transpose(0, 1).contiguous()


def _starts(counts: Int64[Tensor, " k"]) -> Int64[Tensor, " k"]:
    return counts.cumsum(0) - counts


def _members(classes: _Classes, generator: Generator) -> Int64[Tensor, " num_samples"]:
    """All images in the order of their classes, in random order within a class."""
    order = torch.randperm(len(classes.of), generator=generator)
    return order[classes.of[order].argsort(stable=True)]


def _class_order(of: Int64[Tensor, " n"], generator: Generator) -> Int64[Tensor, " n"]:
    """An order of the entries that puts equal classes side by side, the classes themselves in random order."""
    rank = torch.randperm(int(of.max()) + 1 if len(of) else 0, generator=generator)
    return rank[of].argsort(stable=True)


def _uniform(bounds: Int64[Tensor, " n"], generator: Generator) -> Int64[Tensor, " n"]:
    """One integer in [0, bound) for each bound; the modulo's bias is below bound / 2**62."""
    return torch.randint(2**62, bounds.shape, generator=generator) % bounds


def _partner(
    classes: _Classes, anchor: Int64[Tensor, " n"], exclude_self: bool, generator: Generator
) -> Int64[Tensor, " n"]:
    """An image of each anchor's class: a uniform number of places further in the ring of its class."""
    members = classes.of.argsort(stable=True)
    of = classes.of[anchor]
    start, counts = classes.start[of], classes.counts[of]
    place = members.argsort()[anchor] - start
    nearest = int(exclude_self)
    further = nearest + _uniform(counts - nearest, generator)
    return members[start + (place + further) % counts]


def _anchored_triples(classes: _Classes, generator: Generator) -> Int64[Tensor, "3 num_samples"]:
    anchor = torch.randperm(len(classes.of), generator=generator)
    positive = _partner(classes, anchor, True, generator)
    others = len(classes.counts) - 1
    other = (classes.of[anchor] + 1 + torch.randint(others, anchor.shape, generator=generator)) % (others + 1)
    negative = classes.of.argsort(stable=True)[classes.start[other] + _uniform(classes.counts[other], generator)]
    return torch.stack([anchor, positive, negative])


def _disjoint_triples(classes: _Classes, generator: Generator) -> Int64[Tensor, "3 count"]:
    pairs = classes.counts // 3
    if not pairs.any():
        raise ValueError(
            "no class has three images, so that mode='disjoint' gives no triples; use mode='anchor', or more images"
        )
    # Hall's condition: a class must find its negatives among what the other classes do not need as pairs. Only
    # a class of more than half of the images can break it, so that cutting it once is enough.
    unpaired = classes.counts - 2 * pairs
    pairs = torch.minimum(pairs, unpaired.sum() - unpaired)

    members = _members(classes, generator)
    of = classes.of[members]
    place = torch.arange(len(members)) - classes.start[of]
    anchor = members[place < pairs[of]]
    positive = members[(place >= pairs[of]) & (place < 2 * pairs[of])]
    pool = members[place >= 2 * pairs[of]]
    # beyond the last anchor stand slots that take any image: the left-over
    slots = torch.cat([classes.of[anchor], torch.full((len(pool) - len(anchor),), -1)])
    negative = pool[_conflict_free(slots, classes.of[pool], generator)][: len(anchor)]
    shuffle = torch.randperm(len(anchor), generator=generator)
    return torch.stack([anchor, positive, negative])[:, shuffle]


def _spread(of: Int64[Tensor, " count"], n: int, generator: Generator) -> Int64[Tensor, " kept"]:
    """An order of entries with classes `of` that deals those of a class to different steps of n, in turn.

    What fills no last step is left out, and is random where the entries come in random order.
    """
    steps = len(of) // n
    if not steps:
        return torch.arange(len(of))
    kept = _class_order(of[: steps * n], generator)
    return kept.view(n, steps)[:, torch.randperm(steps, generator=generator)].T.flatten()


def _conflict_free(slots: Int64[Tensor, " n"], pool: Int64[Tensor, " n"], generator: Generator) -> Int64[Tensor, " n"]:
    """A random order of `pool` such that no entry meets a slot of its own class, repaired in one pass.

    A random permutation leaves a few conflicts. In the order of their classes, moved on by the size m of the
    largest of these classes, no conflicting entry stays with its class, if they are at least 2 m. If they are
    fewer, slots join in where this class is on neither side. There are enough of these: with K conflicts, m of
    them of the class c, which stands in p slots and q entries (p + q <= n, Hall), the slots without c are
    n - p - q + m >= m, of which at most K - m are in conflict already.
    """
    order = torch.randperm(len(pool), generator=generator)
    drawn = pool[order]
    moved = (slots == drawn).nonzero().flatten()
    sizes = torch.bincount(drawn[moved], minlength=1)
    m, largest = int(sizes.max()), int(sizes.argmax())
    moved = moved[_class_order(drawn[moved], generator)]
    free = ((slots != drawn) & (slots != largest) & (drawn != largest)).nonzero().flatten()
    free = free[torch.randperm(len(free), generator=generator)]
    moved = torch.cat([moved, free[: max(0, 2 * m - len(moved))]])
    order[moved] = order[moved.roll(m)]
    return order


def _dealing(owner: Int64[Tensor, "slots steps"], generator: Generator) -> Int64[Tensor, "slots steps"]:
    """For each row a random permutation of the batches, such that no batch gets a class twice.

    `owner` is in the order of the classes, and no class is longer than a row: so two rows can share only the
    class that ends the one and begins the next.
    """
    batches = [torch.randperm(owner.shape[1], generator=generator)]
    for previous, row in pairwise(owner):
        order = torch.randperm(owner.shape[1], generator=generator)
        has_class = torch.zeros_like(row).index_fill_(0, batches[-1][previous == row[0]], 1)
        order = order[has_class[order].argsort(stable=True)]
        head, rest = order.tensor_split([int((row == row[0]).sum())])
        batches.append(torch.cat([head, rest[torch.randperm(len(rest), generator=generator)]]))
    return torch.stack(batches)
