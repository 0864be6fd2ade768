"""A soak finds what is lost: on storages that are changed behind its back, on a store that breaks its word, and in
processes in which one call of the library lies now and then."""

from __future__ import annotations

import asyncio
import json
import os
import textwrap
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path

import pytest
from faults.scale import scaled
from support.commands import process, stored, use_storage
from support.s3_servers import Server, client_of
from support.soaking import config_of, left, strict_bucket

from micelio_storage import LocalConfig, S3Config, Storage, open_storage
from micelio_storage.drivers.memory import MemoryDriver
from micelio_storage.testing.soak import _run
from micelio_storage.testing.soak._model import Kind
from micelio_storage.testing.soak._run import Report, soak
from micelio_storage.testing.soak._session_model import Kept

LONGEST = 100  # seconds, for what is known to be enough much earlier
on_one_loop = pytest.mark.asyncio(loop_factories=["asyncio"])  # a process has a loop of its own, whatever this one is


def kinds(report: Report) -> set[Kind]:
    return {loss.kind for loss in report.losses}


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with strict_bucket(monkeypatch) as server:
        yield server


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


Tamper = Callable[[list[str]], None]


@pytest.fixture
def before_the_last_look(monkeypatch: pytest.MonkeyPatch) -> Callable[[Tamper], None]:
    """Have something done, when all processes have ended, with the keys that are known to have an object: of a delete
    that was cancelled nobody knows, and nothing is then missing."""

    def install(tamper: Tamper) -> None:
        look = _run._Run.last_look

        async def tamper_and_look(run: _run._Run) -> None:
            cells = [cell for worker in run._workers for cell in worker.ledger.cells.items()]
            await asyncio.to_thread(tamper, [key for key, possible in cells if possible and None not in possible])
            await look(run)

        monkeypatch.setattr(_run._Run, "last_look", tamper_and_look)

    return install


