"""Contrastive views per second: Relatum's batched view against torchvision's per-image pipeline on Pillow images.

Both make the same augmentation (random resized crop, mirroring, colour jitter in random order, grey, normalisation)
of the same images, in one process, on the same cores, in turns; the ratio is the median over the turns. The
per-image pipeline starts from decoded images and ends with the stacked batch: no worker, no file is in its time.

    python benchmarks/views.py --size 32 --batch 512
    python benchmarks/views.py --size 32 --batch 512 --compile --parquet train-00000-of-00002.parquet
"""

import argparse
import io
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import torch
import torchvision
from torch import Tensor
from torchvision import transforms

from relatum.data.views import ContrastiveView

MEAN, STD = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)


def synthetic_images(count: int, size: int) -> list[PIL.Image.Image]:
    """Smooth random colours: the cost of a view does not depend on what is in the image."""
    noise = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(noise, size=(size, size), mode="bicubic").clamp(0, 1)
    pixels = smooth.mul(255).round().byte().permute(0, 2, 3, 1).numpy()
    return [PIL.Image.fromarray(image) for image in pixels]


def parquet_images(path: Path, count: int, size: int) -> list[PIL.Image.Image]:
    """The first images of a Parquet file in the Hugging Face layout, brought to `size x size`."""
    import pyarrow.parquet

    table = pyarrow.parquet.ParquetFile(path)
    column = next(name for name in ("image", "img") if name in table.schema_arrow.names)
    rows = next(table.iter_batches(batch_size=count, columns=[column])).column(0).to_pylist()
    images = (PIL.Image.open(io.BytesIO(row["bytes"])).convert("RGB") for row in rows)
    return [image.resize((size, size), PIL.Image.Resampling.BICUBIC) for image in images]


def torchvision_pipeline(view: ContrastiveView) -> transforms.Compose:
    """The same augmentation as `view` in torchvision, for one Pillow image."""
    s = view.strength
    jitter = transforms.ColorJitter(0.8 * s, 0.8 * s, 0.8 * s, 0.2 * s)
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(view.size, scale=(view.min_scale, 1)),
            transforms.RandomHorizontalFlip(view.flip),
            transforms.RandomApply([jitter], view.jitter_probability),
            transforms.RandomGrayscale(view.grayscale),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )


def measure(variants: dict[str, Callable[[], Tensor]], repeats: int) -> dict[str, list[float]]:
    """Wall seconds of each variant, taken in turns after one turn to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(repeats + 1):
        for name, run in variants.items():
            start = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=32, help="height and width of images and views")
    parser.add_argument("--batch", type=int, default=512, help="images in a batch")
    parser.add_argument("--repeats", type=int, default=7, help="turns to take the median of, at least 5")
    parser.add_argument("--threads", type=int, default=1, help="threads of the batched view")
    parser.add_argument("--device", default="cpu", help="device of the batched view")
    parser.add_argument("--compile", action="store_true", help="time the compiled view too")
    parser.add_argument("--parquet", type=Path, help="real images; else synthetic ones")
    parser.add_argument("--out", type=Path, default=Path("results/benchmark-views.json"))
    args = parser.parse_args()
    if args.repeats < 5:
        parser.error(f"--repeats is {args.repeats}: expected at least 5, for a median")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)

    view = ContrastiveView(size=args.size)
    if args.parquet:
        images = parquet_images(args.parquet, args.batch, args.size)
    else:
        images = synthetic_images(args.batch, args.size)
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2)
    pixels = pixels.contiguous().to(args.device)
    generator = torch.Generator(args.device).manual_seed(0)
    pipeline = torchvision_pipeline(view)
    variants = {
        "torchvision": lambda: torch.stack([pipeline(image) for image in images]),
        "relatum": lambda: view(pixels, MEAN, STD, generator),
    }
    if args.compile:
        compiled = torch.compile(view)
        variants["relatum-compiled"] = lambda: compiled(pixels, MEAN, STD, generator)

    seconds = measure(variants, args.repeats)
    baseline = seconds["torchvision"]
    report = {
        "size": args.size,
        "batch": len(images),
        "threads": args.threads,
        "device": torch.cuda.get_device_name() if pixels.is_cuda else platform.processor() or platform.machine(),
        "images": args.parquet.name if args.parquet else "synthetic",
        "versions": {"torch": torch.__version__, "torchvision": torchvision.__version__},
        "variants": {
            name: {
                "images_per_second": len(images) / statistics.median(times),
                "ratio": statistics.median(b / t for b, t in zip(baseline, times)),
                "ratio_range": [f(b / t for b, t in zip(baseline, times)) for f in (min, max)],
                "seconds": times,
            }
            for name, times in seconds.items()
        },
    }
    for name, result in report["variants"].items():
        low, high = result["ratio_range"]
        rate, ratio = result["images_per_second"], result["ratio"]
        print(f"{name:18s} {rate:9.0f} images/s   {ratio:6.2f} x torchvision ({low:.2f} to {high:.2f})")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=2) + "\n")
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
