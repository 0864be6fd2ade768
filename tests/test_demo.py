"""The demo, and what it measures with: right when the storage is, and wrong when the storage is."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from array import array
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.commands import PATIENCE, running, use_storage

from micelio_storage import Session, Storage, list_sessions
from micelio_storage.cli import _app, _invocation
from micelio_storage.cli._demo import SMALL, run_demo
from micelio_storage.cli._demo_source import CHUNK, Artifact, Source, fingerprint, is_unchanged, read_batch, survey
from micelio_storage.cli._measure import Lateness, summarize, ticking
from micelio_storage.driver import (
    BytesLike,
    IntegrityError,
    Key,
    ListOptions,
    ObjectInfo,
    Page,
    Prefix,
    ReadOptions,
    StorageError,
    UnavailableError,
    WriteOptions,
)
from micelio_storage.drivers.local import LocalDriver
from micelio_storage.drivers.memory import MemoryDownload, MemoryDriver

MIB = 1 << 20

FILES = {
    "a.py": b"print()\n",
    "empty": b"",
    "deep/er/b [red].txt": b"x" * 5000,
    "deep/limit": b"l" * SMALL,
    "deep/large": b"y" * (SMALL + 1),
    "deep/larger": os.urandom(2 * MIB + 17),
    "é/ü": b"z",
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Some files, and four that no storage takes: a link, a pipe, and two whose names are no keys."""
    directory = tmp_path / "directory"
    for name, data in FILES.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (directory / "link").symlink_to("a.py")
    (directory / "loop").symlink_to(".")
    os.mkfifo(directory / "pipe")
    (directory / "back\\slash").touch()
    Path(os.fsdecode(os.fsencode(directory) + b"/no-utf-\xff")).touch()
    return directory


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return use_storage(tmp_path, monkeypatch)


def files_below(root: Path) -> dict[str, bytes]:
    own = root / ".micelio"
    paths = [path for path in root.rglob("*") if path.is_file() and own not in path.parents]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


# -- the command


