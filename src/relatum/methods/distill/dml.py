"""Deep mutual learning: networks that start apart train side by side, each towards the labels and the others.

    L_k = CE(z_k, y) + weight / (K - 1) sum_{j != k} KL(softmax(z_j) || softmax(z_k)),   k = 1 ... K

Ying Zhang, Tao Xiang, Timothy M. Hospedales, Huchuan Lu: Deep Mutual Learning. CVPR 2018, Eq. (8). No gradient flows
through z_j. Algorithm 1 lets every network predict anew after the update of the one before it; here, as in the
authors' code, one prediction serves all K losses and the networks step together. That code sums over j where the
paper averages; with K = 2 both are the same.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from relatum.core.types import Batch
from relatum.losses.objectives import kl_divergence
from relatum.methods.checks import at_least_zero
from relatum.methods.classifying import Classifying, class_logits, task_loss
from relatum.networks.backbones import Backbone, takes_size
from relatum.networks.registered import build_backbone


class DML(Classifying, pairing="single"):
    """Train a backbone together with peers; the backbone is the first network, and what is exported.

    All networks share one optimizer: it steps each weight by its own gradient, so that they train as with an optimizer
    each. Every peer costs a training of its network.

    Args:
        backbone: the network that the user keeps, with classes.
        peers: how many networks train beside it, `K - 1 >= 1`; each starts from its own random weights.
        peer: the name of the peers' network, with the stem of the backbone; none means the backbone's own.
        weight: weight of the divergence from the peers, at temperature 1.

    Raises:
        ValueError: for a backbone without classes, or options out of range.
    """

    def __init__(self, backbone: Backbone, *, peers: int = 1, peer: str | None = None, weight: float = 1.0) -> None:
        super().__init__(backbone)
        if peers < 1:
            raise ValueError(f"peers is {peers}; mutual learning needs at least 1 network beside the backbone.")
        name = peer or backbone.name
        sized = takes_size(name)
        # Built anew, not copied: networks that start alike have nothing to tell each other.
        self.peers = nn.ModuleList(
            build_backbone(
                name,
                stem=backbone.stem,
                num_classes=backbone.num_classes,
                in_channels=backbone.in_channels,
                img_size=backbone.img_size if sized else None,
                patch_size=backbone.patch_size if sized else None,
            )
            for _ in range(peers)
        )
        self.weight = at_least_zero("weight", weight)

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        images, labels = batch.views[0], batch.labels[0]
        logits = [class_logits(network(images)) for network in (self.backbone, *self.peers)]
        task = [task_loss(z, labels) for z in logits]
        mutual = [self.weight * divergence for divergence in mutual_divergences(logits)]
        # Sums that leave the backbone's own terms out: its loss reaches no peer, not even with a gradient of zero.
        return {
            "task": task[0],
            "mutual": mutual[0],
            "peer_task": torch.stack(task[1:]).sum(),
            "peer_mutual": torch.stack(mutual[1:]).sum(),
        }

    def predictions(self, images: Float[Tensor, "n c h w"]) -> dict[str, Float[Tensor, "n k"]]:
        """The logits of each peer: `peer1` and on."""
        return {f"peer{i}": class_logits(peer(images)) for i, peer in enumerate(self.peers, 1)}


def mutual_divergences(logits: list[Float[Tensor, "n k"]]) -> list[Float[Tensor, ""]]:
    """For each of K networks the mean divergence of the K - 1 others from it, which carry no gradient (Eq. 8).

    Args:
        logits: class scores of each network, for the same images.
    """
    return [
        torch.stack([kl_divergence(own, other) for j, other in enumerate(logits) if j != k]).mean()
        for k, own in enumerate(logits)
    ]
