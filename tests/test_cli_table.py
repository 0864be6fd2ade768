"""What holds of every command alike: help, `--json`, exit codes, `-s` on both sides, pipes, terminals, colours."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import shutil
import subprocess
import tarfile
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typer
from support.commands import PATIENCE, command, is_one_line, use_storage
from typer.core import TyperGroup

from micelio_storage import LocalConfig, Session, open_storage, testing
from micelio_storage.cli import _app, _trials
from micelio_storage.cli._help import WIDTH
from micelio_storage.cli.serve import _server
from micelio_storage.drivers.s3 import doctor
from micelio_storage.drivers.s3.doctor import Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A command, with arguments that succeed on a storage that has the object k of 3 bytes."""

    arguments: Sequence[str] = ()
    keys: Sequence[str]
    """What each line of `--json` has, or the last one where others come before it."""

    quiet: bool = False
    """Whether it prints nothing without `--json`."""

    on_storage: bool = True
    """Whether it has `--storage`."""

    code: int = 0
    missing: Sequence[str] | None = None
    """Arguments for which the answer is: not found."""


S3 = "s3://bucket?endpoint=http://127.0.0.1:9"
TABLE = {
    "put": Row(arguments=["source", "new"], keys=["key", "etag", "size"]),
    "get": Row(arguments=["k", "copy"], keys=["key", "path", "size"], quiet=True, missing=["none"]),
    "cat": Row(arguments=["k"], keys=["key", "offset", "base64"], missing=["none"]),
    "ls": Row(keys=["key", "etag", "size", "modified"]),
    "stat": Row(arguments=["k"], keys=["key", "etag", "size", "modified", "content_type"], missing=["none"]),
    "url": Row(arguments=["k"], keys=["key", "url", "method", "expires", "until", "headers"], code=1),
    "rm": Row(arguments=["k"], keys=["key", "removed"], quiet=True),
    "cp": Row(arguments=["k", "new"], keys=["key", "etag", "size"], quiet=True, missing=["none", "new"]),
    "mv": Row(arguments=["k", "new"], keys=["key", "etag", "size"], quiet=True, missing=["none", "new"]),
    "sync": Row(
        arguments=["directory", "memory:"],
        keys=["copied", "unchanged", "removed", "skipped", "failed", "bytes", "seconds"],
        on_storage=False,
        missing=["file://{root}/none", "directory"],
    ),
    "events": Row(arguments=["abc"], keys=["seq", "at", "id", "data"]),
    "snapshot create": Row(arguments=["abc"], keys=["id", "session", "files", "bytes", "consistent", "tags"]),
    "snapshot ls": Row(arguments=["abc"], keys=["id", "parent", "created", "message", "events", "left"]),
    "snapshot diff": Row(
        arguments=["abc", "latest~1", "latest"],
        keys=["path", "kind", "size", "former"],
        missing=["abc", "latest", "latest~2"],
    ),
    "snapshot restore": Row(
        arguments=["abc", "latest~1"],
        keys=["copied", "unchanged", "deleted", "conflicts", "skipped", "undo"],
        missing=["none", "latest"],
    ),
    "snapshot fork": Row(
        arguments=["abc", "latest", "new"], keys=["id", "session", "parent"], quiet=True, missing=["abc", "none", "x"]
    ),
    "snapshot thin": Row(arguments=["abc", "--last", "1"], keys=["deleted", "dry_run"]),
    "workspace load": Row(
        arguments=["abc", "loaded"], keys=["copied", "unchanged", "removed", "failed"], missing=["none", "loaded"]
    ),
    "workspace save": Row(arguments=["abc", "directory"], keys=["id", "session", "parent", "files"]),
    "uploads": Row(
        keys=["id", "key", "length", "received", "expires", "is_done"], missing=["-s", "file://{root}/none"]
    ),
    "sweep": Row(
        arguments=["--idle", "30"], keys=["kept", "held", "expiring", "revived", "deleted", "failed", "bytes"]
    ),
    "touch": Row(arguments=["abc"], keys=["session", "holds"], quiet=True, missing=["none"]),
    "hold": Row(arguments=["abc", "case 4711"], keys=["session", "holds"], quiet=True, missing=["none", "why"]),
    "release": Row(arguments=["abc", "case 4711"], keys=["session", "holds"], quiet=True),
    "archive": Row(
        arguments=["k", "copy.zip"],
        keys=["prefix", "path", "kind", "files", "size"],
        quiet=True,
        missing=["none", "copy.zip"],
    ),
    "unarchive": Row(
        arguments=["archive.tar", "below/", "--dry-run"], keys=["prefix", "kind", "files", "bytes", "dry_run"]
    ),
    "collect": Row(keys=["clean", "collected", "waiting", "failed", "objects", "bytes", "pins", "seconds"]),
    "migrate": Row(
        arguments=["file://{root}", "memory:"],
        keys=["copied", "skipped", "failed", "bytes", "seconds"],
        on_storage=False,
        missing=["file://{root}/none", "memory:"],
    ),
    "serve": Row(keys=["url", "storage", "read_only"], missing=["file://{root}/none"]),
    "policy": Row(arguments=["iam", S3], keys=["Version", "Statement"], on_storage=False),
    "doctor": Row(arguments=[], keys=["check", "status", "text"]),
    "verify": Row(keys=["verified", "damaged", "bytes"], missing=["file://{root}/none"]),
    "soak": Row(arguments=["--minutes", "0.005", "--processes", "1", "--tasks", "1"], keys=["operations", "losses"]),
    "check": Row(keys=["kept", "of", "seconds"]),
    "demo": Row(arguments=["directory", "--artifact-mib", "1", "--yes"], keys=["files", "put", "lateness", "place"]),
}
NAMES = list(TABLE)
ON_STORAGE = [name for name, row in TABLE.items() if row.on_storage]
FINDINGS = [Finding(check="clock", status="ok", text="within 1 s"), Finding(check="tls", status="note", text="none")]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A storage with one object, and files to store; the examinations are of the shortest kind."""
    root = use_storage(tmp_path, monkeypatch)
    root.mkdir(mode=0o700)
    (root / "k").write_text("abc")
    log = root / "sessions/abc/events/00000000000000000000.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text('{"v":1,"seq":0,"at":"2026-11-28T00:57:56.123Z","id":"a","data":{"n":1}}\n')
    upload = root / "uploads" / ("0" * 32) / "upload"
    upload.parent.mkdir(parents=True)
    upload.write_text('{"v":1,"key":"inbox/a","length":3,"lifetime":3600}')
    (tmp_path / "source").write_text("new")
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory" / "file").write_text("text")
    asyncio.run(keep_twice(root))
    with tarfile.open(tmp_path / "archive.tar", "w") as tar:
        tar.add(tmp_path / "source", "source")

    async def diagnose(*_: object, **__: object) -> AsyncGenerator[Finding, None]:
        for finding in FINDINGS:
            yield finding

    monkeypatch.setattr(doctor, "diagnose", diagnose)

    async def serve_nobody(*_: object) -> None:
        """End at once."""

    monkeypatch.setattr(_server, "serve_until_cancelled", serve_nobody)
    monkeypatch.setattr(_trials, "run_all", partial(testing.run_all, checks=testing.CHECKS[:2]))
    return root


async def keep_twice(root: Path) -> None:
    """Make two snapshots that differ."""
    async with open_storage(LocalConfig(path=root)) as storage:
        session = Session(storage, "abc")
        await session.snapshots.create("first")
        await session.files.put("a", b"a")
        await session.snapshots.create("second")


Answer = tuple[int, str, str]
Said = Callable[..., Answer]


@pytest.fixture
def said(root: Path, capfd: pytest.CaptureFixture[str]) -> Said:
    def run(*arguments: str) -> Answer:
        code = _app.run(arguments)
        return code, *capfd.readouterr()

    return run


def arguments_of(name: str, root: Path, *, arguments: Sequence[str] | None = None) -> list[str]:
    """The arguments behind the command's name; doctor wants a storage of its own kind."""
    given = TABLE[name].arguments if arguments is None else arguments
    return [*([] if name != "doctor" else ["-s", S3]), *(one.format(root=root) for one in given)]


