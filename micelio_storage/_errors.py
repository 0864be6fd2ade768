"""What can go wrong, named by cause and never by operation, so that *missing* is never mistaken for *throttled*.

    StorageError
      NotFoundError (FileNotFoundError)
      NotModifiedError
      PreconditionFailedError
        AlreadyExistsError (FileExistsError)
      RangeError (ValueError)
      InvalidKeyError (ValueError)
      InvalidArgumentError (ValueError)
      ConfigError (ValueError)
      KeyConflictError
      AccessDeniedError (PermissionError)
      OutOfSpaceError (OSError)
      IntegrityError
      NotSupportedError
      ClosedError
      BusyError
      UnavailableError
        DeadlineError (TimeoutError)
        AmbiguousWriteError
        ObjectReplacedError

Drivers raise these with a sentence and nothing else. Which operation, key and driver it was, `Storage` adds once.
"""

from __future__ import annotations

import errno
import traceback
from collections.abc import Sequence
from typing import Any, ClassVar, Self

from ._info import ObjectInfo

LONGEST_SHOWN_KEY = 80  # characters: a key may have 1,024 bytes, and an error is one line
LONGEST_CAUSE = 2000  # characters of what the causes of an error say that are pickled with it


class StorageError(Exception):
    """The root of all that this library raises on purpose.

    `operation`, `key` and `driver` say where it happened (None until a `Storage` has added them); the key is whole,
    with the prefixes of every `under`. `retryable` is True only where the same call may simply be made again (with a
    fresh source, and from the beginning of a reader's or writer's block). `__cause__` is what the back end said; once
    pickled, it is a `PickledCause` with the same words.
    """

    retryable: bool = False
    _errno: ClassVar[int | None] = None  # of those that are an OSError

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.operation: str | None = None
        self.key: str | None = None
        self.driver: str | None = None
        _set_errno(self, self._errno)

    def __str__(self) -> str:
        if self.operation is None:
            return self.message
        where = self.operation if self.key is None else f"{self.operation} {show_key(self.key)}"
        return f"{where} ({self.driver}): {self.message}"

    def __reduce__(self) -> tuple[Any, ...]:
        causes = None if self.__cause__ is None else _describe(self.__cause__)
        return _restore, (type(self), self.message, self._state(), causes)

    def __copy__(self) -> Self:
        copied: Self = _restore(type(self), self.message, self._state(), None)
        copied.__cause__ = self.__cause__
        return copied

    def _state(self) -> dict[str, Any]:
        return {**self.__dict__, **({"errno": self.errno} if isinstance(self, OSError) else {})}

    def add_context(self, operation: str, key: str | None, driver: str) -> None:
        """Say where it happened, unless a call further in has said so already."""
        if self.operation is None:
            self.operation, self.key, self.driver = operation, key, driver


def _set_errno(error: Exception, number: int | None) -> None:
    if isinstance(error, OSError):
        error.errno = number


class PickledCause(Exception):  # noqa: N818  # it stands for an error of any name
    """What the causes of an error said in the process where it happened: they may be of types that do not pickle."""


def _restore(kind: type[StorageError], message: str, state: dict[str, Any], causes: str | None) -> Any:
    error = kind(message)
    for name, value in state.items():
        setattr(error, name, value)
    if causes is not None:
        error.__cause__ = PickledCause(causes)
    return error


def _describe(cause: BaseException | None) -> str:
    """What the causes say, the nearest first."""
    if isinstance(cause, PickledCause):
        return str(cause)
    lines: list[str] = []
    while cause is not None and sum(map(len, lines)) < LONGEST_CAUSE:
        lines.append("".join(traceback.format_exception_only(cause)).strip())
        cause = cause.__cause__
    return "\nbecause of ".join(lines)[:LONGEST_CAUSE]


def show_key(key: str) -> str:
    """The key as an error or a log may show it: ASCII, quoted, cut in the middle when it is long."""
    shown = ascii(key)
    if len(shown) > LONGEST_SHOWN_KEY:
        shown = f"{shown[: LONGEST_SHOWN_KEY // 2]}...{shown[-LONGEST_SHOWN_KEY // 2 :]}"
    return shown


class NotFoundError(StorageError, FileNotFoundError):
    """There is no object under this key."""

    _errno = errno.ENOENT


class NotModifiedError(StorageError):
    """The object still has the ETag given as `if_none_match`.

    `info` is the object; None where the back end's answer does not say all of it, as S3's does not: asking once more
    would cost what the condition was to save.
    """

    def __init__(self, message: str = "", *, info: ObjectInfo | None = None) -> None:
        super().__init__(message)
        self.info = info


class PreconditionFailedError(StorageError):
    """The object is not in the state that the condition asked for, so nothing was changed.

    `info` is the object that was found instead; None where there is none, or none that may be looked at.
    """

    def __init__(self, message: str = "", *, info: ObjectInfo | None = None) -> None:
        super().__init__(message)
        self.info = info


class AlreadyExistsError(PreconditionFailedError, FileExistsError):
    """`if_absent` was asked for and there is an object already."""

    _errno = errno.EEXIST


class RangeError(StorageError, ValueError):
    """The range begins behind the end of the object, which has `size` bytes (None where nobody knows)."""

    def __init__(self, message: str = "", *, size: int | None = None) -> None:
        super().__init__(message)
        self.size = size


class InvalidKeyError(StorageError, ValueError):
    """The key, prefix or session id is not one that every back end can keep. Nothing was touched."""


class InvalidArgumentError(StorageError, ValueError):
    """An option has a value that cannot be: an ETag without quotes, a limit of 0. Nothing was touched."""


class ConfigError(StorageError, ValueError):
    """The storage cannot be opened as configured. The message says what to set or change."""


class KeyConflictError(StorageError):
    """`a` and `a/b` cannot both be files, or something other than a regular file is in the key's place."""


class AccessDeniedError(StorageError, PermissionError):
    """The back end knows the object or its place, and does not let this process at it."""

    _errno = errno.EACCES


class OutOfSpaceError(StorageError, OSError):
    """The disk, the quota or the inodes are used up. The object is as it was before."""

    _errno = errno.ENOSPC


class IntegrityError(StorageError):
    """What is stored is not what was written, or is not what it claims to be."""


class NotSupportedError(StorageError):
    """The driver cannot do that, and its `capabilities` say so."""


class ClosedError(StorageError):
    """The storage, reader or writer is not open (not yet, or no longer)."""


class BusyError(StorageError):
    """Two tasks used one reader or writer at the same time. The first goes on as if nothing had happened; the other
    needs one of its own."""


class UnavailableError(StorageError):
    """The back end did not answer, or asked to be left alone for a while. Worth a retry."""

    retryable = True


class AmbiguousWriteError(UnavailableError):
    """The answer to a write was lost, or its deadline passed while it was being published, and nobody can say whether
    it was done. Look at the object before you try again."""

    retryable = False


class ObjectReplacedError(UnavailableError):
    """The object was replaced or deleted while it was read, and the version that the read began with is gone. Reading
    it again gives the new one."""


class DeadlineError(UnavailableError, TimeoutError):
    """The call's deadline passed first. A write has changed nothing then: see `AmbiguousWriteError`."""

    _errno = errno.ETIMEDOUT


def raise_together(errors: Sequence[StorageError], text: str) -> None:
    """Raise the one error as it is, several as a group with the text, and none not at all."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ExceptionGroup(text, errors)
