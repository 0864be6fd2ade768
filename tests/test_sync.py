"""The same calls without `await`: from any thread, as file objects, over a fork, closed at the end whatever happens."""

from __future__ import annotations

import asyncio
import gc
import inspect
import io
import os
import signal
import subprocess
import sys
import tarfile
import textwrap
import threading
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import get_type_hints

import pytest
from support.leftovers import open_descriptors
from support.processes import start, wait_for
from support.sync_door import SyncDoorDriver

from micelio_storage import (
    AlreadyExistsError,
    ClosedError,
    ConfigError,
    LocalConfig,
    NotFoundError,
    NotModifiedError,
    PreconditionFailedError,
    Storage,
)
from micelio_storage.driver import Driver
from micelio_storage.drivers.local import LocalDriver
from micelio_storage.drivers.memory import MemoryDriver
from micelio_storage.sync import SyncStorage, open_storage_sync
from micelio_storage.sync._engine import CLOSER, THREAD
from micelio_storage.testing import CHECKS, Check, run

MIB = 1 << 20

# A call without `await` cannot be cancelled; the kit's `get` opens a file object here.
NOT_HERE = {
    "a_read_goes_on_where_it_was_cut_short",
    "a_read_of_all_can_be_tried_again",
    "an_error_says_where_it_happened",
    "ten_thousand_keys_are_listed_in_order",  # which says nothing of the door, and takes as long as all the others
}
HERE = [check for check in CHECKS if check.__name__ not in NOT_HERE and "cancel" not in check.__name__]
DRIVERS: dict[str, Callable[[Path], Driver]] = {
    "memory": lambda place: SyncDoorDriver(MemoryDriver),
    "local": lambda place: SyncDoorDriver(lambda: LocalDriver(place / "root")),
}


@pytest.mark.case("A1")
@pytest.mark.by_turns
@pytest.mark.asyncio(loop_factories=["asyncio"])
@pytest.mark.parametrize("check", HERE, ids=lambda check: check.__name__)
@pytest.mark.parametrize("driver", DRIVERS)
async def test_the_door_keeps_the_contract(driver: str, check: Check, tmpfs: Path) -> None:
    await run(check, DRIVERS[driver](tmpfs))


def test_the_door_has_every_call_with_the_same_arguments() -> None:
    """But for what only an event loop can mean: what a stream gives at a time."""
    asynchronous = {name: call for name, call in vars(Storage).items() if inspect.isfunction(call) and name[0] != "_"}
    assert {name for name in asynchronous if not hasattr(SyncStorage, name)} == set()
    for name, call in asynchronous.items():
        ours, theirs = parameters(getattr(SyncStorage, name)), parameters(call)
        assert ours == theirs - {"chunk_size"}, name


def parameters(call: Callable[..., object]) -> set[str]:
    names = set()
    for parameter in inspect.signature(call).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            hint = get_type_hints(call, include_extras=True)[parameter.name]
            names |= set(get_type_hints(hint.__args__[0]))
        else:
            names.add(parameter.name)
    return names


@pytest.fixture(params=["memory", "local"])
def storage(request: pytest.FixtureRequest, tmpfs: Path) -> Iterator[SyncStorage]:
    with open_storage_sync("memory:" if request.param == "memory" else tmpfs / "root") as storage:
        yield storage


def threads(name: str = THREAD) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


def test_it_opens_with_the_first_call_and_closes_with_the_block(tmp_path: Path) -> None:
    before = len(threads()), len(open_descriptors())
    storage = open_storage_sync(tmp_path / "root")
    assert len(threads()) == before[0]
    storage.put("a", b"1")
    assert len(threads()) == before[0] + 1
    with storage:
        assert storage.get("a") == b"1"
    assert (len(threads()), len(open_descriptors())) == before
    with pytest.raises(ClosedError, match="closed"):
        storage.get("a")
    with storage.open() as again:
        assert again.get("a") == b"1"
    storage.close()


