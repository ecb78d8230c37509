"""`vrex explore` from end to end: files, resuming, kills, dead workers, schedulers, mistakes."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from distributed import KilledWorker, LocalCluster

from vrex.errors import UserError
from vrex.sw.cli import main as cli
from vrex.sw.perf.explore import cluster
from vrex.sw.perf.explore.evaluate import evaluate
from vrex.sw.perf.explore.spec import load_spec

SPEC = """
[workload]
model = ["llama-3-8b"]
vision = ["siglip-l-384"]
kv = [{lengths}]
batch = [1]

[[sweep]]
system = ["v-rex8"]
method = ["resident", "vrex-resident"]
"""
POLL_S = 0.02
ANYBODY: Any = SimpleNamespace(address="a")
"""A worker that has died."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def spec(count: int, name: str = "spec.toml") -> Path:
    """A file of twice as many points."""
    path = Path(name)
    path.write_text(SPEC.format(lengths=", ".join(str(1000 + kv) for kv in range(count))))
    return path


def explore(*words: str) -> int:
    return cli.main(["explore", *words])


def start(*words: str) -> "subprocess.Popen[str]":
    """A process of its own group, as a terminal starts it."""
    command = [sys.executable, "-m", "vrex", "explore", *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def wait_for_points(process: "subprocess.Popen[str]", path: Path) -> None:
    """Until a first task's points are on disk."""
    while not path.exists() or path.read_bytes().count(b"\n") < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(POLL_S)


def rows(name: str = "out.json") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(Path(name).read_text())["rows"]
    return found


def expected(path: Path) -> list[dict[str, Any]]:
    return [evaluate(one) for one in load_spec(path).designs()]


def without_front(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "front"} for row in found]


@pytest.fixture
def scheduler() -> Iterator[Any]:
    """A cluster of one worker in this process, behind a real address."""
    with LocalCluster(n_workers=1, processes=False, protocol="tcp://", **cluster.QUIET) as found:
        yield found


# -- what comes out -------------------------------------------------------------------------------------


def test_a_kill_loses_no_finished_point(folder: Path) -> None:
    path = spec(150)
    process = start(str(path), "--json", "out.json", "--workers", "1")
    store = folder / "out.points.jsonl"
    wait_for_points(process, store)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = store.read_bytes()
    whole = kept.count(b"\n") - 1
    assert 0 < whole < 300
    assert not Path("out.json").exists()

    process = start(str(path), "--json", "out.json", "--workers", "1", "--parquet", "out.parquet")
    _, said = process.communicate()
    assert process.returncode == 0, said
    assert f"{whole} of 300 points are in out.points.jsonl; {300 - whole} are left" in said
    assert store.read_bytes().startswith(kept[: kept.rindex(b"\n") + 1])
    assert without_front(rows()) == expected(path)
    assert Path("out.parquet").read_bytes().startswith(b"PAR1")


def test_ctrl_c_says_what_is_kept(folder: Path) -> None:
    # So many that it can't be through before the interrupt comes, however late that is.
    process = start(str(spec(2000)), "--json", "out.json", "--workers", "1")
    store = folder / "out.points.jsonl"
    wait_for_points(process, store)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130
    kept = store.read_bytes().count(b"\n") - 1
    assert said == (
        f"vrex: {kept} of 4000 points are kept in out.points.jsonl; the same command goes on from there\n"
        "vrex: interrupted\n"
    )


def test_a_worker_that_dies_loses_no_point(folder: Path) -> None:
    path = spec(150)
    process = start(str(path), "--json", "out.json", "--html", "out.html", "--workers", "2")
    wait_for_points(process, folder / "out.points.jsonl")
    workers = [
        child for child in psutil.Process(process.pid).children() if "spawn_main" in " ".join(child.cmdline())
    ]
    assert len(workers) == 2
    workers[0].kill()
    _, said = process.communicate()
    assert process.returncode == 0, said
    assert said == "vrex: a worker died on the way; others computed its points\n"
    assert without_front(rows()) == expected(path)
    assert "300 points, of which 300 fit" in Path("out.html").read_text()


def test_a_scheduler_of_one_s_own(scheduler: LocalCluster, capsys: pytest.CaptureFixture[str]) -> None:
    path = spec(3)
    words = [str(path), "--json", "out.json", "--objectives", "tokens_per_s,memory_gb"]
    assert explore(*words, "--scheduler", scheduler.scheduler_address) == 0
    shown = capsys.readouterr()
    assert "6 points, 6 fit; fronts of tokens_per_s, memory_gb" in shown.out
    assert shown.err == ""
    assert without_front(rows()) == expected(path)
    # All is there: neither workers nor a scheduler are asked once more.
    assert explore(*words, "--scheduler", "tcp://127.0.0.1:1") == 0
    assert "6 of 6 points are in out.points.jsonl; 0 are left" in capsys.readouterr().err


def test_the_default_spec_is_printed_and_can_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert explore("--print-spec") == 0
    Path("mine.toml").write_text(capsys.readouterr().out)
    assert load_spec(Path("mine.toml")).sweeps


