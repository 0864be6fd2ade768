"""fsspec's own tests on every kind of storage; what they do not ask; and those who read and write through it."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import uuid
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import pandas
import pyarrow
import pytest
from fsspec.asyn import get_loop
from fsspec.callbacks import Callback
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.tests import abstract
from llama_index.core import SimpleDirectoryReader
from llama_index.core.storage.docstore import SimpleDocumentStore
from pyarrow import dataset
from pyarrow.fs import FSSpecHandler, PyFileSystem
from support.leftovers import open_descriptors
from support.processes import start, wait_for
from upath import UPath

from micelio_storage import ConfigError, InvalidKeyError, LocalConfig, PreconditionFailedError, shared
from micelio_storage._shared import _open
from micelio_storage.adapters.fsspec import MicelioFileSystem, _under_way

# fsspec's fixtures are written as pytest 10 will not have them.
pytestmark = pytest.mark.filterwarnings("ignore:Class-scoped fixtures:pytest.PytestRemovedIn10Warning")

MIB = 1 << 20
PAGE = Path(__file__).parents[2] / "docs" / "adapters" / "fsspec.md"


@pytest.fixture(scope="module")
def files(target: str) -> MicelioFileSystem:
    return fsspec.filesystem("micelio", target=target)


@pytest.fixture
def place() -> str:
    """A directory that no other test has."""
    return f"tests/{uuid.uuid4()}"


class Fixtures(abstract.AbstractFixtures):  # type: ignore[misc]
    @pytest.fixture(scope="class")
    def fs(self, files: MicelioFileSystem) -> MicelioFileSystem:
        return files

    @pytest.fixture
    def fs_path(self) -> str:
        return "sessions/abc/files"

    @pytest.fixture
    def fs_join(self) -> Callable[..., str]:
        return lambda *parts: "/".join(parts)

    @pytest.fixture
    def supports_empty_directories(self) -> bool:
        return False


class TestCopy(abstract.AbstractCopyTests, Fixtures): ...  # type: ignore[misc]


class TestGet(abstract.AbstractGetTests, Fixtures): ...  # type: ignore[misc]


class TestPut(abstract.AbstractPutTests, Fixtures): ...  # type: ignore[misc]


class TestOpen(abstract.AbstractOpenTests, Fixtures): ...  # type: ignore[misc]


class TestPipe(abstract.AbstractPipeTests, Fixtures): ...  # type: ignore[misc]


# -- writing


def write(fs: Any, path: str, *, fail: bool) -> None:
    """Eight MiB of the new version, and then perhaps an error."""
    with pytest.raises(ZeroDivisionError) if fail else nullcontext(), fs.open(path, "wb", block_size=5 * MIB) as file:
        file.write(b"n" * 8 * MIB)
        if fail:
            raise ZeroDivisionError


def keeps_the_old_file_when_the_block_raises(fs: Any, path: str) -> bool:
    fs.pipe(path, b"old")
    write(fs, path, fail=True)
    return bool(fs.cat(path) == b"old")


def test_a_file_whose_block_raises_publishes_nothing(files: MicelioFileSystem, place: str) -> None:
    assert keeps_the_old_file_when_the_block_raises(files, f"{place}/a")
    write(files, f"{place}/new", fail=True)
    assert files.find(place) == [f"{place}/a"]
    write(files, f"{place}/a", fail=False)
    assert files.cat(f"{place}/a") == b"n" * 8 * MIB


def test_the_page_says_what_fsspecs_own_do(tmp_path: Path) -> None:
    """And they do: the page's table is made of these results."""
    text = PAGE.read_text()
    results = {
        "`LocalFileSystem`": keeps_the_old_file_when_the_block_raises(LocalFileSystem(), str(tmp_path / "a")),
        "`MemoryFileSystem`": keeps_the_old_file_when_the_block_raises(MemoryFileSystem(), "/test_fsspec/a"),
        "`micelio://`": keeps_the_old_file_when_the_block_raises(
            fsspec.filesystem("micelio", target="memory:page"), "a"
        ),
    }
    for name, kept in results.items():
        assert f"| {name} | {'kept' if kept else 'lost'} |" in text


