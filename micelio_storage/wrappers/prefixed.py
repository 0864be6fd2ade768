"""Everything below a prefix: keys get it on the way in and lose it on the way out, and cursors do not show it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ..driver import (
    RESERVED_SEGMENT,
    Batches,
    BytesLike,
    Capabilities,
    Cleared,
    DeleteOptions,
    Download,
    Driver,
    Entry,
    InvalidKeyError,
    Key,
    ListOptions,
    ObjectInfo,
    Page,
    Prefix,
    PresignRequest,
    ReadOptions,
    SignedUrl,
    StorageError,
    Upload,
    WriteOptions,
    escape_name,
    not_a_cursor,
)
from ._forwarding import Forwarding

SEAL_SIZE = 8  # bytes of a cursor that say which prefix it belongs to


class _PrefixedBatches:
    """Those of another driver, of whose keys each is `below` its prefix."""

    def __init__(self, inner: Batches, below: Callable[[Key], Key]) -> None:
        self._inner = inner
        self._below = below

    @property
    def most(self) -> int:
        return self._inner.most

    @property
    def at_once(self) -> int:
        return self._inner.at_once

    async def head(self, keys: Sequence[Key]) -> Sequence[ObjectInfo | StorageError]:
        return await self._inner.head(list(map(self._below, keys)))

    async def get(self, keys: Sequence[Key], largest: int) -> Sequence[tuple[bytes, ObjectInfo] | StorageError | None]:
        return await self._inner.get(list(map(self._below, keys)), largest)

    async def put(self, objects: Sequence[tuple[Key, BytesLike, WriteOptions]]) -> Sequence[StorageError | None]:
        return await self._inner.put([(self._below(key), data, options) for key, data, options in objects])


class PrefixedDriver(Forwarding):
    """The part of another driver that is below `prefix`, which ends in "/"."""

    def __init__(self, inner: Driver, prefix: Prefix) -> None:
        super().__init__(inner)
        self.prefix = prefix
        self._size = len(prefix.encode())
        self._inner_capabilities: Capabilities | None = None
        self._capabilities = Capabilities()

    @classmethod
    def below(cls, driver: Driver, prefix: Prefix) -> PrefixedDriver:
        """What is below `prefix` of the driver; two prefixes on top of one another become one."""
        if isinstance(driver, PrefixedDriver) and type(driver) is cls:
            return cls(driver.inner, Prefix.parse(driver.prefix + prefix))
        return cls(driver, prefix)

    def __repr__(self) -> str:
        return f"<PrefixedDriver {str(self.prefix)!a} of {self.inner!r}>"

    @property
    def capabilities(self) -> Capabilities:
        """Those of the inner driver, whose keys have the prefix too. Made anew when the inner ones are others."""
        inner = self.inner.capabilities
        if inner is not self._inner_capabilities:
            self._capabilities = replace(inner, max_key_bytes=inner.max_key_bytes - self._size)
            self._inner_capabilities = inner
        return self._capabilities

    @property
    def batches(self) -> Batches | None:
        inner = self.inner.batches
        return None if inner is None else _PrefixedBatches(inner, self._below)

    async def head(self, key: Key) -> ObjectInfo:
        return await self.inner.head(self._below(key))

    async def read(self, key: Key, options: ReadOptions) -> Download:
        return await self.inner.read(self._below(key), options)

    async def put(self, key: Key, data: BytesLike, options: WriteOptions) -> ObjectInfo:
        return await self.inner.put(self._below(key), data, options)

    async def upload(self, key: Key, options: WriteOptions) -> Upload:
        return await self.inner.upload(self._below(key), options)

    async def copy(self, source: Key, target: Key, options: WriteOptions) -> ObjectInfo:
        return await self.inner.copy(self._below(source), self._below(target), options)

    async def move(self, source: Key, target: Key, options: WriteOptions) -> ObjectInfo:
        return await self.inner.move(self._below(source), self._below(target), options)

    async def delete(self, keys: Sequence[Key], options: DeleteOptions) -> Mapping[Key, StorageError]:
        outer = {self._below(key): key for key in keys}
        failures = await self.inner.delete(list(outer), options)
        return {outer[key]: error for key, error in failures.items()}

    async def delete_prefix(self, prefix: Prefix, spared: Sequence[str] = ()) -> Cleared:
        """What is no key here is a key inside, and stays."""
        below = Prefix.parse(self.prefix + prefix)
        cleared = await self.inner.delete_prefix(below, [self.prefix + name for name in (*spared, RESERVED_SEGMENT)])
        failures = {Key.parse(key[len(self.prefix) :]): error for key, error in cleared.failures.items()}
        foreign = [name[len(escape_name(self.prefix)) :] for name in cleared.foreign]
        return replace(cleared, foreign=foreign, failures=failures)

    async def list_page(self, prefix: Prefix, options: ListOptions) -> Page:
        """The inner page without the prefix, or the one behind it if nothing of it is a key here."""
        below = Prefix.parse(self.prefix + prefix)
        after = Prefix.parse(self.prefix + options.start_after) if options.start_after else None
        cursor = None if options.cursor is None else self._unseal(options.cursor)
        skipped, foreign = 0, list[str]()
        while True:
            inner = await self.inner.list_page(below, replace(options, cursor=cursor, start_after=after))
            page = self._page(inner)
            skipped += page.skipped
            foreign = [*foreign, *page.foreign] if options.foreign else [*foreign, *page.foreign][:1]
            cursor, after = inner.cursor, None
            if cursor is None or page.entries or page.prefixes or (foreign and options.foreign):
                sealed = None if cursor is None else self._seal(cursor)
                return replace(page, skipped=skipped, foreign=foreign, cursor=sealed)

    async def presign(self, key: Key, request: PresignRequest) -> SignedUrl:
        return await self.inner.presign(self._below(key), request)

    def _below(self, key: Key) -> Key:
        return Key.parse(self.prefix + key)

    def _page(self, page: Page) -> Page:
        """What of the page is a key, or begins one, without the prefix; the rest is counted."""
        skip, shown = len(self.prefix), len(escape_name(self.prefix))
        entries: list[Entry] = []
        prefixes: list[str] = []
        foreign = [name[shown:] for name in page.foreign]
        left_out = 0
        for entry in page.entries:
            name = entry.key[skip:]
            if not name or name[0] == ".":  # such as ".micelio/x", which is reserved at the top alone
                try:
                    Key.parse(name)
                except InvalidKeyError:
                    left_out += 1
                    foreign.append(escape_name(name))
                    continue
            key = Key.of_segments(name)
            entries.append(Entry(key=key, size=entry.size, etag=entry.etag, modified=entry.modified))
        for folded in page.prefixes:
            try:
                prefixes.append(Prefix.parse(folded[skip:]))
            except InvalidKeyError:
                left_out += 1
                foreign.append(escape_name(folded[skip:]))
        return Page(entries=entries, prefixes=prefixes, skipped=page.skipped + left_out, foreign=foreign)

    def _seal(self, cursor: str) -> str:
        """The inner cursor for outside: without the prefix the inner names in it cannot be read, and below another
        prefix it means nothing. That hides names from whoever gets a cursor; it keeps nobody out."""
        plain = cursor.encode()
        return base64.urlsafe_b64encode(self._mark(plain) + self._mask(plain)).decode().rstrip("=")

    def _unseal(self, cursor: str) -> str:
        try:
            sealed = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
            plain = self._mask(sealed[SEAL_SIZE:])
            if self._mark(plain) == sealed[:SEAL_SIZE]:
                return plain.decode()
        except ValueError as error:
            raise not_a_cursor() from error
        raise not_a_cursor()

    def _mark(self, plain: bytes) -> bytes:
        return hashlib.blake2b(self.prefix.encode() + b"\0" + plain, digest_size=SEAL_SIZE).digest()

    def _mask(self, data: bytes) -> bytes:
        pad = hashlib.shake_256(self.prefix.encode()).digest(len(data))
        return bytes(one ^ other for one, other in zip(data, pad, strict=True))
