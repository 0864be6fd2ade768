"""`micelio-storage soak`: on a storage that keeps its promises it finds nothing and leaves nothing. That it does find
what is lost is shown in `test_soak_losses`."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from faults.scale import scaled
from support import fault_proxy, s3_servers
from support.commands import PATIENCE, is_one_line, running, stored, use_storage
from support.fault_proxy import Cut, Exchange, Fault, error
from support.leftovers import open_descriptors, other_tasks
from support.s3_servers import Server
from support.s3_storage import set_credentials
from support.soaking import config_of, left

from micelio_storage import ConfigError, InvalidArgumentError, LocalConfig, MemoryConfig, S3Config, Storage
from micelio_storage.cli import _app
from micelio_storage.drivers.memory import MemoryDriver
from micelio_storage.testing.soak import _run
from micelio_storage.testing.soak._run import Report, soak

QUICK = (0.3, 0.8)  # seconds between two kills
LONGEST = scaled(100, 1800)  # seconds, for what is known to be enough much earlier
on_one_loop = pytest.mark.asyncio(loop_factories=["asyncio"])  # a process has a loop of its own, whatever this one is


def pipes() -> list[str]:
    return [name for name in open_descriptors() if name.startswith("pipe:")]


@pytest.mark.by_turns
@on_one_loop
@pytest.mark.case("R12", "R13", "D12")
async def test_a_disk_loses_nothing_when_processes_are_killed_and_nothing_is_left(place: Path) -> None:
    tasks, descriptors = other_tasks(), pipes()
    report = await soak(
        LocalConfig(path=place / "root"),
        seconds=LONGEST,
        processes=2,
        tasks=4,
        sessions=1,
        pauses=QUICK,
        enough=lambda report: (
            report.kills >= scaled(2, 500)
            and report.operations.total() >= scaled(500, 200_000)
            and report.operations["append"] >= 12  # half of them to a log that stays to the end
            and report.operations["workspace save"] >= 6
        ),
    )
    assert (report.losses, report.lost) == ([], 0)
    assert report.kills >= 2
    assert report.cancelled > 0
    assert report.objects > 0
    assert (report.sessions, report.snapshots > 0, report.events > 0) == (2, True, True)
    assert stored(place / "root") == set()  # a process that was killed may have left an empty directory
    assert other_tasks() == tasks
    assert pipes() == descriptors


OF_SESSIONS = {
    "put", "hold", "release", "write of a live file", "read of live files", "snapshot", "workspace save",
    "workspace load", "read of a snapshot", "list of snapshots", "restore", "fork", "latest", "thin", "append",
    "read of events", "trim", "collect", "sweep", "delete of a session",
}  # fmt: skip
EVERY_OPERATION = {
    "put", "overwrite", "streamed put", "put if_absent", "put if_match", "delete if_match", "update",
    "update of a counter", "copy", "move", "delete", "delete_prefix", "get", "get of a range", "streamed get", "head",
    "exists", "list", "get of another's",
    *OF_SESSIONS,
}  # fmt: skip


async def test_without_kills_every_operation_is_done_and_none_is_refused(tmpfs: Path) -> None:
    report = await soak(
        LocalConfig(path=tmpfs / "root"),
        seconds=LONGEST,
        processes=2,
        tasks=3,
        sessions=3,
        seed="one",
        kills=False,
        enough=lambda report: set(report.operations) >= EVERY_OPERATION,
    )
    assert (report.losses, report.kills, report.seed) == ([], 0, "one")
    assert set(report.operations) >= EVERY_OPERATION
    assert not report.refused


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server in a process of its own, whose credentials are where processes look for them."""
    with s3_servers.strict_process() as server:
        set_credentials(monkeypatch, server)
        yield server


@on_one_loop
@pytest.mark.case("R12", "R13")
async def test_a_bucket_loses_nothing_when_processes_are_killed_and_nothing_is_left(strict: Server) -> None:
    report = await soak(
        config_of(strict, conditions="all"),
        seconds=LONGEST,
        processes=2,
        tasks=3,
        sessions=1,
        pauses=QUICK,
        enough=lambda report: report.kills >= scaled(1, 100) and report.operations.total() >= scaled(120, 20_000),
    )
    assert (report.losses, report.lost) == ([], 0)
    assert report.kills >= 1
    assert left(strict) == ([], [])


