"""Directories compared by the bytes of their files: no object is asked about, and no clock is believed."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.everywhere import place_of, storage_on

from micelio_storage import NotSupportedError, Operation, Storage, open_storage
from micelio_storage._beneath import Beneath
from micelio_storage.transfer import download_tree, upload_tree

LARGE = random.Random(1).randbytes((1 << 20) + 17)  # more than is read in one piece
IN_PARTS = bytes(8 << 20) + b"and one more part"
FILES = {"a": b"a", "b/c": b"b" * 1000, "empty": b"", "large": LARGE}

pytestmark = pytest.mark.parametrize("kind", ["strict", "seaweedfs"])


@pytest.fixture
def calls() -> Counter[str]:
    """How often each operation was called."""
    return Counter()


@pytest.fixture
async def storage(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, calls: Counter[str]
) -> AsyncIterator[Storage]:
    @contextmanager
    def hook(operation: Operation) -> Iterator[None]:
        calls[operation.name] += 1
        yield

    async with storage_on(kind, request, tmp_path, [hook]) as opened:
        yield opened.under(place_of(tmp_path))


@pytest.fixture
async def tree(storage: Storage, tmp_path: Path, calls: Counter[str]) -> Path:
    """A directory that is in the storage as it is."""
    top = tmp_path / "tree"
    for name, data in FILES.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(data)
    await upload_tree(top, storage)
    calls.clear()
    return top


def touch(top: Path) -> None:
    for name in FILES:
        os.utime(top / name, ns=(1, 1))


def rewrite(path: Path, data: bytes) -> None:
    """Other bytes, with no sign of it in what the file is like."""
    before = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


async def test_files_whose_times_alone_have_changed_are_known_without_a_question(
    storage: Storage, tree: Path, calls: Counter[str]
) -> None:
    touch(tree)
    assert (await upload_tree(tree, storage, by_content=True)).unchanged == len(FILES)
    assert (await download_tree(storage, tree, by_content=True)).unchanged == len(FILES)
    assert calls["head"] == calls["put"] == calls["get"] == calls["open_read"] == 0
    assert {(tree / name).stat().st_mtime_ns for name in FILES} == {1}
    assert (await upload_tree(tree, storage)).copied == len(FILES)


async def test_other_bytes_are_seen_where_size_and_times_are_the_same(storage: Storage, tree: Path) -> None:
    for name, data in {"a": b"A", "large": LARGE[::-1]}.items():
        rewrite(tree / name, data)
    assert (await upload_tree(tree, storage)).unchanged == len(FILES)
    assert (await upload_tree(tree, storage, by_content=True, dry_run=True)).copied == 2
    assert await storage.get("a") == b"a"
    report = await upload_tree(tree, storage, by_content=True)
    assert (report.copied, report.unchanged) == (2, len(FILES) - 2)
    assert await storage.get("a") == b"A"
    assert await storage.get("large") == LARGE[::-1]


async def test_other_bytes_in_a_file_are_replaced_by_the_objects(storage: Storage, tree: Path) -> None:
    for name, data in {"a": b"A", "large": LARGE[::-1]}.items():
        rewrite(tree / name, data)
    assert (await download_tree(storage, tree)).unchanged == len(FILES)
    report = await download_tree(storage, tree, by_content=True)
    assert (report.copied, report.unchanged) == (2, len(FILES) - 2)
    assert {name: (tree / name).read_bytes() for name in FILES} == FILES


async def test_an_object_that_came_in_parts_is_compared_by_its_times(
    storage: Storage, tree: Path, calls: Counter[str]
) -> None:
    (tree / "parts").write_bytes(IN_PARTS)
    assert (await upload_tree(tree, storage, by_content=True)).copied == 1
    assert (await upload_tree(tree, storage, by_content=True)).unchanged == len(FILES) + 1
    assert calls["head"] == 1
    touch(tree)
    os.utime(tree / "parts", ns=(1, 1))
    report = await download_tree(storage, tree, by_content=True)
    assert (report.copied, report.unchanged) == (1, len(FILES))


async def test_a_file_that_cannot_be_read_is_told_and_ends_no_other(
    storage: Storage, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_to_read = Beneath.open_to_read

    def refuse(self: Beneath, path: str) -> object:
        if path in ("a", "large"):
            raise PermissionError(13, "Permission denied", path)
        return open_to_read(self, path)

    monkeypatch.setattr(Beneath, "open_to_read", refuse)
    for report in (
        await upload_tree(tree, storage, by_content=True),
        await download_tree(storage, tree, by_content=True),
    ):
        assert (report.failed, report.unchanged, report.complete) == (2, len(FILES) - 2, False)
        assert {each.path for each in report.unsolved} == {"a", "large"}


async def test_storages_whose_etags_say_nothing_of_bytes_refuse(kind: str, tmp_path: Path) -> None:
    url = "memory:" if kind == "strict" else f"file://{tmp_path}/root"
    (tmp_path / "tree").mkdir()
    async with open_storage(url) as other:
        with pytest.raises(NotSupportedError, match="leave it out here"):
            await upload_tree(tmp_path / "tree", other, by_content=True)
        with pytest.raises(NotSupportedError, match="leave it out here"):
            await download_tree(other, tmp_path / "not-made", by_content=True)
    assert not (tmp_path / "not-made").exists()
