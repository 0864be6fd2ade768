"""Archives from anywhere: all of one is stored, or nothing, and those that are made to harm are refused."""

from __future__ import annotations

import asyncio
import gc
import io
import os
import struct
import tarfile
import time
import tracemalloc
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.cancelling import cancel_everywhere
from support.hostile_archives import GOOD, File, tar_of, tars, zip_of, zips

from micelio_storage import (
    AlreadyExistsError,
    AmbiguousWriteError,
    IntegrityError,
    InvalidArgumentError,
    InvalidKeyError,
    LocalConfig,
    NotFoundError,
    OutOfSpaceError,
    Storage,
    open_storage,
)
from micelio_storage.driver import Key, ObjectInfo, WriteOptions
from micelio_storage.drivers.memory import MemoryDriver
from micelio_storage.transfer import ArchiveError, ArchiveKind, StoredArchive, archive, import_archive

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])

FILES = {
    "a.txt": b"one",
    "b/café \U0001f600.bin": os.urandom(700_000),
    "b/empty": b"",
    "b/" + "x" * 200 + "/" + "y" * 200: b"deep",
    "c d;e": bytes(300_000),
}
KINDS: tuple[ArchiveKind, ...] = ("zip", "tar")
HOSTILE = {f"{kind}: {name}": one for kind, table in (("zip", zips()), ("tar", tars())) for name, one in table.items()}


async def everything_in(storage: Storage, prefix: str = "") -> dict[str, bytes]:
    return {entry.key: await storage.get(entry.key) async for entry in storage.list(prefix)}


def made_by_python(kind: str, files: Mapping[str, bytes] = FILES) -> bytes:
    made = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as opened:
            opened.mkdir("d")
            for name, data in files.items():
                opened.writestr(name, data)
    else:
        with tarfile.open(fileobj=made, mode="w") as tar:
            for name, data in {"./": b"", **{f"./{name}": data for name, data in files.items()}}.items():
                info = tarfile.TarInfo(name)
                info.size, info.type = len(data), tarfile.DIRTYPE if name == "./" else tarfile.REGTYPE
                tar.addfile(info, io.BytesIO(data))
    return made.getvalue()


@pytest.mark.parametrize("kind", KINDS)
async def test_what_an_archive_was_made_of_comes_back(storage_everywhere: Storage, kind: ArchiveKind) -> None:
    storage = storage_everywhere
    for name, data in FILES.items():
        await storage.put(f"from/{name}", data)
    async with (await archive(storage, "from/", kind)).chunks() as chunks:
        await storage.put("kept", chunks)
    done = await import_archive(storage, "to/", StoredArchive(storage=storage, key="kept"))
    assert (done.kind, done.count, done.size) == (kind, len(FILES), sum(map(len, FILES.values())))
    assert await everything_in(storage, "to/") == {f"to/{name}": data for name, data in FILES.items()}


@pytest.mark.parametrize("kind", KINDS)
async def test_archives_of_other_programs_are_taken(tmpfs: Path, kind: str) -> None:
    moved: list[tuple[int, int | None]] = []
    async with open_storage("memory:") as storage:
        (tmpfs / "a").write_bytes(made_by_python(kind))
        await import_archive(storage, "", tmpfs / "a", on_progress=lambda done, of: moved.append((done, of)))
        assert await everything_in(storage) == FILES
    total = sum(map(len, FILES.values()))
    assert moved[-1] == (total, total)


async def test_archives_of_debians_tools_are_taken(tmpfs: Path) -> None:
    """A zip that was streamed, with descriptors and 64 bits; tars with GNU's long names, and with POSIX's records."""
    (tmpfs / "files").mkdir()
    for name, data in FILES.items():
        path = tmpfs / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    for command in ("tar --format=gnu -cf - .", "tar --format=posix -cf - .", "python3 -m zipfile -c /dev/stdout ."):
        child = await asyncio.create_subprocess_shell(
            f"{command} | cat", stdout=asyncio.subprocess.PIPE, cwd=tmpfs / "files"
        )
        data, _ = await child.communicate()
        async with open_storage("memory:") as storage:
            await import_archive(storage, "", data)
            assert await everything_in(storage) == FILES, command


async def test_64_bits_are_taken_where_a_program_uses_them() -> None:
    wide = struct.pack("<2I", 0xFFFF_FFFF, 0xFFFF_FFFF)
    streamed = File(flags=0x0808, deflated=True, local={"crc": 0})
    packed = streamed.bytes_
    crc = streamed.said()[1]
    for form, marked in (("<3I", False), ("<4s3I", True), ("<I2Q", False), ("<4sI2Q", True)):
        values = (crc, len(packed), len(GOOD))
        descriptor = struct.pack(form, *((b"PK\7\10", *values) if marked else values))
        made = zip_of([File(flags=0x0808, deflated=True, descriptor=descriptor)])
        async with open_storage("memory:") as storage:
            assert (await import_archive(storage, "", made)).count == 1
    async with open_storage("memory:") as storage:
        made = zip_of([File(wide=True)])
        assert wide in made
        await import_archive(storage, "x/", made)
        assert await everything_in(storage) == {"x/good.txt": GOOD}


