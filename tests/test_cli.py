"""The `micelio-storage` command: in this process where that is enough, as a process of its own for pipes, terminals,
signals and memory."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import micelio_storage
from micelio_storage import _cli, _cli_report, testing
from micelio_storage._cli_pipes import CHUNK
from micelio_storage._cli_transfer import receive
from micelio_storage.driver import AccessDeniedError, Download, Key, ReadOptions, UnavailableError, WriteOptions
from micelio_storage.drivers.memory import MemoryDriver

MIB = 1 << 20
PATIENCE = 60  # seconds for a process to do what it is waited for
MOST_MEMORY = 24 * MIB  # bytes that streaming may take, whatever the size: several chunks and the allocator's slack


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the storage of this test is, for the command as for anything else."""
    root = tmp_path / "storage"
    monkeypatch.setenv("STORAGE_BACKEND", "local")
    monkeypatch.setenv("STORAGE_LOCAL_PATH", str(root))
    monkeypatch.setenv("PYTHONPATH", str(Path(micelio_storage.__file__).parent.parent))
    monkeypatch.chdir(tmp_path)
    return root


Answer = tuple[int, str, str]
Said = Callable[..., Answer]


@pytest.fixture
def said(root: Path, capfd: pytest.CaptureFixture[str]) -> Said:
    """Run the command in this process: its exit code, and what it wrote."""

    def run(*arguments: str) -> Answer:
        code = _cli.run(arguments)
        out, err = capfd.readouterr()
        return code, out, err

    return run


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "micelio_storage", *arguments]


def process(*arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command(*arguments), input=data, capture_output=True, timeout=PATIENCE)


def is_one_line(err: str) -> bool:
    return err.startswith("micelio-storage: ") and err.endswith("\n") and err.count("\n") == 1


def stored(root: Path) -> set[str]:
    """All that is in the storage's directory, staging included, but for the locks that stay."""
    locks = root / ".micelio" / "locks"
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and path.parent != locks}


@contextmanager
def running(*arguments: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """The command, killed in the end if it has not ended."""
    with subprocess.Popen(command(*arguments), stderr=subprocess.PIPE, **options) as child:
        try:
            yield child
        finally:
            child.kill()


# -- put, get, cat


def test_what_is_put_from_a_file_comes_back_by_cat(said: Said, tmp_path: Path) -> None:
    (tmp_path / "source").write_text("hello\n")
    assert said("put", "source", "a/b.txt") == (0, "", "")
    assert said("cat", "a/b.txt") == (0, "hello\n", "")


def test_put_keeps_content_type_and_metadata(said: Said, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"12345")
    options = ("--content-type", "text/plain", "--metadata", "owner=ann", "--metadata", "note=a=b")
    said("put", "source", "k", *options)
    code, out, _ = said("stat", "--json", "k")
    info = json.loads(out)
    assert code == 0
    assert (info["key"], info["size"], info["content_type"]) == ("k", 5, "text/plain")
    assert info["metadata"] == {"owner": "ann", "note": "a=b"}


def test_put_if_absent_leaves_an_object_alone(said: Said, tmp_path: Path) -> None:
    (tmp_path / "source").write_text("one")
    assert said("put", "--if-absent", "source", "k")[0] == 0
    (tmp_path / "source").write_text("two")
    code, _, err = said("put", "--if-absent", "source", "k")
    assert (code, is_one_line(err)) == (1, True)
    assert said("cat", "k")[1] == "one"


def test_put_if_match_replaces_the_object_with_that_etag_and_no_other(said: Said, tmp_path: Path) -> None:
    (tmp_path / "source").write_text("one")
    said("put", "source", "k")
    etag = json.loads(said("stat", "--json", "k")[1])["etag"]
    assert said("put", "--if-match", etag, "source", "k")[0] == 0
    assert said("put", "--if-match", etag, "source", "k")[0] == 1


def test_get_names_the_file_as_the_key_ends(said: Said, tmp_path: Path) -> None:
    (tmp_path / "source").write_text("x")
    said("put", "source", "a/b/name.txt")
    assert said("get", "a/b/name.txt") == (0, "", "")
    assert (tmp_path / "name.txt").read_text() == "x"


@pytest.mark.parametrize(("target", "path"), [("other", "other"), ("there", "there/name.txt")])
def test_get_writes_to_a_file_or_into_a_directory(said: Said, tmp_path: Path, target: str, path: str) -> None:
    (tmp_path / "source").write_text("x")
    (tmp_path / "there").mkdir()
    said("put", "source", "a/name.txt")
    assert said("get", "a/name.txt", target)[0] == 0
    assert (tmp_path / path).read_text() == "x"


def test_get_of_a_missing_object_leaves_the_target_alone(said: Said, tmp_path: Path) -> None:
    (tmp_path / "target").write_text("old")
    assert said("get", "missing", "target")[0] == 3
    assert said("get", "missing")[0] == 3
    assert (tmp_path / "target").read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"target", "storage"}


