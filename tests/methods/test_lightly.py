"""Parity with lightly (the extra `bench`), in value and gradient, where both compute the same loss.

Where lightly is known to compute something else, the test says what.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cases import build
from relatum.losses.objectives import nt_xent
from relatum.losses.queries import in_batch_loss
from relatum.losses.sketches import gaussian_distance
from relatum.methods.contrastive.barlow_twins import barlow_terms
from relatum.methods.contrastive.lejepa import lejepa_terms
from relatum.methods.contrastive.vicreg import vicreg_terms

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # lightly's own, when it is imported
SHAPES = [(8, 5), (6, 40)]  # more images than coordinates, and fewer


@pytest.fixture
def lightly_loss():
    return pytest.importorskip("lightly.loss", exc_type=ImportError)


def views(n: int, d: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(4)
    return tuple(torch.randn(n, d, generator=generator, dtype=torch.float64) for _ in range(2))


def value_and_gradients(loss: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tensor, ...]:
    inputs = tuple(z.clone().requires_grad_() for z in inputs)
    value = loss(*inputs)
    return value.detach(), *torch.autograd.grad(value, inputs)


def require_equal(ours: Callable[..., Tensor], theirs: Callable[..., Tensor], *inputs: Tensor) -> None:
    for one, other in zip(value_and_gradients(ours, *inputs), value_and_gradients(theirs, *inputs)):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_barlow_twins(lightly_loss, shape):
    """lightly's batch normalization adds 1e-5 to a variance: coordinates of large variance hide it."""

    def ours(a, b):
        invariance, redundancy = barlow_terms(a, b)
        return invariance + 5e-3 * redundancy

    require_equal(ours, lightly_loss.BarlowTwinsLoss(lambda_param=5e-3), *(1e3 * z for z in views(*shape)))


@pytest.mark.parametrize("shape", SHAPES)
def test_vicreg(lightly_loss, shape):
    """lightly halves the variance terms, as the authors' code does."""

    def ours(a, b):
        invariance, variance, covariance = vicreg_terms(a, b, 1e-4)
        return 25 * invariance + 25 * variance / 2 + covariance

    require_equal(ours, lightly_loss.VICRegLoss(), *views(*shape))


def test_lejepa(lightly_loss):
    """lightly's frequencies are those of the authors' package: 17 from 0 to 3. Both draw the same lines."""
    large, small = (torch.stack(views(8, 5)), torch.stack(views(8, 5)) * 2 - 1)

    def ours(large, small):
        torch.manual_seed(0)
        lines = torch.randn(5, 11, dtype=torch.float64)  # as lightly draws them
        lines = (lines / lines.norm(dim=0)).T
        every = torch.cat([large, small])
        sigreg = sum(gaussian_distance(view, lines, 3.0, 33) for view in every) / len(every)
        return 0.05 * sigreg + 0.95 * lejepa_terms(every, 2, 1)[0]

    def theirs(large, small):
        torch.manual_seed(0)
        return criterion(local_proj=small, global_proj=large)

    criterion = lightly_loss.LeJEPALoss(sigreg_num_vectors=11).double()
    criterion.sigreg.t = torch.linspace(0, 3, 17, dtype=torch.float64)  # theirs are rounded to float32
    criterion.sigreg.phi = (-criterion.sigreg.t.square() / 2).exp()
    require_equal(ours, theirs, large, small)


def test_neighbors_of_nnclr(lightly_loss):
    """The search alone: lightly's loss after it is NT-Xent, where the paper's Eq. (3) has no negatives of one side."""
    modules = pytest.importorskip("lightly.models.modules", exc_type=ImportError)
    bank = modules.NNMemoryBankModule(size=(24, 6))
    method = build("nnclr", out_width=6)
    method.queue.keys.copy_(bank.bank)
    own = torch.randn(8, 6)
    torch.testing.assert_close(method.neighbors(own), bank(own), rtol=0, atol=0)


def test_nt_xent_of_what_lightly_calls_nnclr(lightly_loss):
    """Their criterion of neighbors and predictions, in value and gradient, is our `nt_xent`, and not Eq. (3)."""
    theirs = lightly_loss.NTXentLoss(temperature=0.1)
    require_equal(lambda a, b: nt_xent(a, b, temperature=0.1), theirs, *views(8, 5))
    values = [loss(*views(8, 5)).item() for loss in (theirs, lambda a, b: in_batch_loss(a, b, temperature=0.1))]
    assert abs(values[0] - values[1]) > 0.1
