"""Files of a root that another program writes into: that makes a new version, which is served, and is no damage."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from faults.both import one_loop
from micelio_storage import IntegrityError, LocalConfig, ObjectReplacedError, Storage, open_storage
from micelio_storage.drivers.local import LocalDriver, _reads
from micelio_storage.drivers.local._attributes import NAME, Keeping, is_stamp
from micelio_storage.transfer import Finding, verify

SIZES = (10, 10_000, 100_000, 3_000_000)  # read on the loop, in one hop to a thread, and as a stream


@pytest.fixture(params=["xattr", "file"])
async def storage(request: pytest.FixtureRequest, tmpfs: Path) -> AsyncIterator[Storage]:
    keeping: Keeping = request.param
    async with Storage(LocalDriver(tmpfs / "root", keeping=keeping)) as storage:
        yield storage


def append(path: Path) -> None:
    """As `echo >> file`."""
    with path.open("ab") as file:
        file.write(b"more")


def rewrite(path: Path) -> None:
    """As `echo > file`."""
    path.write_bytes(b"all new")


def change_one_letter(path: Path) -> None:
    """As an editor that leaves the size as it is."""
    with path.open("r+b") as file:
        file.write(b"!")


EDITS = (append, rewrite, change_one_letter)


async def findings(storage: Storage) -> dict[str | None, Finding]:
    return {finding.key: finding async for finding in verify(storage)}


@one_loop
@pytest.mark.case("L6")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("edit", EDITS)
async def test_what_another_program_wrote_in_place_is_a_new_version(
    storage: Storage, size: int, edit: Callable[[Path], None], tmpfs: Path
) -> None:
    said = {"content_type": "text/x-ours", "metadata": {"by": "us"}, "cache_control": "no-store"}
    before = await storage.put("a", b"x" * size, **said)  # type: ignore[arg-type]  # they are what it takes
    assert await storage.get("a") == b"x" * size
    path = tmpfs / "root/a"
    edit(path)
    info = await storage.head("a")
    assert (info.size, info.checksum) == (path.stat().st_size, None)
    assert info.etag != before.etag
    assert {name: getattr(info, name) for name in said} == said
    assert await storage.get("a", if_match=info.etag) == path.read_bytes()
    async with storage.open_read("a") as reader:
        assert (reader.info, await reader.read()) == (info, path.read_bytes())
    assert [entry.etag async for entry in storage.list()] == [info.etag]
    assert (await findings(storage))["a"].result == "unverified"


@one_loop
@pytest.mark.case("L6")
async def test_a_file_that_another_program_puts_in_place_has_nothing_of_the_one_before(
    storage: Storage, tmpfs: Path
) -> None:
    await storage.put("a", b"1", content_type="text/x-ours", metadata={"by": "us"})
    (tmpfs / "root/new").write_bytes(b"2")
    (tmpfs / "root/new").rename(tmpfs / "root/a")
    info = await storage.head("a")
    assert (info.content_type, info.metadata, info.checksum) == ("application/octet-stream", {}, None)


@one_loop
@pytest.mark.case("L6")
async def test_what_was_edited_can_be_edited_again_and_replaced(storage: Storage, tmpfs: Path) -> None:
    await storage.put("a", b"1", metadata={"by": "us"})
    for _ in range(3):
        append(tmpfs / "root/a")
        assert (await storage.head("a")).metadata == {"by": "us"}
    await storage.copy("a", "b")
    assert (await storage.head("b")).metadata == {"by": "us"}
    await storage.put("a", b"2")
    append(tmpfs / "root/a")
    assert (await storage.head("a")).metadata == {}


@one_loop
@pytest.mark.case("L6")
@pytest.mark.parametrize("size", SIZES)
async def test_a_copy_of_what_was_edited_has_a_checksum_of_its_own(storage: Storage, size: int, tmpfs: Path) -> None:
    await storage.put("a", b"x" * size)
    change_one_letter(tmpfs / "root/a")
    (tmpfs / "root/theirs").write_bytes(b"!" + b"x" * (size - 1))
    for source in ("a", "theirs"):
        await storage.copy(source, "b")
        written = await storage.put("c", b"!" + b"x" * (size - 1))
        assert (await storage.head("b")).checksum == written.checksum
        assert (await findings(storage))["b"].result == "verified"


@one_loop
@pytest.mark.case("L6")
async def test_with_the_time_of_its_publishing_wrong_bytes_are_rot(storage: Storage, tmpfs: Path) -> None:
    for number, edit in enumerate(EDITS):
        key = f"a{number}"
        await storage.put(key, b"x" * 1000)
        before = (tmpfs / "root" / key).stat()
        edit(tmpfs / "root" / key)
        os.utime(tmpfs / "root" / key, ns=(before.st_atime_ns, before.st_mtime_ns))
        with pytest.raises(IntegrityError):
            await storage.get(key)
        assert (await findings(storage))[key].result == "damaged"


@one_loop
@pytest.mark.case("L6")
@pytest.mark.parametrize("size", [100_000, 3_000_000])
async def test_an_edit_in_the_middle_of_a_read_is_no_rot(
    storage: Storage, size: int, tmpfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await storage.put("a", b"x" * size)
    open_version = _reads.Reads.open_version

    def edit_behind(self: _reads.Reads, *arguments: object) -> object:
        found = open_version(self, *arguments)
        change_one_letter(tmpfs / "root/a")
        return found

    storage._driver._opened.cached.enabled = False  # so that there is a time between
    with monkeypatch.context() as patch:
        patch.setattr(_reads.Reads, "open_version", edit_behind)
        with pytest.raises(ObjectReplacedError):
            async with storage.open_read("a") as reader:
                await reader.read()
    assert await storage.get("a") == b"!" + b"x" * (size - 1)


@one_loop
@pytest.mark.case("L6")
async def test_an_edit_in_the_middle_of_a_copy_makes_no_copy(
    storage: Storage, tmpfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await storage.put("a", b"x" * 1000)
    monkeypatch.setattr("micelio_storage.drivers.local._writes._copy_bytes", edit_and_copy(tmpfs / "root/a"))
    with pytest.raises(ObjectReplacedError):
        await storage.copy("a", "b")
    assert not await storage.exists("b")


def edit_and_copy(path: Path) -> Callable[..., object]:
    from micelio_storage.drivers.local._writes import _copy_bytes

    def steps(*arguments: object) -> object:
        yield from _copy_bytes(*arguments)
        change_one_letter(path)

    return steps


@one_loop
@pytest.mark.case("L6")
async def test_an_object_of_a_release_that_kept_no_time_is_checked_as_ever(tmpfs: Path) -> None:
    async with open_storage(LocalConfig(path=tmpfs / "root")) as storage:
        await storage.put("a", b"123456789")
        os.setxattr(tmpfs / "root/a", NAME, b'{"crc64nvme":"rosUhgp5mIg=","size":9}')
        assert await storage.get("a") == b"123456789"
        assert (await findings(storage))["a"].result == "verified"
        change_one_letter(tmpfs / "root/a")
        with pytest.raises(IntegrityError):
            await storage.get("a")


@pytest.mark.case("L6")
@pytest.mark.parametrize(
    ("time", "same"),
    [
        (1_764_300_000_123_456_789, True),
        (1_764_300_000_123_456_700, True),  # as Windows shares keep it
        (1_764_300_000_123_456_000, True),
        (1_764_300_000_000_000_000, True),  # as tar does
        (1_764_300_000_123_456_788, False),
        (1_764_300_000_123_457_000, False),
        (1_764_300_001_000_000_000, False),
        (0, False),
        (-1, False),
    ],
)
def test_a_time_that_lost_its_last_digits_is_the_same_time(time: int, same: bool) -> None:
    assert is_stamp(time, 1_764_300_000_123_456_789) is same
