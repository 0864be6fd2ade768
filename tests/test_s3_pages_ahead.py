"""The next page of a listing on S3 is under way while one is looked at: one and no more, and nothing of it is left
wherever the listing is left."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from support import fault_proxy
from support.cancelling import WAYS, cancel_everywhere
from support.fault_proxy import Dribble, Fault, Reply, Rewrite, Stall
from support.leftovers import other_tasks
from support.s3_line import PATIENCE, Line, line_to
from support.s3_servers import Server
from support.s3_storage import driver_for

from micelio_storage import AccessDeniedError, ClosedError, DeadlineError, Operation, Session, Storage, list_sessions
from micelio_storage.transfer import download_tree, migrate, verify

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])

NAMES = [f"p/{number}" for number in range(9)]
PAGE, PAGES = 2, 5

Opened: TypeAlias = Callable[..., AbstractAsyncContextManager[Line]]


@pytest.fixture
async def paged(small_parts_server: Server) -> AsyncIterator[Opened]:
    """Nine objects in five pages, behind a proxy. At its end no task or connection may be left, and no error that
    nobody has looked at."""
    referee = small_parts_server.referee
    assert referee is not None
    unseen: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))

    @asynccontextmanager
    async def opened(**fields: Any) -> AsyncIterator[Line]:
        async with line_to(small_parts_server, "p/", conditions="all", **({"retries": 0} | fields)) as line:
            await line.beside.put_many(dict.fromkeys(NAMES, b"1"))
            referee.change(max_keys=PAGE)
            try:
                yield line
            finally:
                referee.change(max_keys=1000)

    yield opened
    gc.collect()
    assert unseen == []


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)


def pages(line: Line) -> int:
    """How many were asked for."""
    return line.asked("GET", "list-type=2")


def under_way(storage: Storage) -> int:
    """Requests."""
    return len(storage._driver._opened.client._requests)  # type: ignore[attr-defined]  # nothing public says that


def at_page(number: int, fault: Fault) -> fault_proxy.Rule:
    """The fault for this page (from 1), whenever it is asked for."""
    return fault_proxy.first(fault, times=99, skip=number - 1, target="list-type=2")


async def some(storage: Storage, count: int) -> Any:
    """A listing of which so many keys were taken."""
    listing = storage.list("p/")
    assert [(await anext(listing)).key for _ in range(count)] == NAMES[:count]
    return listing


@pytest.mark.case("X14")
@pytest.mark.parametrize("mode", ["standard", "adaptive"])
@pytest.mark.parametrize(("taken", "asked"), [(1, 1), (2, 1), (3, 3), (4, 3), (5, 4), (8, 5), (9, 5)])
async def test_one_page_more_is_asked_for_from_the_second_on(paged: Opened, taken: int, asked: int, mode: str) -> None:
    """By our own requests and by the SDK's."""
    async with paged(retry_mode=mode) as line:
        async with aclosing(await some(line.storage, taken)):
            await until(lambda: pages(line) == asked and not under_way(line.storage))
        assert pages(line) == asked


async def _usage(storage: Storage, _: Path) -> None:
    assert (await Session(storage, "s").usage()).files == 9


async def _sessions(storage: Storage, _: Path) -> None:
    assert [name async for name in list_sessions(storage)] == [str(number) for number in range(9)]


async def _verified(storage: Storage, _: Path) -> None:
    assert len([finding async for finding in verify(storage, "p/")]) == 9


async def _download(storage: Storage, top: Path) -> None:
    assert len([outcome async for outcome in _transferred(storage, top)]) == 9


async def _transferred(storage: Storage, top: Path) -> AsyncIterator[str]:
    await download_tree(storage.under("p"), top)
    for path in sorted(top.iterdir()):
        yield path.name


async def _migrated(storage: Storage, _: Path) -> None:
    async with Storage(_memory()) as target:
        await migrate(storage, target, prefix="p/", verify=False)
        assert len([entry async for entry in target.list()]) == 9


async def _removed(storage: Storage, _: Path) -> None:
    assert await storage.delete_prefix("p/") == 9


def _memory() -> Any:
    from micelio_storage.drivers.memory import MemoryDriver

    return MemoryDriver()


ALL = {
    "usage": (_usage, "sessions/s/files/{}"),
    "list_sessions": (_sessions, "sessions/{}/files/a"),
    "verify": (_verified, "p/{}"),
    "download_tree": (_download, "p/{}"),
    "migrate": (_migrated, "p/{}"),
    "delete_prefix": (_removed, "p/{}"),
}


