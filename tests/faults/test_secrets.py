"""What is kept from others: credentials from logs and reports, sessions from one another, what a policy denies."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import s3_servers
from support.s3_servers import Server
from support.s3_storage import config_for, driver_for, session_for, set_credentials
from support.shown import everything_logged, everything_said, not_of_the_sdk
from support.strict_s3 import StrictS3
from support.strict_s3._operations import HANDLERS

from faults.both import Bucket, Disk, Opened, Place, on_both, one_loop
from faults.operations import OPERATIONS, prepare
from faults.scale import scaled
from micelio_storage import AccessDeniedError, InvalidKeyError, Session, Storage, StorageError, open_storage
from micelio_storage.cli._policy import iam_policy

SECRET_MARK, TOKEN_MARK = "marker/secret+of/the+tests0004", "marker+token/0005=="
SIGNED_MARKS = (TOKEN_MARK, "Signature=", "X-Amz-Signature", "Authorization")

# What S3 looks for before it does an operation. A copy reads one object and writes another.
NEEDS = {
    "AbortMultipartUpload": {"s3:AbortMultipartUpload"},
    "CompleteMultipartUpload": {"s3:PutObject"},
    "CopyObject": {"s3:GetObject", "s3:PutObject"},
    "CreateMultipartUpload": {"s3:PutObject"},
    "DeleteObject": {"s3:DeleteObject"},
    "DeleteObjects": {"s3:DeleteObject"},
    "GetObject": {"s3:GetObject"},
    "HeadObject": {"s3:GetObject"},
    "ListMultipartUploads": {"s3:ListBucketMultipartUploads"},
    "ListObjectsV2": {"s3:ListBucket"},
    "ListParts": {"s3:ListMultipartUploadParts"},
    "PutObject": {"s3:PutObject"},
    "UploadPart": {"s3:PutObject"},
    "UploadPartCopy": {"s3:GetObject", "s3:PutObject"},
}


# -- credentials


@pytest.mark.case("Z3")
@one_loop
async def test_no_operation_shows_a_credential_whether_it_is_done_or_denied() -> None:
    said: list[str] = []
    with (
        s3_servers.strict(secret_key=SECRET_MARK, session_token=TOKEN_MARK) as server,
        everything_logged() as records,
    ):
        assert server.referee is not None
        async with Storage(marked_driver(server)) as storage:
            said += [repr(storage), repr(storage._driver), repr(dataclasses.asdict(storage._driver.config))]
            for denied in ((), HANDLERS):
                for operation in OPERATIONS.values():
                    server.referee.change(deny=frozenset())
                    await prepare(storage)
                    server.referee.change(deny=frozenset(denied))
                    said += [await outcome(operation(storage))]
            server.referee.change(deny=frozenset())
        sent = {request.headers.get("x-amz-security-token") for request in server.referee.log}
        assert sent == {TOKEN_MARK}  # so there was something to be shown
    assert any("denied" in line for line in said)
    assert [mark for mark in (SECRET_MARK, *SIGNED_MARKS) if mark in "\n".join([*said, *not_of_the_sdk(records)])] == []
    assert SECRET_MARK not in "\n".join(record.getMessage() for record in records)


def marked_driver(server: Server) -> Any:
    """A driver with a session token among its credentials."""
    session = session_for(server)
    session._session.set_credentials(server.access_key, SECRET_MARK, TOKEN_MARK)
    driver = driver_for(server, conditions="all", retries=0)
    driver._session = session
    return driver


async def outcome(operation: Awaitable[object]) -> str:
    try:
        return repr(await operation)
    except StorageError as error:
        return f"denied {everything_said(error)}" if isinstance(error, AccessDeniedError) else everything_said(error)


# -- the policy


def granted(prefix: str) -> set[str]:
    """The actions that the printed policy allows."""
    actions: set[str] = set()
    for statement in iam_policy("bucket", prefix)["Statement"]:
        listed = statement["Action"]
        actions |= {listed} if isinstance(listed, str) else set(listed)
    return actions


def denied_without(actions: set[str]) -> set[str]:
    return {name for name in HANDLERS if not NEEDS.get(name, {"another"}) <= actions}


async def do_everything(server: Server, monkeypatch: pytest.MonkeyPatch, **fields: Any) -> None:
    set_credentials(monkeypatch, server)
    async with open_storage(config_for(server, prefix="tenants/a", retries=0, **fields)) as storage:
        for operation in OPERATIONS.values():
            await prepare(storage)
            await operation(storage)
        await storage._driver.unfinished()
        await storage.delete_prefix("", everything=True)


@pytest.mark.case("Z7")
@one_loop
async def test_what_the_policy_allows_is_enough_and_nothing_above_the_prefix_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    denied = denied_without(granted("tenants/a"))
    assert {"GetBucketLocation", "HeadBucket", "ListBuckets", "PutBucketPolicy"} <= denied
    with s3_servers.strict(deny=denied) as server:
        assert server.referee is not None
        await do_everything(server, monkeypatch)
        expect_below(server.referee, "tenants/a/")


def expect_below(referee: StrictS3, prefix: str) -> None:
    """All keys, and the beginnings of all listings, are below the prefix."""
    asked = [request for request in referee.log if request.operation not in ("ListMultipartUploads", "DeleteObjects")]
    assert len(asked) > 20
    for request in asked:
        name = request.query.get("prefix", "") if request.operation == "ListObjectsV2" else request.key
        assert name.startswith(prefix), request


@pytest.mark.case("Z7")
@pytest.mark.parametrize("action", ["s3:DeleteObject", "s3:GetObject", "s3:ListBucket", "s3:PutObject"])
@one_loop
async def test_with_an_action_less_than_the_policy_allows_something_is_denied(
    action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    denied = denied_without(granted("tenants/a") - {action})
    with s3_servers.strict(deny=denied) as server, pytest.raises(AccessDeniedError):
        await do_everything(server, monkeypatch, conditions="all")


# -- sessions

NAMES = st.sampled_from(["a", "b/c", "metadata.json", "files/x", "s2", "%2e%2e/s2", "..s2", "sessions/s2/files/a"])
HOSTILE = st.sampled_from(
    ["..", "../s2/files/a", "/sessions/s2/files/a", "../../s2/metadata.json", "a/../../b", "./a", ""]
)
Step = Callable[[Session, str, str], Awaitable[object]]


async def pages(session: Session, one: str, other: str) -> None:
    async for _ in session.files.list(one):
        pass
    await session.files.list_page(one, start_after=other or None, delimiter="/")


STEPS: dict[str, Step] = {
    "put": lambda session, one, _: session.files.put(one, b"mine"),
    "get": lambda session, one, _: session.files.get(one),
    "head": lambda session, one, _: session.files.head(one),
    "delete": lambda session, one, other: session.files.delete(one, other),
    "delete_prefix": lambda session, one, _: session.files.delete_prefix(one),
    "copy": lambda session, one, other: session.files.copy(one, other),
    "move": lambda session, one, other: session.files.move(one, other),
    "update": lambda session, one, _: session.files.update(one, lambda data: (data or b"") + b"x"),
    "list": pages,
    "under": lambda session, one, other: session.files.under(one).put(other, b"mine"),
    "metadata": lambda session, one, _: session.update_metadata(lambda document: document | {"name": one}),
    "usage": lambda session, *_: session.usage(),
    "end": lambda session, *_: session.delete(),
}
CALLS = st.lists(st.tuples(st.sampled_from(sorted(STEPS)), NAMES | HOSTILE, NAMES | HOSTILE), max_size=8)


@pytest.mark.case("Z10")
@on_both
def test_whatever_is_done_with_a_session_touches_nothing_outside_of_it(opened: Opened, tmpfs: Path) -> None:
    done = refused = 0

    async def act(storage: Storage, calls: list[tuple[str, str, str]]) -> None:
        nonlocal done, refused
        session = Session(storage, "s1")
        for step, one, other in calls:
            try:
                await STEPS[step](session, one, other)
                done += 1
            except InvalidKeyError:
                refused += 1
            except StorageError:
                pass  # a missing object, a key below an object: of no matter here

    with opened(tmpfs) as place, asyncio.Runner() as runner:
        storage = runner.run(place.storage().open())
        runner.run(of_others(storage))
        before = outside(place)

        @settings(max_examples=scaled(60, 300), deadline=None, database=None, derandomize=True)
        @given(CALLS)
        def nothing_outside(calls: list[tuple[str, str, str]]) -> None:
            runner.run(act(storage, calls))
            assert outside(place) == before

        nothing_outside()
        runner.run(Session(storage, "s2").files.put("a", b"mine"))
        assert outside(place) != before  # so it would be seen
        runner.run(storage.aclose())
    assert min(done, refused) > 10


async def of_others(storage: Storage) -> None:
    """Objects beside the session whose names begin like its own."""
    for name in ("s2", "s10", "s1.x"):
        await Session(storage, name).files.put("a", b"theirs")
        await Session(storage, name).update_metadata(lambda document: {"theirs": True})
    await storage.put("a", b"theirs")


def outside(place: Place) -> object:
    """What is not the session's, and whether anything else was asked for."""
    if isinstance(place, Disk):
        return {path.relative_to(place.above): seen(path) for path in place.above.rglob("*") if is_others(path, place)}
    return asked_beside(place), {key: stored.etag for key, stored in place.referee.objects().items() if not mine(key)}


def seen(path: Path) -> object:
    status = path.lstat()
    return status.st_ino, status.st_size if path.is_file() else None


def is_others(path: Path, disk: Disk) -> bool:
    name = str(path.relative_to(disk.above))
    return not name.startswith(("root/sessions/s1/", "root/.micelio")) and name not in ("root/sessions/s1", "root")


def mine(name: str) -> bool:
    return name.startswith("sessions/s1/")


def asked_beside(bucket: Bucket) -> set[str]:
    """Keys that requests were for or copied from, and prefixes that listings had, outside the session."""
    asked = {request.key for request in bucket.referee.log if request.key}
    asked |= {request.query.get("prefix", "") for request in bucket.referee.log if request.operation.startswith("List")}
    sources = {request.headers.get("x-amz-copy-source", "") for request in bucket.referee.log}
    asked |= {unquote(source).lstrip("/").removeprefix("bucket/") for source in sources if source}
    return {name for name in asked if not mine(name)}
