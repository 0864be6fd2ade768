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

from collections.abc import Sequence
from typing import Any, ClassVar

LONGEST_SHOWN_KEY = 80  # characters: a key may have 1,024 bytes, and an error is one line


class StorageError(Exception):
    """The root of all that this library raises on purpose.

    `operation`, `key` and `driver` say where it happened (None until a `Storage` has added them). `retryable` says
    whether the same call may succeed later without anything being changed. `__cause__` is what the back end said.
    """

    retryable: ClassVar[bool] = False

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.operation: str | None = None
        self.key: str | None = None
        self.driver: str | None = None

    def __str__(self) -> str:
        if self.operation is None:
            return self.message
        where = self.operation if self.key is None else f"{self.operation} {show_key(self.key)}"
        return f"{where} ({self.driver}): {self.message}"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message,), dict(self.__dict__)

    def add_context(self, operation: str, key: str | None, driver: str) -> None:
        """Say where it happened, unless a call further in has said so already."""
        if self.operation is None:
            self.operation, self.key, self.driver = operation, key, driver


def show_key(key: str) -> str:
    """The key as an error or a log may show it: ASCII, quoted, cut in the middle when it is long."""
    shown = ascii(key)
    if len(shown) > LONGEST_SHOWN_KEY:
        shown = f"{shown[: LONGEST_SHOWN_KEY // 2]}...{shown[-LONGEST_SHOWN_KEY // 2 :]}"
    return shown


class NotFoundError(StorageError, FileNotFoundError):
    """There is no object under this key."""


class NotModifiedError(StorageError):
    """The object still has the ETag given as `if_none_match`."""


class PreconditionFailedError(StorageError):
    """The object is not in the state that the condition asked for, so nothing was changed."""


class AlreadyExistsError(PreconditionFailedError, FileExistsError):
    """`if_absent` was asked for and there is an object already."""


class RangeError(StorageError, ValueError):
    """The range begins behind the end of the object."""


class InvalidKeyError(StorageError, ValueError):
    """The key, prefix or session id is not one that every back end can keep. Nothing was touched."""


class InvalidArgumentError(StorageError, ValueError):
    """An option has a value that cannot be: an ETag without quotes, a limit of 0. Nothing was touched."""


class ConfigError(StorageError, ValueError):
    """The storage cannot be opened as configured. The message says what to set or change."""


class KeyConflictError(StorageError):
    """`a` and `a/b` cannot both be files, or something that is no regular file stands at the key's place."""


class AccessDeniedError(StorageError, PermissionError):
    """The back end knows the object or its place, and does not let this process at it."""


class OutOfSpaceError(StorageError, OSError):
    """The disk, the quota or the inodes are used up. The object is as it was before."""


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
    """The answer to a conditional write was lost, and nobody can say any more whether it was done. Look at the object
    before you try again."""


class ObjectReplacedError(UnavailableError):
    """The object was replaced or deleted while it was read, and the version that the read began with is gone. Reading
    it again gives the new one."""


class DeadlineError(UnavailableError, TimeoutError):
    """The call's deadline passed first."""


def raise_together(errors: Sequence[StorageError], text: str) -> None:
    """Raise the one error as it is, several as a group with the text, and none not at all."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ExceptionGroup(text, errors)