@on_one_loop
@pytest.mark.case("R12", "R13", "S2", "S6")
async def test_a_bucket_behind_a_bad_line_loses_nothing(strict: Server) -> None:
    dice = random.Random(20_261_123)
    faults: list[Callable[[], Fault]] = [
        lambda: Cut("body", "rst", dice.randrange(1, 70_000)),
        lambda: Cut("head", dice.choice(["rst", "fin"])),
        lambda: Cut("answer", dice.choice(["rst", "fin"]), dice.randrange(70_000)),
        lambda: error("InternalError", applied=dice.random() < 0.5),
        lambda: error("SlowDown"),
    ]

    def rule(exchange: Exchange) -> Fault | None:
        bad = "counters" in exchange.target or "/t" in exchange.target
        bad = bad and "?uploads" not in exchange.target  # one whose id got lost stays until somebody ends it
        return dice.choice(faults)() if bad and dice.random() < 0.1 else None

    host, port = strict.endpoint.removeprefix("http://").split(":")
    with fault_proxy.running(host, int(port), rule) as proxy:
        config = config_of(strict, endpoint=proxy.endpoint, conditions="all", retries=1)
        report = await soak(
            config,
            seconds=LONGEST,
            processes=2,
            tasks=3,
            sessions=1,
            kills=False,
            enough=lambda report: report.operations.total() >= scaled(200, 5000),
        )
        assert len(proxy.faults) > 5
    assert (report.losses, report.lost) == ([], 0)
    assert left(strict) == ([], [])


def test_each_process_takes_the_next_way_and_waits_for_what_the_dead_one_asked_for() -> None:
    ways = [S3Config(bucket="one", endpoint=f"http://{name}") for name in ("first", "second")]
    driver, report = MemoryDriver(), Report(seed="x", processes=3, tasks=1)
    run = _run._Run(ways, driver, Storage(driver), report, 7.0, lambda _: False, _run._nobody)
    orders = []
    for worker in run._workers:
        for worker.runs in (0, 1):
            orders.append(json.loads(run._orders(worker)))
    assert [one["config"]["fields"]["endpoint"] for one in orders] == [
        "http://first", "http://second", "http://second", "http://first", "http://first", "http://second",
    ]  # fmt: skip
    assert [one["wait"] for one in orders] == [0, 7.0] * 3


@on_one_loop
async def test_ways_that_do_not_lead_to_one_place_are_refused() -> None:
    bucket = S3Config(bucket="one", endpoint="http://127.0.0.1:9")
    for ways in ([], [bucket, replace(bucket, prefix="x")], [bucket, LocalConfig()], [bucket, MemoryConfig()]):
        with pytest.raises(ConfigError):
            await soak(ways, seconds=1)


# -- the command


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    use_storage(tmp_path, monkeypatch)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = _app.run(arguments)
        out, err = capfd.readouterr()
        return code, out, err

    return run


def test_the_numbers_are_said_for_people_and_for_programs(said: Callable[..., Any], tmpfs: Path) -> None:
    short = ("--minutes", "0.02", "--processes", "1", "--tasks", "2", "--seed", "x")
    code, out, err = said("soak", f"file://{tmpfs}/root", *short)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1].endswith(" objects in the end, 0 losses (seed x)")
    assert "operations in " in out
    code, out, err = said("soak", f"file://{tmpfs}/root", *short, "--json")
    report = json.loads(out)
    assert (code, err, report["lost"], report["losses"], report["seed"]) == (0, "", 0, [], "x")


def test_a_storage_in_memory_is_refused(said: Callable[..., Any]) -> None:
    code, out, err = said("soak", "memory:")
    assert (code, out, is_one_line(err)) == (2, "", True)
    assert "memory" in err


@on_one_loop
async def test_what_cannot_be_meant_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        await soak(MemoryConfig(), seconds=1)
    with pytest.raises(InvalidArgumentError):
        await soak(LocalConfig(path=tmp_path / "root"), seconds=1, processes=0)
    assert not (tmp_path / "root").exists()


def test_interrupted_it_ends_its_processes_and_removes_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = use_storage(tmp_path, monkeypatch)
    with running("soak", "--minutes", "10", "--processes", "2", "--tasks", "2") as child:
        wait_until(lambda: len(list(root.glob("soak-*/p*/t*"))) >= 4)
        workers = children_of(child.pid)
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (130, b"micelio-storage: interrupted\n")
    assert len(workers) == 2
    wait_until(lambda: not any(is_running(worker) for worker in workers))
    assert stored(root) == set()


def test_workers_end_by_themselves_when_the_soak_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = use_storage(tmp_path, monkeypatch)
    with running("soak", "--minutes", "10", "--processes", "2", "--tasks", "2") as child:
        wait_until(lambda: len(list(root.glob("soak-*/p*/t*"))) >= 4)
        workers = children_of(child.pid)
    assert len(workers) == 2
    wait_until(lambda: not any(is_running(worker) for worker in workers))


def children_of(parent: int) -> list[int]:
    tasks = Path(f"/proc/{parent}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def is_running(number: int) -> bool:
    """Whether there is such a process, and it has not ended (nobody may have asked how)."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)