@pytest.mark.parametrize("mode", ["w", "wt"])
def test_text_and_compressed_files_whose_block_raises_publish_nothing(
    files: MicelioFileSystem, place: str, mode: str
) -> None:
    for compression in (None, "gzip"):
        with pytest.raises(ZeroDivisionError), files.open(f"{place}/a", mode, compression=compression) as file:
            file.write("text")
            raise ZeroDivisionError
        assert not files.exists(f"{place}/a")
        with files.open(f"{place}/a", mode, compression=compression) as file:
            file.write("text")
        with files.open(f"{place}/a", "rt", compression=compression) as file:
            assert file.read() == "text"
        files.rm(f"{place}/a")


def test_a_file_that_is_dropped_open_publishes_nothing_and_warns(files: MicelioFileSystem, place: str) -> None:
    for size in (10, 8 * MIB):
        file = files.open(f"{place}/a", "wb")
        file.write(b"x" * size)
        with pytest.warns(ResourceWarning, match="garbage-collected while open"):  # noqa: PT031  # the collector warns
            del file
            gc.collect()
        files.run(settled())
        assert not files.exists(f"{place}/a")


async def settled() -> None:
    """Until what was begun by the way has ended."""
    while _under_way:
        await asyncio.wait(list(_under_way))


def test_creating_is_atomic_and_appending_loses_nothing(files: MicelioFileSystem, place: str) -> None:
    late = files.open(f"{place}/a", "xb")
    late.write(b"late")
    files.pipe(f"{place}/a", b"first", content_type="text/x-first", metadata={"a": "1"})
    with pytest.raises(FileExistsError):
        late.close()
    for call in (lambda: files.open(f"{place}/a", "xb"), lambda: files.pipe(f"{place}/a", b"", mode="create")):
        with pytest.raises(FileExistsError):
            call()
    if not asyncio.run(capabilities(files)).if_match_streams:
        return  # SeaweedFS, where appending is refused
    for text in (b" second", b" third"):
        with files.open(f"{place}/a", "ab") as file:
            file.write(text)
    assert files.cat(f"{place}/a") == b"first second third"
    info = files.info(f"{place}/a")
    assert (info["ContentType"], info["metadata"]) == ("text/x-first", {"a": "1"})


async def capabilities(files: MicelioFileSystem) -> Any:
    return (await files.handle.storage()).capabilities


def test_of_two_who_append_at_once_one_is_refused(files: MicelioFileSystem, place: str) -> None:
    if not asyncio.run(capabilities(files)).if_match_streams:
        return
    files.pipe(f"{place}/a", b"0")
    one, other = (files.open(f"{place}/a", "ab") for _ in range(2))
    for file in (one, other):
        file.write(b"1" * 6 * MIB)
    one.close()
    with pytest.raises(PreconditionFailedError):
        other.close()
    assert files.size(f"{place}/a") == 6 * MIB + 1


def test_a_transaction_publishes_all_at_its_end_or_nothing(
    files: MicelioFileSystem, place: str, tmp_path: Path
) -> None:
    (tmp_path / "local").write_bytes(b"put" * MIB)

    def fill() -> None:
        with files.open(f"{place}/opened", "wb") as file:
            file.write(b"o" * 6 * MIB)
        files.pipe(f"{place}/piped", b"piped")
        files.put(str(tmp_path / "local"), f"{place}/put")
        assert files.find(place) == []

    with pytest.raises(ZeroDivisionError), files.transaction:
        fill()
        raise ZeroDivisionError
    assert files.find(place) == []
    with files.transaction:
        fill()
        late = files.open(f"{place}/late", "wb")
        late.write(b"not closed")
    assert files.du(place, total=False) == {
        f"{place}/late": 10,
        f"{place}/opened": 6 * MIB,
        f"{place}/piped": 5,
        f"{place}/put": 3 * MIB,
    }
    files.pipe(f"{place}/after", b"at once")
    assert files.exists(f"{place}/after")


def test_a_file_beside_a_directory_of_its_name_is_the_error_of_file_systems(tmp_path: Path) -> None:
    files = fsspec.filesystem("micelio", target=tmp_path / "root")
    files.pipe("a/b", b"")
    with pytest.raises(IsADirectoryError) as caught:
        files.pipe("a", b"")
    assert caught.value.__cause__ is not None
    with pytest.raises(NotADirectoryError):
        files.pipe("a/b/c", b"")
    with pytest.raises(IsADirectoryError):
        files.open("a")
    with pytest.raises(IsADirectoryError):
        files.rm("a")
    files.rm("a", recursive=True)
    assert files.ls("") == []


