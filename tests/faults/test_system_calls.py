"""The local driver when its system calls fail: in which order it makes them, and what is there after each failure."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.leftovers import files_below, open_descriptors
from support.processes import start, wait_for

from faults.scale import scaled
from faults.shim import ALWAYS, DIRECTORIES, FILES, HALF, KINDS
from faults.system_calls import CHANGES, READS, TOGETHER, TYPES, few_descriptors, run
from micelio_storage import LocalConfig, OutOfSpaceError, Storage, StorageError, UnavailableError, open_storage
from micelio_storage.drivers.local import LocalDriver
from micelio_storage.drivers.local._errors import translate

USUAL = ["open", "create", "write", "fsync", "close", "rename", "link", "mkdir", "unlink", "setxattr"]
INTERRUPTED = ["open", "create", "read", "write", "copy", "fsync", "lock", "close"]  # as POSIX and Linux allow it
FEW = scaled(2, len(CHANGES))  # changes tried where the way through the driver is the same for all

# -- the order of the calls

Put = Callable[[Storage], Awaitable[object]]


async def stream(storage: Storage) -> None:
    async with storage.open_write("new/deep/key", if_absent=True, metadata={"a": "b"}) as writer:
        for _ in range(3):
            await writer.write(b"x" * 1_000_000)


PUTS: dict[str, Put] = {
    "new": lambda storage: storage.put("new/deep/key", b"new", metadata={"a": "b"}),
    "overwrite": lambda storage: storage.put("old/deep/key", b"new"),
    "if_absent": lambda storage: storage.put("new/deep/key", b"new", if_absent=True),
    "stream": stream,
    "copy": lambda storage: storage.copy("old/deep/key", "old/other/key"),
}


@dataclass(frozen=True, slots=True)
class Traced:
    """A call that strace saw: its name and arguments, with the paths of descriptors."""

    name: str
    arguments: str

    @property
    def paths(self) -> list[str]:
        """The paths of its descriptors."""
        return re.findall(r"\d+<([^>]*)>", self.arguments)

    @property
    def names(self) -> list[str]:
        """The names it gives below those."""
        return re.findall(r'"([^"]*)"', self.arguments)


def trace(root: Path, keeping: str, put: Put) -> list[Traced]:
    """The calls that succeeded during the put, in their order."""
    traced, go = os.pipe(), os.pipe()

    async def work() -> None:
        async with Storage(LocalDriver(root, keeping=keeping)) as storage:
            await storage.put("old/deep/key", b"old", metadata={"a": "b"})
            os.write(traced[1], b"1")
            os.read(go[0], 1)
            await put(storage)
            os.write(traced[1], b"2")
            os.read(go[0], 1)

    child = start(work)
    os.read(traced[0], 1)
    calls = "trace=write,pwrite64,copy_file_range,fsync,renameat,renameat2,linkat,mkdirat,fsetxattr,utimensat"
    command = ["strace", "-f", "-y", "-z", "-s", "100", "-e", calls, "-p", str(child)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
        assert strace.stderr is not None
        assert "attached" in strace.stderr.readline()
        os.write(go[1], b"1")
        os.read(traced[0], 1)
        strace.send_signal(signal.SIGINT)
        lines = strace.stderr.read().splitlines()
    os.write(go[1], b"2")
    assert wait_for(child) == 0
    for descriptor in (*traced, *go):
        os.close(descriptor)
    matches = [re.search(r"(\w+)\((.*)\)\s+= \d+", line) for line in lines]
    return [Traced(match[1], match[2]) for match in matches if match and str(root) in match[2]]


@pytest.mark.root
@pytest.mark.case("D7")
@pytest.mark.parametrize("keeping", ["xattr", "file"])
@pytest.mark.parametrize("way", PUTS)
def test_a_put_syncs_all_that_it_changed_in_order_and_once(tmp_path: Path, keeping: str, way: str) -> None:
    root = tmp_path / "root"
    calls = trace(root, keeping, PUTS[way])
    syncs = [(place, call.paths[0]) for place, call in enumerate(calls) if call.name == "fsync"]
    synced = {path: place for place, path in syncs}
    places = [place for place, call in enumerate(calls) if call.name in {"renameat", "renameat2", "linkat"}]
    for place in places:  # of the object, and of its attributes where these have a file of their own
        (above, target), names = calls[place].paths, calls[place].names
        staged = f"{above}/{names[0]}"
        changes = [at for at, call in enumerate(calls) if call.paths[-1] == staged and call.name != "fsync"]
        assert changes
        assert max(changes) < synced[staged] < place < synced[target]
    assert len(places) == (1 if keeping == "xattr" else 2)
    for at, call in enumerate(calls):
        if call.name == "mkdirat":
            assert synced[call.paths[0]] > at, "a new directory that a power cut may take"
    assert max(Counter(path for _, path in syncs).values()) == 1, "a sync that costs and does nothing"


# -- syncs that fail


@pytest.mark.by_turns
@pytest.mark.case("D8")
@pytest.mark.parametrize("error", ["EINVAL", "ENOTSUP"])
@pytest.mark.parametrize("keeping", ["xattr", "file"])
def test_a_file_system_that_cannot_sync_directories_is_used_all_the_same(tmpfs: Path, keeping: str, error: str) -> None:
    options = {"kinds": ["fsync"], "error": error, "times": ALWAYS, "keeping": keeping}
    report = run("bear", tmpfs, *list(CHANGES)[:FEW], "delete", **options, descriptors=DIRECTORIES)
    assert report.wrong == []
    assert report.tries["struck"] >= 4
    report = run("bear", tmpfs, "put", **options, descriptors=FILES)
    assert report.wrong[0].startswith("put, from call 1: raised StorageError"), (
        "files are what can be synced everywhere"
    )


@pytest.mark.by_turns
@pytest.mark.case("D8", "D9")
@pytest.mark.parametrize("keeping", ["xattr", "file"])
def test_no_other_failure_of_a_sync_is_taken_for_success(tmpfs: Path, keeping: str) -> None:
    for descriptors in (DIRECTORIES, FILES):
        names = list(CHANGES)[: scaled(4, len(CHANGES))]
        report = run("fail", tmpfs, *names, error="EIO", kinds=["fsync"], descriptors=descriptors, keeping=keeping)
        assert report.wrong == []
        assert report.tries["errors"] == report.tries["fsync"] >= 3


@pytest.mark.case("D9")
def test_after_a_failed_sync_the_next_try_writes_and_syncs_another_file(tmpfs: Path) -> None:
    report = run("sync again", tmpfs, *(name for name, change in CHANGES.items() if change.new))
    assert report.wrong == []
    assert report.tries["struck"] == len(CHANGES) - 2


# -- any call that fails


@pytest.mark.by_turns
@pytest.mark.case("D9", "D10")
@pytest.mark.parametrize("keeping", ["xattr", "file"])
def test_whichever_call_fails_the_object_is_old_or_new_and_nothing_is_left(tmpfs: Path, keeping: str) -> None:
    names = list(CHANGES)[: len(CHANGES) if keeping == "xattr" else scaled(4, len(CHANGES))]
    report = run("fail", tmpfs, *names, *READS, error="EIO", keeping=keeping)
    assert report.wrong == []
    wanted = set(KINDS) - ({"setxattr"} if keeping == "file" else set())
    assert {kind for kind in KINDS if report.tries[kind]} == wanted
    assert sum(report.tries[kind] for kind in KINDS) > report.tries["errors"] > 100


@pytest.mark.by_turns
@pytest.mark.case("D10", "D17", "D22")
@pytest.mark.parametrize("error", ["ENOSPC", "EDQUOT", "ESTALE"])
def test_a_full_disk_a_quota_and_a_stale_handle_are_what_they_are_at_every_call(tmpfs: Path, error: str) -> None:
    names = list(CHANGES) if error == "ENOSPC" else list(CHANGES)[:FEW]
    kinds = KINDS if error == "ESTALE" else USUAL
    for keeping in ["xattr", "file"][: scaled(1, 2)]:
        report = run("fail", tmpfs, *names, error=error, kinds=kinds, keeping=keeping)
        assert report.wrong == []
        assert report.tries["errors"] > 10


@pytest.mark.case("D9", "D10")
def test_whichever_call_fails_of_a_step_for_many_it_is_done_otherwise_or_nothing_is_left(tmpfs: Path) -> None:
    report = run("fail", tmpfs, *TOGETHER, error="EIO")
    assert report.wrong == []
    assert {"create", "write", "setxattr", "rename", "lock"} <= {kind for kind in KINDS if report.tries[kind]}
    assert sum(report.tries[kind] for kind in KINDS) > 20 > report.tries["errors"]
    for trial, options in {"starve": {}, "fail": {"error": "EIO", "dying": True}}.items():
        report = run(trial, tmpfs, *TOGETHER, **options)
        assert report.wrong == []
        assert report.tries["errors"] >= 2


def test_waiting_helps_with_a_stale_handle_but_not_with_a_quota() -> None:
    quota, stale = (translate(OSError(number, "")) for number in (errno.EDQUOT, errno.ESTALE))
    assert isinstance(quota, OutOfSpaceError)
    assert not quota.retryable
    assert isinstance(stale, UnavailableError)
    assert stale.retryable
    assert all(issubclass(kind, StorageError) for kind in TYPES.values())


@pytest.mark.by_turns
@pytest.mark.case("D10", "D21")
@pytest.mark.parametrize("keeping", ["xattr", "file"])
def test_a_disk_that_dies_at_any_call_is_said_and_what_was_under_way_is_given_back(tmpfs: Path, keeping: str) -> None:
    names = list(CHANGES)[: len(CHANGES) if keeping == "xattr" else scaled(4, len(CHANGES))]
    report = run("fail", tmpfs, *names, *READS, error="EIO", keeping=keeping, dying=True)
    assert report.wrong == []
    assert report.tries["all"] >= report.tries["errors"] > 100


@pytest.mark.case("D10")
def test_without_openat2_it_is_the_same(tmpfs: Path) -> None:
    report = run("fail", tmpfs, *list(CHANGES)[:FEW], "read", error="EIO", resolver="walk", kinds=["open", "close"])
    assert report.wrong == []
    assert report.tries["open"] > 10


@pytest.mark.case("D10")
def test_the_trials_see_what_a_store_tears_that_writes_in_place(tmpfs: Path) -> None:
    report = run("fail", tmpfs, "in place", error="ENOSPC", kinds=["write"])
    assert report.wrong
    assert report.wrong[0].startswith("in place, ENOSPC at write 1: neither old nor new")


@pytest.mark.by_turns
@pytest.mark.case("D10")
@pytest.mark.parametrize("used", [True, False], ids=["used", "new"])
def test_whichever_call_of_opening_or_closing_fails_nothing_stays_open_and_the_next_opening_works(
    tmpfs: Path, used: bool
) -> None:
    many = ["create", "close"]  # for each of the lock files in a new root
    kinds = KINDS if used else [kind for kind in KINDS if kind not in many[: scaled(2, 0)]]
    for error in ["EIO", "ESTALE", "EMFILE"][: scaled(1, 3)]:
        report = run("ends", tmpfs, "put", error=error, used=used, kinds=kinds, keeping="file")
        assert report.wrong == []
        assert report.tries.total() > 40


@pytest.mark.by_turns
@pytest.mark.case("D23", "D22")
@pytest.mark.parametrize("error", ["EMFILE", "ESTALE"])
def test_a_storage_that_cannot_be_opened_for_now_is_no_wrong_configuration(tmpfs: Path, error: str) -> None:
    report = run("ends", tmpfs, "put", error=error, used=True, kinds=["open"])
    assert report.wrong == []
    assert report.tries["open open"] > 5


# -- too few descriptors


@pytest.mark.by_turns
@pytest.mark.case("D23")
@pytest.mark.parametrize("keeping", ["xattr", "file"])
def test_without_descriptors_each_change_says_so_and_works_when_there_are_some(tmpfs: Path, keeping: str) -> None:
    names = [name for name in CHANGES if name != "upload_file"]  # its source says OSError, as every file of the disk
    report = run("starve", tmpfs, *names, keeping=keeping)
    assert report.wrong == []
    assert report.tries["errors"] > 20


@pytest.mark.case("D23")
def test_many_tasks_with_few_descriptors_end_each_in_success_or_a_retryable_error(tmpfs: Path) -> None:
    async def crowd() -> None:
        async with open_storage(LocalConfig(path=tmpfs / "root")) as storage:
            await storage.put("warm", b"x")
            before = open_descriptors()
            with few_descriptors(21):  # as many as 32 leave when a storage is open
                works = (storage.put(f"d{n}/key", b"%d" % n) for n in range(100))
                outcomes = await asyncio.gather(*works, return_exceptions=True)
                failed = [n for n in range(100) if outcomes[n].__class__ is UnavailableError and outcomes[n].retryable]
                assert len(failed) == sum(isinstance(outcome, BaseException) for outcome in outcomes) > 0
                for number in failed:
                    await storage.put(f"d{number}/key", b"%d" % number)
            assert open_descriptors() == before
            assert await storage._driver.unfinished() == []
            for number in range(100):
                assert await storage.get(f"d{number}/key") == b"%d" % number
        assert files_below(tmpfs / "root") == {"warm", *(f"d{number}/key" for number in range(100))}

    assert wait_for(start(crowd)) == 0


# -- calls that are interrupted, or do less than they were asked to


@pytest.mark.by_turns
@pytest.mark.case("D24")
@pytest.mark.parametrize(("keeping", "resolver"), [("xattr", "openat2"), ("file", "walk")])
def test_interrupted_calls_are_made_again(tmpfs: Path, keeping: str, resolver: str) -> None:
    names = list(CHANGES)[: scaled(4, len(CHANGES))]
    report = run(
        "bear", tmpfs, *names, *READS, kinds=INTERRUPTED, error="EINTR", times=3, keeping=keeping, resolver=resolver
    )
    assert report.wrong == []
    assert report.tries["struck"] > 200


@pytest.mark.by_turns
@pytest.mark.case("D24")
def test_signals_all_the_time_disturb_nothing(place: Path) -> None:
    async def write() -> None:
        signals = []
        signal.signal(signal.SIGALRM, lambda number, _: signals.append(number))
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0002)
        async with open_storage(LocalConfig(path=place / "root")) as storage:
            for number in range(100):
                await storage.put("a/key", b"%d" % number * 1000)
                await storage.copy("a/key", "b/key")
                async with storage.open_write("a/large") as writer:
                    await writer.write(b"%d" % (number % 10) * 1_000_000)
                assert await storage.get("b/key") == b"%d" % number * 1000
            assert await storage.get("a/large") == b"9" * 1_000_000
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert len(signals) > 100

    assert wait_for(start(write)) == 0


@pytest.mark.by_turns
@pytest.mark.case("D25")
@pytest.mark.parametrize("keeping", ["xattr", "file"])
def test_short_reads_and_writes_are_gone_on_with(tmpfs: Path, keeping: str) -> None:
    report = run(
        "bear", tmpfs, *CHANGES, *READS, kinds=["write", "read", "copy"], action=HALF, times=ALWAYS, keeping=keeping
    )
    assert report.wrong == []
    assert report.tries["struck"] > 100
    report = run("bear", tmpfs, "in place", kinds=["write"], action=HALF, times=ALWAYS)
    assert report.wrong, "half a write goes unnoticed"