def test_what_cannot_be_opened_says_so_each_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    storage = open_storage_sync(LocalConfig(path=tmp_path / "file"))
    for _ in range(2):
        with pytest.raises(ConfigError):
            storage.open()
    assert threads() == []


def test_what_nobody_closes_is_closed_when_it_is_dropped(tmp_path: Path) -> None:
    storage = open_storage_sync(tmp_path / "root")
    below = storage.under("a")
    del storage
    gc.collect()
    below.put("b", b"1")  # what is below keeps it
    assert len(threads()) == 1
    below.close()  # which closes nothing
    assert below.get("b") == b"1"
    del below
    gc.collect()
    for thread in threads(CLOSER):
        thread.join()
    assert threads() == []


@pytest.mark.parametrize(
    "make", [bytes, bytearray, memoryview, io.BytesIO, lambda data: [data[:MIB], data[MIB:]], iter]
)
def test_bytes_files_and_iterables_can_be_stored(storage: SyncStorage, make: Callable[[bytes], object]) -> None:
    data = b"x" * 3 * MIB
    source = iter([data[:MIB], data[MIB:]]) if make is iter else make(data)
    assert storage.put("key", source, content_type="text/x").size == len(data)  # type: ignore[arg-type]
    assert storage.get("key") == data


@pytest.mark.parametrize("data", ["text", 5, None, object()])
def test_what_is_no_data_is_refused_before_anything_happens(storage: SyncStorage, data: object) -> None:
    with pytest.raises(TypeError):
        storage.put("key", data)  # type: ignore[arg-type]
    assert not storage.exists("key")


def test_a_source_that_fails_leaves_the_old_object(storage: SyncStorage) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"x" * MIB
        raise ZeroDivisionError

    storage.put("key", b"old")
    with pytest.raises(ZeroDivisionError):
        storage.put("key", pieces())
    assert storage.get("key") == b"old"


def test_listings_are_iterators_and_can_be_left(storage: SyncStorage) -> None:
    keys = [f"d/{number:04}" for number in range(1005)]
    for key in keys:
        storage.put(key, b"")
    assert [entry.key for entry in storage.list("d/")] == keys
    assert [entry.key for entry in storage.list("d/", start_after="d/1000")] == keys[1001:]
    assert list(storage.list_folded()) == ["d/"]
    listing = storage.list()
    next(listing)
    listing.close()
    assert storage.delete_prefix("d/") == 1005


def test_an_update_may_take_its_time_and_call_the_storage(storage: SyncStorage) -> None:
    storage.put("other", b"1")

    def change(data: bytes | None) -> bytes:
        return (data or b"") + storage.get("other")

    storage.update("key", change)
    storage.update("key", change)
    assert storage.get("key") == b"11"


@pytest.mark.case("A1")
def test_a_thousand_calls_from_sixteen_threads(storage: SyncStorage) -> None:
    def count(_: int) -> None:
        storage.update("counter", lambda data: b"%d" % (int(data or b"0") + 1))

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(count, range(1000)))
    assert storage.get("counter") == b"1000"


# -- file objects


@pytest.mark.case("A2")
def test_an_object_is_a_seekable_file(storage: SyncStorage) -> None:
    data = os.urandom(3 * MIB)
    storage.put("key", data)
    with storage.open_read("key") as file:
        assert (file.size, file.info.size, file.read(10)) == (len(data), len(data), data[:10])
        assert file.seek(-10, io.SEEK_END) == len(data) - 10
        assert file.read() == data[-10:]
        assert file.read() == b""
        file.seek(2 * MIB)
        file.seek(5, io.SEEK_CUR)
        assert (file.tell(), file.read(7)) == (2 * MIB + 5, data[2 * MIB + 5 : 2 * MIB + 12])
        file.seek(len(data) + 5)
        assert file.read(1) == b""
        with pytest.raises(ValueError, match="negative"):
            file.seek(-1)
    with pytest.raises(ValueError, match="closed"):
        file.read()