async def test_get_that_fails_halfway_leaves_the_target_alone(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("old")
    async with micelio_storage.Storage(BreakingDriver()) as storage:
        await storage.put("k", bytes(4 * MIB))
        with pytest.raises(UnavailableError):
            await receive(storage, key="k", path=tmp_path / "target", meter=_cli_report.Meter())
    assert texts_in(tmp_path) == {"target": "old"}


def texts_in(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.iterdir()}


class BreakingDriver(MemoryDriver):
    """Downloads break after their first chunk."""

    async def read(self, key: Key, options: ReadOptions) -> Download:
        return BreakingDownload(await super().read(key, options))


class BreakingDownload:
    def __init__(self, inner: Download) -> None:
        self.info = inner.info
        self.span = inner.span
        self.readall = inner.readall
        self.aclose = inner.aclose
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._inner:
            yield chunk
            raise UnavailableError("the line is cut")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), "0123456789"),
        (("--offset", "7"), "789"),
        (("--offset", "-2"), "89"),
        (("--length", "3"), "012"),
        (("--offset", "2", "--length", "3"), "234"),
        (("--offset", "8", "--length", "30"), "89"),
    ],
)
def test_cat_writes_the_part_that_is_asked_for(
    said: Said, tmp_path: Path, options: Sequence[str], expected: str
) -> None:
    (tmp_path / "source").write_text("0123456789")
    said("put", "source", "k")
    assert said("cat", "k", *options) == (0, expected, "")


# -- ls, stat, rm, cp


@pytest.fixture
def tree(said: Said, tmp_path: Path) -> Said:
    (tmp_path / "source").write_text("abc")
    for key in ("a/1", "a/2", "ab", "b", "sessions/s1/files/x", "sessions/s2/files/y/z"):
        said("put", "source", key)
    return said


def test_ls_lists_keys_in_order(tree: Said) -> None:
    assert tree("ls")[1].splitlines() == ["a/1", "a/2", "ab", "b", "sessions/s1/files/x", "sessions/s2/files/y/z"]


def test_ls_takes_a_prefix_as_text(tree: Said) -> None:
    assert tree("ls", "a") == (0, "a/1\na/2\nab\n", "")
    assert tree("ls", "nothing") == (0, "", "")


def test_ls_json_is_one_object_a_line(tree: Said) -> None:
    lines = [json.loads(line) for line in tree("ls", "--json", "a/")[1].splitlines()]
    assert [(line["key"], line["size"]) for line in lines] == [("a/1", 3), ("a/2", 3)]
    assert all(line["etag"] and line["modified"] for line in lines)


def test_ls_long_shows_size_and_time(tree: Said) -> None:
    size, day, clock, key = tree("ls", "--long", "ab")[1].split()
    assert (size, key, day.count("-"), clock.count(":")) == ("3", "ab", 2, 2)