# -- reading


def test_a_file_is_one_version_or_an_error(files: MicelioFileSystem, place: str) -> None:
    data = os.urandom(8 * MIB)
    files.pipe(f"{place}/a", data)
    with files.open(f"{place}/a", block_size=MIB) as file:
        assert file.read(100) == data[:100]
        again = pickle.loads(pickle.dumps(file))
        assert again.read(100) == data[100:200]
        files.pipe(f"{place}/a", b"x" * 8 * MIB)
        for old in (file, again):
            with pytest.raises(OSError, match="was replaced") as caught:
                old.seek(6 * MIB) and old.read(10)
            assert (caught.value.errno, type(caught.value.__cause__)) == (errno.ESTALE, PreconditionFailedError)


SLICES = [(None, None), (0, 0), (2, 5), (-3, None), (None, -2), (-5, -2), (2, -2), (5, 2), (90, None), (200, None)]


def test_bytes_are_sliced_as_python_slices(files: MicelioFileSystem, place: str) -> None:
    data = bytes(range(100))
    files.pipe({f"{place}/{number}": data for number in range(3)})
    for first, last in SLICES:
        assert files.cat_file(f"{place}/0", first, last) == data[first:last], (first, last)
    assert files.cat_ranges([f"{place}/0"] * 2, [1, 5], [3, 9]) == [data[1:3], data[5:9]]
    assert files.cat([f"{place}/0", f"{place}/none"], on_error="omit") == {f"{place}/0": data}
    assert len(files.cat(f"{place}/*")) == 3


def test_listings_know_directories(files: MicelioFileSystem, place: str) -> None:
    names = ["a", "d/e/f", "d/g", "h i/\u00e9"]
    files.pipe({f"{place}/{name}": name.encode() for name in names})
    whole = [f"{place}/{name}" for name in names]
    assert files.find(place) == sorted(whole)
    assert files.find(place, maxdepth=2) == sorted({f"{place}/a", f"{place}/d/g", f"{place}/h i/\u00e9"})
    assert set(files.find(place, withdirs=True)) == {*whole, place, *(f"{place}/{d}" for d in ("d", "d/e", "h i"))}
    assert sorted(files.ls(place, detail=False)) == [f"{place}/{name}" for name in ("a", "d", "h i")]
    assert [each[1:] for each in files.walk(f"{place}/d")] == [(["e"], ["g"]), ([], ["f"])]
    assert files.glob(f"{place}/d/**/f") == [f"{place}/d/e/f"]
    assert (files.isdir(f"{place}/d"), files.isfile(f"{place}/d"), files.isfile(f"{place}/a")) == (True, False, True)
    assert files.info(f"{place}/a")["size"] == 1
    assert files.modified(f"{place}/a").tzinfo is not None
    before = files.ukey(f"{place}/a"), files.checksum(f"{place}/a")
    files.pipe(f"{place}/a", b"changed")
    assert files.ukey(f"{place}/a") != before[0]
    assert files.checksum(f"{place}/a") != before[1]


@pytest.mark.parametrize("path", ["a//b", "a/../b", "a\nb", ".micelio/x", "a" * 300])
def test_where_nothing_can_be_nothing_is(files: MicelioFileSystem, path: str) -> None:
    assert (files.exists(path), files.isfile(path), files.isdir(path), files.find(path)) == (False, False, False, [])
    for read in (files.info, files.ls, files.cat_file, files.open):
        with pytest.raises(FileNotFoundError):
            read(path)
    with pytest.raises(InvalidKeyError):
        files.pipe(path, b"")


def test_progress_is_told(files: MicelioFileSystem, place: str, tmp_path: Path) -> None:
    (tmp_path / "up").write_bytes(b"x" * 3 * MIB)
    for transfer in (
        lambda callback: files.put_file(str(tmp_path / "up"), f"{place}/a", callback=callback),
        lambda callback: files.get_file(f"{place}/a", str(tmp_path / "new" / "down"), callback=callback),
    ):
        callback = Callback()
        transfer(callback)
        assert (callback.size, callback.value) == (3 * MIB, 3 * MIB)
    assert (tmp_path / "new" / "down").read_bytes() == b"x" * 3 * MIB


