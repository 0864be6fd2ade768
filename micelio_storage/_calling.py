"""The part of a storage that its calls share: keys are parsed for its driver, and errors say the whole key."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Literal, TypeAlias, TypeVar

from ._ahead import Ahead
from ._batches import for_each
from ._call import Call, parse_deadline
from ._content_types import content_type_of
from ._errors import NotFoundError, StorageError, raise_together
from ._hooks import Hook
from ._info import ObjectInfo
from ._keys import Key, Prefix, check_length
from ._opening import Openable
from ._parsing import parse_count, parse_list_options, parse_metadata
from ._types import DeleteOptions, ListOptions, Page, WriteOptions
from .driver import Batches

MANY_AT_ONCE = 64  # operations: as many as one batch of writes on disk takes

T = TypeVar("T")
Step: TypeAlias = Callable[[Sequence[Key]], Awaitable[Sequence[T | StorageError]]]  # as those of `Batches`


class Calling(Openable):
    """A driver, and how it is called."""

    _hooks: tuple[Hook, ...]
    _deadline: float | None

    def _parse(self, text: str) -> Key:
        """The key, which is one for this driver too."""
        key = Key.parse(text)
        check_length(key, self._driver.capabilities.max_key_bytes)
        return key

    def _parse_prefix(self, text: str) -> Prefix:
        prefix = Prefix.parse(text)
        check_length(prefix, self._driver.capabilities.max_key_bytes)
        return prefix

    def _call(self, name: str, key: object, deadline: float | None, target: object = None) -> Call:
        shown = self._place + key if isinstance(key, str) else None
        other = self._place + target if isinstance(target, str) else None
        limit = self._deadline if deadline is None else parse_deadline(deadline)
        return Call(self._lifecycle, (name, shown, self._driver.name), other, self._hooks, limit)

    async def _page(self, prefix: str, deadline: float | None, parse: Callable[[], ListOptions]) -> Page:
        """The page that `Storage.list_page` gives, with options that are parsed in the call."""
        with self._call("list", prefix, deadline) as call:
            options = parse()
            if options.start_after is not None:
                self._parse_prefix(options.start_after)
            return call.listed(await self._list_page(self._parse_prefix(prefix), options))

    async def _list_page(self, prefix: Prefix, options: ListOptions) -> Page:
        """The driver's page; that it leaves something out is logged once for each prefix."""
        page = await self._driver.list_page(prefix, options)
        self._left_out(prefix, page.skipped, page.foreign)
        return page

    def _left_out(self, prefix: Prefix, skipped: int, foreign: Sequence[str]) -> None:
        if skipped:
            self._lifecycle.tell_of_skipped(self._place + prefix, foreign)

    async def _delete(self, keys: Sequence[Key], options: DeleteOptions) -> None:
        self._raise_failures(await self._driver.delete(keys, options) if keys else {}, len(keys))

    def _raise_failures(self, failures: Mapping[Key, StorageError], count: int) -> None:
        """Raise what kept some of so many objects from being deleted."""
        self._add_context("delete", failures)
        raise_together(list(failures.values()), f"{len(failures)} of {count} objects could not be deleted")

    def _parse_all(self, keys: Iterable[str]) -> dict[Key, None]:
        if isinstance(keys, str):
            raise TypeError("keys must be several, as in [key], not one str")
        return dict.fromkeys(map(self._parse, keys))

    async def _each(
        self,
        name: str,
        keys: Collection[Key],
        work: Callable[[Key], Awaitable[T]],
        concurrency: int,
        absent: tuple[type[NotFoundError], ...] = (NotFoundError,),
    ) -> dict[str, T]:
        """What the work gives for each key, in their order, but for those that are `absent`."""
        at_once = parse_count("concurrency", concurrency, least=1) or MANY_AT_ONCE
        found: dict[Key, T] = {}

        async def do(key: Key) -> None:
            try:
                found[key] = await work(key)
            except absent:
                pass
            except StorageError as error:
                self._add_context(name, {key: error})
                raise

        await for_each(keys, do, at_once)
        return {str(key): found[key] for key in keys if key in found}

    def _batching(self) -> Batching | None:
        """See `batching`."""
        batches = self._driver.batches
        return None if batches is None or self._hooks or self._deadline is not None else Batching(self, batches)

    async def _outcomes(self, name: str, texts: Sequence[str], step: Step[T]) -> list[T | StorageError]:
        """What a step of the driver gives for each key, each error as one of a call of its own."""
        try:
            with self._call(name, None, None):
                parsed = [self._key_or_error(text) for text in texts]
                done = iter(await step([key for key in parsed if isinstance(key, Key)]))
                outcomes = [next(done) if isinstance(key, Key) else key for key in parsed]
        except StorageError as error:  # of all of them: it is closed, or has no thread
            return [error for _ in texts]
        for text, outcome in zip(texts, outcomes, strict=True):
            if isinstance(outcome, StorageError):
                outcome.add_context(name, self._place + text, self._driver.name)
        return outcomes

    def _key_or_error(self, text: str) -> Key | StorageError:
        try:
            return self._parse(text)
        except StorageError as error:
            return error

    def _add_context(self, name: str, failures: Mapping[Key, StorageError]) -> None:
        for key, error in failures.items():
            error.add_context(name, self._place + key, self._driver.name)


