"""Full disks, read-only folders, little memory: one clear error, and what was there before is whole."""

import contextlib
import subprocess
from pathlib import Path

import pytest

from campaign.ledger import Ledger, child
from campaign.runs import train, weights

pytestmark = pytest.mark.campaign


def test_files_of_limited_size(ledger: Ledger, tmp_path):
    area = "a disk that is full after n bytes of a file"
    ledger.expects(area, "one clear error; with room again, the run ends in the weights of an undisturbed one")
    rng = ledger.rng(area)
    whole = tmp_path / "whole"
    assert child(lambda: train(whole), tmp_path, seconds=120).done
    for number in range(ledger.attempts(40)):
        run, limit = tmp_path / f"run-{number}", int(10 ** rng.uniform(2, 6.5))
        ended = child(lambda run=run: train(run), tmp_path, seconds=120, file_bytes=limit)
        again = ended if ended.done else child(
            lambda run=run: train(run, resume=run.exists()), tmp_path, seconds=120
        )  # fmt: skip
        survived = (ended.done or ended.refused) and again.done and weights(run) == weights(whole)
        ledger.count(area, survived, f"{limit} bytes: {ended}; then {again}")
    ledger.check(area)


def test_full_file_system(ledger: Ledger, tmp_path):
    area = "a file system that is full"
    ledger.expects(area, "one clear error that names the folder, and no half-written checkpoint")
    rng, disk = ledger.rng(area), tmp_path / "disk"
    disk.mkdir()
    for _ in range(ledger.attempts(12)):
        size = rng.randint(16, 2500)
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(disk)], check=False)
        if mounted.returncode:
            pytest.skip("file systems cannot be mounted here")
        try:
            ended = child(lambda: train(disk / "run"), tmp_path, seconds=120)
            parts = list(disk.rglob("*.part"))
            ledger.count(area, (ended.done or ended.refused) and not parts, f"{size} KiB: {ended}; {parts}")
        finally:
            subprocess.run(["umount", str(disk)], check=True)
    ledger.check(area)


def test_little_memory(ledger: Ledger, tmp_path):
    area = "little memory"
    ledger.expects(area, "one clear error or a whole run, never a crash")
    rng = ledger.rng(area)
    for number in range(ledger.attempts(20)):
        run, megabytes = tmp_path / f"run-{number}", rng.randint(1, 300)
        import sys

        from relatum import cli

        def attack(run: Path = run) -> None:
            sys.argv = ["relatum", "train", "demo", "--train.epochs", "1", "--train.threads", "1", "--run", str(run)]
            with contextlib.suppress(KeyboardInterrupt):
                cli.main()

        ended = child(attack, tmp_path, seconds=120, megabytes=megabytes)
        ledger.count(area, ended.done or ended.refused, f"{megabytes} MiB: {ended}")
    ledger.check(area)
