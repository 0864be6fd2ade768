"""`micelio-storage verify` and what is behind it: every object is read whole, and what disk or store has changed since
is found and named."""

from __future__ import annotations

import asyncio
import json
import os
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from support import fault_proxy, s3_servers
from support.commands import is_one_line, process, use_storage
from support.fault_proxy import Flip, first
from support.leftovers import open_descriptors, other_tasks
from support.s3_servers import Server, client_of
from support.s3_storage import driver_for, set_credentials
from support.strict_s3 import StrictS3

from micelio_storage import (
    InvalidArgumentError,
    InvalidKeyError,
    LocalConfig,
    ObjectReplacedError,
    Storage,
    open_storage,
)
from micelio_storage.cli import _app
from micelio_storage.driver import Download, Key, ReadOptions
from micelio_storage.drivers.memory import MemoryDriver
from micelio_storage.transfer import Finding, Tally, verify
from micelio_storage.transfer._verify import CHUNK, TRIES

SIZES = (0, 1, 10_000, 300_000, 3_000_000)  # nothing, on the loop, in one hop to a thread, and streams
on_one_loop = pytest.mark.asyncio(loop_factories=["asyncio"])  # what is the same on all: a matter of what is found


@pytest.fixture
async def storage(place: Path) -> AsyncIterator[Storage]:
    async with open_storage(LocalConfig(path=place / "root")) as storage:
        yield storage


async def found_in(storage: Storage, prefix: str = "", *, concurrency: int = 16) -> dict[str | None, Finding]:
    async with aclosing(verify(storage, prefix, concurrency=concurrency)) as findings:
        return {finding.key: finding async for finding in findings}


async def results(storage: Storage, prefix: str = "") -> dict[str | None, str]:
    return {key: finding.result for key, finding in (await found_in(storage, prefix)).items()}


def damage(path: Path, *, at: int | None = None, keep: int | None = None) -> None:
    """Flip one bit, or cut the file; its time stays, as a disk's own mistakes leave it."""
    before = path.stat()
    with path.open("r+b") as file:
        if keep is not None:
            file.truncate(keep)
        if at is not None:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 0x10]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


# -- on a disk


async def chunks(size: int) -> AsyncIterator[bytes]:
    for start in range(0, size, 100_000):
        yield b"x" * min(100_000, size - start)


async def test_what_was_put_streamed_appended_or_copied_is_verified(storage: Storage) -> None:
    for size in SIZES:
        await storage.put(f"put/{size}", b"x" * size)
        await storage.put(f"streamed/{size}", chunks(size))
        await storage.copy(f"put/{size}", f"copied/{size}")
    found = await found_in(storage)
    assert {finding.result for finding in found.values()} == {"verified"}
    names = {f"{way}/{size}": size for way in ("put", "streamed", "copied") for size in SIZES}
    assert {key: finding.size for key, finding in found.items()} == names