def test_ls_sessions_lists_ids(tree: Said) -> None:
    assert tree("ls", "--sessions")[1] == "s1\ns2\n"
    assert tree("ls", "--sessions", "s2")[1] == "s2\n"
    assert json.loads(tree("ls", "--sessions", "--json", "s1")[1]) == {"session": "s1"}
    assert tree("ls", "--sessions", "--long", "s2")[1].split() == ["1", "files", "3", "bytes", "s2"]


@pytest.mark.parametrize("key", ["[red]alert[/red]", ":smile:", "ключ/鍵", "a b  c", "\\[x]".replace("\\", "")])
def test_odd_keys_are_shown_as_they_are(said: Said, tmp_path: Path, key: str) -> None:
    (tmp_path / "source").write_text("x")
    assert said("put", "source", key)[0] == 0
    assert said("ls")[1] == f"{key}\n"
    assert f"  {key}\n" in said("stat", key)[1]


def test_stat_shows_what_is_known(said: Said, tmp_path: Path) -> None:
    (tmp_path / "source").write_text("abc")
    said("put", "source", "k", "--content-type", "text/plain", "--metadata", "a=b")
    out = said("stat", "k")[1]
    for words in ("key           k", "size          3", "content type  text/plain", "metadata      a=b"):
        assert words in out.splitlines()


def test_rm_removes_what_is_named_and_nothing_else(tree: Said) -> None:
    assert tree("rm", "a/1", "b", "missing") == (0, "", "")
    assert tree("ls", "a")[1] == "a/2\nab\n"


def test_rm_of_a_prefix_needs_yes_where_nobody_can_be_asked(tree: Said) -> None:
    code, out, err = tree("rm", "--prefix", "a/")
    assert (code, out, is_one_line(err)) == (2, "", True)
    assert "--yes" in err
    assert tree("ls", "a/")[1] == "a/1\na/2\n"
    assert tree("rm", "--prefix", "a/", "--yes") == (0, "removed: 2\n", "")
    assert tree("ls", "a")[1] == "ab\n"


@pytest.mark.parametrize("arguments", [(), ("k", "--prefix", "a"), ("--prefix", "", "--yes")])
def test_rm_refuses_what_cannot_be_meant(tree: Said, arguments: Sequence[str]) -> None:
    assert tree("rm", *arguments)[0] == 2
    assert len(tree("ls")[1].splitlines()) == 6


def test_cp_takes_content_type_and_metadata_along(said: Said, tmp_path: Path) -> None:
    (tmp_path / "source").write_text("abc")
    said("put", "source", "k", "--content-type", "text/plain", "--metadata", "a=b")
    assert said("cp", "k", "other") == (0, "", "")
    first, second = (json.loads(said("stat", "--json", key)[1]) for key in ("k", "other"))
    assert first | {"key": 0, "etag": 0, "modified": 0} == second | {"key": 0, "etag": 0, "modified": 0}


# -- errors


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("cat", "missing"), 3),
        (("stat", "missing"), 3),
        (("get", "missing"), 3),
        (("cp", "missing", "other"), 3),
        (("cat", "k", "--offset", "99"), 1),
        (("put", "no-such-file", "k"), 1),
        (("put", ".", "k"), 1),
        (("get", "k", "no/such/directory"), 1),
        (("cat", "/bad"), 2),
        (("stat", "a//b"), 2),
        (("get", ".."), 2),
        (("get", "k", "-"), 2),
        (("ls", "../x"), 2),
        (("put", "k", "a\udcff"), 2),
        (("put", "k", "k", "--if-match", "unquoted"), 2),
        (("put", "k", "k", "--if-match", '"x"', "--if-absent"), 2),
        (("put", "k", "k", "--metadata", "no-equals"), 2),
        (("put", "k", "k", "--metadata", "a=1", "--metadata", "a=2"), 2),
        (("cat", "k", "--length", "-1"), 2),
        (("cat", "k", "--length", "x"), 2),
        (("cat",), 2),
        (("cat", "k", "--no-such-option"), 2),
        (("no-such-command",), 2),
        ((), 2),
        (("--storage", "ftp://x", "ls"), 2),
        (("--storage", "file:///x?no_such=1", "ls"), 2),
        (("check", "relative/path"), 2),
        (("demo", "no-such-directory"), 2),
    ],
    ids=lambda value: " ".join(value).encode("ascii", "replace").decode() if isinstance(value, tuple) else None,
)
def test_each_kind_of_failure_has_its_code_and_one_line(
    said: Said, tmp_path: Path, arguments: Sequence[str], code: int
) -> None:
    (tmp_path / "k").write_text("abc")
    said("put", "k", "k")
    got, out, err = said(*arguments)
    assert (got, out) == (code, "")
    assert is_one_line(err), err


