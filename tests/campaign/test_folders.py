"""What people have in folders: other JSON beside Records, odd names and odd files beside images."""

import json
import os
import socket
import sys
import threading
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

from campaign.ledger import Ledger, child
from relatum import cli, load
from relatum.data import downloads
from relatum.data.catalog import Archive

pytestmark = pytest.mark.campaign


def value(rng, depth: int = 0):
    """A random JSON value."""
    kind = rng.randrange(7 if depth < 3 else 5)
    match kind:
        case 0:
            return rng.choice((None, True, False))
        case 1:
            return rng.choice((0, -1, 5, 10**30, 2**63))
        case 2:
            return rng.choice((0.5, float("nan"), float("inf"), 1e308))
        case 3 | 4:
            return rng.choice(("", "recipe", "x" * 1000, "\ud83d\ude00", "../.."))
        case 5:
            return [value(rng, depth + 1) for _ in range(rng.randrange(3))]
    names = ("recipe", "seed", "metrics", "history", "versions", "commit", "machine", "data", "other")
    return {rng.choice(names): value(rng, depth + 1) for _ in range(rng.randrange(8))}


def test_other_json_beside_records(ledger: Ledger, tmp_path):
    area = "a folder of foreign JSON given to `relatum table`"
    ledger.expects(area, "status 0 or one clear error with status 2, never a traceback")
    rng = ledger.rng(area)

    def attack(folder: Path) -> None:
        sys.argv = ["relatum", "table", str(folder)]
        cli.main()

    for number in range(ledger.attempts(200)):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name in ("record.json", "other.json", "x.json"):
            if rng.random() < 0.2:
                (folder / name).mkdir()
            else:
                text = json.dumps(value(rng))
                (folder / name).write_text(text[: rng.randrange(len(text) + 1)] if rng.random() < 0.3 else text)
        ended = child(lambda folder=folder: attack(folder), tmp_path, seconds=30)
        files = {f.name: f.read_text()[:80] if f.is_file() else "a folder" for f in folder.iterdir()}
        ledger.count(area, ended.done or ended.refused, f"{files}: {ended}")
    ledger.check(area)


def test_messy_trees(ledger: Ledger, tmp_path):
    area = "messy folders of images, `skip`"
    ledger.expects(area, "exactly the whole images are found, or one clear error where there are none; never a hang")
    rng = ledger.rng(area)
    for number in range(ledger.attempts(120)):
        root, whole = tmp_path / f"tree-{number}", 0
        folders = [root / name for name in ("a", "b é", "c.jpg", " d ")[: rng.randint(1, 4)]]
        for folder in folders:
            folder.mkdir(parents=True)
            for index in range(rng.randint(0, 4)):
                Image.new("RGB", (9, 9), (index, 0, 0)).save(folder / f"{index}.PNG")
                whole += 1
        for _ in range(rng.randint(0, 4)):
            folder, name = rng.choice(folders), f"odd-{rng.random():.6f}"
            match rng.choice(
                ("fifo", "dangling", "text", "truncated", "empty", "bytes name", "hidden", "device", "loop")
            ):
                case "fifo":
                    os.mkfifo(folder / f"{name}.jpg")
                case "dangling":
                    (folder / f"{name}.jpg").symlink_to(folder / "nowhere.jpg")
                case "text":
                    (folder / f"{name}.txt").write_text("no image")
                case "truncated":
                    (folder / f"{name}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
                case "empty":
                    (folder / f"{name}.jpeg").touch()
                case "bytes name":
                    Path(os.fsdecode(os.fsencode(folder) + f"/{name}-\xff.txt".encode("latin-1"))).touch()
                case "hidden":
                    (folder / ".hidden").mkdir(exist_ok=True)
                    (folder / ".hidden" / "x.png").write_bytes(b"no image either")
                case "device":
                    (folder / f"{name}.png").symlink_to("/dev/zero")
                case "loop":
                    (folder / f"{name}").symlink_to(folder, target_is_directory=True)

        def attack(root: Path = root, whole: int = whole) -> None:
            found = load(str(root), root=str(root.parent / "data"), on_bad_image="skip")
            assert len(found.train) == whole, f"{len(found.train)} images found of {whole}"

        ended = child(attack, tmp_path, seconds=30)
        survived = ended.done or (ended.refused and whole == 0)
        ledger.count(area, survived, f"{sorted(str(p.relative_to(root)) for p in root.rglob('*'))}: {ended}")
    ledger.check(area)


def test_a_server_that_stalls(ledger: Ledger, tmp_path):
    area = "a download server that stalls, on this machine"
    ledger.expects(area, "one clear error within the time limit, and nothing that looks whole")
    rng = ledger.rng(area)
    for number in range(ledger.attempts(10)):
        server, sent, over = socket.create_server(("127.0.0.1", 0)), rng.randrange(2000), threading.Event()

        def serve(server: socket.socket = server, sent: int = sent, over: threading.Event = over) -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 100000\r\n\r\n" + bytes(sent))
                over.wait(60)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        folder, port = tmp_path / str(number), server.getsockname()[1]

        def attack(folder: Path = folder, port: int = port) -> None:
            downloads.TIMEOUT = 1.0
            urlopen = urllib.request.urlopen
            # A certificate for this machine is not to be had: the server speaks http, whatever the address says.
            urllib.request.urlopen = lambda url, timeout: urlopen(url.replace("https", "http", 1), timeout=timeout)
            archive = Archive(url=f"https://127.0.0.1:{port}/x.tar.gz", sha256="0" * 64)
            downloads.fetch(archive, folder, ["x"])

        ended = child(attack, tmp_path, seconds=30)
        left = [path.name for path in folder.rglob("*") if path.suffix != ".part"] if folder.is_dir() else []
        ledger.count(area, ended.refused and not left, f"after {sent} bytes: {ended}; left {left}")
        over.set()
        thread.join()
        server.close()
    ledger.check(area)
