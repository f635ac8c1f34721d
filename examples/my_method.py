"""A method in a file of your own, with a name on the command line: W-MSE's idea in thirty lines.

    relatum train whitened --plugin examples/my_method.py --data.source digits --data.view.size 32 --train.epochs 3
    relatum list --plugin examples/my_method.py

Two views are pulled together after all embeddings of a view were whitened, so that they cannot collapse (Aleksandr
Ermolov, Aliaksandr Siarohin, Enver Sangineto, Nicu Sebe: Whitening for Self-Supervised Representation Learning. ICML
2021; theirs whitens by parts of the batch). `like="simclr"` says whose recipe it takes over.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from relatum import Backbone, Batch, Method, register_method


@register_method("whitened", like="simclr")
class Whitened(Method, pairing="two-views"):
    """Pull whitened views together.

    Args:
        backbone: the network.
        width: width of what is whitened; batches must be larger.
        shrinkage: what is added to the covariance, as a share of the identity.
    """

    def __init__(self, backbone: Backbone, *, width: int = 32, shrinkage: float = 1e-3) -> None:
        super().__init__(backbone)
        self.projector = nn.Linear(backbone.embedding_dim, width)
        self.shrinkage = shrinkage

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """`2 - 2 cos` of matched views, the mean over the batch."""
        a, b = (self._whiten(self.projector(self.backbone.embed(view))) for view in batch.views)
        return {"apart": 2 - 2 * F.cosine_similarity(a, b).mean()}

    def _whiten(self, z: Tensor) -> Tensor:
        """Rows with mean zero and the identity as their covariance."""
        z = z.float() - z.float().mean(0)
        identity = torch.eye(z.shape[1], device=z.device)
        covariance = (1 - self.shrinkage) * z.T @ z / (len(z) - 1) + self.shrinkage * identity
        return torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), z.T, upper=False).T
