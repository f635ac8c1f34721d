"""Losses of all pairs: plain, by blocks, and those of other libraries. Time of forward + backward, and peak memory.

    python benchmarks/losses.py --sizes 2048 8192 --repeats 5 --out losses.json

`rows` is the number of rows and of columns of the matrix of pairs: for the 2N-view losses N = rows / 2 images, for
query/keys as many queries as negatives. Each space is 128 wide, so that Jaccard and the three terms read rows of 256.
All sides get the same embeddings and one thread, in one process a size and loss, their repeats interleaved; times are
medians. Peak memory is that of a fresh process for each side: the high-water mark of the resident set above its value
when the inputs exist and a loss of eight rows has warmed up the libraries. Everything is measured under two settings
of the allocator of the C library, since the page faults of fresh matrices are a large part of the plain forms' cost:
"default", and "kept", which gives no memory back to the system. Peers that are not installed are left out; a side
that raises is reported with its error.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

WIDTH = 128
ALLOCATORS = {
    "default": {},
    "kept": {"MALLOC_MMAP_THRESHOLD_": str(2**40), "MALLOC_TRIM_THRESHOLD_": str(2**40)},
}
TASKS = {
    "cosine": ("plain", "blocks", "lightly", "pytorch-metric-learning"),
    "jaccard": ("plain", "blocks"),
    "three-term": ("plain", "blocks"),
    "cosine-keys": ("plain", "blocks"),
    "jaccard-keys": ("plain", "blocks"),
    "three-term-keys": ("plain", "blocks"),
    "supcon": ("plain", "blocks"),
}
PEERS = {"lightly": "lightly", "pytorch-metric-learning": "pytorch_metric_learning"}


def loss_of(task, side, block, device):
    """A function of embeddings `z` whose result is the loss."""
    import torch

    from relatum.objectives import contrast_terms, query_key_contrast, supcon_loss, two_view_contrast
    from relatum.relations import Cosine, Jaccard

    temperature = 0.2
    if side == "lightly":
        from lightly.loss import NTXentLoss

        criterion = NTXentLoss(temperature=temperature)
        return lambda z: criterion(*z.chunk(2))
    if side == "pytorch-metric-learning":
        from pytorch_metric_learning.losses import NTXentLoss

        criterion = NTXentLoss(temperature=temperature)
        return lambda z: criterion(z, torch.arange(len(z) // 2, device=device).repeat(2))
    size = None if side == "plain" else block
    kind = task.removesuffix("-keys")
    if kind == "supcon":
        return lambda z: supcon_loss(z, torch.arange(len(z), device=device) % 100, Cosine(), temperature, size)
    terms = {
        "cosine": contrast_terms(Cosine(), temperature),
        "jaccard": contrast_terms(Jaccard(), temperature),
        "three-term": contrast_terms(Jaccard(), temperature, (0.3, 0.3)),
    }[kind]
    if task.endswith("-keys"):
        return lambda z: sum(query_key_contrast(z, z.detach().roll(1, 0), z.detach(), terms, size).values())
    return lambda z: sum(two_view_contrast(*z.chunk(2), terms, size).values())


def step(loss, z):
    """The value, with the gradient left in `z.grad`."""
    z.grad = None
    value = loss(z)
    value.backward()
    return value.detach()


def inputs(task, rows, device):
    import torch

    spaces = 2 if task.startswith(("jaccard", "three-term")) else 1
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, spaces * WIDTH, generator=generator).to(device).requires_grad_()


def resident(field):
    """VmRSS or VmHWM of this process, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def measure_memory(args):
    """Peak bytes of one step of one side; runs in a process of its own."""
    import torch

    torch.set_num_threads(args.threads)
    (side,) = args.sides
    loss = loss_of(args.task, side, args.block, args.device)
    step(loss, inputs(args.task, 8, args.device))
    z = inputs(args.task, args.rows, args.device)
    if args.device == "cpu":
        before = resident("VmRSS")
        step(loss, z)
        return {"bytes": max(resident("VmHWM") - before, 0)}
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step(loss, z)
    return {"bytes": torch.cuda.max_memory_allocated() - before}


