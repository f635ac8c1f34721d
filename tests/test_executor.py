"""The executor on the local engine: what is run, in what order, what is repeated, and what a failure stops."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from relatum.studies.engines import local
from relatum.studies.executor import Executor, lacking, log_of
from relatum.studies.plan import Cell

DONE = "import pathlib, sys; p = pathlib.Path(sys.argv[1]); p.mkdir(parents=True, exist_ok=True); "
WRITE = DONE + "(p / 'record.json').write_text('{}')"


def cell(folder: Path, *needs: Cell, name: str = "a", seed: int = 0, kind: str = "run") -> Cell:
    return Cell(name, "c", seed, folder / f"{name}--c" / str(seed), "simclr", {}, needs, None, kind)


def done(cell: Cell) -> bool:
    return (cell.folder / "record.json").is_file()


def execute(cells, scripts, jobs=1, **options):
    """The outcome, and the lines that were said; a cell's script is a Python program that gets its folder."""
    said: list[str] = []
    executor = Executor(
        cells,
        local.Local(jobs),
        done=done,
        usable=done,
        argv=lambda c: [sys.executable, "-c", scripts.get(c.row, WRITE), str(c.folder)],
        say=said.append,
        **options,
    )
    return executor.run(), said


def test_what_is_there_is_kept_and_what_is_missing_is_run(tmp_path):
    cells = [cell(tmp_path, seed=seed) for seed in range(3)]
    cells[1].folder.mkdir(parents=True)
    (cells[1].folder / "record.json").write_text("kept")
    outcome, said = execute(cells, {})
    assert set(outcome.done) == set(cells)
    assert (cells[1].folder / "record.json").read_text() == "kept"
    assert not log_of(cells[1]).exists()
    assert said[-1].startswith("[3/3, 0 running] done   a--c seed 2, ")
    assert execute(cells, {"a": "raise SystemExit(9)"})[1] == [], "a study that is done runs nothing"


def test_a_failing_cell_is_shown_with_its_last_lines_and_stops_no_other(tmp_path):
    refused = "import sys; print('relatum: --optim.lr is -1; expected at least 0'); sys.exit(2)"
    cells = [cell(tmp_path, name="bad"), cell(tmp_path, name="good")]
    outcome, said = execute(cells, {"bad": refused})
    assert outcome.done == [cells[1]]
    assert outcome.failed == {cells[0]: "exit status 2\nrelatum: --optim.lr is -1; expected at least 0"}
    assert "FAILED bad--c seed 0: exit status 2\n    relatum: --optim.lr is -1" in said[0]
    assert str(log_of(cells[0])) in said[0]
    assert log_of(cells[0]).read_text().count("+ ") == 1, "a command that was refused is not repeated"


def test_students_of_a_teacher_that_failed_wait(tmp_path):
    teacher = cell(tmp_path, name="teacher", kind="teacher")
    student = cell(tmp_path, teacher, name="student")
    grandchild = cell(tmp_path, student, name="grandchild")
    other = cell(tmp_path, name="other")
    outcome, said = execute([teacher, student, grandchild, other], {"teacher": "import sys; sys.exit(2)"})
    assert outcome.waiting == {student: teacher, grandchild: teacher}
    assert outcome.done == [other]
    assert any(line.endswith("waits  student--c seed 0: on teacher--c seed 0, which failed") for line in said)


def test_a_student_starts_after_its_teacher(tmp_path):
    teacher = cell(tmp_path, name="teacher", kind="teacher")
    student = cell(tmp_path, teacher, name="student")
    look = WRITE + f"; assert pathlib.Path({str(teacher.folder)!r}, 'record.json').is_file()"
    slow = "import time; time.sleep(0.3); " + WRITE
    outcome, _ = execute([teacher, student], {"student": look, "teacher": slow}, jobs=2)
    assert outcome.done == [teacher, student]


def test_a_teacher_is_not_trained_for_students_that_are_done(tmp_path):
    teacher = cell(tmp_path, name="teacher", kind="teacher")
    student = cell(tmp_path, teacher, name="student")
    assert lacking([teacher, student], done, done) == [teacher, student]
    student.folder.mkdir(parents=True)
    (student.folder / "record.json").write_text("{}")
    assert lacking([teacher, student], done, done) == []


