"""The `micelio-storage` command as a process: pipes, terminals, signals and memory."""

from __future__ import annotations

import asyncio
import gc
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.commands import PATIENCE, command, is_one_line, process, running, stored, use_storage

from micelio_storage.cli._pipes import CHUNK, Interruptible

MIB = 1 << 20
MOST_MEMORY = 64 * MIB  # bytes that streaming 120 MiB may take: 22-36 were measured, 16 of them what is imported


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return use_storage(tmp_path, monkeypatch)


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


@pytest.mark.parametrize(
    ("arguments", "modules"),
    [("ls", {"_objects"}), ("-s memory: rm --help", {"_changes"}), ("--help", {"_objects", "_changes", "_trials"})],
)
def test_a_command_loads_what_it_needs_alone(root: Path, arguments: str, modules: set[str]) -> None:
    code = (
        "import sys; from micelio_storage.cli._app import run; run(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments.split()], capture_output=True, timeout=PATIENCE)
    loaded = {name.removeprefix("micelio_storage.cli.") for name in done.stderr.decode().split()}
    assert loaded & {"_objects", "_changes", "_trials"} == modules
    assert "rich" not in loaded


def test_a_warning_is_one_line_too(root: Path) -> None:
    root.mkdir()
    root.chmod(0o777)
    shown = process("ls").stderr.decode()
    assert is_one_line(shown)
    assert shown.startswith("micelio-storage: warning: ")


def test_check_reports_that_the_storage_in_memory_keeps_every_promise(root: Path) -> None:
    done = process("check", "memory:")
    *lines, summary = done.stdout.decode().splitlines()
    assert (done.returncode, done.stderr) == (0, b""), done.stdout
    assert all(line.startswith("kept ") for line in lines)
    assert summary.startswith(f"{len(lines)} of {len(lines)} promises are kept by the memory of this process")


STREAM = """
import sys
from micelio_storage.cli._app import run
from micelio_storage.cli._measure import PeakMemory
memory = PeakMemory()
code = run(sys.argv[1:])
sys.stderr.write(str(memory.bytes_over_start()))
sys.exit(code)
"""


def test_large_streams_pass_through_in_little_memory(root: Path) -> None:
    block = os.urandom(MIB)
    blocks = [number.to_bytes(4, "big") + block[4:] for number in range(120)]
    child = subprocess.Popen(
        [sys.executable, "-c", STREAM, "put", "-", "big"], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with child:
        assert child.stdin is not None
        child.stdin.writelines(blocks)
        _, err = child.communicate(timeout=PATIENCE)
    assert child.returncode == 0
    assert int(err) < MOST_MEMORY
    assert (root / "big").stat().st_size == 120 * MIB
    done = subprocess.run([sys.executable, "-c", STREAM, "cat", "big"], capture_output=True, timeout=PATIENCE)
    assert done.returncode == 0
    assert done.stdout == b"".join(blocks)
    assert int(done.stderr) < MOST_MEMORY


@pytest.mark.by_turns
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


@pytest.mark.by_turns
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


@pytest.mark.by_turns
@pytest.mark.parametrize(("stream", "arguments"), [(0, ("put", "-", "k")), (1, ("ls",)), (1, ("cat", "k"))])
def test_a_closed_standard_stream_is_one_line(root: Path, stream: int, arguments: Sequence[str]) -> None:
    root.mkdir()  # what only reads makes no storage, and says that there is none
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {stream}>&-', "sh", *command(*arguments)], capture_output=True, timeout=PATIENCE
    )
    assert done.returncode == 1
    assert is_one_line(done.stderr.decode())
    assert stored(root) == set()


# -- Ctrl-C, and whoever else asks the command to end

SIGNALS = {
    signal.SIGINT: (130, b"interrupted"),
    signal.SIGTERM: (143, b"terminated"),
    signal.SIGHUP: (129, b"the terminal has gone"),
}
every_signal = pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)


def interrupted(child: subprocess.Popen[bytes], number: signal.Signals = signal.SIGINT) -> None:
    code, words = SIGNALS[number]
    child.send_signal(number)
    assert child.wait(PATIENCE) == code
    assert child.stderr is not None
    assert child.stderr.read() == b"micelio-storage: " + words + b"\n"


@pytest.mark.by_turns
@every_signal
@pytest.mark.case("G9")
def test_asked_to_end_while_it_waits_for_input_put_leaves_nothing(root: Path, number: signal.Signals) -> None:
    with running("put", "-", "k", stdin=subprocess.PIPE) as child:
        assert child.stdin is not None
        child.stdin.write(bytes(3 * MIB))  # more than a pipe holds: when this returns, the command is reading
        child.stdin.flush()
        interrupted(child, number)
    assert stored(root) == set()


