"""What is stored with the bytes: the user's metadata and the content type."""

from __future__ import annotations

from ..._storage import Storage
from ...driver import DEFAULT_CONTENT_TYPE, InvalidArgumentError, ObjectInfo
from .._expect import check, equal, expect, names, needs, raises
from .._scheduling import together

MOST_BYTES = 2000  # of metadata, names and values together, as HTTP carries them
ROUNDS = 40  # replacements that a reader watches
REFUSED_METADATA = (
    {"Name": "a capital"},
    {"": "no name"},
    {"a b": "a blank"},
    {"n\u00e4me": "not ASCII"},
    {"-a": "a dash in front"},
    {"a": "line\nfeed"},
    {"a": "NUL\x00"},
    {"a": "DEL\x7f"},
    {"a": "half a face \ud83d"},
    {"a": "\ufffe"},
    {"micelio-a": "the storage's own"},
    {"a": "x" * MOST_BYTES},
    {"a": "\u20ac" * (MOST_BYTES // 3), "b": "\u20ac"},
)
NO_METADATA = ({"a": 1}, {1: "a"}, {"a": None}, {"a": b"b"}, [("a", "b")], "a=b")
REFUSED_CONTENT_TYPES = (
    "",
    "text",
    "text/",
    "/plain",
    "text/plain\n",
    "text/plain\r\nx: y",
    "t\u00e4xt/plain",
    "a/" + "b" * 255,
)


@check
async def metadata_comes_back_as_it_was(storage: Storage, prefix: str) -> None:
    """Names and values come back letter for letter: empty, blank at the ends, in any script, with '=' and '%'."""
    given = {
        "empty": "",
        "blanks": "  two  ",
        "script": "\u65e5\u672c\u8a9e caf\u00e9 cafe\u0301 \U0001f600",
        "signs": '=?utf-8?q?a?= %41 a+b "q" \\ , ;',
        "a.b_c-1": "a name with all kinds of signs",
        "0": "a digit",
    }
    with needs(storage.capabilities.metadata):
        info = await storage.put(prefix + "a", b"1", metadata=given)
        equal(dict(info.metadata), given, "the metadata that put returned")
        equal(dict((await storage.head(prefix + "a")).metadata), given, "the metadata that head says")
        async with storage.open_write(prefix + "b", metadata=given) as writer:
            await writer.write(b"1")
        equal(dict((await storage.head(prefix + "b")).metadata), given, "the metadata of a stream")


@check
async def two_thousand_bytes_of_metadata_are_kept(storage: Storage, prefix: str) -> None:
    """As much metadata as is allowed is kept, in few values as in many."""
    many = {f"n{number:03}": "v" * 12 for number in range(MOST_BYTES // 16)}
    with needs(storage.capabilities.metadata):
        for given in ({"a": "x" * (MOST_BYTES - 1)}, {"ab": "\u20ac" * ((MOST_BYTES - 14) // 4)}, many):
            await storage.put(prefix + "a", b"1", metadata=given)
            equal(dict((await storage.head(prefix + "a")).metadata), given, "the metadata")


@check
async def an_object_without_metadata_has_none(storage: Storage, prefix: str) -> None:
    """Where no metadata was given there is an empty mapping, whatever the driver can keep."""
    info = await storage.put(prefix + "a", b"1")
    equal(dict(info.metadata), {}, "the metadata that put returned")
    equal(dict((await storage.head(prefix + "a")).metadata), {}, "the metadata that head says")


@check
async def metadata_is_replaced_with_the_bytes(storage: Storage, prefix: str) -> None:
    """A new version has its own metadata and content type, and nothing of those before it."""
    with needs(storage.capabilities.metadata):
        await storage.put(prefix + "a", b"1", content_type="text/plain", metadata={"a": "1", "b": "1"})
        await storage.put(prefix + "a", b"2", content_type="text/html", metadata={"b": "2"})
        info = await storage.head(prefix + "a")
        equal((info.content_type, dict(info.metadata)), ("text/html", {"b": "2"}), "what belongs to the second version")
        await storage.put(prefix + "a", b"3")
        info = await storage.head(prefix + "a")
        equal((info.content_type, dict(info.metadata)), (DEFAULT_CONTENT_TYPE, {}), "what belongs to the third version")


@check
async def bytes_and_metadata_change_at_the_same_moment(storage: Storage, prefix: str) -> None:
    """Whoever reads while an object is replaced sees bytes, size and metadata of one version."""

    async def write() -> None:
        for number in range(1, ROUNDS):
            await storage.put(prefix + "a", b"x" * number, metadata={"size": str(number)})

    async def watch() -> None:
        for _ in range(ROUNDS):
            async with storage.open_read(prefix + "a") as reader:
                data = await reader.read()
                _expect_one_version(reader.info, len(data))
            info = await storage.head(prefix + "a")
            _expect_one_version(info, info.size)

    with needs(storage.capabilities.metadata):
        await storage.put(prefix + "a", b"x", metadata={"size": "1"})
        await together([write(), watch(), watch()])


def _expect_one_version(info: ObjectInfo, size: int) -> None:
    equal(info.size, size, "the size that the info says, of the bytes that were read")
    equal(dict(info.metadata), {"size": str(size)}, f"the metadata of the version of {size} bytes")


@check
async def metadata_that_cannot_be_kept_is_refused(storage: Storage, prefix: str) -> None:
    """What some back end would change or drop is an error on every driver, and nothing is stored."""
    for metadata in REFUSED_METADATA:
        with raises(InvalidArgumentError, f"a put with the metadata {ascii(metadata)[:60]}"):
            await storage.put(prefix + "a", b"1", metadata=metadata)
        with raises(InvalidArgumentError, f"a stream with the metadata {ascii(metadata)[:60]}"):
            async with storage.open_write(prefix + "a", metadata=metadata):
                pass
    for wrong in NO_METADATA:
        with raises(TypeError, f"a put with the metadata {wrong!r}"):
            await storage.put(prefix + "a", b"1", metadata=wrong)  # type: ignore[arg-type]  # that is the point
    equal(await names(storage, prefix), [], "what is there after refused puts")


@check
async def a_content_type_that_is_none_is_refused(storage: Storage, prefix: str) -> None:
    """A content type has a type and a subtype, in printable ASCII, and nothing is stored with another."""
    for content_type in REFUSED_CONTENT_TYPES:
        with raises(InvalidArgumentError, f"a put with the content type {content_type[:40]!a}"):
            await storage.put(prefix + "a", b"1", content_type=content_type)
    expect(not await storage.exists(prefix + "a"), "there is an object after refused puts")
