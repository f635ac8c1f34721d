"""Deep mutual learning (Zhang et al. 2018)."""

import itertools

import pytest
import torch

import reference
from distilling import CLASSES, batch, student, values
from relatum.methods.distill.dml import DML, mutual_divergences


@pytest.mark.parametrize("peers", [1, 2])
def test_mutual_learning_equals_the_loop(peers):
    method = DML(student().double(), peers=peers).double()
    given = batch(dtype=torch.float64)
    logits = [n(given.views[0]).logits.detach().numpy() for n in (method.backbone, *method.peers)]
    y = given.labels[0].numpy()
    task = [reference.cross_entropy(z, y) for z in logits]
    mutual = [
        sum(reference.distillation(logits[k], logits[j], 1.0) for j in range(peers + 1) if j != k) / peers
        for k in range(peers + 1)
    ]
    expected = {
        "task": task[0],
        "mutual": mutual[0],
        "peer_task": sum(task[1:]),
        "peer_mutual": sum(mutual[1:]),
    }
    assert values(method.losses(given)) == pytest.approx(expected, rel=1e-9)


def test_peers_start_apart_and_do_not_feel_each_others_loss():
    method = DML(student(), peers=2)
    networks = (method.backbone, *method.peers)
    for a, b in itertools.combinations(networks, 2):
        assert not torch.equal(a.model.conv1.weight, b.model.conv1.weight)
    terms = method.losses(batch())
    (terms["task"] + terms["mutual"]).backward(retain_graph=True)
    assert all(p.grad is None for p in method.peers.parameters())
    assert all(p.grad is not None for p in method.backbone.parameters())
    before = [p.grad.clone() for p in method.backbone.parameters()]
    (terms["peer_task"] + terms["peer_mutual"]).backward()
    assert all(p.grad is not None for p in method.peers.parameters())
    assert all(torch.equal(p.grad, g) for p, g in zip(method.backbone.parameters(), before))


def test_equal_peers_agree():
    z = torch.randn(4, CLASSES)
    assert all(d == 0 for d in mutual_divergences([z, z.clone(), z.clone()]))


def test_a_peer_may_be_another_network():
    method = DML(student(), peer="wrn_16_2")
    assert [peer.name for peer in method.peers] == ["wrn_16_2"]
    assert method.peers[0].num_classes == CLASSES
    assert all(term.isfinite() for term in method.losses(batch()).values())


def test_the_predictions_are_those_of_each_peer():
    method, images = DML(student(), peers=2).eval(), batch().views[0]
    predictions = method.predictions(images)
    assert list(predictions) == ["peer1", "peer2"]
    for peer, logits in zip(method.peers, predictions.values()):
        assert torch.equal(logits, peer(images).logits)
