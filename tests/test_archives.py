"""Sessions as archives: read by the tools that people have, the same each time, and from wherever somebody goes on."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from support.s3_servers import Server
from support.s3_storage import driver_for

from micelio_storage import InvalidArgumentError, LocalConfig, PreconditionFailedError, Storage, open_storage
from micelio_storage.driver import Download, Key, ObjectInfo, ReadOptions, Span, resolve_span
from micelio_storage.drivers.memory import MemoryDriver
from micelio_storage.transfer import Archive, ArchiveKind, archive
from micelio_storage.transfer._zip import dos_time

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])

FILES = {
    "a.txt": b"one",
    "b/caf\u00e9 \U0001f600.bin": os.urandom(700_000),
    "b/empty": b"",
    "b/" + "x" * 200 + "/" + "y" * 200: b"deep",
    "c d;e": bytes(256 << 10),
}
KINDS: tuple[ArchiveKind, ...] = ("zip", "tar")


@pytest_asyncio.fixture(params=["memory", "disk", "seaweedfs"])
async def storage(request: pytest.FixtureRequest, tmpfs: Path) -> AsyncIterator[Storage]:
    if request.param == "seaweedfs":
        server: Server = request.getfixturevalue("seaweedfs_server")
        storage = Storage(driver_for(server))
    else:
        storage = open_storage("memory:" if request.param == "memory" else LocalConfig(path=tmpfs / "r", durable=False))
    async with storage:
        await storage.delete_prefix("archives/")
        below = storage.under("archives")
        for name, data in FILES.items():
            await below.put(f"s/{name}", data)
        await below.put("sx", b"not below it")
        yield below


async def bytes_of(made: Archive, **part: int) -> bytes:
    async with made.chunks(**part) as reader:
        return b"".join([chunk async for chunk in reader])


def contents(kind: str, data: bytes) -> dict[str, bytes]:
    if kind == "zip":
        with zipfile.ZipFile(io.BytesIO(data)) as opened:
            assert opened.testzip() is None
            return {name: opened.read(name) for name in opened.namelist()}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {one.name: tar.extractfile(one).read() for one in tar}  # type: ignore[union-attr]  # all are files


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.case("I1")
async def test_an_archive_has_all_below_the_prefix_and_the_length_that_it_says(
    storage: Storage, kind: ArchiveKind
) -> None:
    made = await archive(storage, "s/", kind)
    data = await bytes_of(made)
    assert (len(data), made.count) == (made.length, len(FILES))
    assert contents(kind, data) == FILES


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.case("I1")
async def test_an_archive_goes_on_from_anywhere(storage: Storage, kind: ArchiveKind) -> None:
    made = await archive(storage, "s/", kind)
    whole = await bytes_of(made)
    for offset in [0, 1, 29, 30, 36, 100, made.length // 3, made.length // 2, made.length - 23, made.length - 1]:
        assert await bytes_of(made, offset=offset) == whole[offset:], offset
    for offset, length in [(0, 0), (5, 1), (100, 500_000), (made.length - 300, 250), (made.length, 5)]:
        assert await bytes_of(made, offset=offset, length=length) == whole[offset : offset + length]
    for wrong in ({"offset": -1}, {"offset": made.length + 1}, {"length": -1}):
        with pytest.raises(InvalidArgumentError):
            made.chunks(**wrong)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.case("I1")
async def test_the_same_objects_are_the_same_archive(storage: Storage, kind: ArchiveKind) -> None:
    first, second = await archive(storage, "s/", kind), await archive(storage, "s/", kind)
    assert first.etag == second.etag
    assert await bytes_of(first) == await bytes_of(second)
    await storage.put("s/a.txt", b"two")
    third = await archive(storage, "s/", kind)
    assert third.etag != first.etag
    assert third.length == first.length


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.case("I2")
async def test_an_object_that_is_replaced_meanwhile_is_never_mixed_in(storage: Storage, kind: ArchiveKind) -> None:
    made = await archive(storage, "s/", kind)
    await storage.put("s/c d;e", b"another")
    with pytest.raises(PreconditionFailedError):
        await bytes_of(made)


async def test_nothing_is_an_empty_archive(storage: Storage) -> None:
    for kind in KINDS:
        made = await archive(storage, "nothing/", kind)
        data = await bytes_of(made)
        assert (len(data), contents(kind, data)) == (made.length, {})
    with pytest.raises(InvalidArgumentError):
        await archive(storage, "s/", "rar")  # type: ignore[arg-type]  # what is tested


@pytest.mark.case("I3")
async def test_unzip_and_tar_take_them(tmpfs: Path) -> None:
    async with open_storage("memory:") as storage:
        for name, data in FILES.items():
            await storage.put(name, data)
        for kind in KINDS:
            path = tmpfs / f"a.{kind}"
            path.write_bytes(await bytes_of(await archive(storage, "", kind)))
            command = ["unzip", "-tqq", str(path)] if kind == "zip" else ["tar", "-tf", str(path)]
            child = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            said, _ = await child.communicate()
            assert child.returncode == 0, said


@pytest.mark.case("I3")
async def test_more_members_than_sixteen_bits_count() -> None:
    driver = MemoryDriver()
    async with Storage(driver) as storage:
        await storage.put("00000", b"")
        (version,) = driver._objects.values()
        driver._order[:] = [Key.parse(f"{number:05}") for number in range(65_540)]
        driver._objects.update(dict.fromkeys(driver._order, version))
        made = await archive(storage, "")
        data = await bytes_of(made)
        assert len(data) == made.length
        with zipfile.ZipFile(io.BytesIO(data)) as opened:
            assert len(opened.namelist()) == 65_540


class Zeros(MemoryDriver):
    """Objects of any size, which nobody has to store."""

    async def read(self, key: Key, options: ReadOptions) -> Any:
        info = await self.head(key)
        return _ZeroDownload(info, resolve_span(options.offset, options.length, info.size), options.chunk_size or 1)

    def pretend(self, key: str, size: int) -> None:
        version = self._objects[Key.parse(key)]
        info = ObjectInfo(size=size, etag=version.info.etag, modified=version.info.modified)
        self._objects[Key.parse(key)] = type(version)(b"", info)


class _ZeroDownload(Download):
    file = None

    def __init__(self, info: ObjectInfo, span: Span, chunk: int) -> None:
        self._info, self._span, self._left, self._zeros = info, span, span.size, bytes(chunk)

    @property
    def info(self) -> ObjectInfo:
        return self._info

    @property
    def span(self) -> Span:
        return self._span

    async def read(self) -> bytes:
        size = min(self._left, len(self._zeros))
        self._left -= size
        return self._zeros if size == len(self._zeros) else self._zeros[:size]

    async def aclose(self) -> None:
        pass


@pytest.mark.case("I3")
async def test_what_takes_sixty_four_bits_is_decided_before_the_first_byte(tmpfs: Path) -> None:
    """5 GiB, and a member behind it, as a file with a hole where the zeros are."""
    driver = Zeros()
    async with Storage(driver) as storage:
        for key, size in (("a", 5 << 30), ("b", 10)):
            await storage.put(key, b"")
            driver.pretend(key, size)
        made = await archive(storage, "")
        head = await bytes_of(made, length=51)
        tail = made.chunks(offset=made.length - 400)
        tail._crcs[0], tail._crcs[1] = 1, zlib.crc32(bytes(10))
        async with tail:
            ending = b"".join([chunk async for chunk in tail])
    path = tmpfs / "large.zip"
    with path.open("wb") as file:
        file.write(head)
        file.seek(made.length - 400)
        file.write(ending)
    with zipfile.ZipFile(path) as opened:
        assert [(one.filename, one.file_size) for one in opened.infolist()] == [("a", 5 << 30), ("b", 10)]
        assert opened.read("b") == bytes(10)
        with opened.open("a") as first:
            assert first.read(100) == bytes(100)


async def test_times_are_those_of_dos() -> None:
    assert dos_time(datetime(1970, 1, 1, tzinfo=UTC)) == (0, 33)
    assert dos_time(datetime(2026, 11, 28, 13, 45, 31, tzinfo=UTC)) == ((13 << 11) | (45 << 5) | 15, (46 << 9) | 380)
    assert dos_time(datetime(9999, 1, 1, tzinfo=UTC))[1] == (127 << 9) | (12 << 5) | 31
