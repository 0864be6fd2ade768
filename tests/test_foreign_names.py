"""What other programs store under names that are not keys: left out, and counted wherever all might seem there."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from urllib.parse import quote_from_bytes

import aiohttp
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from support import s3_servers
from support.s3_servers import Server
from support.s3_storage import config_for, driver_for, session_for, set_credentials
from yarl import URL

from micelio_storage import Session, Storage, Usage, list_sessions, open_storage
from micelio_storage.cli._app import run
from micelio_storage.driver import Prefix, escape_name
from micelio_storage.drivers.local import LocalDriver
from micelio_storage.drivers.local import _listing as listing
from micelio_storage.drivers.s3 import abort_uploads
from micelio_storage.drivers.s3.doctor._examination import diagnose
from micelio_storage.drivers.s3.requests._xml import decode_names
from micelio_storage.transfer import Outcome, Tally, copy_below, migrate, verify
from micelio_storage.wrappers.prefixed import PrefixedDriver

GOOD = ("a", "b/c", "d")


async def pages_of(
    storage: Storage, prefix: str = "", *, limit: int = 1000, foreign: bool = True, fold: bool = False
) -> tuple[list[str], int, list[str]]:
    """Keys and prefixes, the number of what is left out, and its names, of all pages."""
    lines: list[str] = []
    names: list[str] = []
    skipped, cursor, more = 0, None, True
    while more:
        page = await storage.list_page(
            prefix, limit=limit, cursor=cursor, delimiter="/" if fold else None, foreign=foreign
        )
        lines += [*(str(entry.key) for entry in page.entries), *page.prefixes]
        names += page.foreign
        skipped += page.skipped
        cursor, more = page.cursor, page.cursor is not None
    return lines, skipped, sorted(names)


# -- on disk


def fill(root: bytes) -> list[str]:
    """Files of other programs, and what is no file; gives the names that are left out, escaped."""
    for name in (b"x\\y", b"\xff", b"line\nend", b"b/\xc3(", b"z\\/1", b"z\\/2/3", b"\xc3\xa9\x85"):
        path = os.path.join(root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(b"1")
    os.makedirs(os.path.join(root, b"empty\\"))
    os.symlink(b"a", os.path.join(root, b"link"))
    os.mkfifo(os.path.join(root, b"b/pipe"))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.join(root, b"socket"))
    names = [r"x\\y", r"\xff", r"line\x0aend", r"b/\xc3(", r"z\\/1", r"z\\/2/3", "\u00e9" + r"\x85"]
    return sorted([*names, "link", "b/pipe", "socket"])


@pytest.fixture
async def disk(tmpfs: Path) -> AsyncIterator[tuple[Storage, list[str]]]:
    async with Storage(LocalDriver(tmpfs / "root")) as storage:
        for key in GOOD:
            await storage.put(key, b"1")
        yield storage, fill(os.fsencode(tmpfs / "root"))


@pytest.mark.case("N1")
async def test_on_disk_all_pages_count_what_they_leave_out_once(disk: tuple[Storage, list[str]]) -> None:
    storage, names = disk
    for limit in (1, 2, 3, 1000):
        assert await pages_of(storage, limit=limit) == (list(GOOD), len(names), names)
        lines, skipped, example = await pages_of(storage, limit=limit, foreign=False)
        assert (lines, skipped) == (list(GOOD), len(names))
        assert set(example) <= set(names)
        assert len(example) <= len(GOOD)


@pytest.mark.case("N1")
async def test_on_disk_they_are_counted_once_when_each_page_begins_a_new_walk(
    disk: tuple[Storage, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, names = disk
    monkeypatch.setattr(listing, "MOST_WALKS", 0)
    for limit in (1, 2):
        assert await pages_of(storage, limit=limit) == (list(GOOD), len(names), names)


@pytest.mark.case("N1")
async def test_on_disk_a_prefix_and_a_delimiter_count_what_is_theirs(disk: tuple[Storage, list[str]]) -> None:
    storage, names = disk
    below = [name for name in names if name.startswith("b/")]
    assert await pages_of(storage, "b/") == (["b/c"], 2, below)
    assert await pages_of(storage.under("b")) == (["c"], 2, [name[2:] for name in below])
    lines, skipped, shown = await pages_of(storage, fold=True)
    assert lines == ["a", "d", "b/"]
    assert (skipped, shown) == (len(names) - 2, [name for name in names if name not in below])


@pytest.mark.case("N1")
async def test_on_disk_a_directory_of_foreign_files_alone_counts_for_the_one_above(tmpfs: Path) -> None:
    async with Storage(LocalDriver(tmpfs / "root")) as storage:
        os.makedirs(tmpfs / "root/a/b/c")
        for name in (b"a/b/\xff", b"a/b/c/\xfe"):
            Path(os.fsdecode(os.fsencode(tmpfs / "root") + b"/" + name)).write_bytes(b"")
        assert await pages_of(storage, fold=True) == ([], 2, [r"a/b/\xff", r"a/b/c/\xfe"])


@pytest.mark.case("N1")
async def test_on_disk_a_path_longer_than_a_key_is_counted(tmpfs: Path) -> None:
    async with Storage(LocalDriver(tmpfs / "root")) as storage:
        await storage.put("a", b"1")
        long = "/".join(["k" * 250] * 5)
        os.makedirs(tmpfs / "root" / os.path.dirname(long))
        (tmpfs / "root" / long).write_bytes(b"1")
        assert await pages_of(storage) == (["a"], 1, [long])


# -- on S3

FOREIGN = (b"e/", b"e//b", b"x\\y", b"s" * 300, b"c/\x01", b"/abs", b"c/../d", b".micelio/x")
ESCAPED = ("e/", "e//b", r"x\\y", "s" * 300, r"c/\x01", "/abs", "c/../d", ".micelio/x")
TREE = ("e/", r"c/\x01", ".micelio/x")  # what SeaweedFS, whose keys are paths, keeps under its name
FOLDED = (r"x\\y", "s" * 300, "/", ".micelio/")


async def put_raw(server: Server, key: bytes) -> int:
    """PutObject under any name; the status."""
    url = f"{server.endpoint}/{server.bucket}/{quote_from_bytes(key)}"
    request = AWSRequest("PUT", url, data=b"1", headers={"x-amz-content-sha256": "UNSIGNED-PAYLOAD"})
    S3SigV4Auth(Credentials(server.access_key, server.secret_key), "s3", server.region).add_auth(request)
    async with (
        aiohttp.ClientSession() as session,
        session.put(URL(url, encoded=True), data=b"1", headers=dict(request.headers)) as answer,
    ):
        await answer.read()
        return answer.status


@asynccontextmanager
async def bucket(server: Server, place: str) -> AsyncIterator[tuple[Storage, list[str]]]:
    """A storage with keys and with names that are none, and those."""
    names = [name for name in ESCAPED if server.name != "seaweedfs" or name in TREE]
    async with Storage(PrefixedDriver(driver_for(server, conditions="all"), Prefix.parse(place))) as storage:
        for key in GOOD:
            await storage.put(key, b"1")
        for key, name in zip(FOREIGN, ESCAPED, strict=True):
            if name in names:
                assert await put_raw(server, place.encode() + key) == 200
        yield storage, sorted(names)


@pytest.mark.case("N1")
@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_on_s3_all_pages_count_what_they_leave_out_once(s3_server: Server) -> None:
    async with bucket(s3_server, "foreign-pages/") as (storage, names):
        for limit in (1, 2, 1000):
            assert await pages_of(storage, limit=limit) == (list(GOOD), len(names), names)
            lines, skipped, _ = await pages_of(storage, limit=limit, foreign=False)
            assert (lines, skipped) == (list(GOOD), len(names))


@pytest.mark.case("N2")
@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_on_s3_no_prefix_is_folded_that_a_listing_refuses(s3_server: Server) -> None:
    async with bucket(s3_server, "foreign-folds/") as (storage, names):
        lines, _, shown = await pages_of(storage, fold=True)
        assert lines == ["a", "d", "b/", "c/", "e/"]
        assert set(shown) == {name for name in FOLDED if s3_server.name != "seaweedfs" or name == ".micelio/"}
        for prefix in ("b/", "c/", "e/"):
            found, skipped, shown = await pages_of(storage, prefix, fold=True)
            assert found == (["b/c"] if prefix == "b/" else [])
            assert skipped == len(shown)
            assert (skipped > 0) == any(name.startswith(prefix) for name in names)


@pytest.mark.case("N6")
async def test_a_store_that_takes_prefixes_for_patterns_shows_and_deletes_no_others() -> None:
    with s3_servers.strict(wildcards=True) as server:
        async with Storage(driver_for(server, conditions="all")) as storage:
            for key in ("a_/1", "a_1", "ab/1", "ab1", "%1"):
                await storage.put(key, b"1")
            for fold in (False, True):
                for limit in (1, 1000):
                    found, skipped, _ = await pages_of(storage, "a_", limit=limit, fold=fold)
                    assert (sorted(found), skipped) == (["a_/", "a_1"] if fold else ["a_/1", "a_1"], 0)
            assert await storage.delete_prefix("a_") == 2
            assert [str(entry.key) async for entry in storage.list()] == ["%1", "ab/1", "ab1"]


@pytest.mark.case("N6")
async def test_uploads_of_others_are_left_by_a_store_that_takes_prefixes_for_patterns() -> None:
    with s3_servers.strict(wildcards=True) as server:
        assert server.referee is not None
        config = config_for(server, conditions="all")
        async with Storage(driver_for(server, conditions="all", part_size=5 << 20)) as others:
            writer = await others.open_write("xy/1")
            await writer.write(bytes(6 << 20))
            assert [upload.key for upload in server.referee.uploads()] == ["xy/1"]
            with pytest.MonkeyPatch.context() as patch:
                set_credentials(patch, server)
                assert await abort_uploads(config, "x_") == 0
            await writer.commit()
            assert await others.exists("xy/1")


@pytest.mark.case("N1")
def test_names_that_are_not_utf8_stay_apart_from_those_that_are() -> None:
    answer = {"EncodingType": "url", "Contents": [{"Key": "a+%FF"}, {"Key": "%EF%BF%BD"}], "CommonPrefixes": []}
    assert [line["Key"] for line in decode_names(answer)["Contents"]] == ["a \udcff", "\ufffd"]
    assert escape_name("a \udcff\n\\\x85\ufffd") == r"a \xff\x0a\\\u0085" + "\ufffd"


# -- what says how many


@pytest.mark.case("N3")
async def test_migrate_is_not_complete_where_names_are_left_out(disk: tuple[Storage, list[str]]) -> None:
    storage, names = disk
    async with open_storage("memory:") as target:
        told: list[Outcome] = []

        async def hear(outcome: Outcome) -> None:
            told.append(outcome)

        done = await migrate(storage, target, on_outcome=hear)
        assert (done.copied, done.foreign, done.failed, done.complete) == (len(GOOD), len(names), 0, False)
        assert sorted(str(outcome.key) for outcome in told if outcome.result == "foreign") == names
        again = await migrate(storage, target)
        assert (again.skipped, again.foreign, again.complete) == (len(GOOD), len(names), False)


@pytest.mark.case("N3")
async def test_a_copy_within_a_storage_is_not_complete_either(disk: tuple[Storage, list[str]]) -> None:
    storage, _ = disk
    done = await copy_below(storage, "b", "copy")
    assert (done.copied, done.foreign, done.complete) == (1, 2, False)
    assert {outcome.key for outcome in done.unsolved} == {r"b/\xc3(", "b/pipe"}


@pytest.mark.case("N3")
async def test_verify_finds_them(disk: tuple[Storage, list[str]]) -> None:
    storage, names = disk
    findings = [finding async for finding in verify(storage)]
    tally = Tally()
    for finding in findings:
        tally.add(finding)
    assert (tally.verified, tally.foreign, tally.well) == (len(GOOD), len(names), False)
    assert sorted(str(finding.key) for finding in findings if finding.result == "foreign") == names


@pytest.mark.case("N3")
async def test_a_session_counts_them_and_leaves_them(tmpfs: Path) -> None:
    async with Storage(LocalDriver(tmpfs / "root")) as storage:
        session = Session(storage, "s")
        await session.files.put("a", b"123")
        for name in ("sessions/s/files/x\\y", "sessions/s/z\\"):
            (tmpfs / "root" / name).write_bytes(b"1")
        assert await session.usage() == Usage(files=1, bytes=3, skipped=1)
        removed = await session.delete()
        assert (removed, removed.skipped) == (1, 2)
        assert not await session.exists()
        assert [name async for name in list_sessions(storage)] == []
        assert (tmpfs / "root/sessions/s/files/x\\y").exists()


@pytest.mark.case("N3")
@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_a_session_on_s3_counts_them_and_leaves_them(s3_server: Server) -> None:
    driver = PrefixedDriver(driver_for(s3_server, conditions="all"), Prefix.parse("foreign-session/"))
    async with Storage(driver) as storage:
        session = Session(storage, "s")
        await session.files.put("a", b"123")
        assert await put_raw(s3_server, b"foreign-session/sessions/s/files/x\x01") == 200
        assert await session.usage() == Usage(files=1, bytes=3, skipped=1)
        removed = await session.delete()
        assert (removed, removed.skipped) == (1, 1)
        assert not await session.exists()


# -- the command


@pytest.fixture
def root(tmpfs: Path) -> tuple[str, list[str]]:
    """The URL of a storage on disk with names that are no keys, and those names."""
    os.makedirs(tmpfs / "root/b")
    for key in GOOD:
        (tmpfs / "root" / key).write_bytes(b"1")
    return f"file://{tmpfs}/root", fill(os.fsencode(tmpfs / "root"))


@pytest.mark.case("N3")
def test_ls_foreign_names_them_all(root: tuple[str, list[str]], capfd: pytest.CaptureFixture[str]) -> None:
    url, names = root
    assert run(["-s", url, "ls", "--foreign"]) == 0
    assert sorted(capfd.readouterr().out.splitlines()) == names
    assert run(["-s", url, "ls", "--foreign", "--json", "z"]) == 0
    assert capfd.readouterr().out.splitlines() == ['{"foreign": "z\\\\\\\\/1"}', '{"foreign": "z\\\\\\\\/2/3"}']
    assert run(["-s", url, "ls"]) == 0
    said = capfd.readouterr()
    assert said.out.splitlines() == list(GOOD)
    assert run(["-s", url, "ls", "--foreign", "--long"]) == 2


@pytest.mark.case("N3")
@pytest.mark.parametrize("command", [["migrate", "URL", "TARGET"], ["cp", "-r", "URL", "TARGET"], ["verify", "URL"]])
def test_a_command_that_leaves_something_out_says_how_much_and_fails(
    root: tuple[str, list[str]], tmpfs: Path, capfd: pytest.CaptureFixture[str], command: list[str]
) -> None:
    url, names = root
    words = {"URL": url, "TARGET": f"file://{tmpfs}/target"}
    assert run([words.get(word, word) for word in command]) == 1
    said = capfd.readouterr().out
    assert f"foreign {len(names)}" in said
    for name in names:
        assert f"foreign   {name}: its name is not a key" in said


@pytest.mark.case("N3")
def test_rm_of_a_prefix_says_what_it_leaves_and_fails(
    root: tuple[str, list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    url, _ = root
    assert run(["-s", url, "rm", "--yes", "--prefix", "b/"]) == 1
    assert capfd.readouterr().out.splitlines() == ["removed: 1", "left, because their names are not keys: 2"]


@pytest.mark.case("N3")
async def test_the_doctor_names_them(strict_server: Server) -> None:
    async with bucket(strict_server, "foreign-doctor/") as (_, names):
        config = config_for(strict_server, prefix="foreign-doctor")
        findings = diagnose(config, session=session_for(strict_server))
        async with aclosing(findings):
            found = [finding async for finding in findings if finding.check == "names"]
    assert [finding.status for finding in found] == ["warning"]
    assert f"{len(names)} have names that are not keys" in found[0].text
    assert "e//b" in found[0].text
    assert "ls --foreign" in found[0].advice