def test_the_demo_ends_by_saying_that_everything_was_read_back_equal(
    root: Path, directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert _app.run(["demo", str(directory), "--artifact-mib", "3"]) == 0
    out, err = capfd.readouterr()
    size = sum(map(len, FILES.values())) + 3 * MIB
    assert err == ""
    assert out.splitlines()[-1] == f"everything read back equal: {len(FILES) + 1} files, {size:,} bytes"
    assert "--keep" in out.splitlines()[-2]
    for name, figure in (
        ("files", len(FILES) + 1),
        ("skipped: links", 2),
        ("skipped: no regular files", 1),
        ("skipped: names that are no keys", 2),
        ("bytes", f"{size:,}"),
    ):
        assert re.search(rf"{name} +\S +{figure} ", out), name
    assert files_below(root) == {}


def test_the_demo_keeps_its_session_when_asked_to(
    root: Path, directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert _app.run(["demo", str(directory), "--artifact-mib", "1", "--keep"]) == 0
    place, verified = capfd.readouterr().out.splitlines()[-2:]
    session = re.search(r"sessions/(demo-[0-9a-f]+)/", place)
    assert session
    assert str(root) in place
    assert verified.startswith("everything read back equal: ")
    found = files_below(root)
    below = f"{session[0]}files/"
    assert {name: found[f"{below}tree/{name}"] for name in FILES} == FILES
    assert len(found.pop(f"{below}artifact.bin")) == MIB
    assert set(found) == {f"{below}tree/{name}" for name in FILES} | {f"{session[0]}metadata.json"}


def test_the_demo_of_an_empty_directory_has_figures_too(
    root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert _app.run(["--storage", "memory:", "demo", str(tmp_path / "empty"), "--artifact-mib", "0"]) == 0
    place, verified = capfd.readouterr().out.splitlines()[-2:]
    assert "the memory of this process" in place
    assert verified == "everything read back equal: 1 files, 0 bytes"


def test_a_mismatch_is_one_line_and_a_failure(
    root: Path, directory: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_invocation, "open_storage", lambda _: Storage(FlippingDriver()))
    assert _app.run(["demo", str(directory), "--artifact-mib", "1"]) == 1
    out, err = capfd.readouterr()
    assert err.startswith("micelio-storage: ")
    assert err.count("\n") == 1
    assert "came back with different bytes" in err
    assert "everything" not in out


def test_an_interrupted_demo_removes_what_it_stored(root: Path, directory: Path) -> None:
    with running("demo", str(directory), "--artifact-mib", "100000", stdout=subprocess.DEVNULL) as child:
        until = time.monotonic() + PATIENCE
        while not any(root.glob("sessions/demo-*/files/tree/deep/larger")):
            assert time.monotonic() < until
            os.sched_yield()
        child.send_signal(signal.SIGINT)
        assert child.wait(PATIENCE) == 130
        assert child.stderr is not None
        assert child.stderr.read() == b"micelio-storage: interrupted\n"
    assert files_below(root) == {}
    assert list((root / ".micelio" / "staging").iterdir()) == []


# -- right on every storage, and noticed when not


async def test_the_demo_leaves_other_sessions_alone(directory: Path, tmp_path: Path) -> None:
    async with Storage(LocalDriver(tmp_path / "storage")) as storage:
        await Session(storage, "other").files.put("kept", b"1")
        figures = await run_demo(storage, directory, session_id="demo", artifact_bytes=MIB + 1)
        assert [name async for name in list_sessions(storage)] == ["other"]
    assert figures.files == len(FILES) + 1
    assert figures.put.count == figures.get.count == len(FILES)
    assert figures.put.size == figures.get.size == sum(map(len, FILES.values()))
    assert figures.stream_in.size == figures.stream_out.size == MIB + 1
    assert figures.updates.count == 50
    assert 0 < figures.lateness.p99 <= figures.lateness.worst


class FlippingDriver(MemoryDriver):
    """Changes a bit of what is read."""

    async def read(self, key: Key, options: ReadOptions) -> MemoryDownload:
        download = await super().read(key, options)
        download._data = self.spoil(key, download._data)
        return download

    def spoil(self, key: Key, data: bytes) -> bytes:
        return data[:-1] + bytes([data[-1] ^ 1]) if data and b"updates" not in data else data


class FlippingLargeDriver(FlippingDriver):
    def spoil(self, key: Key, data: bytes) -> bytes:
        return super().spoil(key, data) if key.endswith("larger") else data


class FlippingArtifactDriver(FlippingDriver):
    def spoil(self, key: Key, data: bytes) -> bytes:
        return super().spoil(key, data) if key.endswith("artifact.bin") else data


class CuttingDriver(MemoryDriver):
    """Forgets the last byte of what is read."""

    async def read(self, key: Key, options: ReadOptions) -> Any:
        download = await super().read(key, options)
        return MemoryDownload(
            download._data, download.info, replace(download.span, stop=max(0, len(download._data) - 1)), 100
        )


class ListingDriver(MemoryDriver):
    """Lists something else than what is stored."""

    async def list_page(self, prefix: Prefix, options: ListOptions) -> Page:
        page = await super().list_page(prefix, options)
        return replace(page, entries=self.changed(list(page.entries)))

    def changed(self, entries: list[Any]) -> list[Any]:
        return entries[1:]


class InventingDriver(ListingDriver):
    def changed(self, entries: list[Any]) -> list[Any]:
        return [*entries, replace(entries[-1], key=Key.parse(entries[-1].key + "~"))] if entries else entries


class ResizingDriver(ListingDriver):
    def changed(self, entries: list[Any]) -> list[Any]:
        return [replace(entry, size=entry.size + 1) for entry in entries]


class UnsortedDriver(ListingDriver):
    def changed(self, entries: list[Any]) -> list[Any]:
        return entries[::-1]


class RepeatingDriver(ListingDriver):
    def changed(self, entries: list[Any]) -> list[Any]:
        return [entry for entry in entries for _ in range(2)]


class UnconditionalDriver(MemoryDriver):
    """Takes no notice of conditions, so that one update overwrites another."""

    async def put(self, key: Key, data: BytesLike, options: WriteOptions) -> ObjectInfo:
        return await super().put(key, data, replace(options, condition=None))


class FailingDriver(MemoryDriver):
    """Takes no object that is put whole."""

    async def put(self, key: Key, data: BytesLike, options: WriteOptions) -> ObjectInfo:
        if key.endswith("limit"):
            raise UnavailableError("not now")
        return await super().put(key, data, options)


BROKEN: Mapping[type[MemoryDriver], str] = {
    FlippingDriver: "different bytes",
    FlippingLargeDriver: "larger' came back with different bytes",
    FlippingArtifactDriver: "'artifact.bin' came back with different bytes",
    CuttingDriver: "but read back as",
    ListingDriver: "1 objects are stored, but not listed",
    InventingDriver: "1 objects are listed, but were not stored",
    ResizingDriver: "are listed with another size",
    UnsortedDriver: "not in UTF-8 byte order",
    RepeatingDriver: "names an object twice",
    UnconditionalDriver: "50 updates of the metadata were made, but",
    FailingDriver: "not now",
}


@pytest.mark.parametrize("driver", BROKEN, ids=lambda driver: driver.__name__)
async def test_a_storage_that_is_wrong_fails_the_demo(directory: Path, driver: type[MemoryDriver]) -> None:
    async with Storage(driver()) as storage:
        with pytest.raises((StorageError, ExceptionGroup)) as caught:
            await run_demo(storage, directory, session_id="demo", artifact_bytes=MIB)
        errors = list(leaves(caught.value))
        assert BROKEN[driver] in str(errors[0])
        assert driver is FailingDriver or all(isinstance(error, IntegrityError) for error in errors)


@pytest.mark.parametrize("driver", [FlippingDriver, UnconditionalDriver, FailingDriver])
async def test_a_demo_that_fails_removes_its_session(directory: Path, driver: type[MemoryDriver]) -> None:
    async with Storage(driver()) as storage:
        with pytest.raises((StorageError, ExceptionGroup)):
            await run_demo(storage, directory, session_id="demo", artifact_bytes=1)
        assert not await Session(storage, "demo").exists()


def leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


# -- what is stored


def test_excluded_directories_are_left_out(directory: Path) -> None:
    sources, _ = survey(directory, "below/", {"er", "é"})
    assert {source.name for source in sources} == FILES.keys() - {"deep/er/b [red].txt", "é/ü"}


def test_a_name_that_is_too_long_below_the_session_is_no_key(directory: Path) -> None:
    sources, skipped = survey(directory, "b/" * 505, ())
    assert {source.name for source in sources} == {"a.py", "empty", "é/ü", "deep/limit", "deep/large"} | {"deep/larger"}
    assert skipped["names that are no keys"] == 3


def test_a_missing_directory_and_missing_files_are_counted_as_unreadable(tmp_path: Path) -> None:
    assert survey(tmp_path / "missing", "below/", ()) == ([], {"unreadable": 1})
    assert read_batch([Source(tmp_path / "missing", "missing", 1)], 10) == ([], {"unreadable": 1})
    assert fingerprint(tmp_path / "missing") is None


def test_a_file_that_has_grown_is_not_stored_in_part(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(11))
    assert read_batch([Source(tmp_path / "file", "file", 1)], 10) == ([], {"changed meanwhile": 1})


def test_a_file_that_was_written_is_no_longer_the_same(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    found = fingerprint(path)
    assert found is not None
    size, changed, digest = found
    assert (size, digest) == (3, hashlib.sha256(b"abc").digest())
    assert is_unchanged(path, size, changed)
    os.utime(path, ns=(changed, changed + 1))
    assert not is_unchanged(path, size, changed)
    path.unlink()
    assert not is_unchanged(path, size, changed)


@pytest.mark.parametrize("size", [0, 1, 7, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5])
def test_an_artifact_has_its_size_and_its_digest_and_never_the_same_chunk_twice(size: int) -> None:
    artifact = Artifact(size)
    chunks = [artifact.first()]
    while chunks[-1]:
        chunks.append(artifact.hash_and_next(chunks[-1]))
    assert len(b"".join(chunks)) == size
    assert artifact.digest() == hashlib.sha256(b"".join(chunks)).digest()
    assert len(set(chunks)) == len(chunks)
    assert all(len(chunk) == CHUNK for chunk in chunks[:-2])


# -- what is measured


@pytest.mark.parametrize(
    ("late", "worst", "p99"),
    [
        ((), 0, 0),
        ((3,), 3, 3),
        ((2, 1), 2, 2),
        (range(1, 101), 100, 99),
        (range(1, 201), 200, 198),
        ([0] * 99 + [9], 9, 0),
    ],
)
def test_lateness_is_the_worst_and_the_99th_of_a_hundred(late: Any, worst: float, p99: float) -> None:
    assert summarize(array("d", late)) == Lateness(worst=worst, p99=p99)


async def test_the_ticker_sees_a_loop_that_is_held_up() -> None:
    async with ticking() as ticker:
        await asyncio.sleep(0)
        until = time.perf_counter() + 0.05
        while time.perf_counter() < until:
            pass
        await asyncio.sleep(0)
    assert 0.045 < ticker.lateness().worst < 5
    assert asyncio.all_tasks() == {asyncio.current_task()}


PEAK = """
import os
from micelio_storage.cli._measure import PeakMemory
before = PeakMemory()
held = bytearray(os.urandom(64 << 20))
del held
print(before.bytes_over_start(), PeakMemory().bytes_over_start())
"""


def test_the_peak_is_seen_also_after_the_memory_was_given_back() -> None:
    """In a process of its own: what other tests leave behind may be given back just then."""
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, check=True, timeout=PATIENCE)
    first, second = map(int, done.stdout.split())
    assert first >= 60 * MIB
    assert second < 20 * MIB
