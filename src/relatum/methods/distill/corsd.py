"""CORSD: relation networks at every depth learn how images of a class and of two classes relate; the deepest teaches.

A triple is an anchor o, a positive p of its class and a negative n of another. At depth i of k, for x in {p, n},

    Z_x^i = g_i([f_o^i, f_x^i]),   R_x^i = psi_i(Z_x^i)        (R is a distance: smaller is more alike)

    L = CE(o, p, n)                                                                           task
      + alpha sum_{i<=k} max(R_p^i - R_n^i + m, 0)                                            triplet, Eq. (1)
      + beta  sum_{i<k}  l2(R_p^i, R_p^k) + l2(R_n^i, R_n^k)                                  relation, Eq. (2)
      + gamma_p (1 - lam) sum_{i<=k} CE(phi_p^i(Z_p^i), y_o)                                  positive_task, Eq. (3)
      + gamma_p lam       sum_{i<k}  KL(phi_p^k(Z_p^k) || phi_p^i(Z_p^i))                     positive_logits, Eq. (4)
      + gamma_n (1 - lam) sum_{i<=k} CE(phi_n^i(Z_n^i), (y_o + y_n) / 2)                      negative_task
      + gamma_n lam       sum_{i<k}  KL(phi_n^k(Z_n^k) || phi_n^i(Z_n^i))                     negative_logits
      + sigma (psi([z_o, z_p]) - psi([z_o, z_n]))                                             calibration

with f the maps of the stages, z the backbone's logits, phi one fully connected layer. Everything but the backbone is
dropped when it is exported.

Muzhou Yu, Sia Huat Tan, Kailu Wu, Runpei Dong, Linfeng Zhang, Kaisheng Ma: CORSD: Class-Oriented Relational Self
Distillation. ICASSP 2023.

What the paper leaves open, and what is done here: the total is written nowhere (here: the sum above); all terms are
means over the batch and sums over the depths; `l2` of two numbers is their squared difference; the deepest is detached
in every distillation term; KL has the deepest as its target (`divergence`), and no temperature. The authors' code
differs from the paper: it does not run, and it has the deepest not detached (`detach_teacher=False`), one classifier
for both kinds of pairs (`shared_classifier=True`), batch statistics of each kind apart (`statistics="separate"`), the
"KL" of raw logits, a negative target that a softmax has made uniform, and a calibration against running sums of class
predictions, which is summed over the batch (`calibration_loss="sum"`).
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from relatum.core.distributed import world_size
from relatum.core.precision import at_least_float32, full_precision
from relatum.core.types import Batch
from relatum.losses.objectives import soft_cross_entropy, triplet_loss
from relatum.methods.checks import at_least_zero, positive, share
from relatum.methods.classifying import Classifying, class_logits, require_stages, task_loss
from relatum.networks.backbones import Backbone
from relatum.networks.relation_networks import (
    Activation,
    Comparison,
    ImageProjection,
    Interaction,
    PairProjection,
    checkpointed,
    stack_pairs,
)
from relatum.relations import Relation

Divergence = Literal["from-deepest", "from-shallow"]
"""`KL(deepest || shallow)`, or `KL(shallow || deepest)`."""


@full_precision
def relation_distillation(
    distances: Float[Tensor, "k 2 n"], norm: Literal["squared", "absolute"] = "squared", detach_teacher: bool = True
) -> Float[Tensor, ""]:
    """`sum_{i<k} l2(R_p^i, R_p^k) + l2(R_n^i, R_n^k)`, Eq. (2), each the mean over the batch.

    Args:
        distances: distances of the positive and the negative pairs at each depth, shallow to deep.
        norm: `(x - y)^2` or `|x - y|`.
        detach_teacher: no gradient into the deepest.
    """
    teacher = distances[-1].detach() if detach_teacher else distances[-1]
    difference = distances[:-1] - teacher
    return (difference.square() if norm == "squared" else difference.abs()).mean(2).sum()


@full_precision
def logit_distillation(
    logits: Float[Tensor, "k n c"],
    temperature: float = 1.0,
    detach_teacher: bool = True,
    divergence: Divergence = "from-deepest",
) -> Float[Tensor, ""]:
    """`T^2 sum_{i<k} KL(softmax(z^k / T) || softmax(z^i / T))`, Eq. (4), each the mean over the batch.

    Args:
        logits: class scores at each depth, shallow to deep.
        temperature: T > 0; the paper has none, T = 1.
        detach_teacher: no gradient into the deepest.
        divergence: which distribution weighs the difference of the logarithms, the deepest (as above) or the shallow.
    """
    log_p = (logits / temperature).log_softmax(2)
    teacher = log_p[-1].detach() if detach_teacher else log_p[-1]
    if divergence == "from-deepest":
        pointwise = teacher.exp() * (teacher - log_p[:-1])
    else:
        pointwise = log_p[:-1].exp() * (log_p[:-1] - teacher)
    return temperature**2 * pointwise.sum(2).mean(1).sum()


def pair_target(anchor: Int[Tensor, " n"], partner: Int[Tensor, " n"], num_classes: int) -> Float[Tensor, "n c"]:
    """The soft label of a pair, `(y_o + y_x) / 2`: of a positive pair the label of both (Section 2.2)."""
    return (F.one_hot(anchor, num_classes) + F.one_hot(partner, num_classes)) / 2


class CORSD(Classifying, pairing="triples"):
    """Distill the relations of triples from the deepest stage to all others, by networks trained on these relations.

    Weight 0 switches a term off, and what only that term trains is not built. Where the deepest stage would teach
    without being trained itself (`alpha = 0` for the relation, `lam = 1` for the logits, both with
    `detach_teacher`), its layers stay as initialized.

    With a `relation` there is no network on pairs: each image is projected by itself and the relation compares the
    projections (see `relatum.networks.relation_networks.Comparison`); the auxiliary classifiers read the two
    projections of a pair side by side. Euclidean is the handcrafted L2; with Jaccard the two papers meet, and neither
    has it.

    Args:
        backbone: the classifier.
        relation: how the projections of two images compare; none means the paper's relation network.
        alpha: weight of the triplet loss, >= 0.
        beta: weight of the relation distillation, >= 0.
        gamma_p: weight of the positive auxiliary classifiers, >= 0.
        gamma_n: weight of the negative auxiliary classifiers, >= 0.
        lam: share of the logit distillation in the loss of the auxiliary classifiers, in [0, 1].
        sigma: weight of the logit calibration, >= 0.
        margin: margin of the triplet loss. Sigmoid distances differ by less than 1: a margin of 1 is always active.
        temperature: temperature of the logit distillation, whose loss has the factor T^2.
        divergence: direction of the logit distillation. Eq. (4) is printed as D_KL(shallow, deepest) and can be read in
            both: `from-deepest` takes the deepest as the target, as all distillation does; `from-shallow` takes the
            arguments in the order in which they are printed.
        norm: the distance of two relations in the distillation, squared or absolute.
        activation: the range of a learned distance: sigmoid (0, 1), softplus (0, inf), none.
        detach_teacher: let no distillation term train the deepest stage.
        shared_classifier: one auxiliary classifier at each depth for positive and negative pairs.
        calibration_input: what the calibration compares: class probabilities, or logits as printed.
        calibration_loss: how the triples join in the calibration: their "mean", so that sigma does not depend on the
            size of the batch; or the "sum" over the images, as in the authors' code, whose batch of 43 triples makes
            the term 129 times as strong at the same sigma.
        deepest_layers: separable convolutions of the projection at the deepest stage. The paper's text gives every
            stage "several", the authors' code the deepest none, as here.
        width: the most features of a pair inside the relation networks; none means the paper's, twice the channels
            of the last stage. Shallower layers have a half of the next. Measured at 32 px with 100 classes, all that
            CORSD adds to a backbone is, in parameters and multiply-adds for the same images, 14 % and 2.6 % of
            ResNet-18 (without the cap 39 % and 9.0 %), 13 % and 1.9 % of ResNet-50 (249 % and 60 %), 63 % and 11 % of
            MobileNetV1 (472 % and 110 %), 48 % and 4.2 % of ResNet-20, which is below the cap.
        statistics: batch statistics of the relation networks: joint for positive and negative pairs, or separate,
            which hides from them what tells the two kinds apart (and moves the running statistics twice, first by
            the positive pairs).
        checkpoint: keep no activations of the projection layers, and compute them again in the backward pass: 1.15
            times the activations of the backbone alone instead of 1.23, for ResNet-18 at 32 px.

    Raises:
        ValueError: for options out of range, a backbone without classes, or one with a single stage.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        relation: Relation | None = None,
        alpha: float = 0.01,
        beta: float = 0.01,
        gamma_p: float = 0.2,
        gamma_n: float = 0.05,
        lam: float = 0.8,
        sigma: float = 0.01,
        margin: float = 1.0,
        temperature: float = 1.0,
        divergence: Divergence = "from-deepest",
        norm: Literal["squared", "absolute"] = "squared",
        activation: Activation = "sigmoid",
        detach_teacher: bool = True,
        shared_classifier: bool = False,
        calibration_input: Literal["softmax", "logits"] = "softmax",
        calibration_loss: Literal["mean", "sum"] = "mean",
        deepest_layers: int = 0,
        width: int | None = 512,
        statistics: Literal["joint", "separate"] = "joint",
        checkpoint: bool = False,
    ) -> None:
        super().__init__(backbone)
        require_stages(backbone)
        if width is not None and width < 2:
            raise ValueError(f"width is {width}; expected at least 2 (one feature an image), or none for no cap.")
        if relation is not None and statistics == "separate":
            raise ValueError(
                f"separate statistics are those of a network on pairs, and {relation} compares single images; "
                'give statistics="joint", or no relation.'
            )
        if deepest_layers < 0:
            raise ValueError(f"deepest_layers is {deepest_layers}; expected a number of layers, 0 for none.")
        self.alpha = at_least_zero("alpha", alpha)
        self.beta = at_least_zero("beta", beta)
        self.sigma = at_least_zero("sigma", sigma)
        gammas = {"positive": at_least_zero("gamma_p", gamma_p), "negative": at_least_zero("gamma_n", gamma_n)}
        self.gammas = {kind: gamma for kind, gamma in gammas.items() if gamma}
        self.lam = share("lam", lam, 0.8)
        self.margin = at_least_zero("margin", margin)
        self.temperature = positive("the temperature", temperature, 1)
        self.norm, self.divergence, self.detach_teacher = norm, divergence, detach_teacher
        self.calibration_input, self.calibration_loss = calibration_input, calibration_loss
        self.checkpoint = checkpoint
        self._build(
            relation, deepest_layers, width, 2 if statistics == "separate" else 1, shared_classifier, activation
        )

    def _build(
        self,
        relation: Relation | None,
        deepest_layers: int,
        width: int | None,
        groups: int,
        shared_classifier: bool,
        activation: Activation,
    ) -> None:
        """The networks on pairs and the classifiers at each depth, as far as a weight that is not 0 wants them."""
        backbone = self.backbone
        depths = len(backbone.stage_channels)
        full_width = 2 * backbone.stage_channels[-1]
        width = full_width if width is None else min(width, full_width)
        hidden_width = max(1, width >> (depths - 1))

        def project(channels: int, layers: int) -> PairProjection | ImageProjection:
            if relation is None and layers:
                return PairProjection(channels, width, layers, groups=groups)
            return ImageProjection(channels, width, layers)

        def interact(in_width: int, hidden_width: int) -> Interaction | Comparison:
            if relation is None:
                return Interaction(in_width, hidden_width, activation=activation, groups=groups)
            return Comparison(in_width, hidden_width, relation)

        projections: list[PairProjection | ImageProjection] = []
        if self.alpha or self.beta or self.gammas:
            layers = [*reversed(range(1, depths)), deepest_layers]
            projections += [project(c, n) for c, n in zip(backbone.stage_channels, layers)]
        self.projections = nn.ModuleList(projections)

        interactions: list[Interaction | Comparison] = []
        if self.alpha or self.beta:
            hidden = [hidden_width] * (depths - 1) + [2 * hidden_width]
            interactions += [interact(p.out_width, h) for p, h in zip(projections, hidden)]
            if not self.alpha and self.detach_teacher:
                interactions[-1].requires_grad_(False)
        self.interactions = nn.ModuleList(interactions)

        self.classifier_names = {kind: "shared" if shared_classifier else kind for kind in self.gammas}
        self.classifiers = nn.ModuleDict()
        for name in dict.fromkeys(self.classifier_names.values()):
            classifiers = [nn.Linear(p.out_width, backbone.num_classes) for p in projections]
            if self.lam == 1 and self.detach_teacher:
                classifiers[-1].requires_grad_(False)
            self.classifiers[name] = nn.ModuleList(classifiers)

        self.calibrator = interact(2 * backbone.num_classes, hidden_width) if self.sigma else None

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        # Nothing is gathered: no triple is compared with another, and ranks have equally many.
        anchor, positive, negative = batch.views
        n = len(anchor)
        features = self.backbone(torch.cat([anchor, positive, negative]))
        logits = class_logits(features)
        terms = {"task": task_loss(logits, batch.labels.flatten())}
        pairs = [
            checkpointed(project, maps, n) if self.checkpoint else project(maps, n)
            for project, maps in zip(self.projections, features.stages)
        ]
        terms |= self._relation_terms(pairs)
        terms |= self._class_terms(pairs, batch.labels)
        if self.calibrator is not None:
            compared = at_least_float32(logits).softmax(1) if self.calibration_input == "softmax" else logits
            of_positive, of_negative = self.calibrator(stack_pairs(compared, n)).chunk(2)
            calibration = (of_positive - of_negative).mean()
            if self.calibration_loss == "sum":
                # Over the images of all ranks, whose gradients are averaged.
                calibration = calibration * batch.labels.numel() * world_size()
            terms["calibration"] = self.sigma * calibration
        return terms

    def _relation_terms(self, pairs: list[Tensor]) -> dict[str, Tensor]:
        """Eq. (1) and (2), of the projected pairs of each depth."""
        terms = {}
        if self.interactions:
            rows = torch.stack([interact(z) for interact, z in zip(self.interactions, pairs)])
            distances = rows.unflatten(1, (2, -1))
            if self.alpha:
                triplet = triplet_loss(-distances[:, 0], -distances[:, 1], self.margin)
                terms["triplet"] = self.alpha * len(pairs) * triplet
            if self.beta:
                terms["relation"] = self.beta * relation_distillation(distances, self.norm, self.detach_teacher)
        return terms

    def _class_terms(self, pairs: list[Tensor], labels: Tensor) -> dict[str, Tensor]:
        """Eq. (3) and (4), and their like for the negative pairs."""
        terms = {}
        anchor, *partners = labels
        for kind, gamma in self.gammas.items():
            part = 0 if kind == "positive" else 1
            classifiers = self.classifiers[self.classifier_names[kind]].children()
            logits = torch.stack([classify(z.chunk(2)[part]) for classify, z in zip(classifiers, pairs)])
            if self.lam < 1:
                target = pair_target(anchor, partners[part], logits.shape[2]).repeat(len(pairs), 1)
                task = len(pairs) * soft_cross_entropy(logits.flatten(0, 1), target)
                terms[f"{kind}_task"] = gamma * (1 - self.lam) * task
            if self.lam > 0:
                distilled = logit_distillation(logits, self.temperature, self.detach_teacher, self.divergence)
                terms[f"{kind}_logits"] = gamma * self.lam * distilled
        return terms