@pytest.mark.usefixtures("root")
@pytest.mark.case("G9")
def test_interrupted_while_a_module_makes_a_class_the_command_ends_as_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "typer.py").write_text(
        "import signal\n"
        "class Odd:\n    def __set_name__(self, *_):\n        signal.raise_signal(signal.SIGINT)\n"
        "class Made:\n    odd = Odd()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "odd"), prepend=os.pathsep)
    done = process("ls")
    assert (done.returncode, done.stderr) == (130, b"")


def test_what_is_ignored_stays_ignored(root: Path) -> None:
    ignoring = 'trap "" HUP; exec "$@"'  # as `nohup` does
    with subprocess.Popen(
        ["/bin/sh", "-c", ignoring, "sh", *command("put", "-", "k")], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdin is not None
        child.stdin.write(bytes(3 * MIB))
        child.stdin.flush()
        child.send_signal(signal.SIGHUP)
        child.stdin.close()
        assert child.wait(PATIENCE) == 0
    assert stored(root) == {"k"}


@pytest.mark.case("G9")
def test_interrupted_while_nobody_reads_its_output_cat_ends(root: Path) -> None:
    process("put", "-", "big", data=bytes(4 * MIB))
    with running("cat", "big", stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.read(1)
        interrupted(child)


def test_interrupted_while_nobody_writes_to_a_named_pipe_put_ends(root: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with running("put", str(tmp_path / "pipe"), "k") as child:
        wait_until(lambda: has_open(child.pid, tmp_path / "pipe") and is_asleep(child.pid))
        interrupted(child)
    assert stored(root) == set()


def test_where_interrupts_are_ignored_the_command_goes_on(root: Path) -> None:
    """As it is in the background of a script, and below `nohup`: who ignored them meant the command as well."""
    ignoring = [sys.executable, "-c", IGNORING, *command("put", "-", "k")]
    with subprocess.Popen(ignoring, stdin=subprocess.PIPE) as child:
        assert child.stdin is not None
        child.stdin.write(bytes(3 * MIB))
        child.stdin.flush()
        child.send_signal(signal.SIGINT)
        child.stdin.close()
        assert child.wait(PATIENCE) == 0
    assert process("cat", "k").stdout == bytes(3 * MIB)


def test_children_of_tests_heed_interrupts_even_where_the_tests_are_to_ignore_them() -> None:
    child = f"import signal; print(signal.getsignal({signal.SIGINT:d}) is signal.default_int_handler)"
    parent = f"""
import subprocess, sys
from support.signals import let_children_be_ended
let_children_be_ended()
subprocess.run([sys.executable, "-c", {child!r}], check=True)
"""
    tests = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    ignoring = [sys.executable, "-c", IGNORING, sys.executable, "-c", parent]
    done = subprocess.run(ignoring, env=tests, capture_output=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout) == (0, b"True\n"), done.stderr


IGNORING = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"


@pytest.mark.case("L5")
def test_interrupted_while_nobody_reads_a_named_pipe_get_ends(root: Path, tmp_path: Path) -> None:
    process("put", "-", "k", data=b"1")
    os.mkfifo(tmp_path / "pipe")
    with running("get", "k", "pipe") as child:
        wait_until(lambda: has_open(child.pid, root))
        interrupted(child)
    assert sorted(os.listdir(root)) == [".micelio", "k"]


def has_open(process_id: int, path: Path) -> bool:
    """Whether the process has this directory open, as a storage has its root."""
    for name in Path(f"/proc/{process_id}/fd").iterdir():
        try:
            if os.path.samefile(name, path):
                return True
        except FileNotFoundError:  # closed meanwhile, or no file
            continue
    return False


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
        streams: dict[str, Any] = {name: terminal if value == "terminal" else value for name, value in options.items()}
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


@pytest.mark.by_turns
@pytest.mark.parametrize(
    ("answer", "code", "left"), [(b"y\n", 0, {"b"}), (b"n\n", 1, {"a/1", "b"}), (b"\n", 1, {"a/1", "b"})]
)
def test_rm_of_a_prefix_asks_on_a_terminal(root: Path, answer: bytes, code: int, left: set[str]) -> None:
    for key in ("a/1", "b"):
        process("put", "-", key)
    got, shown = on_a_terminal(("rm", "--prefix", "a/"), answer, stdin="terminal", stdout=subprocess.DEVNULL)
    assert got == code
    assert f"Remove 1 object (0 bytes) with keys that begin with 'a/' in {root}? [y/N]".encode() in shown
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


def test_the_demo_says_on_a_terminal_what_it_does(root: Path, tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    arguments = ("--storage", "memory:", "demo", "directory", "--artifact-mib", "1")
    code, shown = on_a_terminal(arguments, stdout=subprocess.DEVNULL)
    assert code == 0
    assert b"changing the metadata" in shown


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


async def test_a_pipe_that_breaks_while_its_writer_is_cancelled_is_not_reported_as_forgotten() -> None:
    def breaks_at_the_end(end: int) -> None:
        select.select([end], [], [])
        raise BrokenPipeError

    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.append(context))
    async with Interruptible() as thread:
        writing = asyncio.create_task(thread.run(breaks_at_the_end))
        await asyncio.sleep(0)
        writing.cancel()
        await asyncio.wait([writing])
    del thread, writing
    gc.collect()
    assert reported == []
