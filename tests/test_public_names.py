"""The public names: all of them load, none is missing, and a type checker sees what they are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import relatum
from relatum.losses import objectives
from relatum.measurement.evaluators import EVALUATORS
from relatum.methods import METHODS
from relatum.relations.catalog import RELATIONS

PROGRAM = """
import torch
from relatum import Backbone, Batch, Jaccard, SimCLR, nt_xent

method = SimCLR(Backbone("resnet8", stem="cifar"), relation=Jaccard(), temperature=0.2)
reveal_type(method)
reveal_type(nt_xent(torch.zeros(2, 2), torch.zeros(2, 2)))
SimCLR(Backbone("resnet8"), temprature=0.2)
from relatum import SimCRL
"""


@pytest.mark.parametrize("name", relatum.__all__)
def test_a_name_loads(name):
    assert getattr(relatum, name) is not None


@pytest.mark.parametrize("kind", [*METHODS.values(), *EVALUATORS.values()], ids=lambda kind: kind.__name__)
def test_methods_and_evaluators_are_public(kind):
    assert getattr(relatum, kind.__name__) is kind


def test_losses_and_relations_are_public():
    losses = {name for name in vars(objectives) if name.endswith(("_loss", "nt_xent", "_cross_entropy", "_divergence"))}
    assert {name for name in losses if not name.startswith("_")} <= set(relatum.__all__)
    kinds = {type(make()).__name__ for make in RELATIONS.values()}
    assert kinds <= set(relatum.__all__)


def test_a_name_that_is_none_is_refused():
    with pytest.raises(AttributeError, match="Simclr"):
        relatum.Simclr  # noqa: B018


def test_a_type_checker_sees_what_the_names_are(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    source = Path(relatum.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--follow-imports=silent", "--ignore-missing-imports", "program.py"],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(source)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert 'Revealed type is "relatum.methods.contrastive.simclr.SimCLR"' in done.stdout, done.stdout + done.stderr
    assert 'Revealed type is "torch._tensor.Tensor"' in done.stdout
    assert 'Unexpected keyword argument "temprature" for "SimCLR"' in done.stdout
    assert 'has no attribute "SimCRL"' in done.stdout
