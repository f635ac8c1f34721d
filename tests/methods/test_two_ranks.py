"""Two ranks with half a batch each are one process with the whole: the losses, the gradient, and what they remember."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from lightning_fabric.plugins.environments import LightningEnvironment
from torch import distributed, nn

from cases import CLASSES, IMAGES, VARIANTS, batch_for, build, optimizer_of
from ranks import WORLD, Ranks
from relatum.core.distributed import first_does, gather, of_first, wait_for_all
from relatum.core.types import Batch
from relatum.evaluation.linear import LinearProbe
from relatum.evaluation.online import OnlineProbe
from relatum.methods import METHODS
from relatum.methods.contrastive.lejepa import lejepa_terms
from relatum.networks.memory import Bank, agreed_buffers, own_parts
from relatum.training import checkpoints
from relatum.training.online import Online
from relatum.training.processes import PhasesInParallel
from relatum.training.run_folder import Progress, RunFolder
from test_training import TINY

STEPS = 2
"""The second step meets what the first has left in queues, banks and momentum copies."""

GATHERS = (
    *("simclr", "simclr-multi-crop", "debiased", "supcon", "moco", "moco-symmetric"),
    *("barlow-twins", "barlow-twins-wide", "vicreg", "vicreg-wide", "lejepa", "lejepa-multi-crop"),
    *("nnclr", "nnclr-jaccard", "ressl", "mocov3", "mocov3-jaccard"),
    *("sp", "rkd", "cc", "cc-neighbors", "ps-kd", "ps-kd-sharded", "sd-code"),
    *("dist", "crd", "seed"),
    *("swav", "swav-multi-crop", "swav-queue", "dino", "dino-multi-crop"),
)
"""Where a method that forgets `gather` must be found, variant by variant."""


SHARING = ("gather", "mean_over_ranks")
"""What a file imports that looks beyond its own rank."""


class Trace(NamedTuple):
    """What each step has computed, and the state that all steps have left."""

    losses: list[dict[str, float]]
    gradients: list[dict[str, torch.Tensor]]
    state: dict[str, torch.Tensor]


def without_batch_statistics(module: nn.Module) -> None:
    """Each image is normalized by itself: half a batch has other statistics than the whole, and means to."""
    for name, child in module.named_children():
        if isinstance(child, (nn.BatchNorm1d, nn.BatchNorm2d)):
            setattr(module, name, nn.GroupNorm(1, child.num_features, affine=child.affine).double())
        else:
            without_batch_statistics(child)


def train_on(variant: str, part: slice, average: Callable[[torch.Tensor], Any]) -> Trace:
    """Some steps of a method on its part of each batch, with gradients that `average` averages over ranks in place."""
    method = build(variant).double().train()
    without_batch_statistics(method)
    optimizer = optimizer_of(method)
    losses, gradients = [], []
    for step in range(STEPS):
        views, labels, index, small = batch_for(method, step, torch.float64)
        terms = method.losses(Batch(tuple(view[part] for view in views), labels[:, part], index[:, part], small))
        sum(terms.values()).backward()
        trained = {name: p.grad for name, p in method.named_parameters() if p.grad is not None}
        for gradient in trained.values():
            average(gradient)
        losses.append({name: term.item() for name, term in terms.items()})
        gradients.append({name: gradient.clone() for name, gradient in trained.items()})
        optimizer.step()
        optimizer.zero_grad()
        method.after_step((step + 1) / STEPS)
    return Trace(losses, gradients, method.state_dict() | whole_banks(method))


def whole_banks(method: nn.Module) -> dict[str, torch.Tensor]:
    """The rows of all images, of banks of which each rank has a part."""
    sizes = {f"{path}.rows": bank.size for path, bank in method.named_modules() if isinstance(bank, Bank)}
    shards = {name: gather(rows[None, :-1]) for name, rows in own_parts(method).items()}
    return {name: rows.transpose(0, 1).flatten(0, 1)[: sizes[name]] for name, rows in shards.items()}


def averaged(gradient: torch.Tensor) -> None:
    """What DistributedDataParallel does with a gradient."""
    distributed.all_reduce(gradient)
    gradient /= WORLD


def on_rank(number: int, variant: str, forgets_to_gather: bool) -> Trace:
    share = IMAGES // WORLD
    file = sys.modules[METHODS[VARIANTS[variant][0]].__module__]
    kept = {name: getattr(file, name) for name in SHARING if hasattr(file, name)}
    try:
        for name in kept if forgets_to_gather else ():
            setattr(file, name, lambda rows: rows)
        return train_on(variant, slice(number * share, (number + 1) * share), averaged)
    finally:
        for name, function in kept.items():
            setattr(file, name, function)


def on_one_and_on_two(ranks: Ranks, variant: str, *, forgets_to_gather: bool = False) -> tuple[Trace, list[Trace]]:
    whole = train_on(variant, slice(None), lambda gradient: None)
    return whole, ranks.run(on_rank, variant, forgets_to_gather)


def require_equal(whole: Trace, traces: list[Trace]) -> None:
    for step, expected in enumerate(whole.losses):
        means = {name: sum(trace.losses[step][name] for trace in traces) / WORLD for name in expected}
        assert means == pytest.approx(expected, rel=1e-9, abs=1e-12)
    for trace in traces:
        for actual, expected in zip(trace.gradients, whole.gradients):
            torch.testing.assert_close(actual, expected, rtol=1e-7, atol=1e-11)
        torch.testing.assert_close(trace.state, dict(whole.state), rtol=1e-7, atol=1e-11)


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    pool = Ranks()
    yield pool
    pool.close()


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_ranks_equal_one_process(ranks, variant):
    require_equal(*on_one_and_on_two(ranks, variant))


@pytest.mark.parametrize("variant", GATHERS)
def test_a_method_that_forgets_to_gather_is_found(ranks, variant):
    traces = on_one_and_on_two(ranks, variant, forgets_to_gather=True)
    with pytest.raises(AssertionError):
        require_equal(*traces)


def test_every_file_that_gathers_has_its_planted_violation():
    modules = {name: sys.modules[method.__module__] for name, method in METHODS.items()}
    files = {name for name, module in modules.items() if any(hasattr(module, shared) for shared in SHARING)}
    assert files == {VARIANTS[variant][0] for variant in GATHERS}


def sigreg_of(number: int) -> tuple[float, list[float]]:
    """Of the same embeddings on each rank, whose generator is its own, as training seeds it."""
    torch.manual_seed(number)
    sigreg = lejepa_terms(torch.arange(24.0).sin().view(1, 6, 4), 1, lines=3)[1]
    return sigreg.item(), of_first(torch.full((2,), float(number))).tolist()


def test_ranks_share_the_lines_of_sigreg(ranks):
    assert ranks.run(sigreg_of) == [(sigreg_of(0)[0], [0, 0])] * WORLD
    assert sigreg_of(0)[0] != sigreg_of(1)[0]


class Learner(nn.Module):
    """A method whose `forward` is its losses: what DistributedDataParallel can wrap."""

    def __init__(self, method: nn.Module) -> None:
        super().__init__()
        self.method = method

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        return self.method.losses(batch)


def phases_on_rank(number: int) -> list[set[str]]:
    """The parameters that have a gradient in each of three steps, under DistributedDataParallel."""
    method = build("fitnet-two-stages").train()
    wrapped = nn.parallel.DistributedDataParallel(
        Learner(method), find_unused_parameters=method.trains_in_phases, broadcast_buffers=False
    )
    trained = []
    for step, progress in enumerate((0.3, 0.6, 0.9)):
        sum(wrapped(batch_for(method, WORLD * step + number)).values()).backward()
        trained.append({name for name, p in method.named_parameters() if p.grad is not None})
        wrapped.zero_grad()
        method.after_step(progress)
    return trained


def test_what_waits_in_a_phase_has_no_gradient_on_several_ranks_either(ranks):
    for first, second, third in ranks.run(phases_on_rank):
        assert first == second
        assert "backbone.model.layer3.0.conv1.weight" not in first
        assert "regressor.0.weight" in first
        assert "backbone.model.layer3.0.conv1.weight" in third
        assert "regressor.0.weight" not in third


def heard_on(rank: int, variant: str, ranks: int) -> dict[str, torch.Tensor]:
    """What two steps on a part of each batch leave in the probe; in evaluation mode an image's features are its own."""
    method = build(variant).double().eval()
    online = Online(OnlineProbe(method.backbone.embedding_dim, CLASSES, LinearProbe()), method.backbone)
    share = slice(rank * IMAGES // ranks, (rank + 1) * IMAGES // ranks)
    for step in range(2):
        views, labels, index, small = batch_for(method, step, torch.float64)
        part = Batch(tuple(view[share] for view in views), labels[:, share], index[:, share], small)
        with online.listening(), torch.no_grad():
            method.losses(part)
        online.step(part, step / 2)
    return dict(online.probe.state_dict())


@pytest.mark.parametrize("variant", ["simclr", "supervised"])
def test_an_online_probe_learns_on_two_ranks_what_it_learns_on_one(ranks, variant):
    whole = heard_on(0, variant, 1)
    first, second = ranks.run(heard_on, variant, WORLD)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    torch.testing.assert_close(first, whole, rtol=1e-4, atol=1e-5)
    assert whole["weight"].abs().max() > 0.01


def bank_on_rank(number: int, half: bool) -> tuple[list[torch.Tensor], list[int]]:
    """What a bank in parts holds of nine images, and how much of it is here, after each rank has written four."""
    rows = torch.arange(27.0).view(9, 3).sin()
    bank = Bank(9, 3, dtype=torch.float16 if half else torch.float32, sharded=True)
    index = torch.tensor([[8, 1, 2, 5], [3, 0, 7, 4]])[number]
    bank.update(gather(index), gather(rows[index]))
    asked = torch.tensor([[0, 1, 2], [8, 6, 7]])[number]
    return [bank(asked), rows[asked]], [len(bank.rows), bank.rows.dtype.itemsize]


@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
def test_a_bank_in_parts_gives_the_rows_that_were_written_wherever_they_are(ranks, half):
    for found, held in ranks.run(bank_on_rank, half):
        read, written = found
        written[(written == torch.arange(27.0).view(9, 3).sin()[6]).all(1)] = 0  # which nobody has written
        assert torch.equal(read, written.half().float() if half else written)
        assert held == [6, 2 if half else 4], "five of nine rows, and the one for those of others"


def in_parallel(method: nn.Module) -> nn.Module:
    """The method as training wraps it."""
    strategy = PhasesInParallel(parallel_devices=[torch.device("cpu")], cluster_environment=LightningEnvironment())
    return strategy.setup_module(Learner(method))


def agreed_on_rank(number: int, variant: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The memories before and after some steps, in which nobody sends them."""
    method = build(variant).train()
    wrapped, optimizer = in_parallel(method), optimizer_of(method)
    states = [{name: buffer.clone() for name, buffer in method.named_buffers() if name in agreed_buffers(method)}]
    for step in range(2):
        sum(wrapped(batch_for(method, WORLD * step + number)).values()).backward()
        optimizer.step()
        optimizer.zero_grad()
        method.after_step((step + 1) / 2)
    states += [{name: buffer.clone() for name, buffer in method.named_buffers() if name in agreed_buffers(method)}]
    return states[0], states[1]


@pytest.mark.parametrize("variant", ["ps-kd", "crd", "crd-sampled", "moco", "nnclr", "ressl", "seed", "swav-queue"])
def test_memories_that_are_not_sent_are_the_same_on_all_ranks(ranks, variant):
    (before, first), (_, second) = ranks.run(agreed_on_rank, variant)
    assert before.keys() == first.keys() == second.keys() != set()
    for name, memory in first.items():
        assert torch.equal(memory, second[name]), name
        assert not torch.equal(memory, before[name]), name


def memories_on_rank(number: int, variant: str, as_torch_does: bool) -> dict[str, float]:
    """What a step under DistributedDataParallel leaves in the memories of the second rank, which were spoilt before."""
    method = build(variant).train()
    wrapped = nn.parallel.DistributedDataParallel(Learner(method)) if as_torch_does else in_parallel(method)
    memories = {name: buffer for name, buffer in method.named_buffers() if name in agreed_buffers(method)}
    statistics = next(buffer for name, buffer in method.named_buffers() if name.endswith("running_var"))
    if number:
        statistics.fill_(7)
        for memory in memories.values():
            memory.fill_(7)
    wrapped(batch_for(method, number))
    method.after_step(0.5)
    shared = {"running_var": float((statistics == 7).float().mean())}
    return shared | {name: float((memory == 7).float().mean()) for name, memory in memories.items()}


MEMORIES = {
    "ps-kd": {"bank.rows"},
    "ps-kd-sharded": {"bank.rows"},
    "crd": {"student_bank.rows", "teacher_bank.rows", "classes"},
    "moco": {"queue.keys", "queue.position"},
}


@pytest.mark.parametrize("variant", MEMORIES)
def test_banks_and_queues_are_not_sent_in_every_step(ranks, variant):
    """What rank 1 has in them stays, where nothing was written, and its running statistics are rank 0's."""
    _, second = ranks.run(memories_on_rank, variant, False)
    assert second.pop("running_var") == 0
    assert second.keys() == MEMORIES[variant]
    kept = {name: share for name, share in second.items() if name != "queue.position"}
    assert min(kept.values()) > 0.2, kept
    _, sent = ranks.run(memories_on_rank, variant, True)
    assert max(sent.values()) == 0, "as torch does it, all is rank 0's"


def resumed_on_rank(number: int, folder: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], str]:
    """The rows of all images before a checkpoint and after it; and what is said where this rank's part is gone."""
    run, method = RunFolder(Path(folder), ""), build("ps-kd-sharded")
    optimizer = optimizer_of(method)
    batch = batch_for(method, number)
    sum(method.losses(batch).values()).backward()
    optimizer.step()
    method.after_step(0.5)
    object.__setattr__(run, "refuse_if_lost", lambda: None)  # the lease of a run is tested elsewhere
    run.save_part(1, method)
    wait_for_all()
    if number == 0:
        run.save(Progress(epoch=1), TINY, method, optimizer, {})
    state = first_does(lambda: checkpoints.last_good(run.path))
    again = build("ps-kd-sharded")
    run.load(state, again, optimizer_of(again))
    before, after = whole_banks(method), whole_banks(again)
    checkpoints.part_of(run.path, 1, 1).unlink(missing_ok=True) if number else None
    try:
        run.load(state, again, optimizer_of(again))
    except ValueError as error:
        return before, after, str(error)
    return before, after, ""


def test_each_rank_goes_on_with_its_own_part_of_a_bank(ranks, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (before, after, first), (_, there, second) = ranks.run(resumed_on_rank, str(tmp_path))
    assert torch.equal(before["bank.rows"], after["bank.rows"])
    assert torch.equal(before["bank.rows"], there["bank.rows"])
    assert (before["bank.rows"].sum(1) > 0.9).sum() > IMAGES, "images of both"
    assert first == ""
    assert "process 1 does not find its part of the checkpoint" in second
    assert "epoch-00001.part-1.pt: all processes must see the run folder" in second
