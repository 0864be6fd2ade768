"""A store that ignores conditions only at the end of a multipart upload, as moto's does, holds all that is one put."""

from __future__ import annotations

import pytest
from support.s3_servers import Server
from support.s3_storage import driver_for

from micelio_storage import NotSupportedError, PreconditionFailedError, Session, Storage


@pytest.mark.case("S10")
async def test_a_store_that_keeps_if_match_for_puts_alone_holds_sessions(moto_server_: Server) -> None:
    async with Storage(driver_for(moto_server_)) as storage:
        assert storage.capabilities.if_match
        assert not storage.capabilities.if_match_streams
        session = Session(storage, "conditions")
        for _ in range(3):
            await session.update_metadata(lambda document: {"count": document.get("count", 0) + 1})
        assert await session.metadata() == {"count": 3}
        first = await session.files.put("a", b"1")
        await session.files.put("a", b"22", if_match=first.etag)
        with pytest.raises(PreconditionFailedError):
            await session.files.put("a", b"3", if_match=first.etag)
        with pytest.raises(NotSupportedError):
            async with session.files.open_write("a", if_match=first.etag):
                pass
        with pytest.raises(NotSupportedError):
            await session.files.copy("a", "b", if_match=first.etag)
        await session.delete()
