"""Small trees of each layout, written here from its published description, and what is read from them."""

import hashlib
import io
import json
import logging
import pickle
import subprocess
import sys
import urllib.error
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier

from relatum.data import images as images_module
from relatum.data import layouts, residency, sources
from relatum.data.catalog import CATALOG
from relatum.data.decoding import BadImage
from relatum.data.images import ResidentImages, StreamedImages, check_labels, first, mean_std, split
from relatum.data.sources import load

SHARED = Path(__file__).parents[1] / "../shared/data"


def pixels(*seed: int, height: int = 32, width: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def write(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def shard(path: Path, arrays: list[np.ndarray], labels: list[int] | None, names: list[str] | None) -> None:
    """Parquet in the Hugging Face image layout."""
    columns = {"image": [{"bytes": png(a), "path": None} for a in arrays]}
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    fields = [pa.field("image", kind)]
    features = {"image": {"_type": "Image"}}
    if labels is not None:
        columns["label"] = labels
        fields.append(pa.field("label", pa.int64()))
        features["label"] = {"_type": "ClassLabel"} | ({"names": names} if names else {})
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns, pa.schema(fields, metadata)), path, row_group_size=3)


def tree(root: Path, count: int = 4, classes: tuple[str, ...] = ("ant", "bee"), **size: int) -> Path:
    """A folder of images in class folders."""
    for c, name in enumerate(classes):
        for i in range(count):
            write(root / name / f"{i}.png", png(pixels(c, i, **size)))
    return root


def chw(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array).permute(2, 0, 1)


# The official layouts of CIFAR


class Python2Pickler(pickle._Pickler):
    """Writes strings as Python 2 did, in which CIFAR was published: one opcode for text and bytes."""

    def save_string(self, value: str | bytes) -> None:
        value = value.encode() if isinstance(value, str) else value
        self.write(pickle.BINSTRING + len(value).to_bytes(4, "little") + value)

    dispatch = dict(pickle._Pickler.dispatch) | {str: save_string, bytes: save_string}


def batch(seed: int, rows: int) -> tuple[np.ndarray, list[int]]:
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (rows, 3072), np.uint8), [(seed + i) % 10 for i in range(rows)]


def cifar10_python(root: Path) -> Path:
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)

    def dump(name: str, content: dict) -> None:
        with (folder / name).open("wb") as file:
            Python2Pickler(file, 2).dump(content)

    for i, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        data, labels = batch(i, 2)
        dump(name, {"data": data, "labels": labels, "batch_label": name, "filenames": ["a.png", "b.png"]})
    dump("batches.meta", {"label_names": [f"class{i}" for i in range(10)], "num_vis": 3072})
    return root


def cifar10_binary(root: Path) -> Path:
    folder = root / "cifar10" / "cifar-10-batches-bin"
    for i, name in enumerate([*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"]):
        data, labels = batch(i, 2)
        write(folder / name, np.concatenate([np.array(labels, np.uint8)[:, None], data], 1).tobytes())
    write(folder / "batches.meta.txt", "\n".join(f"class{i}" for i in range(10)) + "\n\n")
    return root


def cifar10_parquet(root: Path) -> Path:
    names = [f"class{i}" for i in range(10)]
    rows = [(d.reshape(3, 32, 32).transpose(1, 2, 0), c) for i in range(6) for d, c in zip(*batch(i, 2))]
    for name, part in (("train-00000-of-00002", rows[:6]), ("train-00001-of-00002", rows[6:10]), ("test", rows[10:])):
        shard(root / "cifar10" / f"{name}.parquet", [a for a, _ in part], [c for _, c in part], names)
    return root


@pytest.mark.parametrize("layout", [cifar10_python, cifar10_binary, cifar10_parquet])
def test_cifar10_is_the_same_in_each_layout(layout, tmp_path, caplog):
    source = load("cifar10", root=layout(tmp_path))
    data, labels = zip(*(batch(i, 2) for i in range(6)))
    expected = torch.from_numpy(np.concatenate(data)).view(-1, 3, 32, 32)
    assert torch.equal(torch.cat([source.train.images, source.test.images]), expected)
    assert torch.equal(torch.cat([source.train.labels, source.test.labels]), torch.tensor(labels).flatten())
    assert source.classes == tuple(f"class{i}" for i in range(10))
    assert (source.mean, source.std) == ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
    assert source.size == 32
    assert "10 of 50,000 training images found" in caplog.text


def cifar100(root: Path, layout: str) -> None:
    """Three images of each part in a layout of CIFAR-100: fine labels 90 to 92, coarse ones 17, 3, 17."""
    coarse, fine = [17, 3, 17], [90, 91, 92]
    names = {"fine_label_names": [f"f{i}" for i in range(100)], "coarse_label_names": [f"c{i}" for i in range(20)]}
    for part, seed in (("train", 0), ("test", 1)):
        data, _ = batch(seed, 3)
        if layout == "python":
            content = {"data": data, "fine_labels": fine, "coarse_labels": coarse}
            write(root / "cifar-100-python" / part, pickle.dumps(content, 4))
        elif layout == "binary":
            rows = np.concatenate([np.array([coarse, fine], np.uint8).T, data], 1)
            write(root / "cifar-100-binary" / f"{part}.bin", rows.tobytes())
        else:
            images = [{"bytes": png(d.reshape(3, 32, 32).transpose(1, 2, 0)), "path": None} for d in data]
            table = pa.table({"image": images, "label": fine, "coarse_label": coarse})
            features = {"label": {"names": names["fine_label_names"]}}
            features["coarse_label"] = {"names": names["coarse_label_names"]}
            noted = {"huggingface": json.dumps({"info": {"features": features}})}
            (root / "cifar100").mkdir(exist_ok=True)
            pq.write_table(table.replace_schema_metadata(noted), root / "cifar100" / f"{part}.parquet")
    if layout == "python":
        write(root / "cifar-100-python" / "meta", pickle.dumps(names))
    elif layout == "binary":
        for name, classes in names.items():
            write(root / "cifar-100-binary" / f"{name}.txt", "\n".join(classes))


@pytest.mark.parametrize("layout", ["python", "binary", "parquet"])
def test_cifar100_has_fine_and_coarse_labels_of_the_same_images(layout, tmp_path):
    cifar100(tmp_path, layout)
    fine, coarse = load("cifar100", root=tmp_path), load("cifar100-coarse", root=tmp_path)
    assert fine.train.labels.tolist() == fine.test.labels.tolist() == [90, 91, 92]
    assert coarse.train.labels.tolist() == coarse.test.labels.tolist() == [17, 3, 17]
    assert (fine.classes[99], coarse.classes[19], len(fine.classes), len(coarse.classes)) == ("f99", "c19", 100, 20)
    for source in (fine, coarse):
        assert torch.equal(source.test.images.flatten(1), torch.from_numpy(batch(1, 3)[0]))
        assert (source.mean, source.std) == ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))