# -- loops, threads and processes


async def test_it_is_awaited_on_any_loop(target: str, place: str) -> None:
    files = fsspec.filesystem("micelio", target=target, asynchronous=True, skip_instance_cache=True)
    await files._pipe_file(f"{place}/a", b"data")
    async with await files.open_async(f"{place}/b", "wb") as file:
        await file.write(b"1" * MIB)
        await file.write(b"2")
    async with await files.open_async(f"{place}/b") as file:
        assert (file.size, await file.read(2), len(await file.read())) == (MIB + 1, b"11", MIB - 1)
    with pytest.raises(ZeroDivisionError):
        async with await files.open_async(f"{place}/a", "wb") as file:
            await file.write(b"half")
            raise ZeroDivisionError
    assert await files._cat_file(f"{place}/a") == b"data"
    for call, kind in (
        (files.open_async(f"{place}/none"), FileNotFoundError),
        (files.open_async("a", "w"), ValueError),
    ):
        with pytest.raises(kind):
            await call
    with pytest.raises(RuntimeError, match="asynchronous"):
        files.open(f"{place}/new", "wb").close()
    await files.handle.aclose()


def test_threads_share_a_storage_and_leave_nothing(tmp_path: Path) -> None:
    def work(number: int) -> None:
        fsspec.filesystem("micelio", target=tmp_path / "root").pipe(f"{number}", b"")

    work(0)
    before = open_descriptors(), set(_open.loops[get_loop()].storages)
    for _ in range(5):  # each time other threads, which have file systems of their own
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
    assert (open_descriptors(), set(_open.loops[get_loop()].storages)) == before


def test_a_forked_child_goes_on_with_the_same_file_system(tmp_path: Path) -> None:
    files = fsspec.filesystem("micelio", target=tmp_path / "root")
    files.pipe("a", b"parent")

    def child() -> None:
        assert files.cat("a") == b"parent"
        files.pipe("b", b"child")

    assert wait_for(start(partial(asyncio.to_thread, child))) == 0
    assert files.cat("b") == b"child"


SCRIPT = """
    import sys, fsspec
    files = fsspec.filesystem("micelio", target=sys.argv[1])
    files.pipe("old", b"old")
    try:
        with files.open("old", "wb") as file:
            file.write(b"x" * (6 << 20))
            print("written", flush=True)
            sys.stdin.read()
    except KeyboardInterrupt:
        print(files.cat("old"), files.find(""), flush=True)
"""


def test_an_interruption_publishes_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path / "root")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
    assert (process.returncode, out, errors) == (0, b"b'old' ['old']\n", b"")


def test_an_interrupted_call_is_cancelled_before_it_comes_back(files: MicelioFileSystem) -> None:
    begun, ended = threading.Event(), threading.Event()

    async def forever() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    def interrupt() -> None:
        begun.wait()
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # however pytest was started
    try:
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            files.run(forever())
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.is_set()
    thread.join()


# -- where it is


def test_the_target_is_an_option_and_travels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = fsspec.filesystem("micelio", target=str(tmp_path / "root"))
    assert fsspec.filesystem("micelio", target=str(tmp_path / "root")) is files
    files.pipe("a", b"1")
    for copied in (pickle.loads(pickle.dumps(files)), fsspec.AbstractFileSystem.from_json(files.to_json())):
        assert copied == files
        assert copied.cat("a") == b"1"
    with_handle = MicelioFileSystem(shared(tmp_path / "root"))
    assert with_handle.handle == files.handle
    monkeypatch.setenv("STORAGE_LOCAL_PATH", str(tmp_path / "root"))
    monkeypatch.setenv("REPORTS_STORAGE_URL", f"file://{tmp_path}/reports")
    MicelioFileSystem.clear_instance_cache()
    with fsspec.open("micelio://a") as file:
        assert file.read() == b"1"
    with fsspec.open("micelio:///b", "wb", environ_prefix="REPORTS_") as file:
        file.write(b"2")
    assert (tmp_path / "reports" / "b").read_bytes() == b"2"


