"""Conditional copies by CopyObject, where the store keeps conditions on it: lost answers, rivals, changing sources."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support import fault_proxy
from support.fault_proxy import Cut, Exchange, FaultProxy, first
from support.s3_servers import Server
from support.s3_storage import driver_for

from micelio_storage import AlreadyExistsError, NotFoundError, PreconditionFailedError, Storage

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])  # the kit runs on all loops

LOST = {"reset": Cut("head", "rst"), "500": fault_proxy.error("InternalError", applied=True)}
COPY = {"method": "PUT", "target": "/c/target"}


class Copying:
    """A storage behind a proxy, and one beside it."""

    def __init__(self, storage: Storage, beside: Storage, proxy: FaultProxy) -> None:
        self.storage = storage
        self.beside = beside
        self.proxy = proxy


@pytest.fixture
async def copying(strict_server: Server) -> AsyncIterator[Copying]:
    host, port = strict_server.endpoint.removeprefix("http://").split(":")
    with fault_proxy.running(host, int(port)) as proxy:
        driver = driver_for(strict_server, endpoint=proxy.endpoint)
        async with Storage(driver) as storage, Storage(driver_for(strict_server, conditions="all")) as beside:
            await beside.delete_prefix("c/")
            await beside.put("c/source", b"the bytes", content_type="text/plain", metadata={"n": "1"})
            yield Copying(storage, beside, proxy)
            proxy.rule = lambda exchange: None


async def given_for(condition: str, at: Copying) -> dict[str, Any]:
    if condition == "if_absent":
        return {"if_absent": True}
    return {"if_match": (await at.beside.put("c/target", b"old")).etag}


@pytest.mark.by_turns
@pytest.mark.parametrize("condition", ["if_absent", "if_match"])
@pytest.mark.parametrize("how", LOST)
async def test_a_copy_whose_answer_was_lost_succeeded(copying: Copying, how: str, condition: str) -> None:
    given = await given_for(condition, copying)
    copying.proxy.rule = first(LOST[how], **COPY)
    info = await copying.storage.copy("c/source", "c/target", **given)
    assert copying.proxy.faults != []
    assert await copying.beside.get("c/target") == b"the bytes"
    there = await copying.beside.head("c/target")
    assert (info.etag, info.content_type, dict(info.metadata)) == (there.etag, "text/plain", {"n": "1"})
    assert dict(there.metadata) == {"n": "1"}


@pytest.mark.parametrize("how", LOST)
async def test_a_copy_that_a_rival_overtook_says_so(copying: Copying, how: str) -> None:
    await copying.beside.put("c/target", b"the bytes")
    copying.proxy.rule = first(LOST[how], **COPY)
    with pytest.raises(AlreadyExistsError):
        await copying.storage.copy("c/source", "c/target", if_absent=True)
    with pytest.raises(PreconditionFailedError):
        await copying.storage.copy("c/source", "c/target", if_match='"0123456789abcdef0123456789abcdef"')


@pytest.mark.parametrize("condition", ["if_absent", "if_match"])
async def test_a_source_replaced_before_it_is_copied_is_copied_as_it_is_then(copying: Copying, condition: str) -> None:
    """The store refuses the copy for the source's sake, and says no more than that something did not match."""
    loop, waiting = asyncio.get_running_loop(), ["replaced meanwhile"]

    def replace_the_source(exchange: Exchange) -> None:  # in the proxy's thread, before it hands the request on
        if exchange.method == "PUT" and "/c/target" in exchange.target and waiting:
            put = copying.beside.put("c/source", waiting.pop().encode())
            asyncio.run_coroutine_threadsafe(put, loop).result(10)

    given = await given_for(condition, copying)
    copying.proxy.rule = replace_the_source
    await copying.storage.copy("c/source", "c/target", **given)
    assert await copying.beside.get("c/target") == b"replaced meanwhile"


@pytest.mark.parametrize("condition", ["if_absent", "if_match"])
async def test_a_missing_source_is_not_found_whatever_the_condition(copying: Copying, condition: str) -> None:
    given = await given_for(condition, copying)
    with pytest.raises(NotFoundError):
        await copying.storage.copy("c/nothing", "c/target", **given)