def test_a_run_that_lost_one_of_its_processes_is_started_again(tmp_path):
    """Its command ended by itself, with the status that says so; the next attempt comes through."""
    lost = (
        DONE + "m = p / 'mark'; (p / 'record.json').write_text('{}') if m.exists() else m.touch() or "
        "print('process 2 of 2 was ended by SIGKILL') or sys.exit(71)"
    )
    outcome, said = execute([cell(tmp_path)], {"a": lost}, retries=1)
    assert len(outcome.done) == 1
    assert "again  a--c seed 0: exit status 71; process 2 of 2 was ended by SIGKILL" in said[0]


def test_a_lease_that_a_killed_run_left_does_not_make_a_refusal_wait(tmp_path):
    held = cell(tmp_path)
    held.folder.mkdir(parents=True)
    (held.folder / "lease").write_text("pid=1")
    outcome, _ = execute([held], {"a": "import sys; print('another recipe'); sys.exit(2)"})
    assert outcome.failed == {held: "exit status 2\nanother recipe"}


@pytest.mark.parametrize(("retries", "starts"), [(0, 1), (2, 3)])
def test_a_run_that_is_killed_is_started_again_so_often(tmp_path, retries, starts):
    killed = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    outcome, said = execute([cell(tmp_path)], {"a": killed}, retries=retries)
    assert next(iter(outcome.failed.values())).startswith("killed by SIGKILL")
    assert log_of(cell(tmp_path)).read_text().count("+ ") == starts
    assert len(said) == starts


def test_an_attempt_that_got_further_does_not_count(tmp_path):
    """As under a time limit: each of five attempts leaves a checkpoint more, with a single retry."""
    further = (
        DONE + "c = p / 'checkpoints'; c.mkdir(exist_ok=True); n = len(list(c.iterdir())); "
        "(c / f'epoch-{n + 1:05d}.pt').touch(); "
        "(p / 'record.json').write_text('{}') if n == 4 else __import__('os').abort()"
    )
    outcome, said = execute([cell(tmp_path)], {"a": further}, retries=0)
    assert len(outcome.done) == 1
    assert len(said) == 5


def test_a_command_that_ends_well_without_a_record_has_failed(tmp_path):
    outcome, _ = execute([cell(tmp_path)], {"a": "print('nothing to do')"})
    assert "left no record.json" in next(iter(outcome.failed.values()))


def test_a_run_that_another_process_holds_is_waited_for(tmp_path, monkeypatch):
    """A zombie of an earlier attempt writes the Record; its successors are refused meanwhile, and do not count."""
    monkeypatch.setattr("relatum.studies.executor.BUSY", 0.2)
    held = cell(tmp_path)
    held.folder.mkdir(parents=True)

    def zombie() -> None:
        time.sleep(1.0)
        (held.folder / "record.json").write_text("the zombie's")

    threading.Thread(target=zombie).start()
    refused = "import sys; print('process 1 on here is training in this folder'); sys.exit(75)"
    outcome, said = execute([held], {"a": refused}, retries=0)
    assert outcome.done == [held]
    assert all("busy   a--c seed 0: process 1 on here is training" in line for line in said[:-1])
    assert len(said) > 2
    assert (held.folder / "record.json").read_text() == "the zombie's"


WRITER = """
import os, sys, time
from pathlib import Path
{elsewhere}
from relatum.cli.errors import explained
from relatum.training import lease
lease.SECONDS = {seconds}

def work():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    held = lease.Lease(folder)
    token = held.take()
    if (folder / "record.json").exists():
        return held.release()  # by whoever held it before
    for _ in range({writes}):
        time.sleep(0.1)
        lease.refuse_if_lost(folder, token)
        with (folder / "written").open("a") as file:
            file.write(f"{{os.getpid()}}\\n")
    (folder / "record.json").write_text(str(os.getpid()))
    held.release()

sys.exit(explained(work))
"""
"""Writes twenty times into a folder, by the rules of a run: with the lease, and never without."""


def writers(folder: Path) -> list[str]:
    """Who has written, in order, each as often as without a break."""
    return [pid for pid, _ in itertools.groupby((folder / "written").read_text().split())]


