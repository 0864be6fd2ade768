"""Keys on a disk and in a bucket: refused before anything happens, or kept byte for byte and apart from all others."""

from __future__ import annotations

import asyncio
import inspect
import unicodedata
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import s3_servers
from support.s3_storage import config_for, set_credentials

from faults.both import Bucket, Disk, Opened, Place, in_a_bucket, on_both, on_disk, one_loop
from faults.children import run_all
from faults.scale import scaled
from micelio_storage import InvalidKeyError, Key, Storage, open_storage
from micelio_storage.testing._corpus import KEPT_KEYS, REFUSED_KEYS, REFUSED_PREFIXES
from micelio_storage.testing.checks._keys import MOVING, READING, WRITING, Call

NAMED = {"key", "keys", "objects", "source", "target", "prefix"}  # parameters that are keys or begin keys


async def names(storage: Storage, prefix: str = "") -> list[str]:
    return [str(entry.key) async for entry in storage.list(prefix)]


async def folded(storage: Storage, prefix: str = "") -> list[object]:
    return [line async for line in storage.list_folded(prefix)]


async def chunks(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 10_000):
        yield body[start : start + 10_000]


async def below(storage: Storage, prefix: str) -> Storage:
    return storage.under(prefix)


WITH_KEYS: Mapping[str, Call] = {**READING, **WRITING, **MOVING}
WITH_PREFIXES: Mapping[str, Call] = {
    "list": names,
    "list_folded": folded,
    "list_page": lambda storage, prefix: storage.list_page(prefix),
    "delete_prefix": lambda storage, prefix: storage.delete_prefix(prefix),
    "under": below,
}


@pytest.mark.case("K1", "K4")
def test_every_method_that_has_a_key_or_a_prefix_is_tried_with_bad_ones() -> None:
    methods = {
        name
        for name, method in vars(Storage).items()
        if not name.startswith("_") and inspect.isfunction(method) and NAMED & set(inspect.signature(method).parameters)
    }
    assert methods == {name.split()[0] for name in WITH_KEYS} | set(WITH_PREFIXES)


@pytest.mark.case("K1", "K4", "O68", "Z9")
@on_both
@one_loop
async def test_nothing_happens_before_a_bad_key_or_prefix_is_refused(opened: Opened, tmpfs: Path) -> None:
    bad_keys = [key for key, _ in REFUSED_KEYS]
    with opened(tmpfs) as place:
        async with place.storage() as storage:
            await storage.put("good", b"1")
            before = place.seen()
            for calls, texts in ((WITH_KEYS, bad_keys), (WITH_PREFIXES, REFUSED_PREFIXES)):
                for call in calls.values():
                    for text in texts:
                        await expect_refusal(call(storage, text))
            assert place.seen() == before
            await storage.put("good", b"2")
            assert place.seen() != before  # so it is looked at


async def expect_refusal(call: Awaitable[object]) -> None:
    with pytest.raises(InvalidKeyError) as caught:
        await call
    assert len(str(caught.value)) <= 300
    assert str(caught.value).isascii()


@pytest.mark.case("K6", "K7", "O45")
@on_both
def test_another_process_finds_all_good_keys_as_they_are(opened: Opened, tmpfs: Path) -> None:
    with opened(tmpfs) as place:

        async def write() -> None:
            async with place.storage() as storage:
                await asyncio.gather(*(storage.put(key, b"%d" % number) for number, key in enumerate(KEPT_KEYS)))

        async def read() -> tuple[list[str], list[bytes], list[int]]:
            async with place.storage() as storage:
                found = await names(storage)
                bodies = await asyncio.gather(*(storage.get(key) for key in KEPT_KEYS))
                infos = await asyncio.gather(*(storage.head(key) for key in KEPT_KEYS))
                return found, bodies, [info.size for info in infos]

        run_all([write])
        found, bodies, sizes = run_all([read])[0]
    assert found == sorted(KEPT_KEYS, key=str.encode)
    assert bodies == [b"%d" % number for number in range(len(KEPT_KEYS))]
    assert sizes == [len(body) for body in bodies]