def test_parquet_without_coarse_labels_is_refused(tmp_path):
    cifar10_parquet(tmp_path)
    (tmp_path / "cifar10").rename(tmp_path / "cifar100")
    with pytest.raises(ValueError, match=r"has the columns image, label, and none is called coarse_label"):
        load("cifar100-coarse", root=tmp_path)


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path("pickle-was-here"),)


def test_no_foreign_code_is_unpickled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = cifar10_python(tmp_path) / "cifar-10-batches-py"
    write(folder / "data_batch_3", pickle.dumps({"data": Bomb(), "labels": [0]}))
    with pytest.raises(ValueError, match=r"data_batch_3: it asks for \w+\.Path.*only NumPy arrays"):
        load("cifar10", root=tmp_path)
    assert not Path("pickle-was-here").exists()


@pytest.mark.parametrize("damage", [b"", b"\x80\x02}q", pickle.dumps([1])], ids=["empty", "cut", "list"])
def test_damaged_batch_is_named(damage, tmp_path):
    write(cifar10_python(tmp_path) / "cifar-10-batches-py" / "data_batch_2", damage)
    with pytest.raises(ValueError, match="data_batch_2"):
        load("cifar10", root=tmp_path)


def test_missing_batch_is_named(tmp_path):
    (cifar10_binary(tmp_path) / "cifar10" / "cifar-10-batches-bin" / "test_batch.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"test_batch\.bin is missing"):
        load("cifar10", root=tmp_path)


def test_binary_batch_of_wrong_length(tmp_path):
    write(cifar10_binary(tmp_path) / "cifar10" / "cifar-10-batches-bin" / "test_batch.bin", b"12345")
    with pytest.raises(ValueError, match="rows of 3073"):
        load("cifar10", root=tmp_path)


def test_part_of_the_shards_loads_with_a_notice(tmp_path, caplog):
    (cifar10_parquet(tmp_path) / "cifar10" / "train-00001-of-00002.parquet").unlink()
    assert len(load("cifar10", root=tmp_path).train) == 6
    assert "1 of 2 shards found: train-00000-of-00002.parquet" in caplog.text
    assert "6 of 50,000 training images found" in caplog.text


def test_another_set_under_the_root_is_not_taken_for_cifar100(tmp_path):
    with pytest.raises(ValueError, match="10 classes, but cifar100 has 100"):
        load("cifar100", root=cifar10_parquet(tmp_path) / "cifar10")


@pytest.mark.parametrize("name", [name for name, facts in CATALOG.items() if facts.archive])
def test_absent_set_is_downloaded_or_the_layouts_are_named(name, tmp_path, monkeypatch):
    tried = []

    def offline(url: str, timeout: float):
        tried.append((url, timeout))
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    layout = CATALOG[name].layouts[0][0]
    with pytest.raises(FileNotFoundError, match=rf"(?s){name}.*no network.*{layout}.*Parquet.*--data\.root"):
        load(name, root=tmp_path)
    assert tried == [(CATALOG[name].archive.url, 30.0)]
    assert list(tmp_path.iterdir()) == []


def test_download_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "fetch", lambda archive, root, wanted: cifar10_python(root))
    assert len(load("cifar10", root=tmp_path / "new").train) == 10


