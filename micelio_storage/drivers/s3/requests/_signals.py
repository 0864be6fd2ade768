"""Errors that the driver tells apart for its own use. What leaves it is the kind that each belongs to."""

from __future__ import annotations

from ....driver import NotSupportedError, StorageError, UnavailableError


class ChecksumRefusedError(NotSupportedError):
    """The store takes no checksum of this kind."""


class ConflictError(UnavailableError):
    """The store could not decide a race and asks to try again (409)."""


class NotDoneError(UnavailableError):
    """The store did not answer, and cannot have done what it was asked for."""


class NoSuchUploadError(StorageError):
    """The multipart upload is not open: completed, aborted, or never there."""
