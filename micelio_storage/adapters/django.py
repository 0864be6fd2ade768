"""A storage for Django: what `STORAGES` and `FileField(storage=)` take. Names never leave the storage, two uploads at
once never share one, and a file that is written shows when it is closed, or never.

```python
STORAGES = {
    "default": {
        "BACKEND": "micelio_storage.adapters.django.MicelioStorage",
        "OPTIONS": {"target": "s3://bucket/media"},
    },
}
```
"""

from __future__ import annotations

import io
import os
import posixpath
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import chain
from typing import IO, Any, cast
from urllib.parse import urljoin

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured, SuspiciousFileOperation
from django.core.files.base import File
from django.core.files.storage import Storage
from django.utils.deconstruct import deconstructible
from django.utils.encoding import filepath_to_uri

from .._errors import (
    AlreadyExistsError,
    ConfigError,
    InvalidKeyError,
    KeyConflictError,
    NotSupportedError,
)
from .._hooks import Hook
from .._open import Target
from .._types import Entry
from ..sync import SyncStorage, open_storage_sync

__all__ = ["MicelioStorage", "StoredFile"]

TRIES = 100  # names that may be taken while a file is saved
IN_MEMORY = 1 << 20  # bytes of a file that cannot be read twice: beyond that they go to a temporary file


@deconstructible(path="micelio_storage.adapters.django.MicelioStorage")
class MicelioStorage(Storage):
    """Files as objects of a storage, from any thread of the application; a process that it forks opens its own.

    `target`, or the environment with the names' `environ_prefix`, say where, as for `open_storage`; `prefix` is a
    place below it. `url` gives a signed URL for `url_expires` seconds, or, with `base_url`, one below that for
    everybody. A name that is taken gets another one, or, with `allow_overwrite`, what was there is replaced.
    """

    def __init__(
        self,
        target: Target | None = None,
        *,
        prefix: str = "",
        environ_prefix: str = "",
        base_url: str | None = None,
        url_expires: int = 3600,
        allow_overwrite: bool = False,
        hooks: Sequence[Hook] = (),
    ) -> None:
        self._base_url = base_url if base_url is None or base_url.endswith("/") else f"{base_url}/"
        self._url_expires = url_expires
        self._allow_overwrite = allow_overwrite
        try:
            self._whole = open_storage_sync(target, environ_prefix=environ_prefix, hooks=hooks)
            self._storage = self._whole.under(prefix) if prefix else self._whole
        except (ConfigError, InvalidKeyError) as error:
            raise ImproperlyConfigured(f"the storage of {type(self).__name__}: {error}") from error

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._storage!r}>"

    # -- what Django calls to open and save

    def _open(self, name: str, mode: str = "rb") -> StoredFile:
        return StoredFile(self._storage, name, mode)

    def save(self, name: str | None, content: File | IO[Any], max_length: int | None = None) -> str:
        """Store the content, as a whole or not at all, and return the name that it got: one that was taken meanwhile
        is given up for another."""
        with _rewindable(content) as source:
            for left in reversed(range(TRIES)):
                try:
                    return str(super().save(content.name if name is None else name, source, max_length=max_length))
                except AlreadyExistsError:
                    if not left:
                        raise
        raise AssertionError("the last try returns or raises")

    def _save(self, name: str, content: File) -> str:
        chunks = (chunk.encode() if isinstance(chunk, str) else chunk for chunk in content.chunks())
        first, second = next(chunks, b""), next(chunks, None)
        data = first if second is None else chain((first, second), chunks)  # few bytes are one request
        with _django_errors():
            key = _key(name)
            self._storage.put(key, data, if_absent=not self._allow_overwrite)
        return key

    def is_name_available(self, name: str, max_length: int | None = None) -> bool:
        """Whether `save` may use it."""
        fits = not max_length or len(name) <= max_length
        return fits and (self._allow_overwrite or not self.exists(name))

    def get_alternative_name(self, file_root: str, file_ext: str) -> str:
        """With `allow_overwrite` the same one, which was too long and is cut."""
        if self._allow_overwrite:
            return f"{file_root}{file_ext}"
        return str(super().get_alternative_name(file_root, file_ext))

    # -- what else Django calls

    def delete(self, name: str) -> None:
        """Remove the file; one that is missing is fine."""
        if not name:
            raise ValueError("The name must be given to delete().")
        with _django_errors():
            self._storage.delete(_key(name))

    def exists(self, name: str) -> bool:
        """Whether there is such a file, or files below that name: then it is not available."""
        with _django_errors():
            key = _key(name)
            return self._storage.exists(key) or bool(self._storage.list_page(f"{key}/", limit=1).entries)

    def listdir(self, path: str) -> tuple[list[str], list[str]]:
        """The names of the directories and files directly below; none where nothing is."""
        directories: list[str] = []
        files: list[str] = []
        with _django_errors():
            prefix = f"{_key(path)}/" if posixpath.normpath(path) != "." else ""
            for line in self._storage.list_folded(prefix):
                if isinstance(line, Entry):
                    files.append(line.key.removeprefix(prefix))
                else:
                    directories.append(line.removeprefix(prefix).removesuffix("/"))
        return directories, files

    def size(self, name: str) -> int:
        """Its bytes."""
        with _django_errors():
            return self._storage.head(_key(name)).size

    def url(self, name: str | None) -> str:
        """Where a browser gets it. `ValueError` where the storage signs no URLs and there is no `base_url`."""
        if self._base_url is not None:
            return str(urljoin(self._base_url, (filepath_to_uri(name) or "").lstrip("/")))
        with _django_errors():
            try:
                return str(self._storage.url(_key(name or ""), expires=self._url_expires))
            except NotSupportedError as error:
                text = "This file is not accessible via a URL: give the storage a base_url, or keys to sign URLs with."
                raise ValueError(text) from error

    def get_modified_time(self, name: str) -> datetime:
        """When it was written: aware if `USE_TZ`, else of the system's time zone."""
        with _django_errors():
            modified = self._storage.head(_key(name)).modified
        return modified if settings.USE_TZ else modified.astimezone().replace(tzinfo=None)


