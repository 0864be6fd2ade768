"""What a task of a soak does: anything that can be done to a storage, and a look at what it finds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from ..._errors import AlreadyExistsError, IntegrityError, NotFoundError, PreconditionFailedError, RangeError
from ._calls import Attempt, Caller, World
from ._model import (
    DIRECTORIES,
    LABEL,
    LARGEST,
    NAMED,
    Cell,
    Found,
    Loss,
    Value,
    body,
    fits,
    judge,
    judge_listing,
    judge_move,
    number_in,
    possible_out,
    read_whole,
    value_out,
    watching,
)

USUAL = 2 << 20  # bytes: most bodies are smaller, and every tenth of those is empty
LARGE = 0.01  # of the bodies have 8 MiB
OWN = 0.7  # of the reads are of a task's own keys, the others of any key of the process
CHUNK = 64 << 10  # bytes that a stream hands over at a time, at least

T = TypeVar("T")


class Actor(Caller):
    """One task, and the keys that it alone writes."""

    def __init__(self, world: World, number: int, name: str, seed: str) -> None:
        super().__init__(world, seed)
        self._base = f"{world.base}t{number}/"
        self._own = [cell for key, cell in world.cells.items() if key.startswith(self._base)]
        self._all = list(world.cells.values())
        self._name = name
        self._serial = 0
        can = world.storage.capabilities
        self._metadata = can.metadata
        self._delete_if_match = can.delete_if_match
        choices: list[tuple[int, bool, Callable[[], Awaitable[None]]]] = [
            (10, True, self.put),
            (6, True, self.stream),
            (4, can.if_absent, self.create),
            (5, can.if_match, self.replace),
            (4, can.if_match and can.if_absent, self.update),
            (6, can.if_match and can.if_absent, self.count),
            (3, True, self.copy),
            (3, True, self.move),
            (4, True, self.delete),
            (1, True, self.delete_directory),
            (12, True, self.get),
            (6, True, self.get_range),
            (8, True, self.read),
            (5, True, self.head),
            (4, True, self.exists),
            (4, True, self.list),
            (4, bool(world.others), self.glance),
        ]
        self._choices = [act for _, can_be, act in choices if can_be]
        self._weights = [weight for weight, can_be, _ in choices if can_be]

    async def look_over(self) -> None:
        """See what is there after a kill."""
        for cell in self._own:
            await self._look("read", cell, read_whole(self._storage, cell.key), sure=True)
        await self._list(self._base, sure=True)

    async def run(self) -> None:
        while not self._world.stopping:
            (act,) = self._random.choices(self._choices, self._weights)
            await act()

    # -- writes

    async def put(self) -> None:
        cell, value = self._pick(), self._new()
        work = self._storage.put(cell.key, body(value.name, value.size), metadata=self._labelled(value))
        await self._write("put" if cell.possible == {None} else "overwrite", cell, value, work)

    async def stream(self) -> None:
        cell, value = self._pick(), self._new()
        if self._random.random() < 0.5:
            work = self._storage.put(cell.key, self._chunks(value), metadata=self._labelled(value))
        else:
            work = self._pour(cell.key, value)
        await self._write("streamed put", cell, value, work)

    async def _pour(self, key: str, value: Value) -> Any:
        async with self._storage.open_write(key, metadata=self._labelled(value)) as writer:
            async for chunk in self._chunks(value):
                await writer.write(chunk)
        return writer.info

    async def _chunks(self, value: Value) -> AsyncGenerator[bytes, None]:
        data, step = body(value.name, value.size), max(CHUNK, value.size // 5)
        for start in range(0, value.size, step):
            await asyncio.sleep(0)
            yield data[start : start + step]

    async def create(self) -> None:
        cell, value = self._pick(), self._new()
        before = cell.possible
        if self._random.random() < 0.5:
            data: Any = body(value.name, value.size)
        else:
            data = self._chunks(value)
        work = self._storage.put(cell.key, data, if_absent=True, metadata=self._labelled(value))
        attempt = await self._write("put if_absent", cell, value, work)
        if before is None:
            return
        if attempt.outcome == "done" and None not in before:
            self._lie(cell, "if_absent overwrote an object")
        elif isinstance(attempt.error, AlreadyExistsError):
            if before == {None}:
                self._lie(cell, "if_absent was refused where no object was")
            else:
                self._settle(cell, before - {None})

    async def replace(self) -> None:
        """With the present ETag it must work, with any other it must not; for a put and for a delete."""
        cell, value = self._pick(), self._new()
        present = cell.certain() is not None and cell.etag is not None and self._random.random() < 0.7
        etag = cell.etag if present else '"no-such-version"'
        if self._delete_if_match and self._random.random() < 0.3:
            work: Coroutine[Any, Any, Any] = self._storage.delete(cell.key, if_match=etag)
            attempt = await self._write("delete if_match", cell, None, work)
        else:
            data = body(value.name, value.size)
            work = self._storage.put(cell.key, data, if_match=etag, metadata=self._labelled(value))
            attempt = await self._write("put if_match", cell, value, work)
        if present and isinstance(attempt.error, PreconditionFailedError):
            self._lie(cell, "if_match was refused, with the ETag of the object that was there")
        if not present and attempt.outcome == "done":
            self._lie(cell, "if_match with an ETag that no object had was granted")

    async def update(self) -> None:
        cell = self._pick(certain=True)
        before = cell.certain()
        if cell.possible is None or len(cell.possible) != 1:
            return
        new = self._new()
        value = Value(new.name, new.size, before.label if before else "")

        def change(data: bytes | None) -> bytes:
            found = None if data is None else Found(data=data)
            if cell.possible is not None and (loss := judge(cell.key, cell.possible, found)):
                self._world.lose(loss)
            return body(value.name, value.size)

        await self._write("update", cell, value, self._storage.update(cell.key, change))

    async def count(self) -> None:
        """One more, on a counter that all processes count on."""
        world, key = self._world, self._random.choice(list(self._world.counters))
        floor, written = world.counters[key], 0

        def change(data: bytes | None) -> bytes:
            nonlocal written
            present = number_in(data)
            if present is None or present < floor:
                world.lose(Loss("counter", key, f"it went from {floor} back to {data!r}"))
                world.counters[key] = 0  # once is enough
            written = (present or 0) + 1
            return b"%d\n" % written

        number = world.begin(count=key)
        attempt = await self._attempt("update of a counter", self._storage.update(key, change))
        if attempt.outcome == "done":
            world.counters[key] = max(world.counters[key], written)
        self._end(number, "update of a counter", attempt, count=key, sure=attempt.changed)

    async def copy(self) -> None:
        source, target = self._pick(certain=True), self._pick()
        value = source.certain()
        if value is None or source is target:
            return
        attempt = await self._write("copy", target, value, self._storage.copy(source.key, target.key))
        self._missed(source, attempt)

    async def move(self) -> None:
        source, target = self._pick(certain=True), self._pick()
        value = source.certain()
        if value is None or source is target:
            return
        writes = {source: None, target: value}
        attempt = await self._change("move", writes, self._storage.move(source.key, target.key))
        self._missed(source, attempt)
        if attempt.outcome == "done":
            return
        places = [await self._look("read", cell, read_whole(self._storage, cell.key), sure=True) for cell in writes]
        if all(place.outcome == "done" for place in places):
            found = {cell.key: place.result for cell, place in zip(writes, places, strict=True)}
            if loss := judge_move(source.key, target.key, value, found):
                self._world.lose(loss)

    async def delete(self) -> None:
        cells = self._random.sample(self._own, 1 if self._random.random() < 0.8 else 3)
        keys = [cell.key for cell in cells]
        await self._change("delete", dict.fromkeys(cells), self._storage.delete(*keys))

    async def delete_directory(self) -> None:
        prefix = f"{self._base}d{self._random.randrange(DIRECTORIES)}/"
        cells = [cell for cell in self._own if cell.key.startswith(prefix)]
        counts = [cell.possible is not None and len(cell.possible) == 1 for cell in cells]
        wanted = sum(cell.certain() is not None for cell in cells)
        attempt = await self._change("delete_prefix", dict.fromkeys(cells), self._storage.delete_prefix(prefix))
        if attempt.outcome == "done" and all(counts) and attempt.result != wanted:
            self._world.lose(Loss("answer", prefix, f"{attempt.result} objects were deleted, and {wanted} were there"))

    # -- reads

    async def get(self) -> None:
        cell = self._any()

        async def work() -> Found | None:
            try:
                return Found(data=await self._storage.get(cell.key))
            except NotFoundError:
                return None

        await self._look("get", cell, work())

    async def get_range(self) -> None:
        cell = self._any()
        value = cell.certain()
        offset = self._random.randint(0, value.size if value else 0)
        length = self._random.choice([None, 0, 1, 4096, 1 << 20])

        async def work() -> Found | None:
            try:
                data = await self._storage.get(cell.key, offset=offset, length=length)
            except NotFoundError:
                return None
            return Found(data=data, offset=offset, length=LARGEST if length is None else length)

        await self._look("get of a range", cell, work(), shorter=offset)

    async def read(self) -> None:
        cell = self._any()
        await self._look("streamed get", cell, read_whole(self._storage, cell.key))

    async def head(self) -> None:
        cell = self._any()

        async def work() -> Found | None:
            try:
                info = await self._storage.head(cell.key)
            except NotFoundError:
                return None
            return Found(size=info.size, label=info.metadata.get(LABEL, ""))

        await self._look("head", cell, work())

    async def exists(self) -> None:
        cell = self._any()

        async def work() -> Found | None:
            return Found() if await self._storage.exists(cell.key) else None

        await self._look("exists", cell, work())

    async def list(self) -> None:
        prefixes = [self._base, f"{self._base}d{self._random.randrange(DIRECTORIES)}/", self._world.base]
        await self._list(self._random.choices(prefixes, [2, 3, 1])[0])

    async def _list(self, prefix: str, *, sure: bool = False) -> None:
        cells = [cell for cell in self._all if cell.key.startswith(prefix)]

        async def work() -> list[tuple[str, int]]:
            return [(str(entry.key), entry.size) async for entry in self._storage.list(prefix)]

        with watching(*cells) as watches:
            attempt = await self._attempt("list", work(), sure=sure)
            if attempt.result is not None:
                wanted = {cell.key: watch.possible for cell, watch in zip(cells, watches, strict=True)}
                for loss in judge_listing(attempt.result, wanted):
                    self._world.lose(loss)
        self._tell("list", attempt)

    async def glance(self) -> None:
        """At a key that another process changes meanwhile: whatever is there is one version from first to last."""
        key = self._random.choice(self._world.others)
        attempt = await self._attempt("get of another's", read_whole(self._storage, key))
        self._tell("get of another's", attempt)
        found = attempt.result
        if isinstance(attempt.error, IntegrityError):
            self._world.lose(Loss("wrong bytes", key, str(attempt.error)))
        elif found is not None and found.size is not None and found.size >= NAMED and found.name() is None:
            self._world.lose(Loss("wrong bytes", key, f"what came of {found.size} bytes is no version that ever was"))

    # -- what they share

    async def _write(self, name: str, cell: Cell, value: Value | None, work: Coroutine[Any, Any, T]) -> Attempt[T]:
        attempt = await self._change(name, {cell: value}, work)
        if attempt.outcome == "done" and value is not None:
            cell.etag = getattr(attempt.result, "etag", None)
        return attempt

    async def _change(self, name: str, writes: Mapping[Cell, Value | None], work: Coroutine[Any, Any, T]) -> Attempt[T]:
        """A call that gives these keys these values: said before it begins, and after it has ended."""
        said = [[cell.key, value_out(value)] for cell, value in writes.items()]
        number = self._world.begin(operation=name, writes=said)
        for cell, value in writes.items():
            cell.begin(value)
        attempt = await self._attempt(name, work)
        halfway = name == "move" and attempt.outcome != "done"  # what refuses its end leaves the copy
        for cell, value in writes.items():
            cell.end(value, done=None if halfway else attempt.changed)
        self._end(number, name, attempt, cells=[[cell.key, possible_out(cell.possible)] for cell in writes])
        return attempt

    async def _look(
        self,
        name: str,
        cell: Cell,
        work: Coroutine[Any, Any, Found | None],
        *,
        shorter: int | None = None,
        sure: bool = False,
    ) -> Attempt[Found | None]:
        """A call that finds out about a key: any version that was there meanwhile is right. `shorter` is an offset that
        may be refused if one was."""
        with watching(cell) as (watch,):
            attempt = await self._attempt(name, work, sure=sure)
            possible = watch.possible
        self._tell(name, attempt)
        if possible is None:
            return attempt
        if isinstance(attempt.error, RangeError):
            if not any(value is not None and value.size < (shorter or 0) for value in possible):
                self._lie(cell, "a range was refused that no version was too short for")
        elif isinstance(attempt.error, IntegrityError):
            self._world.lose(Loss("wrong bytes", cell.key, str(attempt.error)))
        elif attempt.outcome == "done":
            if loss := judge(cell.key, possible, attempt.result):
                self._world.lose(loss)
            elif cell in self._own and cell.possible is not None and len(cell.possible) > 1:
                found = attempt.result
                still = {one for one in cell.possible if fits(one, found)}
                self._settle(cell, still)
        return attempt

    def _settle(self, cell: Cell, possible: set[Value | None]) -> None:
        cell.possible = possible
        self._world.say(cells=[[cell.key, possible_out(possible)]])

    def _lie(self, cell: Cell, text: str) -> None:
        self._world.lose(Loss("answer", cell.key, text))

    def _missed(self, source: Cell, attempt: Attempt[Any]) -> None:
        if isinstance(attempt.error, NotFoundError):
            self._world.lose(Loss("missing", source.key, "the source was not found, and it was there"))

    def _pick(self, *, certain: bool = False) -> Cell:
        """One of the task's own keys; of those that are known to have an object, if there are some."""
        known = [cell for cell in self._own if cell.certain() is not None] if certain else []
        return self._random.choice(known or self._own)

    def _any(self) -> Cell:
        return self._random.choice(self._own if self._random.random() < OWN else self._all)

    def _new(self) -> Value:
        """A version that never was."""
        self._serial += 1
        name = f"{self._name}.{self._serial}"
        chance = self._random.random()
        size = LARGEST if chance < LARGE else 0 if chance > 0.9 else int(USUAL ** self._random.random())
        return Value(name, size, name if self._metadata else "")

    def _labelled(self, value: Value) -> Mapping[str, str] | None:
        return {LABEL: value.label} if self._metadata else None
