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
from relatum import RECIPES, Backbone, Batch, Jaccard, Method, SimCLR, fit, load_encoder, nt_xent, register_method

method = SimCLR(Backbone("resnet8", stem="cifar"), relation=Jaccard(), temperature=0.2)
reveal_type(method)
reveal_type(nt_xent(torch.zeros(2, 2), torch.zeros(2, 2)))
SimCLR(Backbone("resnet8"), temprature=0.2)
from relatum import SimCRL

wrapped = Backbone.wrap(torch.nn.Identity(), stages=("a",), pool="first")
reveal_type(wrapped)
reveal_type(wrapped.embed(torch.zeros(2, 3, 8, 8)))
Backbone.wrap(torch.nn.Identity(), pool="frist")
reveal_type(fit(RECIPES["demo"](), "run", data=torch.zeros(2), backbone=wrapped))
fit(RECIPES["demo"](), "run", bakbone=wrapped)
reveal_type(load_encoder("run", wrapped))
reveal_type(method.losses(Batch.unlabeled(torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 8))))
method.losses((torch.zeros(2, 3, 8, 8), 1))

@register_method("mine", like="simclr")
class Mine(Method, pairing="two-views"):
    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        return {"sum": batch.views[0].sum()}

reveal_type(Mine(wrapped).losses)
register_method("no")(int)
"""

REVEALED = (
    "relatum.methods.contrastive.simclr.SimCLR",
    "torch._tensor.Tensor",
    "relatum.networks.backbones.Backbone",
    "relatum.reports.records.Record | None",
    "tuple[relatum.networks.backbones.Backbone, relatum.networks.export.EncoderInfo]",
    "dict[str, torch._tensor.Tensor]",
)
CAUGHT = (
    'Unexpected keyword argument "temprature" for "SimCLR"',
    'has no attribute "SimCRL"',
    'Argument "pool" to "wrap" of "Backbone" has incompatible type',
    'Unexpected keyword argument "bakbone" for "fit"',
    'Argument 1 to "losses" of "SimCLR" has incompatible type',
    'Value of type variable "AnyMethod"',
)


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
    said = done.stdout.replace("builtins.", "").replace("jaxtyping.", "")
    for kind in REVEALED:
        assert f'Revealed type is "{kind}"' in said, f"{kind}: {said}{done.stderr}"
    for error in CAUGHT:
        assert error in said, f"{error}: {said}"