def test_cifar_archives_are_torchvisions():
    from torchvision.datasets import CIFAR10, CIFAR100

    for name, theirs in (("cifar10", CIFAR10), ("cifar100", CIFAR100)):
        archive = CATALOG[name].archive
        assert (archive.url, archive.md5) == (theirs.url, theirs.tgz_md5)


def test_catalog_is_true_and_needs_no_torch():
    assert {reader for facts in CATALOG.values() for _, reader in facts.layouts} == set(layouts.READERS)
    assert all(facts.archive.url.startswith("https://") for facts in CATALOG.values() if facts.archive)
    code = "import sys; import relatum.data.catalog; print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# Other official layouts


def test_tiny_imagenet_official_layout(tmp_path):
    folder = tmp_path / "tiny-imagenet-200"
    for c, wnid in enumerate(["n02", "n01"]):
        for i in range(3):
            write(folder / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", png(pixels(c, i, height=64, width=64)))
        write(folder / "train" / wnid / f"{wnid}_boxes.txt", "n02_0.JPEG\t0\t0\t1\t1\n")
        write(folder / "val" / "images" / f"val_{c}.JPEG", png(pixels(9, c, height=64, width=64)))
    write(folder / "val" / "val_annotations.txt", "val_0.JPEG\tn02\t0\t0\t9\t9\nval_1.JPEG\tn01\t0\t0\t9\t9\n")
    write(folder / "words.txt", "n00\tthing\nn01\tgoldfish, Carassius auratus\nn02\tnewt\n")
    source = load("tiny-imagenet", root=tmp_path)
    assert source.classes == ("goldfish", "newt")
    assert source.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert source.test.labels.tolist() == [1, 0]
    assert torch.equal(source.train.images[0], chw(pixels(1, 0, height=64, width=64)))
    assert torch.equal(source.test.images[0], chw(pixels(9, 0, height=64, width=64)))
    assert source.size == 64


def cub(root: Path) -> Path:
    folder = root / "CUB_200_2011"
    names = ["001.Albatross/a.jpg", "001.Albatross/b.jpg", "002.Auklet/c.jpg", "002.Auklet/d.jpg"]
    for i, name in enumerate(names):
        write(folder / "images" / name, png(pixels(i, height=20, width=30 + i)))
    write(folder / "images.txt", "".join(f"{i} {name}\n" for i, name in enumerate(names, 1)))
    write(folder / "train_test_split.txt", "1 1\n2 0\n3 0\n4 1\n")
    write(folder / "image_class_labels.txt", "1 1\n2 1\n3 2\n4 2\n")
    write(folder / "classes.txt", "1 001.Albatross\n2 002.Auklet\n")
    write(folder / "bounding_boxes.txt", "".join(f"{i} 3.0 4.0 10.0 12.0\n" for i in range(1, 5)))
    return root


@pytest.mark.parametrize("name", ["cub200", "cub200-boxes"])
def test_cub_official_layout(name, tmp_path):
    source = load(name, root=cub(tmp_path))
    assert source.classes == ("Albatross", "Auklet")
    assert source.train.labels.tolist() == [0, 1]
    assert source.test.labels.tolist() == [0, 1]
    assert source.mean == (0.485, 0.456, 0.406)
    whole = chw(pixels(3, height=20, width=33))
    expected = whole if name == "cub200" else whole[:, 4:16, 3:13]
    assert torch.equal(source.train.read(1), expected)


def test_cub_tables_must_agree(tmp_path):
    write(cub(tmp_path) / "CUB_200_2011" / "image_class_labels.txt", "1 1\n3 2\n2 1\n4 2\n")
    with pytest.raises(ValueError, match="same images in the same order"):
        load("cub200", root=tmp_path)


def test_imagenet_folders(tmp_path):
    tree(tmp_path / "imagenet" / "train", classes=("n01", "n02"), height=40, width=50)
    tree(tmp_path / "imagenet" / "val", count=1, classes=("n01", "n02"), height=30)
    source = load("imagenet", root=tmp_path)
    assert isinstance(source.train, StreamedImages)
    assert (len(source.train), len(source.test), source.classes) == (8, 2, ("n01", "n02"))
    assert source.std == (0.229, 0.224, 0.225)
    assert source.size is None
    with pytest.raises(FileNotFoundError, match="train/<wnid>"):
        load("imagenet", root=tmp_path / "elsewhere")


# Folders


def test_folder_of_classes_is_resident_when_sizes_agree(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    source = load(str(tree(tmp_path)))
    assert isinstance(source.train, ResidentImages)
    assert source.classes == ("ant", "bee")
    assert source.train.labels.tolist() == [0] * 4 + [1] * 4
    assert torch.equal(source.train.images[5], chw(pixels(1, 1)))
    assert source.test is None
    assert "8 images, 2 classes (folders); resident" in caplog.text


def test_flat_folder_is_unlabeled_and_other_files_are_left_alone(tmp_path):
    for i in range(3):
        write(tmp_path / f"{i}.png", png(pixels(i)))
    write(tmp_path / "notes.txt", "not an image")
    write(tmp_path / ".hidden.png", "not an image")
    source = load(str(tmp_path))
    assert source.train.labels.tolist() == [-1, -1, -1]
    assert source.classes == ()


@pytest.mark.parametrize("part", ["test", "val"])
def test_folder_with_parts(part, tmp_path):
    tree(tmp_path / "train", classes=("ant", "bee", "cat"))
    tree(tmp_path / part, count=2, classes=("ant", "cat"))
    source = load(str(tmp_path))
    assert source.test.labels.tolist() == [0, 0, 2, 2]
    tree(tmp_path / part, classes=("dog",))
    with pytest.raises(ValueError, match=r"dog is a class that .*train lacks"):
        load(str(tmp_path))


def test_folder_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no data set 'cifar11'.*did you mean cifar10"):
        load("cifar11", root=tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no image"):
        load(str(tmp_path))
    tree(tmp_path)
    with pytest.raises(ValueError, match="size=0"):
        load(str(tmp_path), size=0)


# Resident or streamed


def test_very_different_sizes_stream(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    write(tree(tmp_path) / "bee" / "wide.png", png(pixels(7, height=3, width=200)))
    source = load(str(tmp_path))
    assert isinstance(source.train, StreamedImages)
    assert source.size is None
    assert source.train.read(8).shape == (3, 3, 200)
    assert "9 images, 2 classes (folders); streamed (images of different sizes)" in caplog.text
    with pytest.raises(ValueError, match=r"resident=yes.*different sizes.*--data\.resident auto"):
        load(str(tmp_path), resident="yes")
    squared = load(str(tmp_path), size=16)
    assert isinstance(squared.train, ResidentImages)
    assert squared.train.images.shape == (9, 3, 16, 16)
    assert squared.size == 16


def test_a_late_image_of_another_size_is_not_overlooked(tmp_path):
    tree(tmp_path, count=40, height=6, width=6)
    write(tmp_path / "ant" / "1.png", png(pixels(0, height=6, width=7)))  # between the images looked at first
    assert isinstance(load(str(tmp_path)).train, StreamedImages)
    with pytest.raises(ValueError, match="6 x 6 and 7 x 6"):
        load(str(tmp_path), resident="yes")


def test_budget_decides(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    need = 8 * 3 * 32 * 32
    tree(tmp_path)
    assert isinstance(load(str(tmp_path), budget=need).train, ResidentImages)
    assert isinstance(load(str(tmp_path), budget=need - 1).train, StreamedImages)
    assert "streamed (0.0 GiB when decoded, more than" in caplog.text
    assert isinstance(load(str(tmp_path), budget=need - 1, resident="yes").train, ResidentImages)
    assert isinstance(load(str(tmp_path), resident="no").train, StreamedImages)


@pytest.mark.parametrize("form", ["folder", "parquet"])
@pytest.mark.parametrize("size", [None, 20])
def test_streamed_equals_resident(form, size, tmp_path):
    path = tree(tmp_path / "set")
    if form == "parquet":
        path = tmp_path / "set.parquet"
        shard(path, [pixels(c, i) for c in range(2) for i in range(4)], [0] * 4 + [1] * 4, ["ant", "bee"])
    both = [load(str(path), root=tmp_path / "root", resident=r, size=size) for r in ("yes", "no")]
    pick = torch.tensor([5, 0, 3])
    for a, b in ((both[0].train, both[1].train), (both[0].train.subset(pick), both[1].train.subset(pick))):
        assert torch.equal(a.labels, b.labels)
        assert torch.equal(torch.stack([a.read(i) for i in range(len(a))]), torch.stack([*map(b.read, range(len(b)))]))
    assert both[0].mean == both[1].mean
    assert both[0].std == both[1].std


# Parquet


def test_parquet_single_file_is_the_training_set_whatever_its_name(tmp_path):
    shard(tmp_path / "test-00000-of-00001.parquet", [pixels(0), pixels(1)], [1, 0], None)
    source = load(str(tmp_path / "test-00000-of-00001.parquet"))
    assert source.train.labels.tolist() == [1, 0]
    assert source.classes == ("0", "1")


def test_parquet_without_labels(tmp_path):
    shard(tmp_path / "a.parquet", [pixels(0), pixels(1)], None, None)
    assert load(str(tmp_path)).train.labels.tolist() == [-1, -1]


def test_streamed_parquet_is_unpacked_once_and_crosses_to_workers(tmp_path, monkeypatch):
    monkeypatch.setenv("RELATUM_CACHE", str(tmp_path / "cache"))
    arrays = [pixels(i, height=10 + i) for i in range(8)]
    shard(tmp_path / "p" / "train-0.parquet", arrays[:5], [0] * 5, ["a"])
    shard(tmp_path / "p" / "train-1.parquet", arrays[5:], [0] * 3, ["a"])
    source = load(str(tmp_path / "p"))
    again = pickle.loads(pickle.dumps(source.train))
    assert all(torch.equal(again.read(i), chw(a)) for i, a in enumerate(arrays))
    (file,) = (tmp_path / "cache").glob("*.arrow")
    before = file.stat().st_mtime_ns
    load(str(tmp_path / "p"))
    assert [f.stat().st_mtime_ns for f in (tmp_path / "cache").glob("*.arrow")] == [before]
    assert source.train.encoded[6][0].endswith("train-1.parquet, row 1")


def table(path: Path, image: pa.Array, **columns: pa.Array) -> str:
    pq.write_table(pa.table({"image": image} | columns), path)
    return str(path)


def test_parquet_columns_of_other_types_are_refused(tmp_path):
    images = pa.array([{"bytes": png(pixels(i)), "path": None} for i in range(3)])
    with pytest.raises(ValueError, match=r"column label is of type double; expected whole numbers or names"):
        load(table(tmp_path / "a.parquet", images, label=pa.array([0.0, 0.7, 1.2])))
    with pytest.raises(ValueError, match=r"column image is of type string; expected \{bytes: binary"):
        load(table(tmp_path / "b.parquet", pa.array(["x", "y", "z"]), label=pa.array([0, 1, 0])))
    with pytest.raises(ValueError, match=r"no number of a class.*18446744073709551615"):
        load(table(tmp_path / "c.parquet", images, label=pa.array([0, 1, 2**64 - 1], pa.uint64())))
    first = tmp_path / "d" / "train-0.parquet"
    first.parent.mkdir()
    table(first, images, label=pa.array([0, 1, 0]))
    table(first.with_name("train-1.parquet"), images)
    with pytest.raises(ValueError, match=r"train-1\.parquet lacks the column label"):
        load(str(first.parent))


def test_parquet_names_of_classes_may_be_the_labels(tmp_path):
    images = pa.array([{"bytes": png(pixels(i)), "path": None} for i in range(4)])
    source = load(table(tmp_path / "a.parquet", images, label=pa.array(["bee", "ant", None, "bee"])))
    assert (source.classes, source.train.labels.tolist()) == (("ant", "bee"), [1, 0, -1, 1])


def test_parquet_label_is_bounded_by_the_rows(tmp_path):
    images = pa.array([{"bytes": png(pixels(i)), "path": None} for i in range(3)])
    with pytest.raises(ValueError, match="label 2,000,000,000 among 3 rows"):
        load(table(tmp_path / "a.parquet", images, label=pa.array([0, 1, 2_000_000_000])))


def test_parquet_errors(tmp_path):
    pq.write_table(pa.table({"picture": [b"x"], "label": [0]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"columns picture, label; expected image: \{bytes, path\}"):
        load(str(tmp_path))
    write(tmp_path / "a.parquet", "PAR1 but not really")
    with pytest.raises(ValueError, match=r"a\.parquet.*download"):
        load(str(tmp_path / "a.parquet"))
    shard(tmp_path / "b" / "train.parquet", [pixels(0)], [0], ["a", "b"])
    shard(tmp_path / "b" / "test.parquet", [pixels(0)], [0], ["a", "c"])
    with pytest.raises(ValueError, match="names other classes"):
        load(str(tmp_path / "b"))
    shard(tmp_path / "c" / "train.parquet", [pixels(0), pixels(1)], [0, 7], ["a", "b"])
    with pytest.raises(ValueError, match=r"label 7 of image 1 is not in 0 \.\.\. 1"):
        load(str(tmp_path / "c"))
    shard(tmp_path / "d" / "train.parquet", [], [], ["a"])
    with pytest.raises(FileNotFoundError, match="no rows"):
        load(str(tmp_path / "d"))


# Bad images


@pytest.mark.parametrize("resident", ["auto", "no"])
def test_bad_images_stop_or_are_skipped_counted_and_listed(resident, tmp_path, caplog):
    tree(tmp_path)
    write(tmp_path / "ant" / "2.png", png(pixels(0))[:500])
    write(tmp_path / "bee" / "0.png", "hello")
    with pytest.raises(BadImage, match=r"ant/2\.png.*--data\.on-bad-image skip"):
        load(str(tmp_path), resident=resident)
    source = load(str(tmp_path), resident=resident, on_bad_image="skip")
    assert source.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert torch.equal(source.train.read(3), chw(pixels(1, 1)))
    assert source.found == "6 images, 2 classes (folders), 2 skipped: 1 truncated, 1 not an image"
    assert "ant/2.png: 500 bytes" in caplog.text
    assert "bee/0.png: 5 bytes, of no known format" in caplog.text


@pytest.mark.parametrize("resident", ["auto", "no"])
def test_nothing_but_bad_images(resident, tmp_path):
    for name in "ab":
        write(tmp_path / f"{name}.png", "hello")
    with pytest.raises(ValueError, match="none of 2 images"):
        load(str(tmp_path), resident=resident, on_bad_image="skip")


def test_bad_row_of_parquet_is_named(tmp_path):
    shard(tmp_path / "train.parquet", [pixels(i) for i in range(3)], [0, 1, 0], ["a", "b"])
    table = pq.read_table(tmp_path / "train.parquet")
    rows = table.column("image").to_pylist()
    rows[1]["bytes"] = None
    pq.write_table(table.set_column(0, "image", pa.array(rows)), tmp_path / "train.parquet")
    with pytest.raises(BadImage, match=r"train\.parquet, row 1.*no bytes"):
        load(str(tmp_path))
    assert load(str(tmp_path), on_bad_image="skip").train.labels.tolist() == [0, 0]


def test_large_streamed_set_is_checked_when_asked_to_skip(tmp_path, monkeypatch):
    monkeypatch.setattr(residency, "CHECKED", 100)
    monkeypatch.setattr(images_module, "SAMPLE", 3)
    tree(tmp_path, count=60, height=5, width=5)
    bad = tmp_path / "ant" / "1.png"  # not among those that are looked at
    write(bad, "hello")
    source = load(str(tmp_path), resident="no")
    with pytest.raises(BadImage, match=r"1\.png"):
        [source.train.read(i) for i in range(120)]
    assert len(load(str(tmp_path), resident="no", on_bad_image="skip").train) == 119


# Normalization


def test_a_huge_picture_takes_its_own_memory_and_no_more(tmp_path):
    """Mean and deviation of 88 million pixels in float64 took 5 GB; a child that may map 2 GB more does it now."""
    Image.new("1", (9400, 9400), 1).save(tmp_path / "huge.png")
    assert (tmp_path / "huge.png").stat().st_size < 40_000
    code = """
import resource, sys
from relatum.data.sources import load

now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + 2 * 2**30, -1))
print(load(sys.argv[1], resident="no").mean)
"""
    if not Path("/proc/self/statm").exists():
        pytest.skip("memory is limited in Linux's way")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(json.loads(done.stdout.translate({40: "[", 41: "]"})), 1.0, rtol=1e-12)


def test_mean_and_std_are_those_of_the_training_pixels(tmp_path):
    tree(tmp_path / "train", count=10)
    tree(tmp_path / "test", count=3)
    source = load(str(tmp_path))
    reference = source.train.images.double().div(255).transpose(0, 1).flatten(1)
    np.testing.assert_allclose(source.mean, reference.mean(1), rtol=1e-12)
    np.testing.assert_allclose(source.std, reference.std(1, correction=0), rtol=1e-9)


def test_std_of_one_color_is_not_zero():
    gray = ResidentImages(torch.full((4, 3, 8, 8), 77, dtype=torch.uint8), torch.zeros(4, dtype=torch.long))
    assert mean_std(gray) == ((77 / 255,) * 3, (1 / 255,) * 3)


def test_mean_of_many_images_comes_from_a_fixed_sample():
    images = torch.randint(0, 256, (3000, 3, 2, 2), dtype=torch.uint8)
    many = ResidentImages(images, torch.zeros(3000, dtype=torch.long))
    assert mean_std(many) == mean_std(many)
    np.testing.assert_allclose(mean_std(many)[0], images.double().div(255).mean((0, 2, 3)), atol=0.02)


# Digits


@pytest.fixture(scope="module")
def digits() -> sources.Source:
    return load("digits")


def test_digits_have_the_same_bytes_always(digits):
    a, b = digits, load("digits")
    assert torch.equal(a.train.images, b.train.images)
    assert torch.equal(a.test.images, b.test.images)
    content = a.train.images.numpy().tobytes() + a.test.images.numpy().tobytes()
    assert hashlib.blake2b(content, digest_size=8).hexdigest() == DIGITS


DIGITS = "298a7db84490fe0f"  # a hash of the bytes


def test_digits_split_and_form(digits):
    source = digits
    assert (len(source.train), len(source.test), source.size) == (1297, 500, 32)
    assert source.test.labels.bincount().tolist() == [50] * 10
    assert source.classes == tuple("0123456789")
    assert source.train.images.dtype == torch.uint8
    assert (source.train.images == source.train.images[:, :1]).all()
    both = torch.cat([source.train.images, source.test.images]).flatten(1)
    assert len(both.unique(dim=0)) == 1797


def test_digits_vary_in_place_and_scale(digits):
    ink = digits.train.images[:, 0] > 0
    rows, columns = ink.any(2).float(), ink.any(1).float()
    top, left = rows.argmax(1), columns.argmax(1)
    height = 32 - rows.flip(1).argmax(1) - top
    assert height.min() >= 8
    assert height.max() <= 24
    assert len(height.unique()) > 12
    assert len(top.unique()) > 18
    assert len(left.unique()) > 18


def test_the_digits_of_the_demo_are_the_same_on_smaller_canvases(digits):
    source = load("digits24")
    assert (len(source.train), len(source.test), source.size) == (1297, 500, 24)
    assert source.test.labels.bincount().tolist() == [50] * 10
    ink = torch.cat([source.train.images, source.test.images])[:, 0] > 0
    rows, columns = ink.any(2).float(), ink.any(1).float()
    height = 24 - rows.flip(1).argmax(1) - rows.argmax(1)
    assert (int(height.min()), int(height.max())) == (12, 16)
    assert len(columns.argmax(1).unique()) > 10
    assert all(sorted(a.labels.tolist()) == sorted(b.labels.tolist()) for a, b in zip((source.train,), (digits.train,)))


def test_pixels_alone_do_not_solve_digits(digits):
    from sklearn.datasets import load_digits

    source = digits
    parts = [(p.images[:, 0].flatten(1).numpy().astype(float), p.labels.numpy()) for p in (source.train, source.test)]
    assert KNeighborsClassifier(5).fit(*parts[0]).score(*parts[1]) < 0.55
    plain = load_digits()
    assert (
        KNeighborsClassifier(5)
        .fit(plain.data[:1297], plain.target[:1297])
        .score(plain.data[1297:], plain.target[1297:])
        > 0.9
    )


# Parts of a training set


def labeled(*counts: int) -> ResidentImages:
    labels = torch.cat([torch.full((n,), c) for c, n in enumerate(counts)])[torch.randperm(sum(counts))]
    return ResidentImages(torch.arange(len(labels)).to(torch.uint8)[:, None, None, None], labels)


def numbers(images: ResidentImages) -> list[int]:
    return images.images.flatten().tolist()


@pytest.mark.parametrize("part", [0.2, 20], ids=["fraction", "count"])
def test_split_is_stratified_disjoint_and_fixed(part):
    images = labeled(50, 30, 20)
    kept, held = split(images, part, seed=3)
    assert held.labels.bincount().tolist() == [10, 6, 4]
    assert sorted(numbers(kept) + numbers(held)) == list(range(100))
    assert numbers(split(images, part, seed=3)[1]) == numbers(held)
    assert numbers(split(images, part, seed=4)[1]) != numbers(held)


def test_split_without_labels_is_random():
    images = ResidentImages(torch.arange(100).to(torch.uint8)[:, None, None, None], torch.full((100,), -1))
    held = numbers(split(images, 30, seed=0)[1])
    assert len(held) == 30
    assert held != list(range(30))


@pytest.mark.parametrize("part", [0, 100, -1, 1.0, 0.0, 1.5])
def test_split_refuses_what_leaves_nothing(part):
    with pytest.raises(ValueError, match="1 to 99"):
        split(labeled(50, 50), part, seed=0)


def test_first_is_balanced_nested_and_fixed():
    images = labeled(50, 30, 5)
    assert first(images, 12, seed=1).labels.bincount().tolist() == [4, 4, 4]
    assert first(images, 25, seed=1).labels.bincount().tolist() == [10, 10, 5]
    assert set(numbers(first(images, 12, seed=1))) < set(numbers(first(images, 25, seed=1)))
    assert numbers(first(images, 12, seed=1)) == numbers(first(images, 12, seed=1))
    assert numbers(first(images, 12, seed=1)) != numbers(first(images, 12, seed=2))
    assert numbers(first(images, 85, seed=1)) == list(range(85))
    for n in (0, 86):
        with pytest.raises(ValueError, match="1 to 85"):
            first(images, n, seed=0)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 5], r"label 5 of image 2 is not in 0 \.\.\. 2"),
        ([0, -2, 1], "label -2 of image 1"),
        ([0, -1, 1], "1 of 3 images have no label"),
        ([2, 2, 2], "all 3 images are of class 2"),
    ],
    ids=["high", "low", "unlabeled", "one-class"],
)
def test_labels_that_cannot_be_learnt(labels, message):
    check_labels(torch.tensor([0, 1, 2]), 3)
    with pytest.raises(ValueError, match=message):
        check_labels(torch.tensor(labels), 3)


# Tensors and Datasets


def test_tensors_are_a_source():
    images = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    source = sources.from_tensors(images, labels, test_images=images[:2], test_labels=labels[:2], classes="abc")
    assert source.classes == ("a", "b", "c")
    assert source.size == 8
    assert torch.equal(source.train.images, images)
    assert source.test.labels.tolist() == [0, 1]
    reference = images.double().div(255).transpose(0, 1).flatten(1)
    np.testing.assert_allclose(source.mean, reference.mean(1), rtol=1e-12)
    np.testing.assert_allclose(source.std, reference.std(1, correction=0), rtol=1e-9)
    assert sources.from_tensors(images).train.labels.tolist() == [-1] * 6
    assert sources.from_tensors(images).classes == ()


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        (torch.tensor([0, 1, 3]), "abc", r"label 3 of image 2 is not in 0 \.\.\. 2"),
        (torch.tensor([0, 1, 2 * 10**9]), None, "2,000,000,000 among 3 images"),
        (torch.tensor([0, 1]), None, "a whole number for each of the 3 images"),
    ],
    ids=["range", "bound", "count"],
)
def test_tensors_that_do_not_fit(labels, classes, message):
    images = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(ValueError, match=message):
        sources.from_tensors(images, labels, classes=classes)


class Pairs(torch.utils.data.Dataset):
    """Pairs (image, class), the image in one of the forms that a Dataset gives."""

    classes = ("zero", "one")

    def __init__(self, form, sizes=(8, 8, 8, 8)):
        self.arrays = [pixels(i, height=size, width=size) for i, size in enumerate(sizes)]
        self.form = form

    def __len__(self):
        return len(self.arrays)

    def __getitem__(self, i):
        return self.form(self.arrays[i]), i % 2


@pytest.mark.parametrize(
    "form",
    [Image.fromarray, chw, lambda a: chw(a).numpy(), lambda a: chw(a) / 255],
    ids=["picture", "tensor", "array", "to-tensor"],
)
def test_a_torch_dataset_is_a_source(form):
    dataset = Pairs(form)
    source = sources.from_dataset(dataset, torch.utils.data.Subset(dataset, [1, 2]))
    assert isinstance(source.train, ResidentImages)
    assert torch.equal(source.train.images, torch.stack([chw(a) for a in dataset.arrays]))
    assert (source.classes, source.train.labels.tolist()) == (("zero", "one"), [0, 1, 0, 1])
    assert source.test.labels.tolist() == [1, 0]
    streamed = sources.from_dataset(Pairs(form, sizes=(8, 9, 10)))
    assert torch.equal(streamed.train.read(2), chw(pixels(2, height=10, width=10)))


def test_normalized_items_of_a_dataset_are_refused():
    with pytest.raises(ValueError, match=r"train\[0\] is torch.float32.*leave out transforms that normalize"):
        sources.from_dataset(Pairs(lambda a: chw(a) / 255 - 0.5))
    with pytest.raises(ValueError, match="no items"):
        sources.from_dataset(Pairs(chw, sizes=()))


# The hub, and real data


def test_hub_reads_through_the_datasets_library(tmp_path):
    pytest.importorskip("datasets")
    for part in ("train", "test"):
        arrays = [pixels(i, height=8, width=8) for i in range(3)]
        shard(tmp_path / "data" / f"{part}-00000-of-00001.parquet", arrays, [0, 1, 1], ["a", "b"])
    source = load(f"hf:{tmp_path}", root=tmp_path / "root")
    assert source.classes == ("a", "b")
    assert source.test.labels.tolist() == [0, 1, 1]
    assert torch.equal(source.train.images[2], chw(pixels(2, height=8, width=8)))


def test_hub_without_the_library_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(ImportError, match=r"relatum\[hub\]"):
        load("hf:owner/name")


@pytest.mark.data
@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_real_cifar(name, classes):
    if not (SHARED / name).is_dir():
        pytest.skip(f"{SHARED / name} is absent")
    source = load(name, root=SHARED)
    assert source.test.images.shape == (10_000, 3, 32, 32)
    assert len(source.classes) == classes
    assert source.test.labels.bincount().tolist() == [10_000 // classes] * classes
    mean, std = mean_std(source.train)
    np.testing.assert_allclose(mean, source.mean, atol=0.01)
    np.testing.assert_allclose(std, source.std, atol=0.01)
    if len(source.train) == 50_000:  # then the constants can be checked to their last digit
        pixels = source.train.images.flatten(2).transpose(0, 1).flatten(1)
        mean = torch.stack([c.double().mean() for c in pixels]) / 255
        std = torch.stack([c.double().std() for c in pixels]) / 255
        np.testing.assert_allclose(mean, source.mean, atol=6e-5)
        np.testing.assert_allclose(std, source.std, atol=6e-5)