def test_several_failures_are_a_line_each() -> None:
    error = ExceptionGroup("2 of 3", [AccessDeniedError("one"), ExceptionGroup("x", [UnavailableError("two\nlines")])])
    assert _cli_report.error_lines(error) == ["micelio-storage: one", "micelio-storage: two lines"]
    assert _cli_report.exit_code(error) == 1


def test_debug_shows_where_an_error_comes_from(said: Said) -> None:
    assert "Traceback" not in said("cat", "missing")[2]
    code, _, err = said("--debug", "cat", "missing")
    assert code == 3
    assert err.startswith("Traceback")
    assert is_one_line(err.splitlines(keepends=True)[-1])


def test_a_warning_is_one_line_too(said: Said, root: Path) -> None:
    root.mkdir()
    root.chmod(0o777)
    shown = process("ls").stderr.decode()
    assert is_one_line(shown)
    assert shown.startswith("micelio-storage: warning: ")


def test_the_option_before_the_command_chooses_the_storage(said: Said, root: Path, tmp_path: Path) -> None:
    (tmp_path / "source").write_text("x")
    assert said("--storage", f"file://{tmp_path}/other", "put", "source", "k")[0] == 0
    assert (tmp_path / "other" / "k").read_text() == "x"
    assert not root.exists()


# -- check


def test_check_reports_that_the_storage_in_memory_keeps_every_promise(root: Path) -> None:
    done = process("check", "memory:")
    *lines, summary = done.stdout.decode().splitlines()
    assert (done.returncode, done.stderr) == (0, b""), done.stdout
    assert all(line.startswith("kept ") for line in lines)
    assert summary.startswith(f"{len(lines)} of {len(lines)} promises are kept by the memory of this process")


def test_check_names_the_promises_that_a_broken_store_does_not_keep(
    said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = [check for check in testing.CHECKS if "metadata" in check.__name__]
    monkeypatch.setattr(testing, "run_all", partial(testing.run_all, checks=chosen))
    monkeypatch.setattr(_cli, "make_driver", lambda _: ForgetfulDriver())
    code, out, err = said("check", "memory:")
    broken = [line for line in out.splitlines() if line.startswith("BROKEN")]
    assert (code, err) == (1, "")
    assert broken
    assert out.count("        promised: ") == len(broken)
    assert f"{len(chosen) - len(broken)} of {len(chosen)} promises" in out


class ForgetfulDriver(MemoryDriver):
    """Loses the metadata of what is put."""

    async def put(self, key: Key, data: bytes | bytearray | memoryview, options: WriteOptions) -> Any:
        return await super().put(key, data, WriteOptions(condition=options.condition))


# -- the command as a process


def test_the_module_runs_as_the_command(root: Path) -> None:
    done = process("--help")
    assert done.returncode == 0
    assert done.stdout.startswith(b"Usage: micelio-storage ")
    assert process("--version").stdout.startswith(b"micelio-storage")


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_one_line_says_what_to_install(root: Path, missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from micelio_storage.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "ls"], capture_output=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout) == (1, b"")
    assert is_one_line(done.stderr.decode())
    assert b'pip install "micelio_storage[cli]"' in done.stderr


