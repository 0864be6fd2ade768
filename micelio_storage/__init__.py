"""Session storage you can await: files and artifacts of sessions, on disk by default, with one meaning everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._config import Config, LocalConfig, MemoryConfig, Mode, S3Config
from ._errors import (
    AccessDeniedError,
    AlreadyExistsError,
    AmbiguousWriteError,
    BusyError,
    ClosedError,
    ConfigError,
    DeadlineError,
    IntegrityError,
    InvalidArgumentError,
    InvalidKeyError,
    KeyConflictError,
    NotFoundError,
    NotModifiedError,
    NotSupportedError,
    ObjectReplacedError,
    OutOfSpaceError,
    PreconditionFailedError,
    RangeError,
    StorageError,
    UnavailableError,
)
from ._files import OnProgress
from ._hooks import Hook, Operation, log_operations
from ._info import HttpHeaders, ObjectInfo
from ._keys import Key
from ._open import Target, Url, config_from_environ, config_from_url, default_path, make_driver, open_storage
from ._outcome import Outcome, Status
from ._shared import SharedStorage, shared
from ._signed_urls import SignedUrl, SignedUrlWarning
from ._sources import AsyncReadable, Data
from ._storage import Storage
from ._streams import Reader, Writer
from ._types import BytesLike, Capabilities, Entry, Page, Removed, UrlArguments, WriteArguments
from ._updating import Change

if TYPE_CHECKING:  # imported when somebody asks for them: who only stores objects need not wait for all of a session
    from .sessions import Document, DocumentChange, Session, Usage, list_sessions

__all__ = [
    "AccessDeniedError",
    "AlreadyExistsError",
    "AmbiguousWriteError",
    "AsyncReadable",
    "BusyError",
    "BytesLike",
    "Capabilities",
    "Change",
    "ClosedError",
    "Config",
    "ConfigError",
    "Data",
    "DeadlineError",
    "Document",
    "DocumentChange",
    "Entry",
    "Hook",
    "HttpHeaders",
    "IntegrityError",
    "InvalidArgumentError",
    "InvalidKeyError",
    "Key",
    "KeyConflictError",
    "LocalConfig",
    "MemoryConfig",
    "Mode",
    "NotFoundError",
    "NotModifiedError",
    "NotSupportedError",
    "ObjectInfo",
    "ObjectReplacedError",
    "OnProgress",
    "Operation",
    "OutOfSpaceError",
    "Outcome",
    "Page",
    "PreconditionFailedError",
    "RangeError",
    "Reader",
    "Removed",
    "S3Config",
    "Session",
    "SharedStorage",
    "SignedUrl",
    "SignedUrlWarning",
    "Status",
    "Storage",
    "StorageError",
    "Target",
    "UnavailableError",
    "Url",
    "UrlArguments",
    "Usage",
    "WriteArguments",
    "Writer",
    "config_from_environ",
    "config_from_url",
    "default_path",
    "list_sessions",
    "log_operations",
    "make_driver",
    "open_storage",
    "shared",
]


_OF_SESSIONS = ("Document", "DocumentChange", "Session", "Usage", "list_sessions")


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("micelio_storage")
    if name not in _OF_SESSIONS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import sessions

    value: object = getattr(sessions, name)
    globals()[name] = value
    return value
