"""Contrastive representation distillation: the student's embedding of an image finds the teacher's among all images'.

    u = phi_s(f_s) / |.|,  v = phi_t(f_t) / |.|;   banks U, V: a row of each for every training image
    U_i <- (m U_i + (1 - m) u_i) / |.|  after a step that saw image i, V_i likewise
    L = CE(z_s, y) + weight (l(u, V) + l(v, U))
    l(u, V) = -mean_i log(e^{<u_i, V_i> / t} / sum_j e^{<u_i, V_j> / t})                             exactly, or
            = -mean_i (log h(u_i, V_i) + sum_{k=1}^{N} log(1 - h(u_i, V_{j_k}))),                     with N samples,
              h(u, V) = e^{<u, V> / t} / (e^{<u, V> / t} + N Z),   Z the mean of e^{<u, V> / t} in the first batch

Yonglong Tian, Dilip Krishnan, Phillip Isola: Contrastive Representation Distillation. ICLR 2020. The second form is the
paper's critic with the memory of Wu et al. (CVPR 2018), whose constant M Z stands beside the paper's N / M for M images
in the authors' code, too: it estimates the softmax over all images, the first form, from N of them. The default is what
is estimated: one product with all rows of the bank, by blocks. Both layers phi are trained, the teacher's by
its own term, and dropped afterwards. j runs over images of other classes, as in the paper's main tables, where
`negatives="other-images"` leaves out image i alone.

The authors' code: weight 0.8, N = 16,384, t = 0.07, m = 0.5, width 128; it draws with replacement, adds 1e-7 to the
denominators, and starts with rows whose length is 1 on average only. Its product of N rows for each image takes
N times the batch times the width in memory. torchdistill's port cannot draw for itself (it asks its alias table under
two names, one of which does not exist), and both compare in whatever precision autocast has. Published on CIFAR-100,
the last epoch, five runs: ResNet-56 to 20 71.16, ResNet-32x4 to 8x4 75.51, VGG-13 to MobileNetV2 69.73.
"""

import math
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from relatum.core.distributed import gather, rank
from relatum.core.precision import full_precision
from relatum.core.randomness import generator_of
from relatum.core.types import Batch
from relatum.losses import checks
from relatum.losses.matching import bank_loss
from relatum.methods.checks import at_least_zero, share
from relatum.methods.distill.distiller import Distiller, require_same_classes
from relatum.networks.backbones import Backbone
from relatum.networks.heads import Projector
from relatum.networks.memory import Bank
from relatum.relations import Cosine, Relation, unit

Negatives = Literal["other-classes", "other-images"]
"""Which images an image is held apart from."""

Pairs = tuple[tuple[Tensor, Tensor], ...]
"""Queries of one network, and the bank of the other."""


