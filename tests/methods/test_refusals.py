"""Options that cannot work are refused by name, with what was expected."""

import math

import pytest
import torch

from cases import VARIANTS, backbone, build
from distilling import CLASSES, SAMPLES, batch, network, student, teacher
from relatum.methods import METHODS
from relatum.methods.distill.at import AT
from relatum.methods.distill.cc import CC, neighbor_loss
from relatum.methods.distill.corsd import CORSD
from relatum.methods.distill.cs_kd import CSKD
from relatum.methods.distill.dml import DML
from relatum.methods.distill.fitnet import FitNet
from relatum.methods.distill.kd import KD
from relatum.methods.distill.label_smoothing import LabelSmoothing
from relatum.methods.distill.ps_kd import PSKD
from relatum.methods.distill.rkd import RKD, angle_loss, distance_loss
from relatum.methods.distill.sd import SD
from relatum.methods.distill.sp import SP
from relatum.methods.distill.supervised import Supervised
from relatum.methods.distill.tf_kd import TFKD, TFKDVirtual
from relatum.relations import Cosine, Jaccard


@pytest.mark.parametrize(
    ("name", "chosen", "message"),
    [
        ("moco", {"momentum": 1.5}, "momentum is 1.5"),
        ("moco", {"final_momentum": 2.0}, "final_momentum is 2.0"),
        ("moco", {"queue_size": 0}, "queue of 0 keys"),
        ("moco", {"key_splits": 0}, "key_splits is 0"),
        ("swav", {"prototypes": 1}, "prototypes is 1; expected at least 2"),
        ("swav", {"iterations": 0}, "iterations is 0"),
        ("swav", {"epsilon": 0.0}, "epsilon is 0.0"),
        ("swav", {"queue_size": -1}, "queue_size is -1"),
        ("swav", {"queue_after": 1.5}, "queue_after is 1.5"),
        ("swav", {"frozen_share": 1.0}, "frozen_share is 1.0"),
        ("dino", {"teacher_temperature": 0.0}, "teacher_temperature is 0.0"),
        ("dino", {"teacher_warmup": -0.5}, "teacher_warmup is -0.5"),
        ("dino", {"center_momentum": 2.0}, "center_momentum is 2.0"),
        ("dino", {"momentum": 1.5}, "momentum is 1.5"),
        ("dino", {"prototypes": 1}, "prototypes is 1"),
        ("byol", {"momentum": -1}, "momentum is -1"),
        ("simclr", {"temperature": 0.0}, "temperature is 0.0"),
        ("simclr", {"alphas": (0.5,), "relation": Jaccard()}, "one weight for each"),
        ("simclr", {"out_width": 0}, "expected positive numbers"),
    ],
)
def test_errors_say_what_was_expected(name, chosen, message):
    with pytest.raises(ValueError, match=message):
        build(name, **chosen)


ERRORS = {
    "no-classes": (lambda s, t: Supervised(student(0)), "num_classes=0"),
    "smoothing": (lambda s, t: LabelSmoothing(s, epsilon=1.0), "epsilon is 1.0"),
    "kd-student": (lambda s, t: KD(student(0), teacher=t), "num_classes=0"),
    "kd-teacher": (lambda s, t: KD(s, teacher=teacher(num_classes=7)), "7 classes .* 5"),
    "kd-teacher-without": (lambda s, t: KD(s, teacher=teacher(num_classes=0)), "0 classes .* 5"),
    "temperature": (lambda s, t: KD(s, teacher=t, temperature=0.0), "temperature is 0.0"),
    "weight": (lambda s, t: KD(s, teacher=t, kd_weight=-1.0), "kd_weight is -1.0"),
    "not-a-number": (lambda s, t: SP(s, teacher=t, weight=math.nan), "weight is nan"),
    "rkd": (lambda s, t: RKD(s, teacher=t, angle_weight=-2.0), "angle_weight is -2.0"),
    "at": (lambda s, t: AT(s, teacher=t, weight=-3.0), "weight is -3.0"),
    "guided": (lambda s, t: FitNet(s, teacher=t, guided=3), "guided is stage 3; resnet20"),
    "hint": (lambda s, t: FitNet(s, teacher=t, hint=-4), "hint is stage -4; wrn_16_2"),
    "hint-share": (lambda s, t: FitNet(s, teacher=t, hint_share=1.0), "hint_share is 1.0"),
    "cc": (lambda s, t: CC(s, teacher=t, order=0), "order 0"),
    "peers": (lambda s, t: DML(s, peers=0), "peers is 0"),
    "mutual-weight": (lambda s, t: DML(s, weight=-1.0), "weight is -1.0"),
    "pairs": (lambda s, t: distance_loss(torch.zeros(1, 1), torch.zeros(1, 1)), "1 image has no pairs"),
    "triples": (lambda s, t: angle_loss(torch.zeros(2, 2), torch.zeros(2, 2)), "2 image.* no triples"),
    "neighbors": (lambda s, t: neighbor_loss(torch.zeros(1, 2), torch.zeros(1, 2)), "1 image has no neighbors"),
}