@pytest.mark.parametrize(("offset", "length"), [(5, 10), (-7, None), (-7, 3), (0, None), (-100, None)])
def test_positions_count_from_where_the_reading_began(storage: SyncStorage, offset: int, length: int | None) -> None:
    data = bytes(range(50))
    storage.put("key", data)
    wanted = data[offset:][:length]
    with storage.open_read("key", offset=offset, length=length) as file:
        assert file.read() == wanted
        file.seek(2)
        assert file.read() == wanted[2:]
        assert file.seek(0, io.SEEK_END) == len(wanted)


@pytest.mark.case("A2")
def test_going_back_in_a_file_that_was_replaced_is_refused(storage: SyncStorage) -> None:
    data = os.urandom(3 * MIB)
    storage.put("key", data)
    with storage.open_read("key") as file:
        assert file.read(2 * MIB) == data[: 2 * MIB]
        storage.put("key", b"another")
        with pytest.raises(PreconditionFailedError):
            file.seek(0) or file.read(2 * MIB)
        assert storage.get("key") == b"another"


def test_conditions_of_reading_are_those_of_get(storage: SyncStorage) -> None:
    etag = storage.put("key", b"data").etag
    with pytest.raises(NotFoundError):
        storage.open_read("missing")
    with pytest.raises(NotModifiedError):
        storage.open_read("key", if_none_match=etag)
    with storage.open_read("key", if_none_match='"other"') as file:
        assert (file.read(2), file.seek(0), file.read()) == (b"da", 0, b"data")


def test_archives_are_made_and_read_in_place(storage: SyncStorage) -> None:
    with storage.open_write("a.zip") as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr("one", "1" * 1000)
        archive.writestr("two", "2" * 1000)
    with storage.open_read("a.zip") as file, zipfile.ZipFile(file) as archive:
        assert (archive.read("two"), archive.testzip()) == (b"2" * 1000, None)
    with storage.open_write("a.tar.gz") as file, tarfile.open(fileobj=file, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("empty"))
    with storage.open_read("a.tar.gz") as file, tarfile.open(fileobj=file) as tar:
        assert tar.getnames() == ["empty"]


def test_text_is_read_and_written_through_the_usual_wrapper(storage: SyncStorage) -> None:
    with io.TextIOWrapper(storage.open_write("key"), encoding="utf-8") as text:
        text.write("grün\n" * 3)
    with io.TextIOWrapper(storage.open_read("key"), encoding="utf-8") as text:
        assert list(text) == ["grün\n"] * 3


@pytest.mark.case("A3")
def test_a_writer_publishes_at_the_end_of_its_block_and_an_exception_leaves_nothing(storage: SyncStorage) -> None:
    with storage.open_write("key", metadata={"a": "b"}) as file:
        assert file.write(b"x" * 10) == 10
        file.write(b"y" * 2 * MIB)
        file.flush()
        assert not storage.exists("key")
    assert (file.info.size, storage.head("key").metadata) == (10 + 2 * MIB, {"a": "b"})
    with pytest.raises(ZeroDivisionError), storage.open_write("key") as file:
        file.write(b"z" * 2 * MIB)
        raise ZeroDivisionError
    assert storage.head("key").size == 10 + 2 * MIB


@pytest.mark.case("A3")
def test_a_writer_that_is_closed_while_an_exception_is_under_way_publishes_nothing(storage: SyncStorage) -> None:
    file = storage.open_write("key")
    with pytest.raises(ZeroDivisionError):
        try:
            file.write(b"half")
            raise ZeroDivisionError
        finally:
            file.close()
    assert (file.closed, storage.exists("key")) == (True, False)


def test_a_writer_that_is_made_while_an_exception_is_handled_publishes(storage: SyncStorage) -> None:
    try:
        storage.get("key")
    except NotFoundError:
        file = storage.open_write("key")
        file.write(b"default")
        file.close()
        with storage.open_write("other") as other:
            other.write(b"default")
    assert storage.get("key") == storage.get("other") == b"default"


