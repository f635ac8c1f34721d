"""Files that were damaged after they were written: refused with a clear error, never loaded as something else."""

import shutil
from pathlib import Path

import pytest

from campaign.ledger import Ledger, child, flipped
from campaign.runs import train, weights
from relatum.networks.export import load_encoder
from relatum.recipes.recipe import from_yaml, to_yaml
from relatum.reports.records import read_record

pytestmark = pytest.mark.campaign


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("damage")
    ended = child(lambda: train(folder / "run"), folder, seconds=120)
    assert ended.done, ended
    return folder / "run"


def attack_file(ledger: Ledger, area: str, file: Path, folder: Path, count: int, read) -> None:
    """Damage `file` again and again; `read` gives what is in it, which must be what was in it, or refuse."""
    rng, data, copy = ledger.rng(area), file.read_bytes(), folder / file.name
    whole = read(file)

    def attack() -> None:
        assert read(copy) == whole, "something else was read"

    for _ in range(ledger.attempts(count)):
        damaged, damage = flipped(data, rng)
        copy.write_bytes(damaged)
        ended = child(attack, folder, seconds=60, megabytes=4000)
        ledger.count(area, ended.done or ended.refused, f"{damage}: {ended}")
    ledger.check(area)


def test_damaged_encoder(ledger: Ledger, run, tmp_path):
    area = "damaged encoder.safetensors"
    ledger.expects(area, "refused with one clear error, or the very weights that were saved")

    def read(path: Path) -> bytes:
        network, info = load_encoder(path)
        return b"".join(t.numpy().tobytes() for t in network.model.state_dict().values()) + repr(info).encode()

    attack_file(ledger, area, run / "encoder.safetensors", tmp_path, 120, read)


def test_damaged_checkpoint(ledger: Ledger, run, tmp_path):
    area = "damaged last checkpoint"
    ledger.expects(area, "refused, or the one before it is taken, and the run ends in the same weights")
    rng, expected = ledger.rng(area), weights(run)
    last = sorted((run / "checkpoints").glob("epoch-*.pt"))[-1].name
    data = (run / "checkpoints" / last).read_bytes()
    for number in range(ledger.attempts(120)):
        copy = tmp_path / f"run-{number}"
        shutil.copytree(run, copy, ignore=shutil.ignore_patterns("record.json", "encoder*", "tensorboard", "lease*"))
        damaged, damage = flipped(data, rng)
        (copy / "checkpoints" / last).write_bytes(damaged)
        ended = child(lambda copy=copy: train(copy, resume=True), tmp_path, seconds=120)
        same = ended.done and weights(copy) == expected
        ledger.count(area, same or ended.refused, f"{damage}: {'other weights' if ended.done else ended}")
        shutil.rmtree(copy)
    ledger.check(area)


def test_damaged_record(ledger: Ledger, run, tmp_path):
    area = "damaged record.json"
    ledger.expects(area, "refused with one clear error, or a Record whose fields have their types")

    def attack_one(path: Path) -> None:
        record = read_record(path)
        assert all(isinstance(value, int | float) for value in record.metrics.values())

    rng, data = ledger.rng(area), (run / "record.json").read_bytes()
    for _ in range(ledger.attempts(120)):
        damaged, damage = flipped(data, rng)
        (tmp_path / "record.json").write_bytes(damaged)
        ended = child(lambda: attack_one(tmp_path / "record.json"), tmp_path, seconds=20)
        ledger.count(area, ended.done or ended.refused, f"{damage}: {ended}")
    ledger.check(area)


def test_damaged_recipe(ledger: Ledger, run, tmp_path):
    area = "damaged recipe.yaml"
    ledger.expects(area, "refused with one clear error, or a recipe that is written and read back the same")

    def attack_one(text: bytes) -> None:
        recipe = from_yaml(text.decode("utf-8", errors="strict"))
        assert from_yaml(to_yaml(recipe)) == recipe

    rng, data = ledger.rng(area), (run / "recipe.yaml").read_bytes()
    for _ in range(ledger.attempts(160)):
        damaged, damage = flipped(data, rng)
        ended = child(lambda damaged=damaged: attack_one(damaged), tmp_path, seconds=20)
        ledger.count(area, ended.done or ended.refused, f"{damage}: {ended}")
    ledger.check(area)


def test_damaged_parquet(ledger: Ledger, tmp_path):
    area = "damaged Parquet file of images"
    ledger.expects(area, "refused with one clear error, or images of the right shape and number")
    import io

    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    from relatum import load

    rng, rows = ledger.rng(area), []
    for number in range(24):
        out = io.BytesIO()
        Image.fromarray(np.frombuffer(rng.randbytes(8 * 8 * 3), dtype=np.uint8).reshape(8, 8, 3)).save(out, "PNG")
        rows.append({"image": {"bytes": out.getvalue(), "path": f"{number}.png"}, "label": number % 3})
    source = tmp_path / "train.parquet"
    pq.write_table(pa.Table.from_pylist(rows), source)
    data, copy = source.read_bytes(), tmp_path / "copy" / "train.parquet"
    copy.parent.mkdir()

    def attack() -> None:
        found = load(str(copy), root=str(tmp_path / "data"), on_bad_image="skip")
        assert len(found.train.labels) <= 24
        assert all(found.train.read(i).shape == (3, 8, 8) for i in range(len(found.train)))

    for _ in range(ledger.attempts(120)):
        damaged, damage = flipped(data, rng)
        copy.write_bytes(damaged)
        ended = child(attack, tmp_path, seconds=60, megabytes=4000)
        ledger.count(area, ended.done or ended.refused, f"{damage}: {ended}")
    ledger.check(area)
