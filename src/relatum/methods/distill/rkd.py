"""Relational knowledge distillation: the student keeps the distances and the angles between the teacher's embeddings.

    psi_D(i, j) = |f_i - f_j| / mu,   psi_A(i, j, k) = <e_ij, e_kj>,   e_ij = (f_i - f_j) / |f_i - f_j|
    L = CE(z_s, y) + lambda_D mean h(psi_D^s - psi_D^t) + lambda_A mean h(psi_A^s - psi_A^t)

h is the Huber function with delta = 1, mu the mean distance of the batch in each network's own space; the student's mu
carries a gradient.

Wonpyo Park, Dongju Kim, Yan Lu, Minsu Cho: Relational Knowledge Distillation. CVPR 2019, Eq. (5) to (10). The paper
writes sums over tuples of distinct examples; its weights belong to means, which its code takes, and so are means taken
here. They differ in the tuples: the code averages over all n^2 pairs and n^3 triples, also those that name an example
twice and cost nothing, which makes its terms (n - 1)/n and (n - 1)(n - 2)/n^2 times the paper's.
"""

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from relatum.core.distributed import gather
from relatum.core.precision import full_precision
from relatum.core.types import Batch
from relatum.methods.checks import at_least_zero
from relatum.methods.distill.distiller import Distiller
from relatum.networks.backbones import Backbone

Tuples = Literal["distinct", "all"]
"""What is averaged over: tuples of distinct examples (the paper), or all of them (the authors' code)."""

TRIPLES = {"cpu": 2**18, "gpu": 2**24}
"""Whose angles are at hand at once: on a CPU what its cache holds (measured), on a GPU a guess."""


class RKD(Distiller, pairing="single"):
    """Learn the distances and angles among a frozen teacher's embeddings.

    Args:
        backbone: the student, with classes.
        teacher: a trained network; its embedding may have another width.
        distance_weight: `lambda_D`, the weight of the distances; 25 on CIFAR-100, 1 in metric learning.
        angle_weight: `lambda_A`, the weight of the angles; 50 on CIFAR-100, 2 in metric learning. 0 saves
            the n^3 angles.
        tuples: `distinct` is the paper, `all` the authors' code.
        task_weight: weight of the cross-entropy.
        kd_weight: weight of the divergence from the teacher's logits.
        temperature: temperature of that divergence.

    Raises:
        ValueError: for networks whose classes do not fit, or options out of range.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        teacher: Backbone,
        distance_weight: float = 25.0,
        angle_weight: float = 50.0,
        tuples: Tuples = "distinct",
        task_weight: float = 1.0,
        kd_weight: float = 0.0,
        temperature: float = 4.0,
    ) -> None:
        super().__init__(backbone, teacher, task_weight, kd_weight, temperature)
        self.distance_weight = at_least_zero("distance_weight", distance_weight)
        self.angle_weight = at_least_zero("angle_weight", angle_weight)
        self.tuples = tuples

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        student, teacher, labels = self.features(batch)
        terms = self.class_terms(student, teacher, labels)
        d_student, d_teacher = distances(gather(student.embedding)), distances(gather(teacher.embedding))
        if self.distance_weight:
            terms["distance"] = self.distance_weight * distance_loss(d_student, d_teacher, self.tuples)
        if self.angle_weight:
            terms["angle"] = self.angle_weight * angle_loss(d_student, d_teacher, self.tuples)
        return terms


@full_precision
def distances(embedding: Float[Tensor, "n d"]) -> Float[Tensor, "n n"]:
    """The Euclidean distances of all pairs; 0, without a gradient, where two points are the same.

    |a - b|^2 = |a|^2 + |b|^2 - 2 <a, b> cancels for close points, so it is evaluated in float64, after centring: that
    is exact for all that float32 can tell apart, and needs no n x n x d tensor.
    """
    centered = embedding.double()
    centered = centered - centered.mean(0)
    squared_norm = centered.square().sum(1)
    scale = squared_norm[:, None] + squared_norm
    squared = scale - 2 * centered @ centered.T
    # What is left of two equal points is rounding; and the root has no gradient at 0.
    same = (squared <= 1e-14 * scale) | torch.eye(len(embedding), dtype=torch.bool, device=embedding.device)
    return squared.masked_fill(same, 1).sqrt().masked_fill(same, 0).to(embedding.dtype)


class Triangles:
    """The distances of n points, and what their angles need of them."""

    def __init__(self, distance: Float[Tensor, "n n"]) -> None:
        same = distance == 0
        self.length = distance
        self.squared = distance.square()
        self.inverse = distance.masked_fill(same, 1).reciprocal().masked_fill(same, 0)

    def cosines(self, vertices: slice, out: Float[Tensor, "m n n"]) -> Float[Tensor, "m n n"]:
        """`[j, i, k]`: the cosine of the angle at vertex j between points i and k; 0 where a side has no length.

        By the law of cosines, (d_ji^2 + d_jk^2 - d_ik^2) / (2 d_ji d_jk): the rounding grows with the ratio of the
        sides only, not with their lengths, so that float32 serves.
        """
        d, inverse = self.length[vertices], self.inverse[vertices]
        half = 0.5 * inverse
        torch.mul(self.squared, inverse[:, :, None], out=out)
        torch.sub(d[:, :, None], out, out=out)
        return out.mul_(half[:, None, :]).addcmul_(half[:, :, None], d[:, None, :])

    def add_gradient(
        self,
        gradient: Float[Tensor, "n n"],
        vertices: slice,
        slope: Float[Tensor, "m n n"],
        radial: Float[Tensor, "m n"],
    ) -> None:
        """Add the derivatives by the distances of a function of the cosines at some vertices.

        Args:
            gradient: what the derivatives are added to.
            vertices: m of them.
            slope: the derivatives by the cosines, symmetric in i and k; used up.
            radial: for each j and i the sum over k of the derivatives times the cosines.
        """
        d, inverse = self.length[vertices], self.inverse[vertices]
        slope.mul_(inverse[:, None, :])
        gradient[vertices] += (slope.sum(2).mul_(d) - radial).mul_(2 * inverse)
        gradient.addcmul_(self.length, slope.mul_(inverse[:, :, None]).sum(0), value=-1)


class _AngleDifference(torch.autograd.Function):
    """`sum_jik h(C_jik - C'_jik)` over the cosines of two networks, some vertices j at a time: no n^3 numbers are kept.

    The gradient is computed together with the value. With G = h' and v = 1 / d, the derivative by d_ji is

        2 d_ji v_ji sum_k G_jik v_jk - 2 v_ji sum_k G_jik C_jik - d_ji sum_l G_lji v_lj v_li.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, block: int) -> Tensor:
        n = len(student)
        a, b = Triangles(student), Triangles(teacher)
        by_student, by_teacher = (torch.zeros_like(student) if wanted else None for wanted in ctx.needs_input_grad[:2])
        total = student.new_zeros(())
        # Kept for all blocks: fresh pages cost as much as the arithmetic.
        buffers = student.new_empty(3, min(block, n), n, n)
        for start in range(0, n, block):
            vertices = slice(start, min(start + block, n))
            own, difference, slope = buffers[:, : vertices.stop - start]
            a.cosines(vertices, own)
            torch.sub(own, b.cosines(vertices, difference), out=difference)
            torch.clamp(difference, -1, 1, out=slope)
            radial = own.mul_(slope).sum(2)
            moved = difference.mul_(slope).sum(2)
            total += moved.sum() - 0.5 * torch.dot(slope.flatten(), slope.flatten())
            if by_teacher is not None:
                b.add_gradient(by_teacher, vertices, torch.neg(slope, out=own), moved - radial)
            if by_student is not None:
                a.add_gradient(by_student, vertices, slope, radial)
        ctx.save_for_backward(by_student, by_teacher)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        return *(None if g is None else g * grad_output for g in ctx.saved_tensors), None