@pytest.mark.parametrize(("build", "message"), ERRORS.values(), ids=ERRORS.keys())
def test_what_cannot_work_is_refused_by_name(build, message):
    with pytest.raises(ValueError, match=message):
        build(student(), teacher())


@pytest.mark.parametrize("make", [RKD, AT, SP, CC, FitNet])
def test_a_teacher_without_classes_teaches_by_its_features(make):
    terms = make(student(), teacher=teacher(num_classes=0)).losses(batch())
    assert "kd" not in terms
    assert all(term.isfinite() for term in terms.values())


BAD_OPTIONS = {
    "sd-alpha": (lambda b: SD(b, alpha=1.5), "alpha is 1.5"),
    "sd-temperature": (lambda b: SD(b, temperature=0.0), "temperature is 0.0"),
    "sd-hint-weight": (lambda b: SD(b, hint_weight=-1), "hint_weight is -1;"),
    "cs-kd-weight": (lambda b: CSKD(b, weight=-1), "weight is -1;"),
    "cs-kd-temperature": (lambda b: CSKD(b, temperature=-4.0), "temperature is -4.0"),
    "tf-kd-alpha": (lambda b: TFKD(b, teacher=network(), alpha=-0.1), "alpha is -0.1"),
    "tf-kd-multiplier": (lambda b: TFKD(b, teacher=network(), multiplier=math.nan), "multiplier is nan"),
    "tf-kd-temperature": (lambda b: TFKD(b, teacher=network(), temperature=0.0), "temperature is 0.0"),
    "tf-kd-classes": (lambda b: TFKD(b, teacher=network(CLASSES + 1)), "has 6 classes"),
    "virtual-correct": (lambda b: TFKDVirtual(b, correct=1.0), "correct is 1.0"),
    "virtual-temperature": (lambda b: TFKDVirtual(b, temperature=0.0), "temperature is 0.0"),
    "virtual-alpha": (lambda b: TFKDVirtual(b, alpha=2.0), "alpha is 2.0"),
    "virtual-one-class": (lambda b: TFKDVirtual(network(num_classes=1)), "has 1 class"),
    "ps-kd-alpha": (lambda b: PSKD(b, num_samples=SAMPLES, alpha=1.1), "alpha is 1.1"),
    "ps-kd-samples": (lambda b: PSKD(b, num_samples=0), "bank of 0 rows"),
}


@pytest.mark.parametrize(("make", "message"), BAD_OPTIONS.values(), ids=BAD_OPTIONS.keys())
def test_options_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make(network())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": -1.0}, "alpha is -1.0"),
        ({"lam": 1.5}, "lam is 1.5"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"margin": -0.5}, "margin is -0.5"),
        ({"width": 1}, "width is 1"),
        ({"deepest_layers": -1}, "deepest_layers is -1"),
        ({"relation": Cosine(), "statistics": "separate"}, "no relation"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        CORSD(network(), **options)


@pytest.mark.parametrize("variant", [v for v, (name, _) in VARIANTS.items() if METHODS[name].classifies])
def test_a_backbone_without_classes_is_refused(variant):
    with pytest.raises(ValueError, match="num_classes=0"):
        build(variant, make=lambda classes: backbone(0))


def test_a_backbone_with_one_stage_has_nothing_to_teach():
    single = network()
    single.stage_channels = single.stage_channels[:1]
    for make in (SD, CORSD):
        with pytest.raises(ValueError, match=r"has 1 stage\(s\)"):
            make(single)