def tamper_with(root: Path, keys: list[str]) -> dict[str, set[Kind]]:
    """Do one wrong to each of some objects, from the largest on; gives what has to be found under which key."""
    (scratch,) = root.glob("soak-*")
    paths = [root / key for key in keys]
    gone, rotten, cut, old, *others = sorted(paths, key=lambda path: path.stat().st_size, reverse=True)
    # The one may be a copy of the other.
    source = next(path for path in others if path.read_bytes() != old.read_bytes())
    gone.unlink()
    stamps = {path: path.stat().st_mtime_ns for path in (rotten, cut)}
    rotten.write_bytes(flipped(rotten.read_bytes(), rotten.stat().st_size // 2))
    os.truncate(cut, 1)
    for path, stamp in stamps.items():
        os.utime(path, ns=(stamp, stamp))  # as a bad disk does: with another time it is somebody's version
    source.rename(old)
    strange = old.with_name("nobody-put-this")
    strange.write_bytes(b"x")
    staged = root / ".micelio/staging/of-nobody/file"
    staged.parent.mkdir()
    staged.write_bytes(b"x")
    asyncio.run(put(root, f"{scratch.name}/counters/0", b"1000000\n"))
    wanted: dict[Path, set[Kind]] = {
        gone: {"missing", "listing"},
        rotten: {"wrong bytes"},
        cut: {"wrong bytes", "listing"},
        old: {"older version", "listing"},
        source: {"missing", "listing"},
        strange: {"listing"},
        scratch / "counters/0": {"counter"},
    }
    named = {str(path.relative_to(root)): kinds for path, kinds in wanted.items()}
    return named | {"of-nobody/file": {"left over"}}


async def put(root: Path, key: str, data: bytes) -> None:
    async with open_storage(LocalConfig(path=root)) as storage:
        await storage.put(key, data)


@on_one_loop
async def test_whatever_is_changed_behind_its_back_is_found_and_nothing_else(
    tmpfs: Path, before_the_last_look: Callable[[Tamper], None]
) -> None:
    root = tmpfs / "root"
    wanted: dict[str, set[Kind]] = {}
    before_the_last_look(lambda keys: wanted.update(tamper_with(root, keys)))
    report = await soak(
        LocalConfig(path=root),
        seconds=LONGEST,
        processes=2,
        tasks=4,
        sessions=0,
        kills=False,
        enough=lambda report: report.operations.total() >= 500,
    )
    found: dict[str, set[Kind]] = {}
    for loss in report.losses:
        found.setdefault(loss.key, set()).add(loss.kind)
    assert found == wanted
    assert not list(root.glob("soak-*"))


def tamper_with_sessions(root: Path, run: _run._Run) -> dict[str, set[Kind]]:
    """Take a pack, a record, a live file and an event away, and damage a byte of a pack; each of another session."""
    (scratch,) = root.glob("soak-*")
    packs: dict[str, Path] = {}
    for kept in (each for worker in run._workers for each in worker.kept if each is not None):
        for snapshot in kept.stands:
            for pack in scratch.glob(f"snapshots/*/packs/{snapshot}/*"):
                packs[kept.name] = pack
    (first, pack), (third, rotten), *_ = packs.items()
    pack.unlink()
    stamp = rotten.stat().st_mtime_ns
    rotten.write_bytes(bytes(each ^ 1 for each in rotten.read_bytes()))
    os.utime(rotten, ns=(stamp, stamp))
    second = next(each for each in run._workers[0].kept if each and each.stands and each.name not in (first, third))
    (record,) = scratch.glob(f"snapshots/*/records/{second.name}.{max(second.stands)}.json")
    record.unlink()
    acknowledged = run._logs["shared"].acknowledged
    last = max(acknowledged, key=acknowledged.__getitem__).encode()  # what came behind it is nobody's yet
    *_, segment = (path for path in (scratch / "sessions/shared/events").glob("*.jsonl") if last in path.read_bytes())
    lines = takewhile(lambda line: last not in line, segment.read_bytes().splitlines(keepends=True))
    asyncio.run(put(root, str(segment.relative_to(root)), b"".join(lines)))
    return {first: {"missing"}, second.name: {"missing"}, third: {"missing"}, "shared": {"events"}}


@on_one_loop
@pytest.mark.case("R13")
async def test_what_is_taken_from_sessions_is_found_and_nothing_else(
    tmpfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, look = tmpfs / "root", _run._Run.last_look
    wanted: dict[str, set[Kind]] = {}

    async def tamper_and_look(run: _run._Run) -> None:
        wanted.update(await asyncio.to_thread(tamper_with_sessions, root, run))
        await look(run)

    monkeypatch.setattr(_run._Run, "last_look", tamper_and_look)
    report = await soak(
        LocalConfig(path=root),
        seconds=LONGEST,
        processes=1,
        tasks=1,
        sessions=4,
        kills=False,
        enough=lambda report: report.operations["workspace save"] >= 28 and report.operations["append"] >= 12,
    )
    found: dict[str, set[Kind]] = {}
    for loss in report.losses:
        found.setdefault(loss.key.partition("/")[0], set()).add(loss.kind)
    assert found.pop("snapshots") == {"damaged"}  # what `verify_sessions` says of the same
    assert found == wanted


@on_one_loop
async def test_a_store_that_lets_go_of_an_object_and_keeps_an_upload_is_found(
    strict: Server, before_the_last_look: Callable[[Tamper], None]
) -> None:
    assert strict.referee is not None
    bucket = strict.referee.state.bucket(strict.bucket)

    def tamper(keys: list[str]) -> None:
        key = next(key for key in bucket.objects.sorted_keys() if key.endswith(keys[0]))
        bucket.objects.discard(key)
        client = client_of(strict)
        client.create_multipart_upload(Bucket=strict.bucket, Key=key)
        client.close()

    before_the_last_look(tamper)
    report = await soak(
        config_of(strict, conditions="all"),
        seconds=LONGEST,
        processes=1,
        tasks=4,
        sessions=0,
        kills=False,
        enough=lambda report: report.operations.total() >= 80,
    )
    assert kinds(report) == {"missing", "listing", "left over"}
    assert report.uploads == 1
    assert left(strict) == ([], [])


CONDITIONS = {
    "put-if-absent": "if_absent overwrote an object",
    "put-if-match": "if_match with an ETag that no object had was granted",
}


def texts(report: Report) -> list[str]:
    return [loss.text for loss in report.losses]


@pytest.mark.by_turns
@on_one_loop
@pytest.mark.parametrize("ignored", CONDITIONS)  # one by one: of each kind of loss only the first 20 are kept
async def test_a_store_that_ignores_conditions_is_found(monkeypatch: pytest.MonkeyPatch, ignored: str) -> None:
    with strict_bucket(monkeypatch, ignores={ignored}) as server:
        report = await soak(
            config_of(server, conditions="all"),
            seconds=LONGEST,
            processes=2,
            tasks=5,
            sessions=0,
            kills=False,
            enough=lambda report: any(CONDITIONS[ignored] in text for text in texts(report)),
        )
        assert kinds(report) >= {"answer"}
        assert any(CONDITIONS[ignored] in text for text in texts(report))
        assert left(server) == ([], [])


# -- processes in which one call lies, now and then

LIES: dict[str, tuple[set[Kind], str]] = {
    "a put that is acknowledged and not done": (
        {"older version", "wrong bytes", "listing"},
        """
        true = Storage.put
        async def put(self, key, data, **options):
            if set(options) != {"metadata"} or next(turn) % 4 or not await self.exists(key):
                return await true(self, key, data, **options)
            return await self.head(key)
        Storage.put = put
        """,
    ),
    "a delete that is acknowledged and not done": (
        {"back again"},
        """
        true = Storage.delete
        async def delete(self, *keys, **options):
            if next(turn) % 4:
                await true(self, *keys, **options)
        Storage.delete = delete
        """,
    ),
    "a byte that is read wrong": (
        {"wrong bytes"},
        """
        true = Storage.get
        async def get(self, key, **options):
            data = await true(self, key, **options)
            return data if next(turn) % 10 or not data else data[:-1] + bytes([data[-1] ^ 1])
        Storage.get = get
        """,
    ),
    "a listing that leaves out its last line": (
        {"listing"},
        """
        true = Storage.list_page
        async def list_page(self, prefix="", **options):
            page = await true(self, prefix, **options)
            return page if next(turn) % 10 else dataclasses.replace(page, entries=page.entries[:-1])
        Storage.list_page = list_page
        """,
    ),
    "an update that looks away": (
        {"counter"},
        """
        async def update(self, key, change, **options):
            try:
                data = await self.get(key)
            except FileNotFoundError:
                data = None
            await asyncio.sleep(0.002)
            return await self.put(key, change(data))
        Storage.update = update
        """,
    ),
    "a move that deletes first": (
        {"missing"},
        """
        true = Storage.move
        async def move(self, source, target, **options):
            if not next(turn) % 2:
                return await true(self, source, target, **options)
            data = await self.get(source)
            await self.delete(source)
            raise UnavailableError("broken between the two")
        Storage.move = move
        """,
    ),
    "an error that is none of the library's": (
        {"worker"},
        """
        async def head(self, key, **options):
            raise KeyError(key)
        Storage.head = head
        """,
    ),
}
OF_SESSIONS: dict[str, tuple[set[Kind], str]] = {
    "a pack that is acknowledged and not stored": (
        {"missing"},
        """
        true = Storage.put
        async def put(self, key, data, **options):
            info = await true(self, key, data, **options)
            if key.endswith(".tar") and not next(turn) % 3:
                await self.delete(key)
            return info
        Storage.put = put
        """,
    ),
    "a record that is acknowledged and forgotten": (
        {"missing"},
        """
        true = Storage.put
        async def put(self, key, data, **options):
            info = await true(self, key, data, **options)
            if key.startswith("records/") and b'"done"' in data and not next(turn) % 3:
                await self.delete(key)
            return info
        Storage.put = put
        """,
    ),
    "an event that is acknowledged and not written": (
        {"events"},
        """
        true = Storage.put
        async def put(self, key, data, **options):
            if key.endswith(".jsonl") and options.get("if_match") and not next(turn) % 5:
                return await self.head(key)
            return await true(self, key, data, **options)
        Storage.put = put
        """,
    ),
    "a collector that does not look at what snapshots need": (
        {"missing", "damaged"},
        """
        from micelio_storage.sessions._collection._collecting import FamilyCollection
        async def references_of(self, record):
            return frozenset()
        FamilyCollection._references_of = references_of
        """,
    ),
    "a restore that leaves files": (
        {"back again"},
        """
        from micelio_storage.sessions._snapshots._restoring import Restoring
        async def delete(self, path, entry):
            pass
        async def look_for_others(self, wanted):
            pass
        Restoring._delete, Restoring.look_for_others = delete, look_for_others
        """,
    ),
}
LIES |= OF_SESSIONS
RARE = ("a record that is acknowledged and forgotten", "a restore that leaves files")  # tried where all is
PATCH = """
import asyncio, dataclasses, itertools, sys
if "micelio_storage.testing.soak._worker" in sys.orig_argv:
    from micelio_storage import Storage, UnavailableError
    turn = itertools.count(1)
"""


def have_it_lie(lie: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each process that imports from this directory first begin by spoiling one call."""
    patch = PATCH + textwrap.indent(textwrap.dedent(LIES[lie][1]), "    ")
    (directory / "sitecustomize.py").write_text(patch)
    monkeypatch.setenv("PYTHONPATH", str(directory))


@pytest.mark.by_turns
@on_one_loop
@pytest.mark.parametrize("lie", [lie for lie in LIES if scaled(lie not in RARE, True)])
async def test_a_library_that_lies_is_found(
    lie: str, tmpfs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    have_it_lie(lie, tmp_path, monkeypatch)
    wanted = LIES[lie][0]

    def enough(report: Report) -> bool:
        return not wanted.isdisjoint(kinds(report)) or report.operations.total() >= 4000

    config = LocalConfig(path=tmpfs / "root")
    tasks, sessions = (1, 3) if lie in OF_SESSIONS else (4, 0)
    report = await soak(
        config, seconds=LONGEST, processes=1, tasks=tasks, sessions=sessions, kills=False, enough=enough
    )
    assert wanted & kinds(report), report
    assert stored(tmpfs / "root") == set()


def test_the_command_names_what_is_lost_and_ends_with_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = use_storage(tmp_path, monkeypatch)
    path = os.environ["PYTHONPATH"]
    have_it_lie("an error that is none of the library's", tmp_path, monkeypatch)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), path]))
    for options in ((), ("--json",)):
        answer = process("soak", "--minutes", "1", "--processes", "1", *options)
        assert (answer.returncode, answer.stderr) == (1, b"")
        if options:
            (loss,) = json.loads(answer.stdout)["losses"]
            assert loss["kind"] == "worker"
            assert "KeyError" in loss["text"]
        else:
            assert answer.stdout.startswith(b"LOST  worker: 'soak-")
    assert stored(root) == set()


@on_one_loop
async def test_an_upload_below_a_session_is_a_loss_unless_a_process_that_was_killed_worked_on_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_run, "LOOKS", 1)
    report = Report(seed="x", processes=2, tasks=1)
    async with Storage(driver := Holding()) as storage:
        run = _run._Run([S3Config(bucket="one")], driver, storage, report, 0.0, lambda _: False, _run._nobody)
        for worker, name in zip(run._workers, ("0-1-s0-1", "1-0-s0-1"), strict=True):
            worker.kept, worker.runs = [Kept(name=name)], 3
        run._note_kill(run._workers[0])
        names = ["0-1-s0-1", "0-2-s0-9", "0-1-s0-11", "1-0-s0-1"]
        driver.names = [f"{run._prefix}sessions/{name}/files/f?uploadId=1" for name in names]
        await run._look_at_what_is_left()
    assert [loss.key for loss in report.losses] == sorted(driver.names[2:])


class Holding(MemoryDriver):
    """As if uploads were open."""

    names: tuple[str, ...] | list[str] = ()

    async def unfinished(self) -> Sequence[str]:
        return self.names
