"""Copies of a root by the tools that people make backups with: what each of them keeps is what docs/backups.md says."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from support.commands import process

from faults.both import one_loop
from micelio_storage import ObjectInfo, Storage, open_storage
from micelio_storage.drivers.local import LocalDriver, _versions

pytestmark = pytest.mark.case("L12")

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "backups.md"
ROW = re.compile(r"\| `(.+?)` \| (inodes|files) \| (.+) \|")
TOOLS = {
    "cp -a": "cp -a {root} {copy}",
    "cp -r": "cp -r {root} {copy}",
    "tar": "mkdir {copy} && tar -C {root} -cf {archive} . && tar -C {copy} -xf {archive}",
    "tar --xattrs": "mkdir {copy} && tar -C {root} --xattrs -cf {archive} . && tar -C {copy} --xattrs -xf {archive}",
    "rsync -a": "rsync -a {root}/ {copy}/",
    "rsync -aX": "rsync -aX {root}/ {copy}/",
}
KEEPING = {"inodes": "xattr", "files": "file"}
DATA = {"small.txt": b"x", "sessions/a/files/large": b"y" * 3_000_000, "sessions/a/metadata.json": b"{}"}


def documented() -> dict[tuple[str, str], list[str]]:
    """The table's rows: what was done with which root, and what is kept."""
    rows = map(ROW.fullmatch, DOCUMENT.read_text().splitlines())
    return {(row[1], row[2]): [cell.strip() for cell in row[3].split("|")] for row in rows if row}


@pytest.fixture(autouse=True)
def last_week(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have objects written then, so that a tool that keeps no times shows it."""
    times = itertools.count(time.time_ns() - 7 * 86_400_000_000_000)
    monkeypatch.setattr(_versions.Stamps, "next", lambda self: next(times))


async def made(root: Path, keeping: Any) -> dict[str, ObjectInfo]:
    """A storage whose objects have all that there is to lose."""
    async with Storage(LocalDriver(root, keeping=keeping)) as storage:
        for key, data in DATA.items():
            await storage.put(key, data, content_type="text/x-ours", metadata={"by": "us"}, cache_control="no-store")
        return {key: await storage.head(key) for key in DATA}


async def read(root: Path) -> dict[str, ObjectInfo]:
    async with open_storage(root) as storage:
        assert {entry.key: await storage.get(entry.key) async for entry in storage.list()} == DATA
        return {key: await storage.head(key) for key in DATA}


def kept(old: dict[str, ObjectInfo], new: dict[str, ObjectInfo], of: Callable[[ObjectInfo], object]) -> bool:
    """Whether it is as it was for all of them; a tool treats all alike."""
    same = {of(old[key]) == of(new[key]) for key in old}
    assert len(same) == 1
    return same.pop()


def second(moment: datetime) -> datetime:
    return moment.replace(microsecond=0)


def result(old: dict[str, ObjectInfo], new: dict[str, ObjectInfo], strict: int) -> list[str]:
    """The cells of the table's row."""

    def said(of: Callable[[ObjectInfo], object]) -> str:
        return "kept" if kept(old, new, of) else "lost"

    modified = said(lambda info: info.modified)
    if modified == "lost":
        modified = "whole seconds" if kept(old, new, lambda info: second(info.modified)) else "of the copy"
    return [
        said(lambda info: (info.content_type, info.metadata, info.cache_control)),
        said(lambda info: info.checksum),
        modified,
        said(lambda info: info.etag).replace("lost", "new"),
        {0: "passes", 1: "fails"}[strict],
    ]


@pytest.mark.by_turns
@one_loop
@pytest.mark.parametrize("attributes", KEEPING)
@pytest.mark.parametrize("tool", TOOLS)
async def test_a_copy_of_a_root_keeps_what_the_table_says(tmp_path: Path, tool: str, attributes: str) -> None:
    root, copy = tmp_path / "root", tmp_path / "copy"
    old = await made(root, KEEPING[attributes])
    command = TOOLS[tool].format(root=root, copy=copy, archive=tmp_path / "archive")
    subprocess.run(command, shell=True, check=True)
    new = await read(copy)
    assert process("verify", f"file://{copy}").returncode == 0
    assert (
        result(old, new, process("verify", "--strict", f"file://{copy}").returncode) == documented()[tool, attributes]
    )


def test_the_table_has_each_tool_and_root_once() -> None:
    rows = [match.groups()[:2] for match in map(ROW.fullmatch, DOCUMENT.read_text().splitlines()) if match]
    assert rows == [(tool, attributes) for tool in TOOLS for attributes in KEEPING]


@pytest.mark.by_turns
@one_loop
@pytest.mark.parametrize("attributes", KEEPING)
async def test_a_copy_that_is_damaged_is_found(tmp_path: Path, attributes: str) -> None:
    await made(tmp_path / "root", KEEPING[attributes])
    subprocess.run(["cp", "-a", tmp_path / "root", tmp_path / "copy"], check=True)
    path = tmp_path / "copy/small.txt"
    before = path.stat()
    path.write_bytes(b"z")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    done = process("verify", f"file://{tmp_path}/copy")
    assert (done.returncode, done.stdout.splitlines()[0].split(b":")[0]) == (1, b"damaged   'small.txt'")


@one_loop
@pytest.mark.parametrize("attributes", KEEPING)
async def test_a_copy_is_written_on_as_the_original_was(tmp_path: Path, attributes: str) -> None:
    """The staging of a live process that a copy takes along is swept, and its locks are nobody's."""
    async with Storage(LocalDriver(tmp_path / "root", keeping=KEEPING[attributes])) as storage:  # type: ignore[arg-type]
        await storage.put("a", b"1", metadata={"by": "us"})
        async with storage.open_write("never") as writer:
            await writer.write(b"x" * 3_000_000)
            subprocess.run(["cp", "-a", tmp_path / "root", tmp_path / "copy"], check=True)
            await writer.abort()
    async with open_storage(tmp_path / "copy") as copy:
        assert await copy._driver.unfinished() == []
        info = await copy.head("a")
        assert info.metadata == {"by": "us"}
        assert (await copy.put("a", b"2", if_match=info.etag)).etag != info.etag
        assert [entry.key async for entry in copy.list()] == ["a"]
