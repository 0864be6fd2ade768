"""Letting nginx send the files of a local storage: the answer names the file, and nginx sends what it finds there.

It opens the file by its name, after we have looked. So conditions, ranges, ETag and Last-Modified are nginx's alone: to
judge an ETag of nginx's by ours would refuse what is fine.
"""

from __future__ import annotations

from urllib.parse import quote

from .. import InvalidArgumentError, NotFoundError, Storage, StorageError
from ._exchange import Answer, Bound
from ._policy import ContentPolicy
from ._serving import CHUNK, failed


def parse_location(location: str) -> str:
    """The path of nginx's internal location, if names can be put behind it."""
    if not isinstance(location, str):
        raise TypeError(f"accel_redirect must be a str, not {type(location).__name__}")
    if not location.startswith("/") or not location.endswith("/"):
        raise InvalidArgumentError("accel_redirect must begin and end with '/': it is the path of an nginx location")
    return location


async def accelerated(
    storage: Storage, key: str, method: str, bound: Bound | None, location: str, policy: ContentPolicy
) -> Answer | None:
    """The answer that has nginx send the object; None for what does not lie in a file as it is, or is so small that it
    was read already."""
    try:
        async with storage.open_read(key, chunk_size=CHUNK) as reader:
            if reader.file is None:
                return None
            info = reader.info if bound is None else bound.of_object(reader.info)
    except NotFoundError as error:
        return failed(error, policy, headless=method == "HEAD")
    except StorageError:
        return None  # the usual way says what is wrong
    fields = [*policy.always, *policy.describe(key.rpartition("/")[2], info), *policy.caching(info)]
    where = ("x-accel-redirect", quote(location, safe="/~%") + quote(key, safe="/~"))
    return Answer(200, [*fields, where, ("content-length", "0")])