def test_a_condition_is_judged_when_a_writer_is_closed(storage: SyncStorage) -> None:
    file = storage.open_write("key", if_absent=True)
    file.write(b"late")
    storage.put("key", b"first")
    with pytest.raises(AlreadyExistsError):
        file.close()
    file.close()
    assert (file.closed, storage.get("key")) == (True, b"first")


def test_files_that_are_open_when_the_storage_is_closed_publish_nothing_and_can_be_closed(storage: SyncStorage) -> None:
    storage.put("key", b"data")
    reader, writer = storage.open_read("key"), storage.open_write("other")
    dropped = storage.open_write("third")
    writer.write(b"half")
    storage.close()
    reader.close()
    with pytest.raises(ClosedError):
        writer.close()
    assert writer.closed
    dropped.abort()


def test_a_call_from_the_loops_own_thread_is_refused_and_no_deadlock(storage: SyncStorage) -> None:
    with pytest.raises(RuntimeError, match="thread"):
        storage.put("key", b"data", on_progress=lambda done, total: storage.exists("key"))


@pytest.mark.case("A3")
def test_a_writer_that_is_dropped_warns_and_publishes_nothing(storage: SyncStorage) -> None:
    file = storage.open_write("key")
    file.write(b"half")
    with pytest.warns(ResourceWarning, match="garbage-collected while open"):  # noqa: PT031  # who warns is the collector
        del file
        gc.collect()
    assert not storage.exists("key")


# -- processes


@pytest.mark.case("A4")
def test_a_forked_child_opens_one_of_its_own(tmp_path: Path) -> None:
    with open_storage_sync(tmp_path / "root") as storage:
        storage.put("a", b"parent")

        def child() -> None:
            assert storage.get("a") == b"parent"
            storage.put("b", b"child")
            storage.close()

        assert wait_for(start(partial(asyncio.to_thread, child))) == 0
        assert (storage.get("b"), storage.get("a")) == (b"child", b"parent")


SCRIPT = """
    import sys
    from micelio_storage.sync import open_storage_sync
    storage = open_storage_sync(sys.argv[1])
    storage.put("a", b"1")
    writer = storage.open_write("half")
    writer.write(b"half")
    print("ready", flush=True)
"""


def script(root: Path, more: str = "") -> subprocess.Popen[bytes]:
    text = textwrap.dedent(SCRIPT) + textwrap.dedent(more)
    command = [sys.executable, "-X", "faulthandler", "-c", text, str(root)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.case("A4")
def test_a_process_that_closes_nothing_ends_and_leaves_nothing_half(tmp_path: Path) -> None:
    with script(tmp_path / "root") as process:
        out, errors = process.communicate(timeout=60)
    assert (process.returncode, out, errors) == (0, b"ready\n", b"")
    with open_storage_sync(tmp_path / "root") as storage:
        assert [entry.key for entry in storage.list()] == ["a"]
        assert storage._engine.run(storage._storage._driver.unfinished) == []


@pytest.mark.case("A4")
def test_an_interrupted_call_is_cancelled_and_waited_for(tmp_path: Path) -> None:
    waiting = """
        def pieces():
            yield b"x" * (2 << 20)
            print("taken", flush=True)
            while True:
                yield b"x"
        try:
            storage.put("interrupted", pieces())
        except KeyboardInterrupt:
            storage.put("b", b"2")
            print("interrupted", flush=True)
    """
    with script(tmp_path / "root", waiting) as process:
        assert process.stdout is not None
        assert [process.stdout.readline(), process.stdout.readline()] == [b"ready\n", b"taken\n"]
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
    assert (process.returncode, out, errors) == (0, b"interrupted\n", b"")
    with open_storage_sync(tmp_path / "root") as storage:
        assert [entry.key for entry in storage.list()] == ["a", "b"]
