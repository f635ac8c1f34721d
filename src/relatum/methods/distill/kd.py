"""Knowledge distillation: the student imitates the teacher's softened class probabilities.

    L = gamma CE(z_s, y) + alpha T^2 KL(softmax(z_t / T) || softmax(z_s / T))

Geoffrey Hinton, Oriol Vinyals, Jeff Dean: Distilling the Knowledge in a Neural Network. 2015, Section 2.

`standardize` puts (z - mean(z)) / std(z) in the place of both networks' logits in the second term: Shangquan Sun, Wenqi
Ren, Jingzhi Li, Rui Wang, Xiaochun Cao: Logit Standardization in Knowledge Distillation. CVPR 2024. Its code has
gamma = 0.1, alpha = 9 and T = 2 on CIFAR-100, and keeps the factor T^2. Published on CIFAR-100 with it: ResNet-56 to 20
71.43, ResNet-32x4 to 8x4 76.62. torchdistill's port leaves T^2 out where its weight of the cross-entropy is 0.
"""

from jaxtyping import Float
from torch import Tensor

from relatum.core.types import Batch
from relatum.methods.distill.distiller import Distiller
from relatum.networks.backbones import Backbone


class KD(Distiller, pairing="single"):
    """Learn from the logits of a frozen teacher.

    The defaults are those of the CIFAR-100 benchmark of Tian et al. (ICLR 2020); on ImageNet 0.5, 0.5 and T = 1 are
    usual.

    Args:
        backbone: the student, with classes.
        teacher: a trained network with the same classes.
        task_weight: `gamma`, the weight of the cross-entropy.
        kd_weight: `alpha`, the weight of the divergence from the teacher.
        temperature: `T > 0`; its square keeps the size of the gradient independent of it.
        standardize: compare logits of mean 0 and deviation 1 over the classes (Sun et al. 2024).

    Raises:
        ValueError: for networks whose classes do not fit, or options out of range.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        teacher: Backbone,
        task_weight: float = 0.1,
        kd_weight: float = 0.9,
        temperature: float = 4.0,
        standardize: bool = False,
    ) -> None:
        super().__init__(backbone, teacher, task_weight, kd_weight, temperature, standardize=standardize)

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        return self.class_terms(*self.features(batch))
