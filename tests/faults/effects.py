"""Every kind of change that a storage acknowledges, each with what has to be there before it.

What it should lead to is not written down here: the memory driver, which promises the same, does it too and is asked.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass

from micelio_storage import Session, Storage, StorageError
from micelio_storage.drivers.memory import MemoryDriver

Step = Callable[[Session], Awaitable[object]]
State = dict[str, tuple[bytes, str, dict[str, str]]]

KEY = "src/deep/main.ex"
OTHER = "lib/deep/other.ex"


@dataclass(frozen=True, slots=True)
class Effect:
    """One change of one session, and what is stored in the session before."""

    act: Step
    before: tuple[Step, ...] = ()

    async def prepare(self, storage: Storage, sessions: Iterable[str]) -> None:
        """What has to be there, in all sessions."""
        await asyncio.gather(*(self._prepare(Session(storage, name)) for name in sessions))

    async def happen(self, storage: Storage, sessions: Iterable[str]) -> None:
        """The change, in all sessions at once; returns when all are acknowledged."""
        await asyncio.gather(*(self.act(Session(storage, name)) for name in sessions))

    async def wanted(self, sessions: list[str]) -> dict[str, State]:
        """What each session has to be afterwards."""
        async with Storage(MemoryDriver()) as storage:
            await self.prepare(storage, sessions)
            old = {name: await state(storage, name) for name in sessions}
            await self.happen(storage, sessions)
            new = {name: await state(storage, name) for name in sessions}
        assert not any(old[name] == new[name] for name in sessions)
        return new

    async def _prepare(self, session: Session) -> None:
        for step in self.before:
            await step(session)


async def state(storage: Storage, session: str) -> State:
    """All that is stored in a session."""
    found = {}
    async for entry in storage.list(f"sessions/{session}/"):
        async with storage.open_read(entry.key) as reader:
            found[entry.key] = await reader.read(), reader.info.content_type, dict(reader.info.metadata)
    return found


async def lost(storage: Storage, wanted: dict[str, State]) -> list[str]:
    """The sessions that are not what they have to be, for whatever reason."""
    wrong = []
    for name, right in wanted.items():
        try:
            found: State | str = await state(storage, name)
        except StorageError as error:
            found = repr(error)
        if found != right:
            wrong.append(name)
    return wrong


def _bytes(session: Session, what: str, size: int) -> bytes:
    return random.Random(f"{session.id} {what}").randbytes(size)


def _labels(session: Session, what: str) -> dict[str, str]:
    return {"session": session.id, "what": what}


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 100_000):
        yield data[start : start + 100_000]


async def _put_old(session: Session) -> None:
    await session.files.put(KEY, _bytes(session, "old", 60_000), metadata=_labels(session, "old"))


async def _put(session: Session) -> None:
    await session.files.put(KEY, _bytes(session, "new", 50_000), metadata=_labels(session, "new"))


async def _put_plain(session: Session) -> None:
    await session.files.put(KEY, _bytes(session, "new", 50_000))


async def _put_large(session: Session) -> None:
    await session.files.put(KEY, _bytes(session, "new", 400_000), content_type="text/x-elixir")


async def _put_streamed(session: Session) -> None:
    await session.files.put(KEY, _pieces(_bytes(session, "new", 350_000)), metadata=_labels(session, "new"))


async def _write(session: Session) -> None:
    async with session.files.open_write(KEY, metadata=_labels(session, "new")) as writer:
        await writer.write(_bytes(session, "new", 1_200_000))


async def _put_if_absent(session: Session) -> None:
    await session.files.put(KEY, _bytes(session, "new", 50_000), if_absent=True, metadata=_labels(session, "new"))


async def _write_if_absent(session: Session) -> None:
    async with session.files.open_write(KEY, if_absent=True, content_type="text/x-elixir") as writer:
        await writer.write(_bytes(session, "new", 350_000))


async def _put_if_match(session: Session) -> None:
    seen = await session.files.head(KEY)
    await session.files.put(
        KEY, _bytes(session, "new", 50_000), if_match=seen.etag, metadata=_labels(session, "matched")
    )


async def _write_if_match(session: Session) -> None:
    seen = await session.files.head(KEY)
    async with session.files.open_write(KEY, if_match=seen.etag) as writer:
        await writer.write(_bytes(session, "new", 350_000))


async def _put_other(session: Session) -> None:
    await session.files.put(OTHER, _bytes(session, "other", 1000), content_type="text/plain")


async def _put_deep(session: Session) -> None:
    for name in ("src/deep/one.ex", "src/deep/er/two.ex", "src/deep/er/three.ex"):
        await session.files.put(name, _bytes(session, name, 1000))


async def _copy(session: Session) -> None:
    await session.files.copy(KEY, OTHER)


async def _move(session: Session) -> None:
    await session.files.move(KEY, OTHER)


async def _delete(session: Session) -> None:
    await session.files.delete(KEY)


async def _delete_two(session: Session) -> None:
    await session.files.delete(KEY, OTHER)


async def _delete_if_match(session: Session) -> None:
    seen = await session.files.head(KEY)
    await session.files.delete(KEY, if_match=seen.etag)


async def _delete_prefix(session: Session) -> None:
    await session.files.delete_prefix("src/")


async def _delete_session(session: Session) -> None:
    await session.delete()


async def _update_metadata(session: Session) -> None:
    await session.update_metadata(lambda document: {**document, "session": session.id, "count": len(document)})


async def _update(session: Session) -> None:
    await session.files.update(KEY, lambda data: (data or b"")[::-1])


async def _put_again(session: Session) -> None:
    """Into a place that was made and removed a moment ago."""
    await _put(session)
    await _delete(session)
    await _put_large(session)


EFFECTS: dict[str, Effect] = {
    "put": Effect(_put),
    "put without attributes": Effect(_put_plain),
    "put of many bytes": Effect(_put_large),
    "put where something was deleted": Effect(_put_again),
    "overwrite": Effect(_put, (_put_old,)),
    "overwrite without attributes": Effect(_put_plain, (_put_old,)),
    "streamed put": Effect(_put_streamed),
    "streamed overwrite": Effect(_write, (_put_old,)),
    "create only": Effect(_put_if_absent),
    "streamed create only": Effect(_write_if_absent),
    "if-match": Effect(_put_if_match, (_put_old,)),
    "streamed if-match": Effect(_write_if_match, (_put_old,)),
    "copy": Effect(_copy, (_put_old,)),
    "copy over another": Effect(_copy, (_put_old, _put_other)),
    "move": Effect(_move, (_put_old,)),
    "move over another": Effect(_move, (_put_old, _put_other)),
    "delete": Effect(_delete, (_put_old,)),
    "delete of several": Effect(_delete_two, (_put_old, _put_other)),
    "delete if-match": Effect(_delete_if_match, (_put_old,)),
    "delete_prefix": Effect(_delete_prefix, (_put_old, _put_other, _put_deep)),
    "update": Effect(_update, (_put_old,)),
    "first metadata": Effect(_update_metadata),
    "metadata update": Effect(_update_metadata, (_put_old, _update_metadata)),
    "session delete": Effect(_delete_session, (_put_old, _put_other, _update_metadata)),
}