class StoredFile(File):
    """An object as one of Django's files. What is written to it is published as it is closed, and not if the block
    raises."""

    def __init__(self, storage: SyncStorage, name: str, mode: str) -> None:
        super().__init__(_open(storage, name, mode), name)
        self.mode = mode
        self._storage = storage

    def open(self, mode: str | None = None, *arguments: Any, **options: Any) -> StoredFile:
        """Go back to the beginning; one that was closed is opened again."""
        if not self.closed:
            self.seek(0)
        else:
            self.mode = mode or self.mode
            self.file = _open(self._storage, self.name, self.mode)
            self.__dict__.pop("size", None)  # of what it was before
        return self


def _open(storage: SyncStorage, name: str, mode: str) -> IO[Any]:
    """The object as Python's file: `r`, `w` or `x`, binary or (with `t`, or without `b`) UTF-8."""
    kind = mode.replace("b", "").replace("t", "")
    if kind not in ("r", "w", "x") or ("b" in mode and "t" in mode):
        raise ValueError(f"mode {mode!r}: an object is read (r), or written as a whole (w, or x for a new one)")
    with _django_errors():
        raw = storage.open_read(_key(name)) if kind == "r" else storage.open_write(_key(name), if_absent=kind == "x")
    return cast(IO[Any], raw if "b" in mode else _Text(cast(IO[bytes], raw), encoding="utf-8"))


class _Text(io.TextIOWrapper):
    def __del__(self) -> None:
        """What it holds warns, and publishes nothing."""


def _key(name: str | os.PathLike[str]) -> str:
    """The key of a name. As in Django's own, "./a//b" is "a/b"; what leads elsewhere is refused."""
    name = os.fspath(name)
    if ".." in name.split("/") or name.startswith("/"):
        raise InvalidKeyError(f"{name!a} leads out of the storage")
    return posixpath.normpath(name) if name else name


@contextmanager
def _django_errors() -> Iterator[None]:
    try:
        yield
    except InvalidKeyError as error:
        raise SuspiciousFileOperation(str(error)) from error
    except KeyConflictError as error:
        raise FileExistsError(str(error)) from error


@contextmanager
def _rewindable(content: File | IO[Any]) -> Iterator[File | IO[Any]]:
    """The content, or a copy of one that can be read only once: if its name is taken meanwhile, it is read again."""
    seekable = getattr(content, "seekable", None)
    if seekable() if seekable is not None else hasattr(content, "seek"):
        yield content
        return
    with tempfile.SpooledTemporaryFile(IN_MEMORY) as copy:
        while piece := content.read(IN_MEMORY):
            copy.write(piece.encode() if isinstance(piece, str) else piece)
        yield File(copy, getattr(content, "name", None))