def test_the_library_does_not_import_what_the_command_needs(root: Path) -> None:
    code = "import sys, micelio_storage; sys.exit(bool({'typer', 'rich', 'click'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], timeout=PATIENCE).returncode == 0


STREAM = """
import sys
from micelio_storage._cli import run
from micelio_storage._measure import PeakMemory
memory = PeakMemory()
code = run(sys.argv[1:])
sys.stderr.write(str(memory.bytes_over_start()))
sys.exit(code)
"""


def test_large_streams_pass_through_in_little_memory(root: Path) -> None:
    block = os.urandom(MIB)
    blocks = [number.to_bytes(4, "big") + block[4:] for number in range(40)]
    child = subprocess.Popen(
        [sys.executable, "-c", STREAM, "put", "-", "big"], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with child:
        assert child.stdin is not None
        child.stdin.writelines(blocks)
        _, err = child.communicate(timeout=PATIENCE)
    assert child.returncode == 0
    assert int(err) < MOST_MEMORY
    assert (root / "big").stat().st_size == 40 * MIB
    done = subprocess.run([sys.executable, "-c", STREAM, "cat", "big"], capture_output=True, timeout=PATIENCE)
    assert done.returncode == 0
    assert done.stdout == b"".join(blocks)
    assert int(done.stderr) < MOST_MEMORY


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_standard_input_is_stored_to_the_last_byte(root: Path, size: int) -> None:
    data = os.urandom(size)
    assert process("put", "-", "k", data=data).returncode == 0
    assert (root / "k").read_bytes() == data
    assert process("cat", "k").stdout == data


def test_a_file_redirected_to_standard_input_or_from_output_is_as_good_as_a_pipe(root: Path, tmp_path: Path) -> None:
    data = os.urandom(3 * MIB)
    (tmp_path / "source").write_bytes(data)
    with (tmp_path / "source").open("rb") as source, (tmp_path / "target").open("wb") as target:
        assert subprocess.run(command("put", "-", "k"), stdin=source, timeout=PATIENCE).returncode == 0
        assert subprocess.run(command("cat", "k"), stdout=target, timeout=PATIENCE).returncode == 0
    assert (tmp_path / "target").read_bytes() == data


def test_a_named_pipe_is_a_source(root: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with running("put", str(tmp_path / "pipe"), "k") as child:
        (tmp_path / "pipe").write_text("through the pipe")
        assert child.wait(PATIENCE) == 0
    assert (root / "k").read_text() == "through the pipe"


@pytest.mark.parametrize("arguments", [("cat", "big"), ("ls", "--json")])
def test_a_reader_that_leaves_ends_the_command_quietly(root: Path, arguments: Sequence[str]) -> None:
    process("put", "-", "big", data=bytes(4 * MIB))
    for number in range(1500):
        (root / f"{number:04}-{'x' * 200}").touch()
    with running(*arguments, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.read(1)
        child.stdout.close()
        assert child.wait(PATIENCE) == 1
        assert child.stderr is not None
        assert child.stderr.read() == b""


@pytest.mark.parametrize(("stream", "arguments"), [(0, ("put", "-", "k")), (1, ("ls",)), (1, ("cat", "k"))])
def test_a_closed_standard_stream_is_one_line(root: Path, stream: int, arguments: Sequence[str]) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {stream}>&-', "sh", *command(*arguments)], capture_output=True, timeout=PATIENCE
    )
    assert done.returncode == 1
    assert is_one_line(done.stderr.decode())
    assert stored(root) == set()


# -- Ctrl-C


def interrupted(child: subprocess.Popen[bytes]) -> None:
    child.send_signal(signal.SIGINT)
    assert child.wait(PATIENCE) == 130
    assert child.stderr is not None
    assert child.stderr.read() == b"micelio-storage: interrupted\n"


def test_interrupted_while_it_waits_for_input_put_leaves_nothing(root: Path) -> None:
    with running("put", "-", "k", stdin=subprocess.PIPE) as child:
        assert child.stdin is not None
        child.stdin.write(bytes(3 * MIB))  # more than a pipe holds: when this returns, the command is reading
        child.stdin.flush()
        interrupted(child)
    assert stored(root) == set()


def test_interrupted_while_nobody_reads_its_output_cat_ends(root: Path) -> None:
    process("put", "-", "big", data=bytes(4 * MIB))
    with running("cat", "big", stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.read(1)
        interrupted(child)


def test_interrupted_while_nobody_writes_to_a_named_pipe_put_ends(root: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with running("put", str(tmp_path / "pipe"), "k") as child:
        wait_until(lambda: (root / ".micelio" / "staging").exists() and is_asleep(child.pid))
        interrupted(child)
    assert stored(root) == set()


def wait_until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < until
        os.sched_yield()


def is_asleep(process_id: int) -> bool:
    """Whether every thread of the process waits for something."""
    try:
        texts = [path.read_text() for path in Path(f"/proc/{process_id}/task").glob("*/stat")]
    except (FileNotFoundError, ProcessLookupError):  # one of them has just ended
        return False
    return {text.rpartition(")")[2].split()[0] for text in texts} == {"S"}


# -- on a terminal


def on_a_terminal(arguments: Sequence[str], answer: bytes = b"", **options: Any) -> tuple[int, bytes]:
    """Run the command with a terminal as its standard error (and more, by option): exit code, and what it showed."""
    keyboard, terminal = pty.openpty()
    try:
        streams = {name: terminal if value == "terminal" else value for name, value in options.items()}
        environ = os.environ | {"TERM": "xterm", "COLUMNS": "120"}
        with subprocess.Popen(command(*arguments), stderr=terminal, env=environ, **streams) as child:
            os.close(terminal)
            os.write(keyboard, answer)
            shown = b"".join(iter(lambda: _read(keyboard), b""))
            return child.wait(PATIENCE), shown
    finally:
        os.close(keyboard)


def _read(keyboard: int) -> bytes:
    try:
        return os.read(keyboard, 4096)
    except OSError:  # EIO: nobody has the terminal open any more
        return b""


@pytest.mark.parametrize(
    ("answer", "code", "left"), [(b"y\n", 0, {"b"}), (b"n\n", 1, {"a/1", "b"}), (b"\n", 1, {"a/1", "b"})]
)
def test_rm_of_a_prefix_asks_on_a_terminal(root: Path, answer: bytes, code: int, left: set[str]) -> None:
    for key in ("a/1", "b"):
        process("put", "-", key)
    got, shown = on_a_terminal(("rm", "--prefix", "a/"), answer, stdin="terminal", stdout=subprocess.DEVNULL)
    assert got == code
    assert b"Remove all objects whose keys begin with 'a/'? [y/N]" in shown
    assert stored(root) == left


def test_a_long_transfer_shows_its_progress_on_a_terminal(root: Path, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(bytes(16 * MIB))
    code, shown = on_a_terminal(("put", "source", "[red]key"))
    assert code == 0
    assert b"[red]key" in shown
    assert b"16.8" in shown
    code, shown = on_a_terminal(("cat", "[red]key"), stdout=subprocess.DEVNULL)
    assert (code, b"16.8" in shown) == (0, True)
    code, shown = on_a_terminal(("get", "[red]key", "target"))
    assert (code, b"16.8" in shown) == (0, True)
    assert (tmp_path / "target").read_bytes() == bytes(16 * MIB)


def test_a_short_transfer_shows_no_bar_on_a_terminal(root: Path, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(bytes(MIB))
    code, shown = on_a_terminal(("put", "source", "key"))
    assert (code, b"key" in shown) == (0, False)


def test_what_goes_to_a_terminal_has_no_bar_in_it(root: Path) -> None:
    data = b"line\n" * (2 * MIB)
    process("put", "-", "k", data=data)
    code, shown = on_a_terminal(("cat", "k"), stdout="terminal")
    assert code == 0
    assert shown == data.replace(b"\n", b"\r\n")
