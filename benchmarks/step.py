"""A whole SimCLR training step, loading and views included, beside lightly's."""

import argparse
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cache, partial
from itertools import count

import numpy as np
import torch
from benchmarks.harness import Benchmark, Case, Job, Outcome, Target, run
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from relatum.core.types import Batch
from relatum.data.images import ResidentImages
from relatum.data.loading import Loader
from relatum.data.pairing import shuffled
from relatum.data.views import ContrastiveView
from relatum.methods.contrastive.simclr import SimCLR
from relatum.networks.backbones import Backbone
from relatum.relations import Cosine, Relation

MEAN, STD = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)
SGD = {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}


def setting(parser: argparse.ArgumentParser) -> None:
    """The options of all benchmarks of a contrastive step."""
    parser.add_argument("--batch", type=int, default=128, help="images; there are twice as many views")
    parser.add_argument("--backbone", default="resnet18", help="with the CIFAR stem")
    parser.add_argument("--size", type=int, default=32, help="height and width of images and views")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="of autocast")


def autocast(args: argparse.Namespace) -> AbstractContextManager:
    return torch.autocast(args.device, torch.bfloat16, enabled=args.precision == "bfloat16")


@cache
def images(n: int, size: int) -> Tensor:
    """Random uint8 images "n 3 s s"."""
    return torch.randint(256, (n, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def batches(args: argparse.Namespace) -> Iterator[Batch]:
    """Epoch after epoch of two views of resident images, as `relatum train` loads them."""
    n = 8 * args.batch
    loader = Loader(
        ResidentImages(images(n, args.size), torch.zeros(n, dtype=torch.long)),
        lambda epoch: shuffled(n, batch_size=args.batch, seed=0, epoch=epoch),
        ContrastiveView(size=args.size),
        mean=MEAN,
        std=STD,
        views_per_image=2,
        seed=0,
        device=args.device,
    )
    return (batch for epoch in count() for batch in loader.epoch(epoch))


def simclr(args: argparse.Namespace, relation: Relation = Cosine(), alphas: tuple[float, ...] = ()) -> SimCLR:
    torch.manual_seed(0)
    backbone = Backbone(args.backbone, stem="cifar")
    method = SimCLR(backbone, relation=relation, alphas=alphas).to(args.device)
    return method.to(memory_format=torch.channels_last)


def optimizer_of(module: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD([p for p in module.parameters() if p.requires_grad], **SGD)


def trainable(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def whole_step(args: argparse.Namespace, relation: Relation = Cosine(), alphas: tuple[float, ...] = ()) -> Job:
    """Views, losses, gradients and the optimizer's step."""
    method, stream = simclr(args, relation, alphas), batches(args)
    optimizer = optimizer_of(method)

    def job() -> Outcome:
        batch = next(stream)
        with autocast(args):
            terms = method.losses(batch)
        sum(terms.values(), torch.zeros((), device=args.device)).backward()
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(0.5)
        return lambda: {"trainable parameters": trainable(method)}

    return job


class Pictures(Dataset):
    """Images in memory, turned into Pillow's one by one: what torchvision's CIFAR-10 does."""

    def __init__(self, pixels: Tensor, transform) -> None:
        self.pixels: np.ndarray = pixels.permute(0, 2, 3, 1).contiguous().numpy()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, i: int) -> list[Tensor]:
        return self.transform(Image.fromarray(self.pixels[i]))


def lightly_step(args: argparse.Namespace, channels_last: bool) -> Job:
    from lightly.loss import NTXentLoss
    from lightly.models import ResNetGenerator
    from lightly.models.modules import SimCLRProjectionHead
    from lightly.transforms import SimCLRTransform

    torch.manual_seed(0)
    view = ContrastiveView(size=args.size)
    transform = SimCLRTransform(
        input_size=args.size, cj_strength=view.strength, min_scale=view.min_scale, gaussian_blur=0,
        normalize={"mean": list(MEAN), "std": list(STD)},
    )  # fmt: skip
    pictures = Pictures(images(8 * args.batch, args.size), transform)
    loader = DataLoader(
        pictures, args.batch, shuffle=True, drop_last=True, num_workers=args.workers,
        persistent_workers=args.workers > 0, pin_memory=args.device != "cpu",
    )  # fmt: skip
    encoder = ResNetGenerator(args.backbone.replace("resnet", "resnet-"))
    layers = list(encoder.children())
    width = layers[-1].in_features
    network = nn.Sequential(
        *layers[:-1], nn.AdaptiveAvgPool2d(1), nn.Flatten(), SimCLRProjectionHead(width, width, 128)
    ).to(args.device)
    if channels_last:
        network = network.to(memory_format=torch.channels_last)
    criterion, optimizer = NTXentLoss(temperature=0.5), optimizer_of(network)
    stream = (batch for _ in count() for batch in loader)

    def job() -> Outcome:
        views = next(stream)
        views = [view.to(args.device, non_blocking=True) for view in views]
        if channels_last:
            views = [view.contiguous(memory_format=torch.channels_last) for view in views]
        with autocast(args):
            a, b = map(network, views)
            loss = criterion(a, b)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return lambda: {"trainable parameters": trainable(network)}

    return job


def arguments(parser: argparse.ArgumentParser) -> None:
    setting(parser)
    parser.add_argument("--workers", type=int, default=2, help="of lightly's loader")


def cases(args: argparse.Namespace) -> dict[str, Case]:
    return {
        f"SimCLR, {args.backbone}, {args.batch} images of {args.size}x{args.size}, {args.precision}": Case(
            {
                "relatum": partial(whole_step, args),
                "lightly": partial(lightly_step, args, False),
                "lightly, channels_last": partial(lightly_step, args, True),
            },
            targets=[Target("lightly", at_least=1)],
            tolerance=1e-4,
        )
    }


BENCHMARK = Benchmark(
    name="step",
    question="How long is a SimCLR training step, beside lightly's?",
    work=(
        "random images in memory, two views by SimCLR's augmentation for CIFAR (no blur), a ResNet with the CIFAR "
        "stem, a projector of two layers (128 wide, as many trainable parameters on both sides to 0.01 %), NT-Xent, "
        "backward, SGD with momentum; the same precision. lightly's projector ends in one more batch norm. Its views "
        "are made by worker processes, image by image, as its examples do; Relatum's in the training process, by the "
        "batch. Relatum encodes both views in one pass, in channels_last; lightly's examples encode them one after the "
        "other, and contiguous; its last row has channels_last too."
    ),
    limits=(
        "lightly's workers run on further cores while the training process uses its threads, so that with cores to "
        "spare its views are hidden, and the ratio is that of encoder and loss; CPU time misses the workers'. In "
        "channels_last both encoders are level: nine tenths of each profile are the same convolutions. "
        "Batch statistics are over 2N views in one and over N in the other. Checkpoints, logs and the progress bar are "
        "outside."
    ),
    arguments=arguments,
    cases=cases,
)

if __name__ == "__main__":
    run(BENCHMARK)