@pytest.mark.parametrize("name", ALL)
async def test_what_goes_through_all_pages_asks_for_each_once(
    small_parts_server: Server, tmp_path: Path, name: str
) -> None:
    referee = small_parts_server.referee
    assert referee is not None
    work, template = ALL[name]
    async with Storage(driver_for(small_parts_server, conditions="all")) as storage:
        await storage.put_many({template.format(number): b"1" for number in range(9)})
        referee.change(max_keys=PAGE)
        referee.log.clear()
        try:
            await work(storage, tmp_path)
        finally:
            referee.change(max_keys=1000)
        lists = [request for request in referee.log if request.operation == "ListObjectsV2" and request.status]
        assert len(lists) == PAGES
        await storage.delete_prefix("p/")
        await storage.delete_prefix("sessions/")


STATES: dict[str, Fault | None] = {
    "under way": Stall("head"),
    "half there": Stall("answer", at=10),
    "there": None,
    "refused": fault_proxy.error("AccessDenied"),
    "no XML": Reply(200, b"<html>"),
}


async def _closed(line: Line, listing: Any) -> None:
    await listing.aclose()


async def _dropped(line: Line, listing: Any) -> None:
    """Whoever breaks out of a loop does no more than this."""


async def _storage_closed(line: Line, listing: Any) -> None:
    await line.storage.aclose()
    assert other_tasks() == set()
    assert (await anext(listing)).key == NAMES[3]
    with pytest.raises(ClosedError):
        await anext(listing)
    await line.storage.open()


@pytest.mark.case("X14")
@pytest.mark.parametrize("leave", [_closed, _dropped, _storage_closed], ids=lambda leave: leave.__name__.strip("_"))
@pytest.mark.parametrize("state", STATES)
async def test_a_listing_that_is_left_leaves_nothing_of_the_page_ahead(
    paged: Opened, state: str, leave: Callable[[Line, Any], Awaitable[None]]
) -> None:
    fault = STATES[state]
    async with paged() as line:
        before = other_tasks()
        line.proxy.rule = at_page(3, fault) if fault is not None else lambda _: None
        listing = await some(line.storage, 3)
        await until(lambda: pages(line) == 3 and (isinstance(fault, Stall) or not under_way(line.storage)))
        await leave(line, listing)
        del listing
        await until(lambda: other_tasks() == before)
        assert under_way(line.storage) == 0
        assert pages(line) == 3


@pytest.mark.case("X14")
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_whatever_cancels_the_wait_for_the_page_ahead_ends_it(
    paged: Opened, way: Callable[..., Awaitable[None]]
) -> None:
    async with paged() as line:
        before = other_tasks()
        line.proxy.rule = at_page(3, Stall("head"))
        taken: list[str] = []

        async def take() -> None:
            nonlocal taken
            async for entry in line.storage.list("p/"):
                taken += [entry.key]

        await way(take(), lambda: until(lambda: len(taken) == 4 and pages(line) == 3))
        await until(lambda: other_tasks() == before)
        assert under_way(line.storage) == 0
        assert taken == NAMES[:4]


@pytest.mark.by_turns
@pytest.mark.case("X14")
@pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])
async def test_cancelled_at_every_point_a_listing_of_pages_leaves_nothing(paged: Opened) -> None:
    async with paged() as line:
        before, outcomes = other_tasks(), []

        async def take() -> None:
            async with aclosing(line.storage.list("p/", start_after="p/2")) as listing:
                assert [entry.key async for entry in listing] == NAMES[3:]

        async for where, outcome in cancel_everywhere(take):
            outcomes.append(outcome)
            assert other_tasks() == before, where
            assert under_way(line.storage) == 0, where
        assert outcomes.count("cancelled") >= 6
        assert outcomes.count("done") == 2


async def test_an_error_of_the_page_ahead_comes_when_it_is_its_turn(paged: Opened) -> None:
    async with paged() as line:
        line.proxy.rule = at_page(3, fault_proxy.error("AccessDenied"))
        listing = await some(line.storage, 3)
        await until(lambda: pages(line) == 3 and not under_way(line.storage))
        assert (await anext(listing)).key == NAMES[3]
        with pytest.raises(AccessDeniedError) as caught:
            await anext(listing)
        assert caught.value.operation == "list"
        assert pages(line) == 3


