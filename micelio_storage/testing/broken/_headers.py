"""Drivers that say of an object what was not said of it, each in one way in which stores really do."""

from __future__ import annotations

from dataclasses import replace

from ...driver import DEFAULT_CONTENT_TYPE, HTTP_HEADERS, Key, ObjectInfo, WriteOptions, content_type_of
from ...drivers.memory import MemoryDriver
from ._breaking import fails


@fails(
    "headers_come_back_as_they_were",
    "a_copy_keeps_headers_and_takes_those_given",
    "an_update_keeps_content_type_and_headers",
)
class DropsHeaders(MemoryDriver):
    """Keeps no HTTP headers."""

    def _publish(self, key: Key, data: bytes, options: WriteOptions) -> ObjectInfo:
        return super()._publish(key, data, replace(options, **dict.fromkeys(HTTP_HEADERS)))


@fails("a_content_type_that_was_given_is_kept_whatever_the_extension")
class GuessesContentTypes(MemoryDriver):
    """Takes "application/octet-stream" for not knowing, and guesses by the extension."""

    async def head(self, key: Key) -> ObjectInfo:
        info = await super().head(key)
        guessed = content_type_of(key) if info.content_type == DEFAULT_CONTENT_TYPE else info.content_type
        return replace(info, content_type=guessed)


@fails("only_the_version_that_is_meant_is_copied")
class CopiesAnyVersion(MemoryDriver):
    """Does not look which version of the source is meant."""

    async def copy(self, source: Key, target: Key, options: WriteOptions) -> ObjectInfo:
        return await super().copy(source, target, replace(options, source_match=None))
