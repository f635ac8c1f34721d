"""Blocks under `torch.compile`: one graph, and the gradients of the plain form."""

import subprocess
import sys

import pytest
import torch

COMPILED = """
import torch
from relatum.losses.objectives import query_key_loss, supcon_loss
from relatum.relations import Cosine, Euclidean, Jaccard, Relation, UnitInner


class Cubed(Relation):  # differentiated by autograd, a tile at a time
    forms = (UnitInner(),)

    def value(self, x):
        return x ** 3


z, labels = torch.randn(8, 6, requires_grad=True), torch.arange(8) % 3
learned = torch.tensor(0.3, requires_grad=True)
for loss in (
    lambda block: supcon_loss(z, labels, Jaccard(), 0.2, block),
    lambda block: query_key_loss(z, z.detach().roll(1, 0), z.detach(), Cosine(), 0.01, block),
    lambda block: supcon_loss(z, labels, Cubed(), 0.2, block),
    lambda block: supcon_loss(z, labels, Euclidean(), 0.2, block),
    lambda block: supcon_loss(z, labels, Jaccard("softplus"), learned, block),
):
    expected, = torch.autograd.grad(loss(None), z)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(torch.autograd.grad(compiled(6), z)[0], expected, rtol=1e-4, atol=1e-6)
"""


@pytest.mark.skipif(torch.__version__.startswith("2.8."), reason="torch 2.8 cannot compile the blocks; eager, it can")
def test_compiles_without_graph_breaks():
    """In a process without the shape checks, which do not compile; and without the code generator, for its time."""
    # torch 2.11's compiler about torch itself.
    about_itself = "ignore:<class 'torch.autograd.function.Function'> should not be instantiated"
    command = [sys.executable, "-W", "error", "-W", about_itself, "-c", COMPILED]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
