"""One paper, one file. `METHODS` names them all."""

from relatum.core.plugins import Registry
from relatum.methods.base import Method
from relatum.methods.contrastive.barlow_twins import BarlowTwins
from relatum.methods.contrastive.byol import BYOL
from relatum.methods.contrastive.debiased import Debiased
from relatum.methods.contrastive.dino import DINO
from relatum.methods.contrastive.lejepa import LeJEPA
from relatum.methods.contrastive.moco import MoCo
from relatum.methods.contrastive.mocov3 import MoCoV3
from relatum.methods.contrastive.nnclr import NNCLR
from relatum.methods.contrastive.ressl import ReSSL
from relatum.methods.contrastive.simclr import SimCLR
from relatum.methods.contrastive.simsiam import SimSiam
from relatum.methods.contrastive.supcon import SupCon
from relatum.methods.contrastive.swav import SwAV
from relatum.methods.contrastive.vicreg import VICReg
from relatum.methods.distill.at import AT
from relatum.methods.distill.cc import CC
from relatum.methods.distill.corsd import CORSD
from relatum.methods.distill.crd import CRD
from relatum.methods.distill.cs_kd import CSKD
from relatum.methods.distill.dist import DIST
from relatum.methods.distill.dkd import DKD
from relatum.methods.distill.dml import DML
from relatum.methods.distill.fitnet import FitNet
from relatum.methods.distill.kd import KD
from relatum.methods.distill.label_smoothing import LabelSmoothing
from relatum.methods.distill.ps_kd import PSKD
from relatum.methods.distill.relation_l2 import RelationL2
from relatum.methods.distill.review_kd import ReviewKD
from relatum.methods.distill.rkd import RKD
from relatum.methods.distill.sd import SD
from relatum.methods.distill.seed import SEED
from relatum.methods.distill.sp import SP
from relatum.methods.distill.supervised import Supervised
from relatum.methods.distill.tf_kd import TFKD, TFKDVirtual

_METHODS: dict[str, type[Method]] = {
    # without labels
    "simclr": SimCLR,
    "moco": MoCo,
    "byol": BYOL,
    "simsiam": SimSiam,
    "debiased": Debiased,
    "barlow-twins": BarlowTwins,
    "vicreg": VICReg,
    "lejepa": LeJEPA,
    "nnclr": NNCLR,
    "ressl": ReSSL,
    "mocov3": MoCoV3,
    "swav": SwAV,
    "dino": DINO,
    # without labels, from a teacher
    "seed": SEED,
    # with labels
    "supcon": SupCon,
    "supervised": Supervised,
    "label-smoothing": LabelSmoothing,
    # from a teacher
    "kd": KD,
    "dkd": DKD,
    "dist": DIST,
    "fitnet": FitNet,
    "at": AT,
    "sp": SP,
    "rkd": RKD,
    "cc": CC,
    "crd": CRD,
    "review-kd": ReviewKD,
    "tf-kd": TFKD,
    # from oneself, or from a peer
    "tf-kd-virtual": TFKDVirtual,
    "dml": DML,
    "sd": SD,
    "cs-kd": CSKD,
    "ps-kd": PSKD,
    "corsd": CORSD,
    "relation-l2": RelationL2,
}
METHODS: Registry[type[Method]] = Registry("method", _METHODS)
"""Every method by the name that recipes and the command line use."""
