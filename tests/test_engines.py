"""Engines lose runs, and a study ends with the same bits all the same: local processes, Ray and Slurm, real ones."""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import pytest

from engines import bits, execute, in_the_middle, over, study
from relatum.cli import main
from relatum.studies import trees
from relatum.studies.engines import engine, local
from relatum.studies.engines.payload import environment, executable


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What the run ends with when nothing happens to it."""
    from relatum.recipes.recipe import from_dict
    from relatum.training.loop import fit

    made = study(tmp_path_factory.mktemp("undisturbed"))
    (cell,) = made.cells
    fit(from_dict(nested(trees.tree(cell.recipe) | cell.changes)), cell.folder, quiet=True)
    return bits(made)


def nested(fields: dict) -> dict:
    tree: dict = {}
    for name, value in fields.items():
        *rooms, leaf = name.split(".")
        inner = tree
        for room in rooms:
            inner = inner.setdefault(room, {})
        inner[leaf] = value
    return tree


def when(condition, act) -> threading.Thread:
    """Act once, as soon as a condition holds; the thread is joined to see that it did."""

    def watch() -> None:
        until = time.monotonic() + 240
        while not condition():
            assert time.monotonic() < until, "it never came to that"
            time.sleep(0.005)
        act()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_local_a_run_that_is_killed_ends_with_the_same_bits(tmp_path, monkeypatch, capsys):
    """The same bits as the command that `--dry-run` prints gives, run as it is where there is no run yet."""
    fields = [word for text in over(4) for word in ("--over", text)]
    words = ["study", "demo", *fields, "--seeds", "0", "--runs", str(tmp_path / "printed"), "--dry-run"]
    monkeypatch.setattr(sys, "argv", ["relatum", *words])
    main()
    (line,) = capsys.readouterr().out.splitlines()
    subprocess.run(executable(shlex.split(line)), env=environment(1), check=True, capture_output=True)
    undisturbed = bits(study(tmp_path / "printed", epochs=4))
    made = study(tmp_path / "killed", epochs=4)
    victim = made.cells[0]
    processes = []
    child = local.child
    monkeypatch.setattr(local, "child", lambda *given: processes.append(child(*given)) or processes[-1])
    killer = when(lambda: in_the_middle(victim), lambda: processes[0].send_signal(signal.SIGKILL))
    said: list[str] = []
    outcome = execute(made, local.Local(1), said)
    killer.join()
    assert len(outcome.done) == 1
    assert any("again  " in line and "killed by SIGKILL" in line for line in said)
    assert len(processes) == 2
    assert bits(made) == undisturbed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_study_that_is_stopped_stops_its_runs(tmp_path, number):
    program = (
        "import sys\n"
        "from relatum.cli import main\n"
        "from relatum.studies import plan\n"
        "plan.command = lambda cell: ['sleep', '600']\n"
        "main()\n"
    )
    words = ["study", "demo", "--over", "optim.lr=0.001,0.002", "--runs", str(tmp_path), "--jobs", "2"]
    quiet = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)}  # as a shell does to its background
    stopped = subprocess.Popen([sys.executable, "-c", program, *words], cwd=tmp_path, **quiet)
    runs: list[psutil.Process] = []
    deadline = time.monotonic() + 60
    while len(runs) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
        runs = [child for child in psutil.Process(stopped.pid).children() if "sleep" in child.name()]
    assert len(runs) == 2
    stopped.send_signal(number)
    assert stopped.wait(20) == 130
    assert psutil.wait_procs(runs, timeout=5)[1] == []


@pytest.mark.parametrize("name", ["ray", "slurm"])
def test_options_that_an_engine_does_not_have_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=f"the engine {name} has no option 'adress'; expected one of"):
        engine(name, jobs=1, folder=tmp_path, options={"adress": "x"})
    with pytest.raises(ValueError, match="no engine 'rey'; did you mean ray"):
        engine("rey", jobs=1, folder=tmp_path, options={})


RAY = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")  # Ray's own, about itself
def test_ray_a_worker_that_is_lost_in_the_middle_of_a_run(tmp_path, undisturbed, monkeypatch):
    for name, value in RAY.items():
        monkeypatch.setenv(name, value)
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    small = {"object_store_memory": 80 * 2**20, "node_ip_address": "127.0.0.1"}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **small})
    try:
        nodes = [cluster.add_node(num_cpus=1, **small) for _ in range(2)]
        cluster.wait_for_nodes()
        made = study(tmp_path)
        killed = []

        def kill_the_node_of_the_first_run() -> None:
            def of(node):
                raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
                return [raylet, *raylet.children(recursive=True)]

            trains = str(made.cells[0].folder)
            node = next(n for n in nodes if any(trains in p.cmdline() for p in of(n)))
            for process in of(node):
                process.kill()
            cluster.remove_node(node, allow_graceful=False)
            killed.append(node)

        killer = when(lambda: in_the_middle(made.cells[0]), kill_the_node_of_the_first_run)
        said: list[str] = []
        outcome = execute(made, engine("ray", jobs=2, folder=tmp_path, options={"address": cluster.address}), said)
        killer.join()
        assert len(killed) == 1
        assert len(outcome.done) == 1, said
        assert any("again  " in line and "lost by Ray" in line for line in said), said
        assert bits(made) == undisturbed
        print("\n".join(said))
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.ray
def test_ray_a_cluster_that_is_not_there(tmp_path):
    pytest.importorskip("ray")
    for address, why in (("127.0.0.1:1", "refused"), ("127.0.0.1:x", "invalid literal")):
        with pytest.raises(RuntimeError, match=rf"no Ray cluster answers at {address} \(.*{why}.*--option address="):
            engine("ray", jobs=1, folder=tmp_path, options={"address": address})


def test_slurm_a_cluster_that_is_not_there(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="no Slurm cluster answers here"):
        engine("slurm", jobs=1, folder=tmp_path, options={})


@pytest.fixture(scope="module")
def slurm():
    """Slurm of two nodes on this machine, by the start script that SLURM_UP names."""
    pytest.importorskip("submitit")
    script = os.environ.get("SLURM_UP")
    if not script or not shutil.which("slurmctld"):
        pytest.skip("no Slurm here: install it, and name its start script with SLURM_UP")
    folder = Path(tempfile.mkdtemp(prefix="slurm"))  # short: the path of a socket in it has at most 107 letters
    env = os.environ | {"SLURM_DIR": str(folder), "SLURM_CONF": str(folder / "slurm.conf")}
    try:
        subprocess.run([script], env=env, check=False, capture_output=True)  # it waits a while; a loaded machine longer
        for _ in range(120):
            idle = ["sinfo", "-h", "-N", "-p", "main", "-t", "idle", "-o", "%n"]
            if len(subprocess.run(idle, env=env, capture_output=True, text=True, check=False).stdout.split()) == 2:
                break
            time.sleep(0.5)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SLURM_CONF", env["SLURM_CONF"])
            yield
    finally:
        subprocess.run([Path(script).with_name("slurm_down.sh")], env=env, check=False, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


def running_job() -> str:
    """The id of the only job that runs."""
    command = ["squeue", "-h", "--array", "-t", "R", "-o", "%i"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]


@pytest.mark.slurm
@pytest.mark.parametrize(
    ("name", "command", "again"),
    [
        ("cancelled", ["scancel", "JOB"], True),
        ("requeued", ["scontrol", "requeue", "JOB"], False),
        ("past its time limit", ["scontrol", "update", "JobId=JOB", "EndTime=now+1"], True),
    ],
    ids=["cancelled", "requeued", "time-limit"],
)
def test_slurm_a_job_that_is_lost_in_the_middle_of_a_run(tmp_path, undisturbed, slurm, name, command, again):
    made = study(tmp_path / "runs")
    victim = made.cells[0]

    def act() -> None:
        job = running_job()
        subprocess.run([word.replace("JOB", job) for word in command], check=True)
        if name == "past its time limit":  # which Slurm looks at twice a minute: meanwhile the run must not end
            trains = str(victim.folder)
            for process in psutil.process_iter():
                with contextlib.suppress(psutil.Error):
                    if trains in process.cmdline():
                        process.suspend()

    actor = when(lambda: in_the_middle(victim), act)
    said: list[str] = []
    options = {"minutes": "10"}
    outcome = execute(made, engine("slurm", jobs=1, folder=tmp_path / "jobs", options=options), said)
    actor.join()
    assert len(outcome.done) == 1, said
    assert any("again  " in line and "left the queue" in line for line in said) == again, said
    assert bits(made) == undisturbed
    print("\n".join(said))


def test_what_ended_says_how(tmp_path):
    assert local.how(3) == "exit status 3"
    assert local.how(-9) == "killed by SIGKILL"