@pytest.mark.slow
def test_the_default_sweep_takes_less_than_ten_minutes() -> None:
    # Processor time of all processes, on the two cores that the claim is about.
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    command = [sys.executable, "-m", "vrex", "explore", "--json", "out.json", "--workers", "2"]
    subprocess.run(command, check=True, capture_output=True)
    assert (resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before) / 2 < 600
    assert len(rows()) >= 10_000


# -- mistakes -------------------------------------------------------------------------------------------


def complains(capsys: pytest.CaptureFixture[str], said: str, *words: str) -> None:
    before = sorted(Path.cwd().iterdir())
    assert explore(*words) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("vrex: error: ")
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert sorted(Path.cwd().iterdir()) == before


def test_mistakes_are_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "CONNECT_S", 0.3)
    path = str(spec(2))
    Path("broken.toml").write_text("[workload]\n")
    for said, words in (
        ("--json is missing", [path]),
        ("--print-spec goes alone", [path, "--print-spec"]),
        ("gone.toml: No such file", ["gone.toml", "--json", "o.json"]),
        ("broken.toml: field sweep is missing", ["broken.toml", "--json", "o.json"]),
        ("'speed' is unknown; known are fps", [path, "--json", "o.json", "--objectives", "speed,fps"]),
        ("needs at least two", [path, "--json", "o.json", "--objectives", "fps"]),
        ("o.png does not end in .parquet", [path, "--json", "o.json", "--parquet", "o.png"]),
        ("would overwrite", [path, "--json", path]),
        ("nonsense: is no address", [path, "--json", "o.json", "--scheduler", "nonsense"]),
        ("no scheduler answers", [path, "--json", "o.json", "--scheduler", "tcp://127.0.0.1:1"]),
        ("'0' is not a whole number", [path, "--json", "o.json", "--workers", "0"]),
        ("not allowed with argument", [path, "--workers", "1", "--scheduler", "tcp://h:1"]),
    ):
        complains(capsys, said, *words)


def test_a_file_that_the_spec_names_is_an_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["perf", "system", "--system", "v-rex8"]) == 0
    Path("mine.toml").write_text(capsys.readouterr().out)
    path = spec(1)
    path.write_text(path.read_text().replace('"v-rex8"', '"mine.toml"'))
    complains(capsys, "mine.toml would overwrite a file of spec.toml", str(path), "--json", "mine.toml")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"a": 1}\n', "out.points.jsonl holds no points of a sweep"),
        ('{"format": 3, "model": "x"}\n', "out.points.jsonl holds no points of a sweep"),
        ("what?\n", "line 1: is not JSON"),
        ('{"format": 1, "vrex": "0", "spec": "x"}\n', "was written by vrex 0"),
    ],
)
def test_a_store_that_is_not_ours_is_refused(
    content: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("out.points.jsonl").write_text(content)
    complains(capsys, said, str(spec(1)), "--json", "out.json")
    assert Path("out.points.jsonl").read_text() == content


def test_a_store_of_another_spec_is_refused(
    scheduler: LocalCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--json", "out.json", "--scheduler", scheduler.scheduler_address]
    assert explore(str(spec(1)), *words) == 0
    capsys.readouterr()
    complains(capsys, "out.points.jsonl holds points of another spec", str(spec(2, "other.toml")), *words)


def test_workers_must_be_there_and_the_same(
    scheduler: LocalCluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "CONNECT_S", 1)
    words = [str(spec(1)), "--json", "out.json", "--scheduler", scheduler.scheduler_address]
    seen = iter(range(10))
    with monkeypatch.context() as patch:
        patch.setattr(cluster, "source_digest", lambda sources: str(next(seen)))
        complains(capsys, "has another vrex", *words)
    scheduler.scale(0)
    while scheduler.scheduler_info["workers"]:
        time.sleep(POLL_S)
    complains(capsys, "has no worker; start `dask worker` for it", *words)


def test_a_missing_package_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(spec(1))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    complains(capsys, "needs the package pyarrow; install vrex[explore]", path, "--json", "o.json")


# -- workers, without a cluster -------------------------------------------------------------------------


@dataclass(eq=False)
class Future:
    """A task of `Client`."""

    ends: Exception | None

    def result(self, timeout: float) -> None:
        assert self.ends is not None
        raise self.ends

    def add_done_callback(self, call: Callable[["Future"], None]) -> None:
        if self.ends is not None:
            call(self)


class Client:
    """What `Workers` asks of a client; a task never ends, or ends as it is told."""

    def __init__(self, ends: Exception | None, workers: int = 1) -> None:
        self.status, self._ends, self._workers = "running", ends, workers

    def nthreads(self) -> dict[str, int]:
        return {str(number): 1 for number in range(self._workers)}

    def submit(self, *_: Any, **__: Any) -> Future:
        return Future(self._ends)


@pytest.mark.parametrize(
    ("client", "said"),
    [
        (Client(KilledWorker("task", ANYBODY, 3)), "workers died again and again"),
        (Client(TimeoutError()), "the scheduler no longer answers"),
        (Client(UserError("cannot read x")), "cannot read x"),
        (Client(None, workers=0), "no worker is left"),
    ],
)
def test_what_ends_a_sweep_is_one_sentence(
    client: Client, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "PATIENCE_S", 0)
    workers = cluster.Workers(client, "here")
    designs = load_spec(spec(1)).designs()
    with pytest.raises(UserError, match=said):
        workers.run(designs, lambda rows: None)
