"""The public names: all of them load, and none is missing. What a type checker sees of them: test_package.py."""

import pytest

import relatum
from relatum.losses import objectives
from relatum.measurement.evaluators import EVALUATORS
from relatum.methods import METHODS
from relatum.relations.catalog import RELATIONS


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
