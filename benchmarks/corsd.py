"""What CORSD costs on top of the classifier that it trains."""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from benchmarks.harness import Benchmark, Case, Job, Target, run
from torch import Tensor, nn
from torch.nn import functional as F

from relatum.core.types import Batch
from relatum.methods.distill.corsd import CORSD
from relatum.networks.backbones import Backbone
from relatum.training.cost import saved_bytes

SAVED = "saved activations MiB"


def multiply_adds(module: nn.Module, forward: Callable[[], object]) -> int:
    """Of convolutions and fully connected layers below `module`, in one call of `forward`."""
    total = 0

    def count(layer: nn.Module, _: object, output: Tensor) -> None:
        nonlocal total
        weight = layer.get_parameter("weight")
        total += output.numel() // weight.shape[0] * weight.numel()

    layers = [layer for layer in module.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    handles = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        forward()
    for handle in handles:
        handle.remove()
    return total


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def triples(args: argparse.Namespace) -> Batch:
    """Random images, with the classes that a triple has."""
    g, n = torch.Generator().manual_seed(0), args.triples
    views = tuple(torch.randn(n, 3, args.pixels, args.pixels, generator=g).to(args.device) for _ in range(3))
    anchor = torch.randint(args.classes, (n,), generator=g)
    labels = torch.stack([anchor, anchor, (anchor + 1) % args.classes])
    return Batch(views, labels.to(args.device), torch.arange(3 * n, device=args.device).view(3, n))


def side_of(args: argparse.Namespace, side: str) -> tuple[nn.Module, Callable[[], Tensor]]:
    """What a side trains, and its loss."""
    torch.manual_seed(0)
    batch = triples(args)
    backbone = Backbone(args.backbone, stem="cifar", num_classes=args.classes).to(args.device)
    if side == "baseline":
        images, labels = torch.cat(batch.views), batch.labels.flatten()
        return backbone, lambda: F.cross_entropy(backbone(images).logits, labels)
    width = side.split(", ")[0].removeprefix("CORSD width ")
    method = CORSD(backbone, width=None if width == "paper" else int(width), checkpoint="checkpointed" in side)
    method = method.to(args.device)
    return method, lambda: sum(method.losses(batch).values(), torch.zeros((), device=args.device))


def step(args: argparse.Namespace, side: str) -> Job:
    module, loss = side_of(args, side)
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-4, momentum=0.9)

    def job() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return job


def saved(args: argparse.Namespace, side: str) -> dict[str, float]:
    module, loss = side_of(args, side)
    own = {t.untyped_storage().data_ptr() for t in (*module.parameters(), *module.buffers())}
    total = saved_bytes(loss, own)
    if isinstance(module, CORSD) and module.checkpoint:
        # The projections keep nothing, but the largest lives again in the backward pass, beside all of the backbone.
        n = args.triples
        stages = [maps.detach().requires_grad_() for maps in module.backbone(torch.cat(triples(args).views)).stages]
        total += max(
            saved_bytes(lambda g=g, maps=maps: g(maps, n), own) - maps.untyped_storage().nbytes()
            for g, maps in zip(module.projections, stages)
        )
    return {SAVED: total / 2**20}


def shares(args: argparse.Namespace, side: str) -> dict[str, float]:
    method, loss = side_of(args, side)
    if not isinstance(method, CORSD):
        return {}
    heads = [*method.projections, *method.interactions, *method.classifiers.values(), method.calibrator]
    cost = sum(multiply_adds(head, loss) for head in heads)
    return {
        "extra parameters": sum(map(size, heads)) / size(method.backbone),
        "extra multiply-adds": cost / multiply_adds(method.backbone, loss),
    }


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--pixels", type=int, default=32)
    parser.add_argument("--triples", type=int, default=16)
    parser.add_argument("--widths", type=int, nargs="+", default=[512], help="0 for the paper's")


def cases(args: argparse.Namespace) -> dict[str, Case]:
    sides, targets = ["baseline"], []
    for width in args.widths:
        name = f"CORSD width {width or 'paper'}"
        sides += [name, f"{name}, checkpointed"]
        targets += [
            Target(name, at_most=1.2, paper=1.65),
            Target(name, SAVED, at_most=1.5, paper=1.7),
            Target(f"{name}, checkpointed", SAVED, at_most=1.3, paper=1.7),
        ]
    return {
        f"{args.backbone}, {args.triples} triples of {args.pixels}x{args.pixels}": Case(
            {side: partial(step, args, side) for side in sides},
            targets=targets,
            quantities=partial(saved, args),
            facts=partial(shares, args),
        )
    }


BENCHMARK = Benchmark(
    name="corsd",
    question="What does CORSD cost on top of the classifier that it trains?",
    work=(
        "forward, backward and SGD step of one backbone on the same random images, three for each triple; the baseline "
        "is cross-entropy. Saved activations are what autograd keeps of a forward pass, each storage counted once; "
        "with checkpointing the largest projection is added, which lives again in the backward pass. The paper's 1.65 "
        "(time) and 1.7 (memory) compare both sides of its own code, on a GPU."
    ),
    limits=(
        "no loading and no views, which both sides share and which would bring the ratios nearer to 1; the accuracy "
        "that the cost buys; and the parameters and multiply-adds here are those of training only, as nothing of "
        "CORSD is left at inference."
    ),
    arguments=arguments,
    cases=cases,
)

if __name__ == "__main__":
    run(BENCHMARK)
