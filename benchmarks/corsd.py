"""What does CORSD cost on top of the classifier that it trains, on the same images?

    python benchmarks/corsd.py --backbone resnet18 --triples 8 --repeats 7

Both sides train one backbone on the same random images (3 per triple): forward, backward, SGD step. The baseline is
cross-entropy. Steps alternate, A B C A B C ..., and the medians of the repeats are compared, in CPU seconds of this
process, which other processes disturb less than the clock does. Saved activations are what autograd keeps of a forward
pass, each storage counted once; with checkpointing the projection layers keep nothing, and the largest of them is
added, because it lives again in the backward pass while all of the backbone's still do. Multiply-adds are those of
convolutions and fully connected layers. Reach: step at most 1.20, activations at most 1.5, 1.3 with checkpointing; the
paper reports 1.65 and 1.7 for both sides of its own code.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from relatum.backbones import Backbone
from relatum.methods.distill.corsd import CORSD
from relatum.types import Batch


def saved_bytes(forward: Callable[[], object]) -> int:
    """The bytes that autograd keeps of `forward`, beside parameters and their like that were there before."""
    storages: dict[int, int] = {}
    kept: list[Tensor] = []  # alive until the end, or another tensor might come to lie at the same address

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    del result
    return sum(storages.values())


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--pixels", type=int, default=32)
    parser.add_argument("--triples", type=int, default=8)
    parser.add_argument("--widths", type=int, nargs="+", default=[512], help="0 for the paper's")
    parser.add_argument("--repeats", type=int, default=7, help="0 measures no time")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", help="write the JSON here too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    n = options.triples
    views = tuple(torch.randn(n, 3, options.pixels, options.pixels) for _ in range(3))
    anchor = torch.randint(options.classes, (n,))
    batch = Batch(views, torch.stack([anchor, anchor, (anchor + 1) % options.classes]), torch.arange(3 * n).view(3, n))
    images, labels = torch.cat(views), batch.labels.flatten()

    backbone = Backbone(options.backbone, stem="cifar", num_classes=options.classes)
    sides: dict[str, tuple[nn.Module, Callable[[], Tensor]]] = {
        "baseline": (backbone, lambda: F.cross_entropy(backbone(images).logits, labels))
    }
    methods = {}
    for width in options.widths:
        for checkpoint in (False, True):
            method = CORSD(backbone, width=width or None, checkpoint=checkpoint)
            name = f"corsd width {width or 'paper'}" + (" checkpointed" if checkpoint else "")
            methods[name] = method
            sides[name] = (method, lambda method=method: sum(method.losses(batch).values()))

    report: dict[str, dict[str, float]] = {}
    for name, (_, loss) in sides.items():
        report[name] = {"saved_bytes": saved_bytes(loss)}
        if name in methods and methods[name].checkpoint:
            stages = [maps.detach().requires_grad_() for maps in backbone(images).stages]
            alone = [
                saved_bytes(lambda g=g, maps=maps: g(maps, n)) - maps.untyped_storage().nbytes()
                for g, maps in zip(methods[name].projections, stages)
            ]
            report[name]["saved_bytes"] += max(alone)
    backbone_cost = multiply_adds(backbone, lambda: backbone(images))
    for name, method in methods.items():
        heads = [*method.projections, *method.interactions, *method.classifiers.values(), method.calibrator]
        report[name]["parameter_share"] = sum(map(size, heads)) / size(backbone)
        cost = sum(multiply_adds(head, lambda method=method: method.losses(batch)) for head in heads)
        report[name]["multiply_add_share"] = cost / backbone_cost

    times: dict[str, list[float]] = {name: [] for name in sides}
    steppers = {
        name: torch.optim.SGD(module.parameters(), lr=1e-4, momentum=0.9) for name, (module, _) in sides.items()
    }
    for repeat in range(options.repeats + 1 if options.repeats else 0):
        for name, (_, loss) in sides.items():
            start = time.process_time()
            steppers[name].zero_grad()
            loss().backward()
            steppers[name].step()
            if repeat:  # the first warms up
                times[name].append(time.process_time() - start)
    for name, row in report.items():
        row["saved_ratio"] = row["saved_bytes"] / report["baseline"]["saved_bytes"]
        if options.repeats:
            ratios = sorted(t / base for t, base in zip(times[name], times["baseline"]))
            row["step_seconds"] = statistics.median(times[name])
            row["step_ratio"] = statistics.median(ratios)
            row["step_ratio_low"], row["step_ratio_high"] = ratios[0], ratios[-1]
    machine = {"torch": torch.__version__, "python": platform.python_version(), "processor": platform.machine()}
    result = json.dumps({"options": vars(options), "machine": machine, "results": report}, indent=2)
    print(result)
    if options.out:
        with open(options.out, "w") as file:
            file.write(result + "\n")


if __name__ == "__main__":
    sys.exit(main())
