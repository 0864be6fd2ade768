"""Four tasks that write at the same time, in every way there is, and tell a history of it."""

from __future__ import annotations

import asyncio
import json
import math
import random

from faults.history import History, Value, Write, find
from micelio_storage import IntegrityError, NotFoundError, Session, Storage

SOURCE = "sources/one"
SHARED = 6  # keys that two tasks write at once
KEPT = 5  # files that the session has at most


class Writers:
    """The tasks of one run, whose name is in every label: so no two versions are ever equal."""

    def __init__(self, storage: Storage, history: History, run: str) -> None:
        self._storage = storage
        self._history = history
        self._run = run
        self._session = Session(storage, "one")
        self._random = random.Random(run)
        self._to_move: list[Write] = []

    async def work(self, rounds: int) -> None:
        """So many writes by each of four tasks; the first error ends them all."""
        source = self._value("source", 50_000)
        await self._put(SOURCE, source)
        await self._clear("moves/")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._write_shared("a", source, rounds))
            tasks.create_task(self._write_shared("b", source, rounds))
            tasks.create_task(self._keep_a_session(rounds))
            tasks.create_task(self._move_things(rounds))

    async def _write_shared(self, task: str, source: Value, rounds: int) -> None:
        ways = [self._put, self._put, self._stream, self._create, self._replace, self._stream_new]
        for number in range(rounds):
            key = f"shared/{self._random.randrange(SHARED)}/file"
            chance = self._random.random()
            if chance < 0.15:
                with self._history.writing({key: None}):
                    await self._storage.delete(key)
            elif chance < 0.25:
                with self._history.writing({key: source}):
                    await self._storage.copy(SOURCE, key)
            else:
                size = int(2 ** self._random.uniform(0, 18.6))  # some are written by the lane, some as uploads
                await self._random.choice(ways)(key, self._value(f"{task}{number}", size))

    async def _keep_a_session(self, rounds: int) -> None:
        """Files and the document that names them: a name is written after its file, and removed before it."""
        names: list[str] = (await self._session.metadata()).get("files", [])
        for number in range(rounds):
            name = f"{self._run}-{number}"
            await self._put(f"sessions/one/files/{name}", self._value(f"c{number}", 3000))
            names = [*names, name]
            await self._name_files(names)
            if len(names) > KEPT:
                oldest, *names = names
                await self._name_files(names)
                with self._history.writing({f"sessions/one/files/{oldest}": None}):
                    await self._session.files.delete(oldest)

    async def _name_files(self, names: list[str]) -> None:
        document = {"files": names}
        text = json.dumps(document, indent=2) + "\n"
        with self._history.writing({"sessions/one/metadata.json": (text.encode(), "")}):
            await self._session.update_metadata(lambda _: document)

    async def _move_things(self, rounds: int) -> None:
        for number in range(rounds):
            old, new = f"moves/{self._run}-{number}/from", f"moves/{self._run}-{number}/to"
            value = self._value(f"d{number}", 20_000)
            await self._put(old, value)
            self._to_move.append(self._history.writes[old][-1])
            with self._history.writing({old: None, new: value}):
                await self._storage.move(old, new)
            if number % 8 == 7:
                await self._clear("moves/")

    async def _put(self, key: str, value: Value) -> None:
        assert value is not None
        with self._history.writing({key: value}):
            await self._storage.put(key, value[0], metadata={"label": value[1]})

    async def _create(self, key: str, value: Value) -> None:
        assert value is not None
        with self._history.writing({key: value}):
            await self._storage.put(key, value[0], if_absent=True, metadata={"label": value[1]})

    async def _replace(self, key: str, value: Value) -> None:
        assert value is not None
        try:
            seen = await self._storage.head(key)
        except NotFoundError:
            return
        with self._history.writing({key: value}):
            await self._storage.put(key, value[0], if_match=seen.etag, metadata={"label": value[1]})

    async def _stream(self, key: str, value: Value, *, if_absent: bool = False) -> None:
        assert value is not None
        data, label = value
        with self._history.writing({key: value}):
            async with self._storage.open_write(key, if_absent=if_absent, metadata={"label": label}) as writer:
                await writer.write(data[: len(data) // 2])
                await writer.write(data[len(data) // 2 :])

    async def _stream_new(self, key: str, value: Value) -> None:
        await self._stream(key, value, if_absent=True)

    async def _clear(self, prefix: str) -> None:
        keys = [entry.key async for entry in self._storage.list(prefix)]
        with self._history.writing(dict.fromkeys(keys)):
            await self._storage.delete_prefix(prefix)

    def _value(self, what: str, size: int) -> tuple[bytes, str]:
        label = f"{self._run}.{what}"
        return random.Random(label).randbytes(size), label

    async def what_is_torn_apart(self, storage: Storage, at: float = math.inf) -> list[str]:
        """What belongs together and is not: a document that names a missing file, an object lost on its way."""
        at = min(at, self._history.moment)
        try:
            names = (await Session(storage, "one").metadata()).get("files", [])
        except IntegrityError:
            return ["the session's document is refused as damaged"]
        wrong = [
            f"the session's document names {name}, which is missing"
            for name in names
            if await find(storage, f"sessions/one/files/{name}") is None
        ]
        for put in self._to_move:
            target = put.key.replace("/from", "/to")
            cleared = any(write.value is None and write.began <= at for write in self._history.writes.get(target, []))
            found = [await find(storage, key) for key in (put.key, target)]
            if put.acknowledged <= at and not cleared and found == [None, None]:
                wrong.append(f"{put.key} was lost on its way")
        return wrong