async def test_a_comment_and_a_name_in_another_encoding_are_taken() -> None:
    async with open_storage("memory:") as storage:
        await import_archive(storage, "a/", zip_of([File()], comment=b"a commit's hash"))
        await import_archive(storage, "b/", zip_of([File(name=b"caf\x82", flags=0)]), encoding="cp437")
        assert set(await everything_in(storage)) == {"a/good.txt", "b/café"}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.case("Z1", "I5")
async def test_what_is_made_to_harm_is_refused_and_nothing_stored(name: str) -> None:
    data, fault = HOSTILE[name]
    async with open_storage("memory:") as storage:
        for prefix in ("", "below/"):
            with pytest.raises(ArchiveError) as caught:
                await import_archive(storage, prefix, data)
            assert caught.value.fault in fault.split(), caught.value
            assert len(str(caught.value)) < 300
        assert await everything_in(storage) == {}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.case("I5")
async def test_an_archive_that_is_cut_or_changed_anywhere_stores_nothing_or_what_was_meant(kind: str) -> None:
    files = {"a": b"first", "b/c": b"second" * 30}
    whole = made_by_python(kind, files)
    async with open_storage("memory:") as storage:
        for stop in range(0, len(whole), 1 if kind == "zip" else 97):
            if kind == "tar" and not any(whole[stop - 1024 :]) and stop >= whole.rindex(b"second") + 1024:
                continue  # what is cut off is padding
            with pytest.raises(ArchiveError):
                await import_archive(storage, "x/", whole[:stop])
        assert await everything_in(storage) == {}
        for at in range(0, len(whole), 1 if kind == "zip" else 7):
            changed = bytearray(whole)
            changed[at] ^= 0x41
            try:
                await import_archive(storage, "x/", changed)
            except ArchiveError:
                assert await everything_in(storage) == {}
                continue
            found = await everything_in(storage)
            assert kind == "tar" or list(found.values()) == list(files.values())
            assert len(found) == 2
            await storage.delete_prefix("x/")


@pytest.mark.case("I5")
async def test_limits_are_the_callers() -> None:
    made = zip_of([File(name=b"a"), File(name=b"b", data=bytes(2 << 20), deflated=True)])
    async with open_storage("memory:") as storage:
        for limits in ({"max_entries": 1}, {"max_bytes": 2 << 20}, {"max_ratio": 900}):
            with pytest.raises(ArchiveError):
                await import_archive(storage, "", made, **limits)
        for wrong in ({"max_entries": 0}, {"max_bytes": -1}, {"max_ratio": 0}):
            with pytest.raises(InvalidArgumentError):
                await import_archive(storage, "", made, **wrong)
        with pytest.raises(InvalidArgumentError, match="end with '/'"):
            await import_archive(storage, "a", made)
        with pytest.raises(InvalidArgumentError, match="no encoding"):
            await import_archive(storage, "", made, encoding="none")
        with pytest.raises(InvalidKeyError):
            await import_archive(storage, "../", made)
        with pytest.raises(TypeError):
            await import_archive(storage, "", 5)  # type: ignore[arg-type]  # what is tested
        assert (await import_archive(storage, "", made, max_ratio=1100, dry_run=True)).count == 2
        assert await everything_in(storage) == {}


async def test_an_archive_that_is_no_file_or_not_there_is_refused(tmpfs: Path) -> None:
    os.mkfifo(tmpfs / "pipe")
    async with open_storage("memory:") as storage:
        with pytest.raises(InvalidArgumentError):
            await import_archive(storage, "", tmpfs / "pipe")
        with pytest.raises(FileNotFoundError):
            await import_archive(storage, "", tmpfs / "absent")
        with pytest.raises(NotFoundError):
            await import_archive(storage, "", StoredArchive(storage=storage, key="absent"))


async def test_keys_are_as_long_as_the_storages_prefix_leaves_room_for() -> None:
    made = tar_of(("/".join(["x" * 100] * 10), b""))
    async with open_storage("memory:") as storage:
        with pytest.raises(ArchiveError, match="must not exceed"):
            await import_archive(storage.under("p" * 20), "", made)
        assert await everything_in(storage) == {}


@pytest.mark.case("I6")
async def test_what_is_there_is_never_replaced_and_what_was_stored_before_it_is_removed_again(
    storage_everywhere: Storage,
) -> None:
    storage = storage_everywhere
    files = {f"{number:03}": b"%d" % number for number in range(40)} | {"large": bytes(300_000), "zzz": b"new"}
    await storage.put("x/zzz", b"old")
    for kind in KINDS:
        with pytest.raises(AlreadyExistsError):
            await import_archive(storage, "x/", made_by_python(kind, files))
        assert await everything_in(storage) == {"x/zzz": b"old"}