def test_what_is_no_option_or_no_place_is_refused() -> None:
    with pytest.raises(TypeError, match="'traget' is not an option"):
        fsspec.filesystem("micelio", traget="x")
    with pytest.raises(ConfigError, match="name it"):
        fsspec.filesystem("micelio", target="memory:")


def test_urls_are_chained(files: MicelioFileSystem, target: str, place: str, tmp_path: Path) -> None:
    with files.open(f"{place}/a.zip", "wb") as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x/y.txt", "inside")
    options = {"micelio": {"target": target}}
    with fsspec.open(f"zip://x/y.txt::micelio://{place}/a.zip", **options) as file:
        assert file.read() == b"inside"
    files.pipe(f"{place}/plain", b"plain")
    caching = {"simplecache": {"cache_storage": str(tmp_path)}, **options}
    with fsspec.open(f"simplecache::micelio://{place}/plain", **caching) as file:
        assert file.read() == b"plain"
    below = fsspec.filesystem("dir", path=place, fs=files)
    assert below.cat("plain") == b"plain"


def test_urls_are_signed() -> None:
    config = LocalConfig(path="/nowhere", public_url="https://files.example.org/", url_keys="k" * 32)
    url = MicelioFileSystem(config).sign("a/b", expiration=60)
    assert url.startswith("https://files.example.org/a/b?")


# -- who reads and writes through it


def test_pandas_and_pyarrow(files: MicelioFileSystem, target: str, place: str) -> None:
    table = pandas.DataFrame({"a": range(1000), "b": [f"{n % 7}" for n in range(1000)]})
    options = {"target": target}
    for name, write, read in (
        ("t.csv", partial(table.to_csv, index=False), partial(pandas.read_csv, dtype={"b": str})),
        ("t.parquet", table.to_parquet, pandas.read_parquet),
        ("t.json.gz", table.to_json, partial(pandas.read_json, dtype={"b": str})),
    ):
        write(f"micelio://{place}/{name}", storage_options=options)
        assert read(f"micelio://{place}/{name}", storage_options=options).equals(table), name
    arrow = PyFileSystem(FSSpecHandler(files))
    dataset.write_dataset(
        pyarrow.Table.from_pandas(table), f"{place}/set", filesystem=arrow, format="parquet", partitioning=["b"]
    )
    found = dataset.dataset(f"{place}/set", filesystem=arrow, partitioning=["b"])
    assert len(found.files) == 7
    assert found.to_table(columns=["a"]).sort_by("a")["a"].to_pylist() == list(range(1000))


def test_pandas_that_fails_in_the_middle_publishes_nothing(target: str, files: MicelioFileSystem, place: str) -> None:
    class Odd:
        def __str__(self) -> str:
            raise ZeroDivisionError

    table = pandas.DataFrame({"a": ["x" * 1000] * 10_000 + [Odd()]})
    with pytest.raises(ZeroDivisionError):
        table.to_csv(f"micelio://{place}/t.csv", storage_options={"target": target}, chunksize=100)
    assert files.find(place) == []


def test_universal_paths(target: str, place: str) -> None:
    path = UPath(f"micelio://{place}/d/a.txt", target=target)
    path.write_text("text")
    assert (path.read_text(), path.exists(), path.is_file(), path.stat().st_size) == ("text", True, True, 4)
    assert [each.name for each in path.parent.iterdir()] == ["a.txt"]
    assert [each.path for each in UPath(f"micelio://{place}", target=target).glob("**/*.txt")] == [f"{place}/d/a.txt"]
    path.rename(path.parent / "b.txt")
    assert (path.parent / "b.txt").read_bytes() == b"text"
    (path.parent / "b.txt").unlink()
    assert not path.parent.exists()


def test_llama_index(files: MicelioFileSystem, place: str) -> None:
    files.pipe({f"{place}/docs/{number}.txt": f"document {number}".encode() for number in range(3)})
    documents = SimpleDirectoryReader(input_dir=f"{place}/docs", fs=files).load_data()
    assert sorted(document.text for document in documents) == ["document 0", "document 1", "document 2"]
    store = SimpleDocumentStore()
    store.add_documents(documents)
    store.persist(f"{place}/index/docstore.json", fs=files)
    again = SimpleDocumentStore.from_persist_path(f"{place}/index/docstore.json", fs=files)
    assert set(again.docs) == set(store.docs)