def test_every_command_is_in_the_table() -> None:
    group: Any = typer.main.get_command(_app.whole())
    names = [
        f"{name} {inner}".strip()
        for name, one in group.commands.items()
        for inner in (one.commands if isinstance(one, TyperGroup) else [""])
    ]
    assert sorted(names) == sorted(TABLE)


@pytest.mark.by_turns
@pytest.mark.parametrize("name", ["", *NAMES])
def test_help_fits_and_cuts_no_sentence(said: Said, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    command = name.split()
    code, out, err = said(*command, "-h")
    assert (code, err) == (0, "")
    assert said(*command, "--help") == (0, out, "")
    assert max(map(len, out.splitlines())) <= WIDTH
    assert re.findall(r"\[\[|<[a-z]|\{|\\\[|\w\.\.\.$|None", out, flags=re.MULTILINE) == []
    assert "-h, --help" in out
    if name:
        assert "--json" in out
        assert ("-s, --storage" in out) == TABLE[name].on_storage


def test_the_list_of_commands_has_the_whole_first_paragraph_of_each(said: Said) -> None:
    for name in NAMES:
        *group, last = name.split()
        listed = " ".join(said(*group, "--help")[1].split())
        first = " ".join(said(*name.split(), "--help")[1].split("\n\n")[1].split())
        assert f" {last} {first}" in listed


def test_options_that_mean_the_same_have_one_name(said: Said) -> None:
    for name in NAMES:
        text = said(*name.split(), "--help")[1]
        for other in ("--at-once", "--jobs", "--parallel", "--format", "--force"):
            assert other not in text


@pytest.mark.by_turns
@pytest.mark.parametrize("name", NAMES)
def test_json_is_an_object_on_every_line(said: Said, root: Path, name: str) -> None:
    row = TABLE[name]
    code, out, err = said(*name.split(), *arguments_of(name, root), "--json")
    assert code == row.code
    if code:
        assert (out, is_one_line(err)) == ("", True)
        return
    lines = [json.loads(line) for line in out.splitlines()]
    assert err == ""
    assert all(isinstance(line, dict) for line in lines)
    assert set(row.keys) - set(lines[-1]) == set()


@pytest.mark.by_turns
@pytest.mark.parametrize("name", NAMES)
def test_without_a_terminal_nothing_is_drawn(said: Said, root: Path, name: str) -> None:
    row = TABLE[name]
    code, out, err = said(*name.split(), *arguments_of(name, root))
    assert code == row.code
    assert (out == "") == (row.quiet or code != 0)
    assert err == "" if code == 0 else is_one_line(err)
    assert "\x1b" not in out + err
    assert "\r" not in out + err


@pytest.mark.parametrize("name", NAMES)
def test_wrong_usage_is_2_and_one_line(said: Said, name: str) -> None:
    code, out, err = said(*name.split(), "--no-such-option")
    assert (code, out) == (2, "")
    assert is_one_line(err)
    assert f"micelio-storage {name} --help shows how" in err


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row.missing is not None])
def test_what_is_missing_is_3_and_one_line(said: Said, root: Path, name: str) -> None:
    code, out, err = said(*name.split(), *arguments_of(name, root, arguments=TABLE[name].missing))
    assert (code, out) == (3, "")
    assert is_one_line(err)


