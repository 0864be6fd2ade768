"""What belongs together in sessions: snapshots that lack something, and logs with gaps, are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from micelio_storage import Session, Storage, open_storage
from micelio_storage.cli import _app
from micelio_storage.sessions import verify_sessions
from micelio_storage.transfer import Finding


async def findings(storage: Storage) -> list[Finding]:
    return [finding async for finding in verify_sessions(storage)]


async def make(storage: Storage) -> Session:
    session = Session(storage, "abc")
    await session.files.put("a", b"first")
    await session.files.put("large", bytes(2 << 20))
    await session.snapshots.create()
    await session.events.append("first")
    return session


async def test_what_is_whole_gives_no_finding(storage_everywhere: Storage) -> None:
    session = await make(storage_everywhere)
    await session.fork("def", await session.snapshots.create("again"))
    assert await findings(storage_everywhere) == []


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("/packs/", "the snapshot lacks packs/"),
        ("/trees/", "lacks a part of its manifest"),
        ("short", "lies behind the end of packs/"),
        ("/records/", "is damaged"),
        ("/events/", "does not end with a whole line"),
    ],
)
async def test_what_lacks_something_is_named_with_the_reason(what: str, words: str) -> None:
    async with open_storage("memory:") as storage:
        await make(storage)
        keys = [
            str(entry.key) async for entry in storage.list() if ("/packs/" if what == "short" else what) in entry.key
        ]
        if what in ("/records/", "/events/", "short"):
            await storage.put(keys[0], b"{")
        else:
            await storage.delete(keys[-1])
        found = await findings(storage)
        assert [finding.result for finding in found] == ["damaged"]
        assert words in (found[0].reason or "")
        place = "sessions/abc/events" if what == "/events/" else "snapshots/"
        assert (found[0].key or "").startswith(place)


def test_the_command_looks_at_sessions_too(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "root"
    log = root / "sessions/abc/events/00000000000000000000.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text('{"v":1,"seq":7,"at":"2026-11-28T00:57:56.123Z","id":"a","data":{"n":1}}\n')
    assert _app.run(["verify", f"file://{root}"]) == 1
    assert "damaged   'sessions/abc/events': " in capfd.readouterr().out
    assert _app.run(["verify", f"file://{root}", "--json"]) == 1
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert lines[-1]["damaged"] == 1
    assert _app.run(["verify", f"file://{root}", "--prefix", "sessions/"]) == 0