async def test_a_deadline_is_that_of_the_call_that_waits_and_not_of_the_one_before(paged: Opened) -> None:
    """The third page takes 1.5 seconds, for most of which nobody waits."""
    clock = asyncio.get_running_loop().time
    async with paged() as line:
        line.proxy.rule = fault_proxy.first(Dribble("answer", 100, 0.2), skip=2, target="list-type=2")
        async with aclosing(line.storage.list("p/", deadline=1)) as listing:
            taken, start = [(await anext(listing)).key for _ in range(4)], clock()
            await until(lambda: not under_way(line.storage))
            assert clock() - start > 1
            assert taken + [entry.key async for entry in listing] == NAMES


async def test_a_deadline_that_passes_ends_the_page_ahead(paged: Opened) -> None:
    async with paged() as line:
        before = other_tasks()
        line.proxy.rule = at_page(3, Stall("head"))
        async with aclosing(line.storage.list("p/", deadline=0.3)) as listing:
            assert [(await anext(listing)).key for _ in range(4)] == NAMES[:4]
            with pytest.raises(DeadlineError):
                await anext(listing)
            assert other_tasks() == before
            assert under_way(line.storage) == 0


async def test_hooks_see_each_page_when_it_is_asked_for_with_its_own_requests(small_parts_server: Server) -> None:
    seen: list[tuple[Operation, int]] = []
    taken: list[str] = []

    def hook(operation: Operation) -> Any:
        seen.append((operation, len(taken)))
        return nullcontext()

    referee = small_parts_server.referee
    assert referee is not None
    async with line_to(small_parts_server, "p/", conditions="all") as line:
        await line.beside.put_many(dict.fromkeys(NAMES, b"1"))
        line.proxy.rule = fault_proxy.first(fault_proxy.error("SlowDown"), skip=2, target="list-type=2")
        driver = driver_for(small_parts_server, endpoint=line.proxy.endpoint, conditions="all")
        referee.change(max_keys=PAGE)
        try:
            async with Storage(driver, hooks=[hook]) as storage:
                async for entry in storage.list("p/"):
                    taken.append(entry.key)
                    await until(lambda: not under_way(storage))
        finally:
            referee.change(max_keys=1000)
    assert taken == NAMES
    assert [(operation.name, at) for operation, at in seen] == [("list", at) for at in (0, 2, 4, 6, 8)]
    assert [operation.outcome.entries for operation, _ in seen] == [2, 2, 2, 2, 1]
    assert [operation.outcome.attempts for operation, _ in seen] == [1, 1, 2, 1, 1]


@pytest.mark.case("C11")
async def test_keys_that_stay_are_listed_once_whatever_becomes_of_those_of_the_page_ahead(paged: Opened) -> None:
    async with paged() as line:
        listing = await some(line.storage, 3)
        await until(lambda: pages(line) == 3 and not under_way(line.storage))
        await line.beside.delete("p/5", "p/7")
        await line.beside.put("p/51", b"1")
        rest = [entry.key async for entry in listing]
        assert [key for key in rest if key not in ("p/5", "p/51")] == ["p/3", "p/4", "p/6", "p/8"]
        assert len(set(rest)) == len(rest)


async def test_a_token_that_only_seems_to_be_one_costs_a_request_and_no_key(paged: Opened) -> None:
    def mislead(reply: Reply) -> Reply:
        comment = b"<!--<NextContinuationToken>x</NextContinuationToken>--></ListBucketResult>"
        return Reply(reply.status, reply.body.replace(b"</ListBucketResult>", comment), reply.headers)

    async with paged() as line:
        line.proxy.rule = fault_proxy.first(Rewrite(mislead), skip=1, target="list-type=2")
        assert [entry.key async for entry in line.storage.list("p/")] == NAMES
        assert line.asked("GET", "continuation-token=x") == 1
        assert pages(line) == PAGES + 1


async def test_a_listing_goes_on_when_the_storage_was_closed_and_opened_again(paged: Opened) -> None:
    async with paged() as line:
        line.proxy.rule = fault_proxy.first(Stall("head"), skip=2, target="list-type=2")
        listing = await some(line.storage, 4)
        await until(lambda: pages(line) == 3)
        await line.storage.aclose()
        await line.storage.open()
        assert NAMES[:4] + [entry.key async for entry in listing] == NAMES


async def test_a_page_that_is_asked_for_by_itself_asks_for_no_other(paged: Opened) -> None:
    async with paged() as line:
        cursor = None
        for _ in range(3):
            cursor = (await line.storage.list_page("p/", cursor=cursor)).cursor
        assert under_way(line.storage) == 0
        assert pages(line) == 3
