"""The part of a storage that its calls share: keys are parsed for its driver, and errors say the whole key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import TypeVar

from ._batches import for_each
from ._call import Call, parse_deadline
from ._errors import NotFoundError, StorageError, raise_together
from ._hooks import Hook
from ._keys import Key, Prefix, check_length
from ._opening import Openable
from ._parsing import parse_count
from ._types import DeleteOptions, ListOptions, Page

MANY_AT_ONCE = 64  # operations: as many as one batch of writes on disk takes

T = TypeVar("T")


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

    def _add_context(self, name: str, failures: Mapping[Key, StorageError]) -> None:
        for key, error in failures.items():
            error.add_context(name, self._place + key, self._driver.name)