@pytest.mark.case("K8")
@one_loop
async def test_the_prefix_of_a_bucket_counts_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    longest = "/".join(["x" * 203] * 5)  # 1,019 bytes
    with s3_servers.strict() as server:
        assert server.referee is not None
        set_credentials(monkeypatch, server)
        async with open_storage(config_for(server, prefix="four", conditions="all")) as storage:
            server.referee.log.clear()
            for key in (longest + "x", longest + "/yy"):
                assert Key.parse(key) == key  # which would be one without the prefix
                for call in WITH_KEYS.values():
                    await expect_refusal(call(storage, key))
            assert server.referee.log == []
            await storage.put(longest, b"1")
            assert list(server.referee.objects()) == [f"four/{longest}"]


@pytest.mark.case("K9")
@on_both
@one_loop
async def test_the_longest_names_are_written_in_every_way_by_many_at_once(opened: Opened, tmpfs: Path) -> None:
    name = "\u00e9" * 127 + "x"
    assert len(name.encode()) == 255
    key = f"{name}/{name}"
    bodies = {b"%d" % number * 40_000 for number in range(6)}

    with opened(tmpfs) as place:
        async with place.storage() as storage, asyncio.TaskGroup() as group:
            await storage.put(key, min(bodies), if_absent=True)
            await storage.put("source", min(bodies))
            for body in bodies:
                group.create_task(storage.put(key, body))
                group.create_task(storage.put(key, chunks(body)))
                group.create_task(storage.update(key, lambda _, body=body: body))
            group.create_task(storage.copy("source", key))
        async with place.storage() as storage:
            assert await storage.get(key) in bodies
            assert await names(storage) == ["source", key]
            await storage.put(key, b"last", if_match=(await storage.head(key)).etag)
            await storage.move(key, name[:-1])
            assert await storage._driver.unfinished() == []


async def own_names(place: Place) -> list[str]:
    """The names below `.micelio` that an open driver gives to what it keeps for itself."""
    if isinstance(place, Bucket):
        async with place.storage(conditions="auto"):  # which tries them out on scratch keys
            return sorted({request.key for request in place.referee.log if request.key})
    async with place.storage(keeping="file") as storage:
        await storage.put("a", b"1", metadata={"a": "b"})
        async with storage.open_write("b") as writer:
            await writer.write(b"2")
            found = [path for path in (place.root / ".micelio").rglob("*") if path.is_file()]
        await storage.delete("a", "b")
    return sorted(str(path.relative_to(place.root)) for path in found)


@pytest.mark.case("K10", "O54")
@on_both
@one_loop
async def test_names_that_a_driver_has_for_itself_are_refused_or_keys_like_others(opened: Opened, tmpfs: Path) -> None:
    with opened(tmpfs) as place:
        own = await own_names(place)
        assert len(own) >= 2
        assert all(name.startswith(".micelio/") for name in own)
        alike = sorted({name.partition("/")[2] for name in own} | {f"x/{name}" for name in own}, key=str.encode)
        async with place.storage() as storage:
            for name in own:
                with pytest.raises(InvalidKeyError):
                    await storage.put(name, b"1")
            for key in alike:
                await storage.put(key, key.encode())
        async with place.storage() as storage:  # opening sweeps what the dead have left
            assert await names(storage) == alike
            assert [await storage.get(key) for key in alike] == [key.encode() for key in alike]