@full_precision
def distance_loss(
    student: Float[Tensor, "n n"], teacher: Float[Tensor, "n n"], tuples: Tuples = "distinct"
) -> Float[Tensor, ""]:
    """The mean of h(d^s / mu^s - d^t / mu^t) over pairs (Eq. 5 to 7).

    Args:
        student, teacher: distances of the same n examples, with zeros on the diagonal.
        tuples: `distinct` averages the loss and mu over pairs i != j; `all` the loss over all pairs and mu over those
            that are not at distance 0.

    Raises:
        ValueError: for fewer than two examples.
    """
    n = len(student)
    if n < 2:
        raise ValueError(f"a batch of {n} image has no pairs; expected at least 2 images.")
    relative = []
    for distance in (student, teacher):
        pairs = n * (n - 1) if tuples == "distinct" else (distance > 0).sum().clamp(min=1)
        mean = distance.sum() / pairs
        relative.append(distance / mean.clamp(min=torch.finfo(mean.dtype).tiny))
    total = F.smooth_l1_loss(relative[0], relative[1], reduction="sum")
    return total / (n * (n - 1) if tuples == "distinct" else n**2)


@full_precision
def angle_loss(
    student: Float[Tensor, "n n"], teacher: Float[Tensor, "n n"], tuples: Tuples = "distinct"
) -> Float[Tensor, ""]:
    """The mean of h(cos^s_ijk - cos^t_ijk) over triples (Eq. 8 to 10).

    Args:
        student, teacher: distances of the same n examples, with zeros on the diagonal; they fix the angles.
        tuples: `distinct` averages over triples of three different examples, `all` over all n^3.

    Raises:
        ValueError: for fewer than three examples.
    """
    n = len(student)
    if n < 3:
        raise ValueError(f"a batch of {n} image(s) has no triples; expected at least 3 images, or angle_weight=0.")
    block = max(1, TRIPLES["cpu" if student.device.type == "cpu" else "gpu"] // n**2)
    total = _AngleDifference.apply(student, teacher, block)
    return total / (n * (n - 1) * (n - 2) if tuples == "distinct" else n**3)