@pytest.mark.case("D29")
async def test_one_flipped_bit_is_named_and_nothing_else_is(storage: Storage, place: Path) -> None:
    damaged = set()
    for size in SIZES[1:]:
        for at in {0, size // 2, size - 1}:
            await storage.put(f"{size}/{at}/well", b"x" * size)
            await storage.put(f"{size}/{at}/ill", b"x" * size, metadata={"a": "b"})
            damage(place / "root" / f"{size}/{at}/ill", at=at)
            damaged.add(f"{size}/{at}/ill")
    found = await found_in(storage)
    assert {key for key, finding in found.items() if finding.result == "damaged"} == damaged
    assert {finding.result for key, finding in found.items() if key not in damaged} == {"verified"}
    assert all(found[key].reason for key in damaged)


@pytest.mark.case("D30")
async def test_an_object_that_was_cut_short_is_damaged(storage: Storage, place: Path) -> None:
    for size in SIZES[1:]:
        for keep in {0, size // 2, size - 1}:
            await storage.put(f"{size}/{keep}", b"x" * size)
            damage(place / "root" / f"{size}/{keep}", keep=keep)
    assert set((await results(storage)).values()) == {"damaged"}


async def test_what_another_tool_wrote_is_unverified_and_well(storage: Storage, place: Path) -> None:
    await storage.put("ours", b"x")
    (place / "root/theirs").write_bytes(b"y" * 400_000)
    tally = Tally()
    for finding in (await found_in(storage)).values():
        tally.add(finding)
    assert await results(storage) == {"ours": "verified", "theirs": "unverified"}
    assert (tally.verified, tally.unverified, tally.bytes, tally.well) == (1, 1, 400_001, True)


@pytest.mark.case("L12")
@pytest.mark.parametrize("size", [1, 400_000, 3_000_000])
async def test_strictly_what_has_no_checksum_is_a_failure_with_a_reason(
    storage: Storage, place: Path, size: int
) -> None:
    for key in ("ours", "edited"):
        await storage.put(key, b"x" * size)

    async def tally() -> Tally:
        tally = Tally()
        async with aclosing(verify(storage, strict=True)) as findings:
            async for finding in findings:
                tally.add(finding)
                assert (finding.reason is None) is (finding.result == "verified"), finding
        return tally

    assert (await tally()).complete
    with (place / "root/edited").open("ab") as file:
        file.write(b"more")
    (place / "root/theirs").write_bytes(b"y" * size)
    found = await tally()
    assert (found.verified, found.unverified, found.well, found.complete) == (1, 2, True, False)
    damage(place / "root/ours", at=0)
    found = await tally()
    assert (found.damaged, found.well, found.complete) == (1, False, False)


async def test_only_the_prefix_is_read(storage: Storage, place: Path) -> None:
    for key in ("a/1", "a/2", "ab", "b/1"):
        await storage.put(key, b"x")
    damage(place / "root/b/1", at=0)
    assert await results(storage, "a/") == {"a/1": "verified", "a/2": "verified"}
    assert await results(storage, "nothing/") == {}


async def test_what_is_deleted_meanwhile_is_gone_and_not_damaged(storage: Storage) -> None:
    for key in "abc":
        await storage.put(key, b"x")
    found = []
    async with aclosing(verify(storage, concurrency=1)) as findings:
        async for finding in findings:
            found.append((finding.key, finding.result))
            await storage.delete("b", "c")
    assert found == [("a", "verified"), ("b", "gone"), ("c", "gone")]


async def test_what_is_replaced_meanwhile_is_not_damaged(storage: Storage) -> None:
    sizes = [400_000, 3_000_000, 10]
    for key in "abc":
        await storage.put(key, b"x" * 3_000_000)

    async def replace_again_and_again() -> None:
        while True:
            for size in sizes:
                for key in "abc":
                    await storage.put(key, b"y" * size)

    task = asyncio.create_task(replace_again_and_again())
    try:
        for _ in range(10):
            assert set((await results(storage)).values()) == {"verified"}
    finally:
        task.cancel()
        await asyncio.wait([task])


# -- bounds


class Watched(MemoryDriver):
    """Counts the objects that are being opened at the same time, each for some turns of the loop."""

    now = most = 0

    async def read(self, key: Key, options: ReadOptions) -> Download:
        self.now += 1
        self.most = max(self.most, self.now)
        for _ in range(5):
            await asyncio.sleep(0)
        self.now -= 1
        return await super().read(key, options)


@pytest.mark.parametrize("at_once", [1, 7])
async def test_no_more_objects_are_read_at_once_than_asked_for(at_once: int) -> None:
    driver = Watched()
    async with Storage(driver) as storage:
        for number in range(50):
            await storage.put(str(number), b"x")
        assert len(await found_in(storage, concurrency=at_once)) == 50
    assert driver.most == at_once


@on_one_loop
async def test_memory_is_bounded_by_chunks_and_not_by_objects(tmpfs: Path) -> None:
    (tmpfs / "root").mkdir()  # another tool's, with files of its own
    async with open_storage(LocalConfig(path=tmpfs / "root")) as storage:
        for number in range(6):
            with (tmpfs / "root" / str(number)).open("wb") as file:
                file.truncate(48 << 20)
        tracemalloc.start()
        try:
            found = await found_in(storage)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert [finding.result for finding in found.values()] == ["unverified"] * 6
    assert CHUNK < peak < 24 << 20  # the chunks of four large objects, each with one read ahead


async def test_a_run_that_is_left_in_the_middle_leaves_nothing(storage: Storage) -> None:
    for number in range(40):
        await storage.put(str(number), b"x" * 2_000_000)
    await storage.get("0")
    tasks, descriptors = other_tasks(), open_descriptors()
    async with aclosing(verify(storage)) as findings:
        await anext(findings)
    assert other_tasks() == tasks
    assert open_descriptors() == descriptors


async def test_what_cannot_be_meant_is_refused_at_once(storage: Storage) -> None:
    with pytest.raises(InvalidArgumentError):
        await found_in(storage, concurrency=0)
    with pytest.raises(InvalidKeyError):
        await found_in(storage, "a//b")


class Replaced(MemoryDriver):
    """An object that is replaced under each of the first readers."""

    tries = 0
    least = TRIES

    async def read(self, key: Key, options: ReadOptions) -> Download:
        self.tries += 1
        if self.tries < self.least:
            raise ObjectReplacedError("it was replaced")
        return await super().read(key, options)


@pytest.mark.parametrize(("least", "result"), [(TRIES, "unverified"), (TRIES + 1, "failed")])
async def test_an_object_that_is_replaced_under_the_reader_is_read_again(least: int, result: str) -> None:
    driver = Replaced()
    driver.least = least
    async with Storage(driver) as storage:
        await storage.put("a", b"x")
        assert await results(storage) == {"a": result}


# -- on S3


@pytest.fixture
def strict() -> Iterator[Server]:
    """A server of the test's own: what it keeps will be damaged."""
    with s3_servers.strict(adds_checksums=False) as server:
        yield server


def referee_of(server: Server) -> StrictS3:
    assert server.referee is not None
    return server.referee


def rot(server: Server, key: str, change: Callable[[bytes], bytes]) -> None:
    """Change the bytes that the server keeps, and nothing that it says of them."""
    objects = referee_of(server).state.bucket(server.bucket).objects
    objects[key] = replace(objects[key], content=change(bytes(objects[key].content)))


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.case("S14")
async def test_what_the_store_has_changed_is_damaged(strict: Server) -> None:
    async with Storage(driver_for(strict)) as storage:
        for size in SIZES:
            await storage.put(f"put/{size}", b"x" * size)
        await storage.put("streamed", chunks(20_000_000))
        assert set((await results(storage)).values()) == {"verified"}
        for key in ("put/1", "put/300000", "streamed"):
            rot(strict, key, flipped)
        found = await results(storage)
    assert {key for key, result in found.items() if result == "damaged"} == {"put/1", "put/300000", "streamed"}
    assert {result for key, result in found.items()} == {"damaged", "verified"}


@pytest.mark.case("S14")
async def test_what_is_changed_on_the_way_is_damaged(strict: Server) -> None:
    host, port = strict.endpoint.removeprefix("http://").split(":")
    with fault_proxy.running(host, int(port)) as proxy:
        async with Storage(driver_for(strict, endpoint=proxy.endpoint)) as storage:
            await storage.put("a", b"x" * 100_000)
            proxy.rule = first(Flip("answer", 50_000), times=99, method="GET", target="/bucket/a")
            assert await results(storage, "a") == {"a": "damaged"}
            proxy.rule = lambda exchange: None
            assert await results(storage, "a") == {"a": "verified"}


async def test_what_another_tool_put_without_a_checksum_is_unverified(strict: Server) -> None:
    client = client_of(strict)
    try:
        client.meta.events.register("before-call.s3.PutObject", without_checksum)
        client.put_object(Bucket=strict.bucket, Key="theirs", Body=b"y" * 1000)
    finally:
        client.close()
    async with Storage(driver_for(strict)) as storage:
        await storage.put("ours", b"x" * 1000)
        assert await results(storage) == {"ours": "verified", "theirs": "unverified"}
        strictly = [finding async for finding in verify(storage, strict=True)]
        assert {finding.key for finding in strictly if finding.reason} == {"theirs"}


def without_checksum(params: dict[str, dict[str, str]], **_: object) -> None:
    for name in [name for name in params["headers"] if name.lower().startswith("x-amz-checksum")]:
        del params["headers"][name]


async def test_what_may_not_be_read_has_failed_and_a_broken_listing_is_said(strict: Server) -> None:
    async with Storage(driver_for(strict)) as storage:
        await storage.put("a", b"x")
        referee_of(strict).change(deny={"GetObject"})
        assert await results(storage) == {"a": "failed"}
        referee_of(strict).change(deny={"ListObjectsV2"})
        assert await results(storage) == {None: "failed"}


# -- the command

Said = Callable[..., tuple[int, str, str]]


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Said:
    """Run the command in this process, in a directory of its own: its exit code, and what it wrote."""
    use_storage(tmp_path, monkeypatch)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = _app.run(arguments)
        out, err = capfd.readouterr()
        return code, out, err

    return run


@pytest.fixture
def root(said: Said, tmp_path: Path) -> Path:
    """A storage with three objects."""
    (tmp_path / "source").write_bytes(b"hello" * 1000)
    for key in ("a/1", "a/2", "b/é"):
        assert said("put", "source", key)[0] == 0
    return tmp_path / "storage"


def test_a_storage_that_is_well_ends_with_0(said: Said, root: Path) -> None:
    assert said("verify") == (0, "verified 3, unverified 0, damaged 0, failed 0 (15,000 bytes)\n", "")
    assert said("verify", f"file://{quote(str(root))}", "--prefix", "a/")[:2] == (
        0,
        "verified 2, unverified 0, damaged 0, failed 0 (10,000 bytes)\n",
    )


def test_each_damaged_key_is_named_and_the_command_ends_with_1(said: Said, root: Path) -> None:
    damage(root / "b/é", at=7)
    code, out, err = said("verify", "--concurrency", "2")
    assert (code, err) == (1, "")
    named, tally = out.splitlines()
    assert named.startswith("damaged   'b/\\xe9': ")
    assert tally == "verified 2, unverified 0, damaged 1, failed 0 (10,000 bytes)"


def test_programs_are_told_of_every_object_and_of_the_numbers(said: Said, root: Path) -> None:
    damage(root / "a/2", keep=100)
    (root / "theirs").write_bytes(b"y")
    code, out, _ = said("verify", "--json")
    *findings, tally = map(json.loads, out.splitlines())
    assert code == 1
    assert {finding["key"]: finding["result"] for finding in findings} == {
        "a/1": "verified",
        "a/2": "damaged",
        "b/é": "verified",
        "theirs": "unverified",
    }
    assert tally == {
        "verified": 2,
        "unverified": 1,
        "damaged": 1,
        "failed": 0,
        "gone": 0,
        "foreign": 0,
        "bytes": 10_001,
    }


@pytest.mark.case("L12")
def test_strictly_objects_without_a_checksum_are_named_and_the_command_ends_with_1(said: Said, root: Path) -> None:
    assert said("verify", "--strict") == (0, "verified 3, unverified 0, damaged 0, failed 0 (15,000 bytes)\n", "")
    with (root / "a/1").open("ab") as file:
        file.write(b"!")
    (root / "theirs").write_bytes(b"y")
    assert said("verify")[0] == 0
    code, out, err = said("verify", "--strict")
    *named, tally = out.splitlines()
    assert (code, err) == (1, "")
    assert sorted(line.partition(": ")[0] for line in named) == ["unverified  'a/1'", "unverified  'theirs'"]
    assert all("no checksum" in line for line in named)
    assert tally == "verified 2, unverified 2, damaged 0, failed 0 (15,002 bytes)"


def test_wrong_usage_ends_with_2(said: Said, root: Path) -> None:
    for arguments in (["--concurrency", "0"], ["--prefix", "a//"], ["ftp://host/path"]):
        code, out, err = said("verify", *arguments)
        assert (code, out, is_one_line(err)) == (2, "", True)


def test_as_a_process_it_verifies_a_bucket(strict_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    set_credentials(monkeypatch, strict_server)
    where = f"endpoint={strict_server.endpoint}&region={strict_server.region}&url_style=path"
    url = f"s3://{strict_server.bucket}/of/verify?{where}"
    assert process("-s", url, "put", "-", "a", data=b"hello").returncode == 0
    answer = process("verify", url)
    assert (answer.returncode, answer.stderr) == (0, b"")
    assert answer.stdout == b"verified 1, unverified 0, damaged 0, failed 0 (5 bytes)\n"