ANY_TEXT = st.text(st.characters(exclude_categories=()) | st.sampled_from("/.\\% ~"), max_size=40)
TURNS: Mapping[str, Callable[[str], str]] = {
    "composed": lambda text: unicodedata.normalize("NFC", text),
    "decomposed": lambda text: unicodedata.normalize("NFD", text),
    "compatible": lambda text: unicodedata.normalize("NFKC", text),
    "upper": str.upper,
    "lower": str.lower,
    "folded": str.casefold,
    "quoted": lambda text: quote(text.encode("utf-8", "surrogatepass"), safe="/"),
    "all quoted": lambda text: quote(text.encode("utf-8", "surrogatepass"), safe=""),
    "unquoted": unquote,
    "with plus for blank": lambda text: text.replace(" ", "+"),
    "with a blank": lambda text: text + " ",
    "with a dot": lambda text: text + ".",
    "stripped": str.strip,
    "with a slash": lambda text: text + "/",
    "from here": lambda text: "./" + text,
    "with backslashes": lambda text: text.replace("/", "\\"),
    "without joiners": lambda text: text.replace("\u200d", ""),
}


class Both:
    """A storage on disk and one in a bucket, and an event loop for them."""

    def __init__(self, runner: asyncio.Runner, disk: Disk, bucket: Bucket) -> None:
        self.places: tuple[Place, ...] = (disk, bucket)
        self.storages = [runner.run(place.storage().open()) for place in self.places]
        self.runner = runner

    def close(self) -> None:
        for storage in self.storages:
            self.runner.run(storage.aclose())


def with_both(
    tmpfs: Path, examples: int, texts: Mapping[str, st.SearchStrategy[str]], work: Callable[..., None]
) -> None:
    """Do the work for so many examples of the texts."""
    with on_disk(tmpfs) as disk, in_a_bucket(tmpfs) as bucket, asyncio.Runner() as runner:
        both = Both(runner, disk, bucket)
        try:
            limits = settings(max_examples=examples, deadline=None, database=None, derandomize=True)
            limits(given(**texts)(lambda **drawn: work(both, **drawn)))()
        finally:
            both.close()


@pytest.mark.case("K26")
def test_any_text_is_kept_by_both_drivers_or_refused_by_both_before_anything_happens(tmpfs: Path) -> None:
    kept = refused = 0

    def work(both: Both, text: str) -> None:
        nonlocal kept, refused
        outcomes = [both.runner.run(there_and_back(*one, text)) for one in zip(both.places, both.storages, strict=True)]
        assert outcomes[0] == outcomes[1]
        kept, refused = kept + outcomes[0], refused + (not outcomes[0])

    with_both(tmpfs, scaled(60, 500), {"text": ANY_TEXT}, work)
    assert min(kept, refused) > 5


async def there_and_back(place: Place, storage: Storage, text: str) -> bool:
    """Whether the text is kept as a key."""
    body, before = text.encode("utf-8", "surrogatepass"), place.seen()
    try:
        await storage.put(text, body)
    except InvalidKeyError:
        assert place.seen() == before
        return False
    assert await storage.get(text) == body
    assert await names(storage) == [text]
    await storage.delete(text)
    assert await names(storage) == []
    return True


@pytest.mark.case("K27", "K12", "K13", "K15")
def test_two_keys_that_are_not_the_same_never_share_an_object(tmpfs: Path) -> None:
    pairs = 0

    def work(both: Both, text: str, turn: str) -> None:
        nonlocal pairs
        other = TURNS[turn](text)
        if (
            other == text
            or other.startswith(text + "/")
            or text.startswith(other + "/")
            or not all(map(good, (text, other)))
        ):
            return
        pairs += 1
        for storage in both.storages:
            both.runner.run(expect_two(storage, text, other))

    texts = {"text": st.sampled_from(KEPT_KEYS) | ANY_TEXT, "turn": st.sampled_from(sorted(TURNS))}
    with_both(tmpfs, scaled(300, 1000), texts, work)
    assert pairs > 40


def good(text: str) -> bool:
    try:
        Key.parse(text)
    except InvalidKeyError:
        return False
    return True


async def expect_two(storage: Storage, one: str, other: str) -> None:
    await storage.put(one, b"one")
    assert not await storage.exists(other)
    await storage.put(other, b"other")
    assert [await storage.get(key) for key in (one, other)] == [b"one", b"other"]
    assert sorted(await names(storage)) == sorted([one, other])
    await storage.delete(one)
    assert await names(storage) == [other]
    await storage.delete(other)
