"""Contrastive views: Relatum's batched view beside per-image pipelines and kornia's batches."""

import argparse
import io
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from benchmarks.harness import Benchmark, Case, Job, Target, run
from torch import Tensor
from torchvision import transforms

from relatum.data.views import ContrastiveView, View

MEAN, STD = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)


@cache
def synthetic_images(count: int, size: int) -> list[PIL.Image.Image]:
    """Smooth random colors: the cost of a view does not depend on what is in the image."""
    noise = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(noise, size=(size, size), mode="bicubic").clamp(0, 1)
    pixels = smooth.mul(255).round().byte().permute(0, 2, 3, 1).numpy()
    return [PIL.Image.fromarray(image) for image in pixels]


@cache
def parquet_images(path: Path, count: int, size: int) -> list[PIL.Image.Image]:
    """The first images of a Parquet file in the Hugging Face layout, brought to `size x size`."""
    import pyarrow.parquet

    table = pyarrow.parquet.ParquetFile(path)
    column = next(name for name in ("image", "img") if name in table.schema_arrow.names)
    rows = next(table.iter_batches(batch_size=count, columns=[column])).column(0).to_pylist()
    images = (PIL.Image.open(io.BytesIO(row["bytes"])).convert("RGB") for row in rows)
    return [image.resize((size, size), PIL.Image.Resampling.BICUBIC) for image in images]


def images_of(args: argparse.Namespace) -> list[PIL.Image.Image]:
    if args.parquet:
        return parquet_images(args.parquet, args.batch, args.size)
    return synthetic_images(args.batch, args.size)


def pixels_of(args: argparse.Namespace) -> Tensor:
    """The same images as uint8 "n c h w" on the device."""
    stacked = np.stack([np.asarray(image) for image in images_of(args)])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous().to(args.device)


def discarding(make: Callable[[], Tensor]) -> Job:
    def job() -> None:
        make()

    return job


def relatum(args: argparse.Namespace, compiled: bool = False) -> Job:
    view: View = ContrastiveView(size=args.size)
    view = view.compiled() if compiled else view
    pixels, generator = pixels_of(args), torch.Generator(args.device).manual_seed(0)
    return discarding(lambda: view(pixels, MEAN, STD, generator))


def torchvision(args: argparse.Namespace) -> Job:
    view, images = ContrastiveView(size=args.size), images_of(args)
    s = view.strength
    jitter = transforms.ColorJitter(0.8 * s, 0.8 * s, 0.8 * s, 0.2 * s)
    pipeline = transforms.Compose(
        [
            transforms.RandomResizedCrop(view.size, scale=(view.min_scale, 1)),
            transforms.RandomHorizontalFlip(view.flip),
            transforms.RandomApply([jitter], view.jitter_probability),
            transforms.RandomGrayscale(view.grayscale),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    return discarding(lambda: torch.stack([pipeline(image) for image in images]))


def kornia(args: argparse.Namespace) -> Job:
    from kornia import augmentation as K

    view, pixels = ContrastiveView(size=args.size), pixels_of(args)
    s = view.strength
    pipeline = torch.nn.Sequential(
        K.RandomResizedCrop((view.size, view.size), scale=(view.min_scale, 1.0), cropping_mode="resample"),
        K.RandomHorizontalFlip(p=view.flip),
        K.ColorJitter(0.8 * s, 0.8 * s, 0.8 * s, 0.2 * s, p=view.jitter_probability),
        K.RandomGrayscale(p=view.grayscale),
        K.Normalize(torch.tensor(MEAN), torch.tensor(STD)),
    ).to(args.device)
    return discarding(lambda: pipeline(pixels.float() / 255))


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", type=int, default=32, help="height and width of images and views")
    parser.add_argument("--batch", type=int, default=512, help="images in a batch")
    parser.add_argument("--compile", action="store_true", help="time the compiled view too")
    parser.add_argument("--parquet", type=Path, help="real images; else synthetic ones")


def cases(args: argparse.Namespace) -> dict[str, Case]:
    sides = {
        "relatum": lambda: relatum(args),
        "torchvision, image by image": lambda: torchvision(args),
        "kornia": lambda: kornia(args),
    }
    if args.compile:
        sides["relatum, compiled"] = lambda: relatum(args, compiled=True)
    target = Target("torchvision, image by image", at_least=8)
    return {
        f"{args.batch} views of {args.size}x{args.size}": Case(
            sides,
            targets=[target] if args.size == 32 and args.device == "cpu" else [],
        )
    }


BENCHMARK = Benchmark(
    name="views",
    question="How fast are contrastive views?",
    work=(
        "random resized crop, mirroring, color jitter in random order, gray and normalization, with SimCLR's "
        "parameters for CIFAR, from decoded images in memory to a batch of float32. torchvision works on Pillow "
        "images one by one, kornia and Relatum on the batch."
    ),
    limits=(
        "torchvision can use worker processes, on other cores; divide its time by their number. kornia draws the order "
        "of the color operations once for a batch, Relatum and torchvision for each image; its crop is bilinear "
        "without antialiasing. No file is read, and what a step gains is in `step`."
    ),
    arguments=arguments,
    cases=cases,
)

if __name__ == "__main__":
    run(BENCHMARK)
