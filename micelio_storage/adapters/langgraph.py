"""A checkpointer for LangGraph: what a graph knew after each of its steps, on any storage.

    history/<thread>/<namespace>/<id>_checkpoint      one step: a line of JSON, then what LangGraph's serializer made
    history/<thread>/<namespace>/<id>_writes_<task>   what one task of that step has written so far, at once
    values/<thread>/<namespace>/<random>              a large value, which the checkpoints share that have it

Ids are written so that the newest comes first in a listing. Nothing refers to an object before it is stored, and a
checkpoint is there once its own object is: who dies on the way leaves values that nobody sees, until their thread is
deleted.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, Self, TypeVar

from anyio.from_thread import start_blocking_portal
from anyio.to_thread import run_sync
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_id,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from .. import (
    AlreadyExistsError,
    AmbiguousWriteError,
    IntegrityError,
    InvalidArgumentError,
    NotFoundError,
    Storage,
    StorageError,
    Target,
    open_storage,
)
from .._shielding import run_to_completion
from ._langgraph_objects import (
    CHECKPOINT,
    WRITES,
    Found,
    Large,
    ListedWrite,
    Place,
    Saved,
    Step,
    Typed,
    Writes,
    listed_writes,
    name_of,
    needed,
    pack_writes,
    segment_of,
    unpack_checkpoint,
    unpack_writes,
    values_of,
)
from ._langgraph_threads import OtherThreads
from ._together import each_of, growing, together
from ._writing import again, put_again

__all__ = ["MicelioSaver"]

LARGE = 64 << 10  # bytes of a value, serialized, from which on it is an object that later checkpoints share
ON_LOOP = 64 << 10  # bytes that are deserialized where they are, in about 0.3 ms: a hop to a thread takes 0.1
FIRST_PAGE = 16  # lines of a listing that is asked for the newest: one checkpoint and the writes of a few tasks
LONGEST_PAGE = 1000
ABANDONED = timedelta(days=1)  # before the newest checkpoint: a value that none has by then is one of nobody's
REMEMBERED = 256  # checkpoints whose large values are known without looking, because this process wrote or read them

T = TypeVar("T")


class MicelioSaver(OtherThreads):
    """A checkpointer on an open `Storage`, for as many graphs, threads and processes at once as there are.

    A checkpoint is there as a whole or not at all, and so is what one call of `put_writes` brings. Savers at once on
    one thread overwrite nothing of each other's: each checkpoint stays, and the newest id is the latest, as everywhere
    in LangGraph; a task's write stays the first one that came. Values go through `serde` alone (LangGraph's own by
    default). Errors are those of the storage. It needs a store with conditional puts.

    The calls without `await` are for other threads than the event loop's; where there is no loop at all,
    `MicelioSaver.from_conn_string` makes one.
    """

    def __init__(self, storage: Storage, *, serde: SerializerProtocol | None = None) -> None:
        if not isinstance(storage, Storage):
            raise TypeError(f"a saver needs a Storage (see open_storage), not {type(storage).__name__}")
        super().__init__(serde=serde)
        self._storage = storage
        self._known: OrderedDict[str, Large] = OrderedDict()

    @classmethod
    @contextmanager
    def from_conn_string(
        cls, target: Target | None = None, *, serde: SerializerProtocol | None = None
    ) -> Iterator[Self]:
        """For code without an event loop, which calls `graph.invoke`: a saver on `open_storage(target)`, which is open
        on a loop in a thread of its own until the block ends."""

        async def make() -> Self:
            return cls(storage, serde=serde)

        with (
            start_blocking_portal(name="micelio-langgraph") as portal,
            portal.wrap_async_context_manager(open_storage(target)) as storage,
        ):
            yield portal.call(make)

    # -- what a graph does

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint. Large values that it has in common with its parent are not stored again."""
        place, parent, name = Place.of(config), get_checkpoint_id(config), name_of(checkpoint["id"])
        shared = await self._shared(place, parent, checkpoint, new_versions)
        said = get_checkpoint_metadata(config, metadata)
        saved, large = await run_sync(self._dump, place, parent, checkpoint, said, shared)
        key, record = place.history + name + CHECKPOINT, saved.packed()
        keys = {place.values + each: data for each, data in large.items()}
        try:
            await together(put_again(self._storage, *each) for each in keys.items())
            await put_again(self._storage, key, record)
        except AmbiguousWriteError:
            raise  # it may stand
        except BaseException:
            await run_to_completion(self._withdraw(keys, key, record))
            raise
        self._remember(place.history + name, saved.large)
        return place.config(saved.id)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Store what a task has written, all of it at once. What it has written before stays, but for its error,
        interrupt and resume, where the newest counts."""
        place, checkpoint_id = Place.of(config), config["configurable"]["checkpoint_id"]
        key = place.history + name_of(checkpoint_id) + WRITES + segment_of(task_id)
        new = await run_sync(self._dump_writes, writes, task_path)
        await again(lambda: self._put_writes(key, task_id, new))  # if it stands, the next try finds it

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that `config` names, or the latest of its thread; None where there is none."""
        checkpoint_id = get_checkpoint_id(config)
        async for found in self._history(Place.of(config).history, only=checkpoint_id):
            saved = await self._read(found)
            loaded = None if saved is None else await self._load(found, saved)
            if loaded is not None:
                return loaded._replace(config=config) if checkpoint_id else loaded
        return None

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002  # so the framework calls it
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """The checkpoints of a namespace, the newest first; of one namespace after the other where `config` names none,
        and of one thread after the other without it. They are read some at a time, so break off where you like."""
        only = get_checkpoint_id(config) if config else None
        end = get_checkpoint_id(before) if before else None
        left = limit
        async for prefix in self._prefixes(config):
            async for batch in growing(self._history(prefix, only=only, before=end), left):
                for loaded in await together(self._match(found, filter) for found in batch):
                    if left is not None and left <= 0:
                        return
                    if loaded is not None:
                        yield loaded
                        left = None if left is None else left - 1

    def get_next_version(self, current: int | str | None, channel: None) -> int | str:  # type: ignore[override]  # one type there
        """1, 2, 3; but in threads that came from LangGraph's own savers, whose versions are text, theirs go on."""
        if not isinstance(current, str):
            return 1 if current is None else int(current) + 1
        return f"{int(current.partition('.')[0]) + 1:032}.{secrets.token_hex(8)}"

    # -- what is done with whole threads

    async def adelete_thread(self, thread_id: str) -> None:
        """Delete a thread. Its newest checkpoints go last, so that one that was deleted in part is not taken for an
        older state of itself; deleting it again finishes it."""
        history = f"history/{segment_of(thread_id)}/"
        keys = [entry.key async for entry in self._storage.list(history)]
        newest: dict[str, str] = {}
        for key in keys:
            if key.endswith(CHECKPOINT):
                newest.setdefault(key.parent, key.removesuffix(CHECKPOINT) + "_")
        last = {key for key in keys if key.startswith(newest.get(key.parent, "/"))}
        self._known.clear()
        await self._storage.delete(*(key for key in keys if key not in last))
        await self._storage.delete(*last)
        await self._storage.delete_prefix(f"values/{segment_of(thread_id)}/")

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy a thread, the oldest checkpoint first, each with its large values and writes before itself."""
        if str(source_thread_id) == str(target_thread_id):
            return
        source, copy = (f"history/{segment_of(thread)}/" for thread in (source_thread_id, target_thread_id))
        async for prefix in self._prefixes({"configurable": {"thread_id": source_thread_id}}):
            target, copied = copy + prefix.removeprefix(source), set[str]()
            for found in reversed([each async for each in self._history(prefix)]):
                if (saved := await self._read(found)) is None:
                    continue
                pairs = [(key, target + key.removeprefix(prefix)) for key in found.writes]
                pairs += [(values_of(prefix) + token, values_of(target) + token) for token in saved.tokens - copied]
                await together(self._storage.copy(*pair) for pair in pairs)
                copied |= saved.tokens
                saved.thread = str(target_thread_id)
                await put_again(self._storage, target + found.name + CHECKPOINT, saved.packed())

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints of these runs, in all threads: each checkpoint there is has to be looked at."""
        runs = set(run_ids)
        if not runs:
            return
        async for prefix in self._prefixes(None):
            steps = [step async for step in self._steps(prefix)]
            kept = {step.found.name for step in steps if step.run not in runs}
            if len(kept) < len(steps):
                await self._drop(prefix, steps, kept)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Keep of each namespace the latest checkpoint, and those before it that its delta channels are made from; or
        delete the threads. Do it while nobody goes on from an older checkpoint."""
        if strategy not in ("keep_latest", "delete"):
            raise InvalidArgumentError(f"the strategy is 'keep_latest' or 'delete', not {strategy!r}")
        for thread_id in thread_ids:
            if strategy == "delete":
                await self.adelete_thread(thread_id)
                continue
            async for prefix in self._prefixes({"configurable": {"thread_id": thread_id}}):
                steps = [step async for step in self._steps(prefix)]
                await self._drop(prefix, steps, needed(steps))

    # -- writing

    async def _withdraw(self, values: Collection[str], key: str, record: bytes) -> None:
        """Remove the values that nobody will ever see, unless the checkpoint has come to stand. If the store does not
        answer, they stay for a while."""
        with suppress(StorageError):
            try:
                if await self._storage.get(key) == record:
                    return
            except NotFoundError:
                pass  # as most often
            await self._storage.delete(*values)

    async def _put_writes(self, key: str, task_id: str, new: Writes) -> None:
        """Most tasks write once, so that is what is tried first; others add to what is there."""

        def merge(present: bytes | None) -> bytes | None:
            old: Writes = {} if present is None else unpack_writes(present)
            merged = {**old, **{idx: write for idx, write in new.items() if idx < 0 or idx not in old}}
            return None if merged == old else pack_writes(task_id, merged)

        try:
            await self._storage.put(key, pack_writes(task_id, new), if_absent=True)
        except AlreadyExistsError:
            await self._storage.update(key, merge)

    async def _shared(
        self, place: Place, parent: str | None, checkpoint: Checkpoint, new_versions: ChannelVersions
    ) -> Large:
        """The large values of the parent that are still the same."""
        versions = checkpoint["channel_versions"]
        same = {name for name in checkpoint["channel_values"] if name in versions and name not in new_versions}
        if not (parent and same):
            return {}
        name = place.history + name_of(parent)
        if name not in self._known:
            await self._read(Found(place.history, name_of(parent)))
        known = self._known.get(name, {})
        return {name: known[name] for name in same & known.keys() if known[name][0] == versions[name]}

    def _remember(self, name: str, large: Large) -> None:
        self._known[name] = large
        self._known.move_to_end(name)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def _dump(
        self, place: Place, parent: str | None, checkpoint: Checkpoint, metadata: CheckpointMetadata, shared: Large
    ) -> tuple[Saved, dict[str, bytes]]:
        """What is to be stored as the checkpoint, and the large values that are not there yet."""
        saved = Saved(thread=place.thread, namespace=place.namespace, id=checkpoint["id"], parent=parent)
        saved.large.update(shared)
        saved.checkpoint = self.serde.dumps_typed({k: v for k, v in checkpoint.items() if k != "channel_values"})
        saved.metadata = self.serde.dumps_typed(metadata)
        values: dict[str, bytes] = {}
        for channel, value in checkpoint["channel_values"].items():
            if channel in shared:
                continue
            kind, data = self.serde.dumps_typed(value)
            if len(data) < LARGE:
                saved.small[channel] = kind, data
            else:
                token = secrets.token_hex(16)
                saved.large[channel] = checkpoint["channel_versions"].get(channel, 0), token, kind
                values[token] = data
        return saved, values

    def _dump_writes(self, writes: Sequence[tuple[str, Any]], path: str) -> Writes:
        return {
            WRITES_IDX_MAP.get(channel, idx): (channel, path, self.serde.dumps_typed(value))
            for idx, (channel, value) in enumerate(writes)
        }

    # -- reading

    async def _prefixes(self, config: RunnableConfig | None) -> AsyncGenerator[str, None]:
        """What the keys of a namespace's history begin with, for all namespaces that `config` names."""
        threads = self._folders("history/")
        if config is not None:
            place = Place.of(config)
            if config["configurable"].get("checkpoint_ns") is not None:
                yield place.history
                return
            threads = each_of([f"history/{segment_of(place.thread)}/"])
        async for thread in threads:
            async for prefix in self._folders(thread):
                yield prefix

    async def _folders(self, prefix: str) -> AsyncGenerator[str, None]:
        async for line in self._storage.list_folded(prefix):
            if isinstance(line, str):
                yield line

    async def _history(
        self, prefix: str, *, only: str | None = None, before: str | None = None
    ) -> AsyncGenerator[Found, None]:
        """The checkpoints with these keys, the newest first. Those that are asked for the first alone cost little."""
        whole = prefix if only is None else prefix + name_of(only) + "_"
        after = None if before is None else prefix + name_of(before) + "`"  # behind all that begins with the name and _
        cursor, limit, more = None, FIRST_PAGE, True
        found = Found(prefix, "")
        while more:
            page = await self._storage.list_page(whole, limit=limit, cursor=cursor, start_after=after)
            for entry in page.entries:
                name, _, rest = entry.key.removeprefix(prefix).partition("_")
                if name != found.name:
                    if found.is_there:
                        yield found
                    found = Found(prefix, name)
                found.add(entry, f"_{rest}")
            cursor, after, more = page.cursor, None, page.cursor is not None
            limit = min(4 * limit, LONGEST_PAGE)
        if found.is_there:
            yield found

    async def _read(self, found: Found) -> Saved | None:
        """The checkpoint as it is stored; None where it has been deleted meanwhile."""
        try:
            saved = unpack_checkpoint(await self._storage.get(found.key))
        except NotFoundError:
            return None
        self._remember(found.prefix + found.name, saved.large)
        return saved

    async def _match(self, found: Found, wanted: Mapping[str, Any] | None) -> CheckpointTuple | None:
        """The checkpoint, if its metadata says what is wanted."""
        if (saved := await self._read(found)) is None:
            return None
        if wanted:
            metadata = await self._loads(saved.metadata)
            if any(metadata.get(name) != value for name, value in wanted.items()):
                return None
        return await self._load(found, saved)

    async def _load(self, found: Found, saved: Saved) -> CheckpointTuple | None:
        """The checkpoint with all its values and writes; None where it has been deleted meanwhile."""
        values = [values_of(found.prefix) + token for _, token, _ in saved.large.values()]
        try:
            data = await together(self._storage.get(key) for key in (*values, *found.writes))
        except NotFoundError as error:
            if not await self._storage.exists(found.key):
                return None
            raise IntegrityError(f"checkpoint {saved.id!r} lacks a part: {error}") from error
        large = zip(saved.large.items(), data, strict=False)
        typed = saved.small | {channel: (kind, value) for (channel, (_, _, kind)), value in large}
        writes = [write for each in data[len(values) :] for write in listed_writes(each)]
        writes.sort(key=lambda write: write[0])
        if sum(map(len, data)) + saved.size < ON_LOOP:
            return self._tuple(saved, typed, writes)
        return await run_sync(self._tuple, saved, typed, writes)

    def _tuple(self, saved: Saved, typed: Mapping[str, Typed], writes: Iterable[ListedWrite]) -> CheckpointTuple:
        place, load = Place(saved.thread, saved.namespace), self.serde.loads_typed
        checkpoint: Checkpoint = load(saved.checkpoint)
        checkpoint["channel_values"] = {channel: load(value) for channel, value in typed.items()}
        return CheckpointTuple(
            config=place.config(saved.id),
            checkpoint=checkpoint,
            metadata=load(saved.metadata),
            parent_config=place.config(saved.parent) if saved.parent else None,
            pending_writes=[(task_id, channel, load(value)) for (_, task_id, _), channel, value in writes],
        )

    async def _loads(self, typed: Typed) -> Any:
        if len(typed[1]) < ON_LOOP:
            return self.serde.loads_typed(typed)
        return await run_sync(self.serde.loads_typed, typed)

    # -- deleting

    async def _steps(self, prefix: str) -> AsyncGenerator[Step, None]:
        """All checkpoints of a namespace, the newest first, without their values."""
        async for batch in growing(self._history(prefix), None):
            for found, saved in zip(batch, await together(map(self._read, batch)), strict=True):
                if saved is not None:
                    yield Step(found, saved, await self._loads(saved.metadata))

    async def _drop(self, prefix: str, steps: Collection[Step], kept: Collection[str]) -> None:
        """Delete all but those with these names, and then the large values that only those had, or that a process left
        which was killed before it came to its checkpoint."""
        if not steps:
            return
        dropped = [step for step in steps if step.found.name not in kept]
        needed = {token for step in steps if step.found.name in kept for token in step.tokens}
        self._known.clear()
        await self._storage.delete(*(step.found.key for step in dropped))
        await self._storage.delete(*(key for step in dropped for key in step.found.writes))
        old = max(step.found.modified for step in steps) - ABANDONED
        unused = {values_of(prefix) + token for step in dropped for token in step.tokens - needed}
        async for entry in self._storage.list(values_of(prefix)):
            if entry.modified < old and entry.key.name not in needed:
                unused.add(entry.key)
        await self._storage.delete(*unused)
