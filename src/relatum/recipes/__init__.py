"""Recipes: functions whose docstring says where they come from, the command, the cost, and the number to expect."""

from collections.abc import Callable

from relatum.recipe import Recipe
from relatum.recipes import distill
from relatum.recipes.contrastive import (
    cifar_byol,
    cifar_debiased,
    cifar_moco,
    cifar_moco_jaccard,
    cifar_simclr,
    cifar_simclr_jaccard,
    cifar_simsiam,
    cifar_supcon,
)
from relatum.recipes.demo import demo
from relatum.recipes.distill import SETTINGS
from relatum.recipes.small import (
    small_corsd,
    small_corsd_jaccard,
    small_corsd_l2,
    small_cs_kd,
    small_label_smoothing,
    small_moco,
    small_moco_jaccard,
    small_ps_kd,
    small_relation_l2,
    small_sd,
    small_simclr,
    small_simclr_jaccard,
    small_simclr_jaccard_alone,
    small_supervised,
    small_tf_kd_virtual,
)

RECIPES: dict[str, Callable[[], Recipe]] = {
    "demo": demo,
    "simclr": cifar_simclr,
    "simclr-jaccard": cifar_simclr_jaccard,
    "moco": cifar_moco,
    "moco-jaccard": cifar_moco_jaccard,
    "byol": cifar_byol,
    "simsiam": cifar_simsiam,
    "debiased": cifar_debiased,
    "supcon": cifar_supcon,
    "supervised": distill.supervised,
    "label-smoothing": distill.label_smoothing,
    "teacher": distill.teacher,
    "kd": distill.kd,
    "fitnet": distill.fitnet,
    "at": distill.at,
    "sp": distill.sp,
    "rkd": distill.rkd,
    "cc": distill.cc,
    "dml": distill.dml,
    "sd": distill.sd,
    "cs-kd": distill.cs_kd,
    "tf-kd": distill.tf_kd,
    "tf-kd-virtual": distill.tf_kd_virtual,
    "ps-kd": distill.ps_kd,
    "corsd": distill.corsd,
    "corsd-paper-widths": distill.corsd_paper_widths,
    "corsd-l2": distill.corsd_l2,
    "corsd-jaccard": distill.corsd_jaccard,
    "relation-l2": distill.relation_l2,
    "corsd-rn": distill.corsd_rn,
    "corsd-rn-ac": distill.corsd_rn_ac,
    "corsd-ld": distill.corsd_ld,
    "imagenet-supervised": distill.imagenet_supervised,
    "imagenet-corsd": distill.imagenet_corsd,
    "cub200-supervised": distill.cub200_supervised,
    "cub200-corsd": distill.cub200_corsd,
    "small-simclr": small_simclr,
    "small-simclr-jaccard": small_simclr_jaccard,
    "small-simclr-jaccard-alone": small_simclr_jaccard_alone,
    "small-moco": small_moco,
    "small-moco-jaccard": small_moco_jaccard,
    "small-supervised": small_supervised,
    "small-label-smoothing": small_label_smoothing,
    "small-corsd": small_corsd,
    "small-corsd-l2": small_corsd_l2,
    "small-corsd-jaccard": small_corsd_jaccard,
    "small-relation-l2": small_relation_l2,
    "small-sd": small_sd,
    "small-cs-kd": small_cs_kd,
    "small-ps-kd": small_ps_kd,
    "small-tf-kd-virtual": small_tf_kd_virtual,
}
"""Every recipe by the name that the command line uses."""

__all__ = ["RECIPES", "SETTINGS"]