@contextmanager
def zombie(folder: Path, elsewhere: str = "", seconds: float = 15.0) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that writes in a run folder, and that no engine knows any more."""
    program = WRITER.format(elsewhere=elsewhere, seconds=seconds, writes=20)
    with subprocess.Popen([sys.executable, "-c", program, str(folder)], stderr=subprocess.DEVNULL) as process:
        while not (folder / "written").exists():
            assert process.poll() is None
            time.sleep(0.02)
        yield process
        process.kill()


def test_a_zombie_that_lives_is_waited_for_and_its_successor_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("relatum.studies.executor.BUSY", 0.2)
    held = cell(tmp_path)
    with zombie(held.folder) as before:
        successor = WRITER.format(elsewhere="", seconds=15.0, writes=20)
        outcome, said = execute([held], {"a": successor}, retries=0)
        assert before.wait(10) == 0
    assert outcome.done == [held]
    assert f"busy   a--c seed 0: relatum: process {before.pid} on " in said[0], said
    assert writers(held.folder) == [str(before.pid)]
    assert (held.folder / "record.json").read_text() == str(before.pid)


def test_a_zombie_that_wakes_up_finds_its_successor_and_writes_no_more(tmp_path, monkeypatch):
    """It slept on another machine for longer than a lease lasts. Its successor has the folder from then on."""
    monkeypatch.setattr("relatum.studies.executor.BUSY", 0.2)
    held = cell(tmp_path)
    elsewhere = "import socket; socket.gethostname = lambda: 'elsewhere'"
    successor = WRITER.format(elsewhere="", seconds=1.0, writes=20)
    with zombie(held.folder, elsewhere, seconds=1.0) as before:
        before.send_signal(signal.SIGSTOP)

        def wake() -> None:
            while len(writers(held.folder)) < 2:
                time.sleep(0.02)
            before.send_signal(signal.SIGCONT)

        waker = threading.Thread(target=wake)
        waker.start()
        outcome, _ = execute([held], {"a": successor}, retries=0)
        waker.join()
        assert before.wait(10) == 75
    assert outcome.done == [held]
    first, second = writers(held.folder)
    assert first == str(before.pid) != second
    assert (held.folder / "record.json").read_text() == second


def test_nothing_is_started_on_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("relatum.studies.executor.free_space", lambda folder: 3 * 2**20)
    with pytest.raises(OSError, match=r"3 MiB are free, expected at least 200\. Make room"):
        execute([cell(tmp_path)], {})
    assert not log_of(cell(tmp_path)).exists()


def test_what_runs_is_stopped_when_the_study_is(tmp_path):
    """An interrupted study leaves no process behind: the run gets SIGTERM, and is over when the study is."""
    pid = tmp_path / "pid"
    sleeping = f"import os, pathlib, time; pathlib.Path({str(pid)!r}).write_text(str(os.getpid())); time.sleep(60)"

    def interrupt() -> None:
        while not (pid.exists() and pid.read_text()):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        execute([cell(tmp_path)], {"a": sleeping})
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_the_engine_adds_little_time(tmp_path):
    """40 commands of a tenth of a second with 2 jobs: 2 seconds, and the processes' own start; measured against the
    same processes in two bare loops."""
    script = "import time; time.sleep(0.1); " + WRITE
    cells = [cell(tmp_path / "study", seed=seed) for seed in range(40)]

    def bare(part: int) -> None:
        import subprocess

        for seed in range(part, 40, 2):
            subprocess.run([sys.executable, "-c", script, str(tmp_path / "bare" / str(seed))], check=True)

    start = time.perf_counter()
    threads = [threading.Thread(target=bare, args=(part,)) for part in range(2)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    alone = time.perf_counter() - start
    start, own = time.perf_counter(), time.process_time()
    outcome, _ = execute(cells, {"a": script}, jobs=2)
    own = time.process_time() - own
    assert len(outcome.done) == 40
    assert own / 40 < 0.02, "processor time a command, which no load of the machine changes: 2 % of a second"
    # Per command, not in percent: what the engine itself does is below 20 ms, 2 % of a command of a second.
    assert (time.perf_counter() - start - alone) / 20 < 0.02 + alone / 20 * 0.25