class CRD(Distiller, pairing="single"):
    """Tell images apart by the teacher's embeddings, and by the student's.

    Two rows of all training images are part of the state: 8 bytes for each image and coordinate, 51 MB for CIFAR-100
    and 1.3 GB for ImageNet at the width of 128.

    Args:
        backbone: the student, with classes.
        teacher: a trained network.
        num_samples: how many training images there are.
        relation: how two embeddings compare; phi has as many branches as it has spaces.
        weight: weight of both contrasts together.
        contrast_temperature: `t > 0` of the contrasts.
        samples: `N`, how many images each is held apart from in a step, drawn anew; none means all, exactly.
        negatives: hold an image apart from the images of other classes, or from all others.
        momentum: `m` of the banks, in [0, 1]; 0 keeps the last embedding.
        width: width of each space of the embeddings.
        task_weight: weight of the cross-entropy.
        kd_weight: weight of the divergence from the teacher's logits; the paper also has 1.
        temperature: temperature of that divergence.

    Raises:
        ValueError: for networks whose classes do not fit, more samples than other images, or options out of range;
            in training, for images without their number in the training set.
    """

    classes: Int[Tensor, " m"]
    scales: Float[Tensor, "2"]
    draws: Int[Tensor, "2"]
    agreed: ClassVar[tuple[str, ...]] = ("classes",)  # written from what is gathered, as the banks

    def __init__(
        self,
        backbone: Backbone,
        *,
        teacher: Backbone,
        num_samples: int,
        relation: Relation = Cosine(),
        weight: float = 0.8,
        contrast_temperature: float = 0.07,
        samples: int | None = None,
        negatives: Negatives = "other-classes",
        momentum: float = 0.5,
        width: int = 128,
        task_weight: float = 1.0,
        kd_weight: float = 0.0,
        temperature: float = 4.0,
    ) -> None:
        super().__init__(backbone, teacher, task_weight, kd_weight, temperature)
        require_same_classes(backbone, backbone, least=2 if negatives == "other-classes" else 1)
        self.weight = at_least_zero("weight", weight)
        self.momentum = share("momentum", momentum, 0.5)
        checks.temperature(contrast_temperature, "contrast_temperature")
        if samples is not None and not 1 <= samples < num_samples:
            raise ValueError(
                f"samples is {samples}, and an image has {num_samples - 1:,} others; expected 1 to {num_samples - 1}, "
                "or none for all of them."
            )
        self.relation, self.contrast_temperature = relation, contrast_temperature
        self.samples, self.negatives = samples, negatives
        self.student_embed, self.teacher_embed = (
            Projector(network.embedding_dim, 1, width, spaces=relation.spaces, layers=1)
            for network in (backbone, teacher)
        )
        rows = unit(torch.randn(2, num_samples, width * relation.spaces).flatten(0, 1), relation.spaces).chunk(2)
        self.student_bank, self.teacher_bank = (Bank(num_samples, width * relation.spaces, start) for start in rows)
        self.register_buffer("classes", torch.full((num_samples,), -1))
        if samples is not None:
            self.register_buffer("scales", torch.zeros(2))
            self.register_buffer("draws", torch.stack([torch.randint(2**62, ()), torch.tensor(0)]))
        self._seen: tuple[Tensor, ...] | None = None

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        student, teacher, labels = self.features(batch)
        index = self.student_bank.checked(batch.index[0])
        self.classes.index_copy_(0, gather(index), gather(labels))
        own, goal = self.student_embed(student.embedding), self.teacher_embed(teacher.embedding)
        self._seen = index, own.detach(), goal.detach()
        pairs = ((own, self.teacher_bank.rows), (goal, self.student_bank.rows))
        contrast = self._exact if self.samples is None else self._estimate
        found = [self.weight * value for value in contrast(pairs, index, labels)]
        return self.class_terms(student, teacher, labels) | dict(zip(("student", "teacher"), found))

    def _exact(self, pairs: Pairs, index: Int[Tensor, " n"], labels: Int[Tensor, " n"]) -> list[Tensor]:
        classes = (labels, self.classes) if self.negatives == "other-classes" else None
        return [
            bank_loss(query, rows, index, self.relation, self.contrast_temperature, classes) for query, rows in pairs
        ]

    def _estimate(self, pairs: Pairs, index: Int[Tensor, " n"], labels: Int[Tensor, " n"]) -> list[Tensor]:
        assert self.samples is not None
        # Every rank draws for the images of all, so that what an image meets does not depend on how many they are.
        generator = generator_of(*self.draws.tolist(), device=index.device)
        classes = (gather(labels), self.classes) if self.negatives == "other-classes" else None
        drawn = others(gather(index), self.samples, len(self.classes), classes, generator)
        columns = torch.cat([index[:, None], drawn[rank() * len(index) :][: len(index)]], dim=1)
        found = []
        for number, (query, rows) in enumerate(pairs):
            logits = chosen_logits(query, rows, columns, self.relation, self.contrast_temperature)
            now = gather(logits.detach().flatten().logsumexp(0)[None]).logsumexp(0) - math.log(
                len(drawn) * columns.shape[1]
            )
            self.scales[number] = torch.where(self.draws[1] == 0, now, self.scales[number])
            found.append(nce_loss(logits, self.scales[number].clone()))
        return found

    def after_step(self, progress: float) -> None:
        if self._seen is not None:
            index, own, goal = (gather(part) for part in self._seen)
            for bank, rows in ((self.student_bank, own), (self.teacher_bank, goal)):
                moved = torch.lerp(rows.to(bank.rows.dtype), bank(index), self.momentum)
                bank.update(index, unit(moved, self.relation.spaces))
            if self.samples is not None:
                self.draws[1] += 1
        self._seen = None


def others(
    index: Int[Tensor, " n"],
    count: int,
    size: int,
    classes: tuple[Int[Tensor, " n"], Int[Tensor, " m"]] | None,
    generator: torch.Generator,
) -> Int[Tensor, "n count"]:
    """For each image, others of a set, drawn evenly and with replacement.

    Args:
        index: the numbers of the images.
        count: how many are drawn for each.
        size: how many images the set has.
        classes: those of the images and of the set, where images of the same class are not drawn either; a class of -1
            is another one.
        generator: what draws.
    """
    order, start, left_out = None, index, torch.ones_like(index)
    if classes is not None:
        order = classes[1].argsort(stable=True)
        ascending = classes[1][order]
        start = torch.searchsorted(ascending, classes[0])
        left_out = torch.searchsorted(ascending, classes[0], right=True) - start
    uniform = torch.rand(len(index), count, dtype=torch.float64, generator=generator, device=index.device)
    places = (uniform * (size - left_out)[:, None]).long()
    places += (places >= start[:, None]) * left_out[:, None]  # what is left out is a stretch, which is jumped over
    return places if order is None else order[places]


@full_precision
def chosen_logits(
    query: Float[Tensor, "n d"],
    rows: Float[Tensor, "m d"],
    columns: Int[Tensor, "n c"],
    relation: Relation,
    temperature: float,
) -> Float[Tensor, "n c"]:
    """The relation of each query with its own choice of rows, over the temperature.

    One product with all rows, from which the chosen are read: a copy of the chosen rows is n c d numbers, and takes
    longer to read than the product to compute.
    """
    return relation.all_pairs(query, rows).gather(1, columns) / temperature


@full_precision
def nce_loss(logits: Float[Tensor, "n c"], log_scale: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """`-log h_0 - sum_{k>0} log(1 - h_k)`, `h = e^l / (e^l + N Z)`: the mean over the batch (Tian et al. 2020, Eq. 18).

    Args:
        logits: of the image that is looked for, and of N others.
        log_scale: `log Z`.
    """
    odds = logits - (log_scale + math.log(logits.shape[1] - 1))  # of h
    return (F.softplus(-odds[:, 0]) + F.softplus(odds[:, 1:]).sum(1)).mean()
