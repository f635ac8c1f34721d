"""Self-distillation (BYOT): classifiers at every stage, of which the deepest teaches the shallower ones.

    f_i, z_i = embedding and logits of the classifier at stage i = 1 ... k;   f_k, z_k = those of the backbone
    L = CE(z_k, y)                                                                  task
      + (1 - alpha) sum_{i<k} CE(z_i, y)                                            stage_task
      + alpha       sum_{i<k} KL(softmax(z_k / T) || softmax(z_i / T))              stage_logits
      + hint_weight sum_{i<k} |A_i f_i - f_k|^2                                     stage_hint

with no gradient into z_k and f_k. Everything but the backbone is dropped when it is exported.

Linfeng Zhang, Jiebo Song, Anni Gao, Jingwei Chen, Chenglong Bao, Kaisheng Ma: Be Your Own Teacher: Improve the
Performance of Convolutional Neural Networks via Self Distillation. ICCV 2019, whose losses these are. Linfeng Zhang,
Chenglong Bao, Kaisheng Ma: Self-Distillation: Towards Efficient and Compact Neural Networks. TPAMI 2021, whose stage
classifiers these are (`attention=False` for those of 2019).

The authors' code differs. The hint is the root of the sum of squares over the whole batch, not its mean square, and
has the weight 0.03 (`hint="frobenius", hint_weight=0.03`). One stage has no hint: the shallowest by the code's
comment, the second-deepest by its index (`exempt`). It writes the divergence as a cross-entropy: the gradient is the
same. Neither has the factor T^2, which keeps the size of the gradient independent of T; public ports have it
(`temperature_squared=True`).
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from relatum.core.distributed import gather
from relatum.core.precision import full_precision
from relatum.core.types import Batch
from relatum.losses.objectives import kl_divergence
from relatum.methods.checks import at_least_zero, positive, share
from relatum.methods.classifying import Classifying, class_logits, require_stages, task_loss
from relatum.networks.backbones import Backbone
from relatum.networks.heads import StageClassifier

Hint = Literal["squared", "frobenius"]
Exempt = Literal["none", "shallowest", "second-deepest"]


class SD(Classifying, pairing="single"):
    """Classify at every stage, and let the deepest classifier teach the others.

    Args:
        backbone: the network, with classes and at least two stages.
        alpha: the share of the deepest classifier in what the others learn from, in [0, 1]; the labels have the rest.
        temperature: `T > 0` of the distillation.
        hint_weight: weight of the distance between embeddings; 0 builds no adapters. A public port has 1e-6 on the
            sum over a batch of 128, which is 1.28e-4 here.
        hint: distance between embeddings: squared, the mean over the batch of the squared length; or frobenius, the
            length of the whole batch's difference, which grows with the root of the batch size.
        exempt: the stage whose embedding has no hint.
        temperature_squared: multiply the divergence by T^2.
        attention: weigh each map before it is classified.

    Raises:
        ValueError: for a backbone without classes or with a single stage, or options out of range.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        alpha: float = 0.3,
        temperature: float = 3.0,
        hint_weight: float = 1e-4,
        hint: Hint = "squared",
        exempt: Exempt = "none",
        temperature_squared: bool = False,
        attention: bool = True,
    ) -> None:
        super().__init__(backbone)
        require_stages(backbone)
        channels = backbone.stage_channels
        self.classifiers = nn.ModuleList(
            StageClassifier(channels[i:], backbone.num_classes, attention=attention) for i in range(len(channels) - 1)
        )
        shallow = range(len(channels) - 1)
        without = {"none": (), "shallowest": shallow[:1], "second-deepest": shallow[-1:]}[exempt]
        hinted = [i for i in shallow if i not in without] if hint_weight else []
        self.adapters = nn.ModuleDict({str(i): nn.Linear(channels[-1], backbone.embedding_dim) for i in hinted})
        self.alpha = share("alpha", alpha, 0.3)
        self.temperature = positive("the temperature", temperature, 3)
        self.logit_weight = alpha if temperature_squared else alpha / temperature**2
        self.hint_weight = at_least_zero("hint_weight", hint_weight)
        self.hint = hint

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        labels = batch.labels[0]
        features = self.backbone(batch.views[0])
        deepest = class_logits(features)
        shallow = [classifier(maps) for classifier, maps in zip(self.classifiers, features.stages)]
        task = torch.stack([task_loss(logits, labels) for _, logits in shallow])
        distilled = torch.stack([kl_divergence(logits, deepest, self.temperature) for _, logits in shallow])
        terms = {
            "task": task_loss(deepest, labels),
            "stage_task": (1 - self.alpha) * task.sum(),
            "stage_logits": self.logit_weight * distilled.sum(),
        }
        if self.adapters:
            # The Frobenius norm is one of the whole batch, on all ranks.
            target = gather(features.embedding.detach())
            adapted = [gather(adapter(shallow[int(i)][0])) for i, adapter in self.adapters.items()]
            hints = torch.stack([hint_loss(embedding, target, self.hint) for embedding in adapted])
            terms["stage_hint"] = self.hint_weight * hints.sum()
        return terms

    def predictions(self, images: Float[Tensor, "n c h w"]) -> dict[str, Float[Tensor, "n k"]]:
        """The logits of each stage's classifier, `stage1` the shallowest, and `ensemble`: their mean with the deepest.

        The authors report all of them; the backbone's own classifier is the deepest, 4/4 in their tables.
        """
        features = self.backbone(images)
        heads = [classifier(maps)[1] for classifier, maps in zip(self.classifiers, features.stages)]
        ensemble = torch.stack([*heads, class_logits(features)]).mean(0)
        return {f"stage{i}": logits for i, logits in enumerate(heads, 1)} | {"ensemble": ensemble}


@full_precision
def hint_loss(
    shallow: Float[Tensor, "n d"], deepest: Float[Tensor, "n d"], hint: Hint = "squared"
) -> Float[Tensor, ""]:
    """The distance between the embeddings of a shallow stage and those of the deepest, which carry no gradient.

    Args:
        shallow: `A_i f_i` of each image.
        deepest: `f_k` of each image.
        hint: squared, `1/n sum_b |A_i f_i - f_k|^2`; frobenius, `(sum_b |A_i f_i - f_k|^2)^(1/2)`.
    """
    length = torch.linalg.vector_norm(shallow - deepest.detach())
    return length**2 / len(shallow) if hint == "squared" else length
