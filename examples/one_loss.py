"""One loss, in a loop that knows nothing of Relatum: pure functions of tensors, exact at any size of the batch.

python examples/one_loss.py
"""

import torch
from torch import nn

from relatum import Jaccard, nt_xent


def main(steps: int = 60) -> tuple[float, float]:
    """Learn to tell which rows of two noisy copies belong together; the loss before and after."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 32))
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(steps):
        points = torch.randn(256, 20)
        a, b = (network(points + 0.3 * torch.randn_like(points)) for _ in range(2))
        loss = nt_xent(a, b, relation=Jaccard(), temperature=0.2)  # the Jaccard index compares two halves of a row
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses[0], losses[-1]


if __name__ == "__main__":
    print("loss {:.3f} -> {:.3f}".format(*main()))
