"""Objects over HTTP: the same answers from disk, memory and S3, whatever the server or framework is."""

from __future__ import annotations

from ..wrappers.signing import Grant, UrlSigner
from ._conditions import Conditions
from ._exchange import Answer, Bound, ReadRequest, Refused, answer_of
from ._fields import ByteRange, EntityTags, Fields, content_disposition
from ._logging import HideSignatures
from ._policy import INLINE, SANDBOX, ContentPolicy
from ._uploads import UPLOADS, PendingUpload, SweptUploads, list_uploads, sweep_uploads
from .asgi import StorageApp, serve_object

__all__ = [
    "INLINE",
    "SANDBOX",
    "UPLOADS",
    "Answer",
    "Bound",
    "ByteRange",
    "Conditions",
    "ContentPolicy",
    "EntityTags",
    "Fields",
    "Grant",
    "HideSignatures",
    "PendingUpload",
    "ReadRequest",
    "Refused",
    "StorageApp",
    "SweptUploads",
    "UrlSigner",
    "answer_of",
    "content_disposition",
    "list_uploads",
    "serve_object",
    "sweep_uploads",
]