def measure_time(args):
    """Seconds of each repeat of each side, interleaved, and how far values and gradients are from the first side's."""
    import torch

    torch.set_num_threads(args.threads)
    z = inputs(args.task, args.rows, args.device)
    losses = {side: loss_of(args.task, side, args.block, args.device) for side in args.sides}
    value, gradient = {}, {}
    for side, loss in losses.items():  # warms up, and compares
        value[side], gradient[side] = step(loss, z).item(), z.grad
    first = args.sides[0]
    difference = {
        side: {
            "value": abs(value[side] - value[first]) / abs(value[first]),
            "gradient": ((gradient[side] - gradient[first]).norm() / gradient[first].norm()).item(),
        }
        for side in args.sides
    }
    gradient.clear()
    wall: dict[str, list[float]] = {side: [] for side in losses}
    cpu: dict[str, list[float]] = {side: [] for side in losses}
    for _ in range(args.repeats):
        for side, loss in losses.items():
            busy, start = time.process_time(), time.perf_counter()
            step(loss, z)
            if args.device != "cpu":
                torch.cuda.synchronize()
            wall[side].append(time.perf_counter() - start)
            cpu[side].append(time.process_time() - busy)
    return {"wall_s": wall, "cpu_s": cpu, "difference": difference}


def in_a_fresh_process(what, args, task, rows, sides, allocator):
    """The result of one measurement, or the error that ended it."""
    command = [sys.executable, __file__, "--measure", what, "--task", task, "--rows", str(rows), "--sides", *sides]
    command += ["--repeats", str(args.repeats), "--threads", str(args.threads), "--device", args.device]
    command += ["--block", str(args.block)]
    environment = os.environ | ALLOCATORS[allocator] | {"OMP_NUM_THREADS": str(args.threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    last = done.stderr.strip().splitlines()[-1:] or [f"ended by signal {-done.returncode}"]
    return {"error": last[0]}


def rows_of(args):
    """One row for each task, size, allocator and side."""
    for task in args.tasks:
        sides = [s for s in TASKS[task] if s not in PEERS or find_spec(PEERS[s])]
        for rows in args.sizes:
            for allocator in args.allocators if args.device == "cpu" else ["default"]:
                memory, alive = {}, []
                for side in sides:
                    if side == "plain" and rows > args.largest_plain:
                        continue
                    memory[side] = in_a_fresh_process("memory", args, task, rows, [side], allocator)
                    if "error" not in memory[side]:
                        alive.append(side)
                timed = in_a_fresh_process("time", args, task, rows, alive, allocator) if alive else {}
                for side in memory:
                    row = {"task": task, "rows": rows, "allocator": allocator, "side": side, **memory[side]}
                    if side in alive and "error" not in timed:
                        row |= {key: timed[key][side] for key in ("wall_s", "cpu_s", "difference")}
                        row |= {f"median_{key}": statistics.median(row[key]) for key in ("wall_s", "cpu_s")}
                    elif side in alive:
                        row["error"] = timed["error"]
                    yield row


def with_ratios(rows):
    """Each row of another side with its time and memory over those of the blocks."""
    blocks = {(r["task"], r["rows"], r["allocator"]): r for r in rows if r["side"] == "blocks"}
    for row in rows:
        own = blocks.get((row["task"], row["rows"], row["allocator"]), {})
        for key, name in (("median_wall_s", "times_slower"), ("median_cpu_s", "times_cpu"), ("bytes", "times_memory")):
            if row["side"] != "blocks" and row.get(key) and own.get(key):
                row[name] = row[key] / own[key]
    return rows


def versions(device):
    import torch

    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        processor = next(
            (x.split(":")[1].strip() for x in info.read_text().splitlines() if "model name" in x), processor
        )
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "processor": processor if device == "cpu" else torch.cuda.get_device_name(),
        "load": os.getloadavg(),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024, 4096, 8192], help="rows of the matrix of pairs")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--allocators", nargs="+", choices=ALLOCATORS, default=list(ALLOCATORS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--block", type=lambda s: s if s == "auto" else int(s), default="auto")
    parser.add_argument("--largest-plain", type=int, default=16384, help="rows above which plain is not tried")
    parser.add_argument("--out", type=Path, help="a JSON file")
    parser.add_argument("--measure", choices=["memory", "time"], help=argparse.SUPPRESS)
    parser.add_argument("--task", help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--sides", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps({"memory": measure_memory, "time": measure_time}[args.measure](args)))
        return
    rows = with_ratios(list(rows_of(args)))
    print(f"{'task':16} {'rows':>6} {'allocator':9} {'side':24} {'s':>8} {'MiB':>8}  over blocks: time, memory")
    for r in rows:
        time_, memory = r.get("median_wall_s", float("nan")), r.get("bytes", float("nan")) / 2**20
        over = f"{r.get('times_slower', float('nan')):6.2f} {r.get('times_memory', float('nan')):7.1f}"
        end = r.get("error", over if r["side"] != "blocks" else "")
        print(f"{r['task']:16} {r['rows']:6} {r['allocator']:9} {r['side']:24} {time_:8.3f} {memory:8.1f}  {end}")
    if args.out:
        settings = {key: getattr(args, key) for key in ("repeats", "threads", "device", "block")} | {"width": WIDTH}
        record = {"versions": versions(args.device), "settings": settings, "rows": rows}
        args.out.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