@pytest.mark.by_turns
@pytest.mark.parametrize("name", ON_STORAGE)
def test_the_storage_may_be_named_before_the_command_or_behind_it(
    said: Said, root: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("STORAGE_BACKEND", "nonsense")  # which is not looked at then
    url = S3 if name == "doctor" else f"file://{root}"
    arguments = [one.format(root=root) for one in TABLE[name].arguments]
    words = name.split()
    ways = [[*words, *arguments, "-s", url], ["-s", url, *words, *arguments], [*words, f"--storage={url}", *arguments]]
    for given in ways:
        (root / "k").write_text("abc")
        (root / "new").unlink(missing_ok=True)
        shutil.rmtree(root / "sessions/new", ignore_errors=True)
        assert said(*given)[0] == TABLE[name].code, given


@pytest.mark.parametrize("name", ON_STORAGE)
def test_two_storages_are_refused(said: Said, root: Path, name: str) -> None:
    code, out, err = said("-s", "memory:", *name.split(), *arguments_of(name, root), "-s", f"file://{root}")
    assert (code, out) == (2, "")
    assert is_one_line(err)


@pytest.mark.by_turns
@pytest.mark.parametrize("name", NAMES)
def test_a_closed_pipe_ends_the_command_silently(
    root: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as nobody_reads:
        monkeypatch.setattr("sys.stdout", nobody_reads)
        code = _app.run([*name.split(), *arguments_of(name, root), "--json"])
        monkeypatch.undo()
    out, err = capfd.readouterr()
    assert (code, out) == (1, "")
    assert is_one_line(err) if TABLE[name].code else err == ""


def on_a_terminal(*arguments: str, answer: bytes = b"", **environ: str) -> tuple[int, str]:
    """The exit code, and what the command draws on a terminal of 100 columns, standard error included."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command(*arguments),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": str(WIDTH), **environ},
    ) as child:
        os.close(theirs)
        os.write(ours, answer)
        shown = b""
        with suppress(OSError):  # the terminal's other end was closed
            while data := os.read(ours, 65536):
                shown += data
        code = child.wait(PATIENCE)
    os.close(ours)
    return code, shown.decode()


COLOUR = re.compile(r"\x1b\[[0-9;]*\b(3[0-8]|4[0-8]|9[0-7])(;[0-9;]*)?m")


@pytest.mark.by_turns
@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("doctor", "check", "soak", "serve")])
def test_no_color_keeps_colours_out_of_terminals(root: Path, name: str) -> None:
    code, shown = on_a_terminal(*name.split(), *arguments_of(name, root), NO_COLOR="1")
    assert code == TABLE[name].code, shown
    assert not COLOUR.search(shown)


def test_there_would_be_colours_to_find(root: Path) -> None:
    (root / "large").write_bytes(bytes(40 << 20))
    code, shown = on_a_terminal("get", "large", "copy")
    assert code == 0
    assert COLOUR.search(shown)


# -- questions


def test_rm_asks_how_much_of_what_is_to_be_removed(root: Path) -> None:
    (root / "k2").write_text("12345")
    for answer, code in ((b"n\n", 1), (b"\n", 1), (b"y\n", 0)):
        got, shown = on_a_terminal("rm", "--prefix", "k", answer=answer)
        assert f"Remove 2 objects (8 bytes) with keys that begin with 'k' in {root}?" in " ".join(shown.split())
        assert got == code
        assert (root / "k").exists() == bool(code)


def test_rm_dry_run_names_what_it_would_remove_and_removes_nothing(said: Said, root: Path) -> None:
    assert said("rm", "k", "none", "k", "--dry-run") == (0, "k\nwould be removed: 1 object (3 bytes)\n", "")
    code, out, _ = said("rm", "--prefix", "k", "--dry-run", "--json")
    assert (code, [json.loads(line) for line in out.splitlines()]) == (
        0,
        [{"key": "k", "size": 3}, {"removed": 1, "skipped": 0, "bytes": 3, "dry_run": True}],
    )
    assert (root / "k").exists()


def test_the_demo_asks_before_it_writes_into_a_storage_that_the_environment_names(said: Said, root: Path) -> None:
    code, out, err = said("demo", "directory", "--artifact-mib", "0")
    assert (code, out, is_one_line(err)) == (2, "", True)
    assert "--yes" in err
    got, shown = on_a_terminal("demo", "directory", "--artifact-mib", "0", answer=b"n\n")
    assert got == 1
    assert f"in {root}?" in shown
    assert [path.name for path in (root / "sessions").iterdir()] == ["abc"]


def test_the_demo_asks_nothing_where_it_was_told_where_or_nothing_is_yet(
    said: Said, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said("demo", "directory", "--artifact-mib", "0", "-s", f"file://{root}")[0] == 0
    monkeypatch.setenv("STORAGE_LOCAL_PATH", f"{root}-new")
    assert said("demo", "directory", "--artifact-mib", "0")[0] == 0


def test_the_demo_names_the_place_that_it_found_itself(said: Said, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STORAGE_LOCAL_PATH")
    monkeypatch.setattr("micelio_storage._open.PRODUCTION_PATH", f"{root}/found")
    code, out, _ = said("demo", "directory", "--artifact-mib", "0")
    assert code == 0
    assert f" in {root}/found\n" in out
    assert "None" not in out


# -- put, mv, cp, completion


def test_put_prints_the_etag_that_a_condition_takes(said: Said, root: Path) -> None:
    etag = said("put", "source", "new")[1].strip()
    assert json.loads(said("stat", "new", "--json")[1])["etag"] == etag
    assert said("put", "source", "new", "--if-match", etag)[0] == 0


def test_mv_moves_and_keeps_what_is_there_if_asked_to(said: Said, root: Path) -> None:
    assert said("mv", "k", "moved") == (0, "", "")
    assert {path.name for path in root.iterdir() if path.is_file()} == {"moved"}
    said("put", "source", "k")
    for name in ("mv", "cp"):
        code, _, err = said(*name.split(), "k", "moved", "--if-absent")
        assert (code, is_one_line(err)) == (1, True)
    assert (root / "moved").read_text() == "abc"
    assert said("cp", "-r", "k", "x", "--if-absent")[0] == 2


@pytest.mark.by_turns
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_can_be_shown_and_completes_commands(root: Path, shell: str) -> None:
    environ = os.environ | {"_MICELIO_STORAGE_COMPLETE": f"source_{shell}"}
    shown = subprocess.run(command(), env=environ, capture_output=True, timeout=PATIENCE)
    assert b"_MICELIO_STORAGE_COMPLETE" in shown.stdout
    environ |= {
        "_MICELIO_STORAGE_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": "micelio-storage mi",
        "COMP_CWORD": "1",
        "_TYPER_COMPLETE_ARGS": "micelio-storage mi",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    completed = subprocess.run(command(), env=environ, capture_output=True, timeout=PATIENCE)
    assert b"migrate" in completed.stdout


# -- uploads


def test_a_sweep_removes_the_uploads_that_have_expired(said: Said, root: Path) -> None:
    upload = root / "uploads" / ("0" * 32)
    assert said("uploads", "--dry-run")[0] == 2
    code, out, _ = said("uploads", "--sweep")
    assert (code, out) == (0, "removed: 0 uploads (0 bytes), kept: 1\n")
    (upload / ("0" * 20)).write_text("ab")
    for path in upload.iterdir():
        os.utime(path, (0, 0))
    code, out, _ = said("uploads")
    assert (code, out.split()) == (
        0,
        ["0" * 32, "2", "of", "3", "bytes", "expired", "1970-01-01", "01:00:00Z", "inbox/a"],
    )
    code, out, _ = said("uploads", "--sweep", "--dry-run", "--json")
    first, last = map(json.loads, out.splitlines())
    assert (first["key"], first["received"], first["expires"]) == ("inbox/a", 2, "1970-01-01T01:00:00+00:00")
    assert last == {"removed": 1, "bytes": 2, "kept": 0, "dry_run": True}
    assert upload.exists()
    code, out, _ = said("uploads", "--sweep")
    assert (code, out.splitlines()[-1]) == (0, "removed: 1 upload (2 bytes), kept: 0")
    assert not upload.exists()