async def pages_of(
    storage: Calling,
    prefix: str = "",
    *,
    start_after: str | None = None,
    delimiter: Literal["/"] | None = None,
    foreign: bool = False,
    deadline: float | None = None,
) -> AsyncGenerator[Page, None]:
    """All pages of a listing, each one call. While one is looked at, from the second on, a driver may have the next one
    come: to be closed (`aclosing`) by whoever may leave it."""
    begun, cursor, more = time.monotonic_ns(), None, True
    async with aclosing(Ahead()) as ahead:
        while more:
            options = partial(
                parse_list_options,
                cursor=cursor,
                start_after=start_after,
                delimiter=delimiter,
                foreign=foreign,
                begun=begun,
                ahead=ahead,
            )
            page = await storage._page(prefix, deadline, options)  # noqa: SLF001  # of this module
            yield page
            cursor, more, start_after = page.cursor, page.cursor is not None, None


class Batching:
    """Many small objects of a storage in one step, with what becomes of each: the result of a call, or its error."""

    def __init__(self, storage: Calling, batches: Batches) -> None:
        self._storage = storage
        self._batches = batches
        self.most = batches.most  # objects in one step
        self.at_once = batches.at_once  # steps

    async def head(self, keys: Sequence[str]) -> Sequence[ObjectInfo | StorageError]:
        """What `Storage.head` gives for each, or raises."""
        return await self._storage._outcomes("head", keys, self._batches.head)  # noqa: SLF001  # it is a part of it

    async def get(self, keys: Sequence[str], largest: int) -> Sequence[tuple[bytes, ObjectInfo] | StorageError | None]:
        """What `Storage.get_with_info` gives for each, or raises; None for one that is to be read by it, for it has
        more bytes than `largest`, or does not stay as it is."""
        step = partial(self._batches.get, largest=largest)
        return await self._storage._outcomes("get", keys, step)  # noqa: SLF001  # it is a part of it

    async def put(self, objects: Mapping[str, tuple[bytes, Mapping[str, str]]]) -> Sequence[StorageError | None]:
        """Do what `Storage.put` does with each, bytes and metadata; None for what is stored."""

        async def step(keys: Sequence[Key]) -> Sequence[StorageError | None]:
            return await self._batches.put([(key, objects[key][0], _options(key, objects[key][1])) for key in keys])

        return await self._storage._outcomes("put", list(objects), step)  # noqa: SLF001  # it is a part of it


def _options(key: Key, metadata: Mapping[str, str]) -> WriteOptions:
    return WriteOptions(content_type=content_type_of(key), metadata=parse_metadata(metadata))


def batching(storage: Calling) -> Batching | None:
    """A storage's way to take many small objects in one step. None where each is to be an operation of its own: if the
    driver has no such way, if there are hooks, which see each, and if each has a deadline."""
    return storage._batching()  # noqa: SLF001  # one of the core's own