class Failing(MemoryDriver):
    """Fails at the n-th write, and perhaps when it is to delete."""

    def __init__(self, at: int, error: Exception, *, stuck: bool = False) -> None:
        super().__init__()
        self.left, self.error, self.stuck = at, error, stuck

    async def put(self, key: Key, data: Any, options: WriteOptions) -> ObjectInfo:
        self.left -= 1
        if self.left == 0:
            raise self.error
        return await super().put(key, data, options)

    async def delete(self, *given: Any) -> Any:
        if self.stuck:
            raise OutOfSpaceError("nothing can be deleted")
        return await super().delete(*given)


@pytest.mark.parametrize("at", [1, 2, 20, 41])
@pytest.mark.case("I6")
async def test_a_failure_in_the_middle_leaves_nothing(at: int) -> None:
    files = {f"{number:03}": b"%d" % number for number in range(41)}
    async with Storage(Failing(at, OutOfSpaceError("full"))) as storage:
        with pytest.raises(OutOfSpaceError, match="full") as caught:
            await import_archive(storage, "", made_by_python("zip", files))
        assert await everything_in(storage) == {}
        assert not hasattr(caught.value, "__notes__")


@pytest.mark.case("I6")
async def test_what_could_not_be_removed_or_is_not_known_to_be_stored_is_said() -> None:
    files = {f"{number:03}": b"" for number in range(41)}
    async with Storage(Failing(30, OutOfSpaceError("full"), stuck=True)) as storage:
        with pytest.raises(OutOfSpaceError) as caught:
            await import_archive(storage, "", made_by_python("tar", files))
        left = len(await everything_in(storage))
        assert f"{left} objects of the import are still there" in caught.value.__notes__[0]
    async with Storage(Failing(1, AmbiguousWriteError("no answer"))) as storage:
        with pytest.raises(AmbiguousWriteError) as caught:
            await import_archive(storage, "", made_by_python("tar", {"a": b""}))
        assert "'a'" in caught.value.__notes__[0]


@pytest.mark.case("I6")
async def test_an_object_that_another_replaced_meanwhile_is_left_to_it() -> None:
    class Replacing(Failing):
        async def put(self, key: Key, data: Any, options: WriteOptions) -> ObjectInfo:
            if self.left == 2:
                await super(Failing, self).put(Key.parse("0"), b"another's", WriteOptions())
            return await super().put(key, data, options)

    # Large enough that they are stored one by one.
    files = {"0": bytes(3 << 20), "1": b"", "2": b""}
    async with Storage(Replacing(3, OutOfSpaceError("full"))) as storage:
        with pytest.raises(OutOfSpaceError):
            await import_archive(storage, "", made_by_python("tar", {**files, "3": b""}))
        assert await everything_in(storage) == {"0": b"another's"}


@pytest.mark.case("I6")
async def test_an_archive_that_changes_between_the_looks_leaves_nothing(tmpfs: Path) -> None:
    path = tmpfs / "a.zip"
    size = path.write_bytes(made_by_python("zip"))

    def change(done: int, total: int | None) -> None:
        os.truncate(path, size - 1)

    async with open_storage("memory:") as storage:
        with pytest.raises(IntegrityError, match=r"changed|shorter"):
            await import_archive(storage, "", path, on_progress=change)
        assert await everything_in(storage) == {}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.case("I6")
async def test_a_cancellation_anywhere_leaves_nothing_or_all(tmpfs: Path, kind: str) -> None:
    files = {"a": b"1", "b": bytes(300_000), "c/d": b"2"}
    made = made_by_python(kind, files)
    async with open_storage(LocalConfig(path=tmpfs / "root", durable=False)) as storage:
        outcomes = set()
        async for where, outcome in cancel_everywhere(lambda: import_archive(storage, "x/", made)):
            outcomes.add(outcome)
            found = await everything_in(storage)
            assert found == ({f"x/{name}": data for name, data in files.items()} if outcome == "done" else {}), where
            await storage.delete_prefix("x/")
        assert outcomes == {"done", "cancelled"}


@pytest.mark.case("I7")
async def test_the_loop_goes_on_and_little_is_in_memory_meanwhile(tmpfs: Path) -> None:
    """Of 20,000 files, and of one that unpacks to 48 MiB, with a limit that is a fraction of either."""
    many = {f"{number % 100}/{number:06}": b"%d" % number for number in range(20_000)}
    path = tmpfs / "many.zip"
    path.write_bytes(made_by_python("zip", many))
    large = tmpfs / "large.zip"
    with (
        zipfile.ZipFile(large, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as opened,
        opened.open("large", "w") as file,
    ):
        for _ in range(96):
            file.write(os.urandom(4096) * 128)
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            before = time.thread_time()  # what others on this machine do does not count
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - before)

    async with open_storage(LocalConfig(path=tmpfs / "root", durable=False)) as storage:
        watching = asyncio.ensure_future(watch())
        gc.disable()  # it stops all threads for as long as all of pytest's objects take
        await import_archive(storage, "many/", path, dry_run=True)
        gc.enable()
        watching.cancel()
        assert longest < 0.05, longest  # in one go, it is a second
        tracemalloc.start()
        await import_archive(storage, "", large)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 16 << 20
        assert (await storage.head("large")).size == 48 << 20
