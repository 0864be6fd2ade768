"""Listings: complete, in the order of UTF-8 bytes, by prefixes that are text, a page at a time."""

from __future__ import annotations

from collections.abc import Sequence

from ..._storage import Storage
from ...driver import InvalidArgumentError, Page
from .._expect import check, equal, expect, names, needs, pattern, raises
from .._scheduling import each, loop_cycles, together

MANY = 10_000  # objects: ten pages, and a directory that no listing should hold the loop for
ORDERED = ("a!/x", "a-/x", "a-b", "a.b", "a/b", "a/c/d", "a0", "aa", "b", "\u00e9", "\uffe5", "\U00010000")
FOLDED = ("a-b", "a/1", "a/2", "a/b/3", "a0", "b", "c/4", "c0/5", "c0/6", "d")


def _page_names(page: Page, prefix: str) -> list[str]:
    """Keys and folded prefixes of a page, each kind in its order, without the prefix."""
    lines = [*(str(entry.key) for entry in page.entries), *page.prefixes]
    return [line.removeprefix(prefix) for line in lines]


async def _pages(storage: Storage, prefix: str, limit: int, *, folding: bool = False) -> list[Page]:
    """All pages, each checked against its limit."""
    pages: list[Page] = []
    cursor: str | None = None
    while cursor is not None or not pages:
        page = await storage.list_page(prefix, limit=limit, cursor=cursor, delimiter="/" if folding else None)
        expect(len(page.entries) + len(page.prefixes) <= limit, f"a page is longer than its limit of {limit}")
        expect(page.cursor is None or page.cursor != cursor, "a page has the cursor that asked for it")
        pages.append(page)
        cursor = page.cursor
        expect(len(pages) <= MANY, "a listing has no last page")
    return pages


async def _store(storage: Storage, prefix: str, keys: Sequence[str]) -> None:
    await each(keys, lambda key: storage.put(prefix + key, key.encode()))


@check
async def where_nothing_is_nothing_is_listed(storage: Storage, prefix: str) -> None:
    """A prefix that no object has is no error, neither at first nor below or beside an object."""
    for text in ("", "a", "a/", "no/such/place/", "no/such/place"):
        equal(await names(storage, prefix, text), [], f"what is listed for {text!r} of nothing")
    await storage.put(prefix + "a", b"1")
    for text in ("a/", "a/b/c", "b", "A"):
        equal(await names(storage, prefix, text), [], f"what is listed for {text!r} beside 'a'")
    page = await storage.list_page(prefix + "b", delimiter="/")
    equal((list(page.entries), list(page.prefixes), page.cursor), ([], [], None), "a page of nothing")


@check
async def keys_are_listed_in_the_order_of_their_bytes(storage: Storage, prefix: str) -> None:
    """A slash is a byte like any other, between "." and "0"; and U+FFE5 comes before U+10000, as in UTF-8."""
    await _store(storage, prefix, ORDERED[::-1])
    equal(await names(storage, prefix), list(ORDERED), "what is listed")


@check
async def a_prefix_is_the_beginning_of_a_text(storage: Storage, prefix: str) -> None:
    """Of "a" it lists "ab" and "a/b", of "a/" what is below, and of a whole key that one and what it begins."""
    await _store(storage, prefix, ORDERED)
    for text in ("a", "a/", "a/c", "a/c/", "a/c/d", "a-", "a0", "aa", "b", "\u00e9", "\uffe5"):
        wanted = [key for key in ORDERED if key.startswith(text)]
        equal(await names(storage, prefix, text), wanted, f"what begins with {text!r}")


@check
async def a_prefix_is_no_pattern(storage: Storage, prefix: str) -> None:
    """Stars, question marks, brackets and braces stand for themselves, for list as for delete_prefix."""
    keys = sorted(("a1/x", "a[1]/x", "a*/x", "a?/x", "{a,b}/x", "b/x", "a\u0301/x"), key=str.encode)
    await _store(storage, prefix, keys)
    for text in ("a[1]/", "a*", "a?", "*", "?", "[a-z]", "{a,b}", "**/x", "a."):
        wanted = [key for key in keys if key.startswith(text)]
        equal(await names(storage, prefix, text), wanted, f"what begins with {text!r}")
        equal(await storage.delete_prefix(prefix + text), len(wanted), f"how many begin with {text!r}")
        await _store(storage, prefix, wanted)
    equal(await names(storage, prefix), keys, "what is there in the end")


@check
async def a_listing_starts_behind_any_text(storage: Storage, prefix: str) -> None:
    """`start_after` is exclusive, whether or not there is such a key, and may lie before or behind everything."""
    await _store(storage, prefix, ORDERED)
    starts = {"", "!", "a", "a/", "a/c", "a/c/", "zzz", "\U0010fffd"}
    for key in ORDERED:
        starts |= {key, key + "!", key + "0", key[:-1]}
    for start in sorted(starts):
        wanted = [key for key in ORDERED if key.encode() > start.encode()]
        equal(await names(storage, prefix, start_after=start), wanted, f"what is listed behind {start!a}")
        below = [key for key in wanted if key.startswith("a/")]
        equal(await names(storage, prefix, "a/", start_after=start), below, f"what of a/ is listed behind {start!a}")


@check
async def pages_of_any_size_are_the_whole_list(storage: Storage, prefix: str) -> None:
    """With limits of 1, 2, 3 and 1,000, the pages in a row are the listing: nothing twice, nothing lost."""
    await _store(storage, prefix, ORDERED)
    for limit in (1, 2, 3, len(ORDERED), 1000):
        found = [name for page in await _pages(storage, prefix, limit) for name in _page_names(page, prefix)]
        equal(found, list(ORDERED), f"the pages of {limit}")


@check
async def a_page_can_follow_a_start(storage: Storage, prefix: str) -> None:
    """The first page begins behind `start_after`, and the cursor goes on from there."""
    await _store(storage, prefix, ORDERED)
    first = await storage.list_page(prefix, limit=3, start_after=prefix + "a.b")
    equal(_page_names(first, prefix), ["a/b", "a/c/d", "a0"], "the page behind a.b")
    second = await storage.list_page(prefix, limit=2, cursor=first.cursor)
    equal(_page_names(second, prefix), ["aa", "b"], "the page after it")


@check
async def a_delimiter_folds_what_goes_on_behind_it(storage: Storage, prefix: str) -> None:
    """With "/", keys below a "directory" are one prefix that ends in it, once, and the others are entries."""
    await _store(storage, prefix, FOLDED)
    page = await storage.list_page(prefix, delimiter="/")
    equal([entry.key.removeprefix(prefix) for entry in page.entries], ["a-b", "a0", "b", "d"], "the entries")
    equal([name.removeprefix(prefix) for name in page.prefixes], ["a/", "c/", "c0/"], "the folded prefixes")
    page = await storage.list_page(prefix + "a/", delimiter="/")
    equal(_page_names(page, prefix), ["a/1", "a/2", "a/b/"], "what is below a/")
    page = await storage.list_page(prefix + "c", delimiter="/")
    equal(_page_names(page, prefix), ["c/", "c0/"], "what begins with c")


@check
async def pages_that_fold_are_the_whole_list(storage: Storage, prefix: str) -> None:
    """Entries and folded prefixes count together; over all pages nothing comes twice, nothing is lost."""
    await _store(storage, prefix, FOLDED)
    for limit in (1, 2, 3, 4, 1000):
        pages = await _pages(storage, prefix, limit, folding=True)
        entries = [entry.key.removeprefix(prefix) for page in pages for entry in page.entries]
        folded = [name.removeprefix(prefix) for page in pages for name in page.prefixes]
        equal(entries, ["a-b", "a0", "b", "d"], f"the entries of pages of {limit}")
        equal(folded, ["a/", "c/", "c0/"], f"the folded prefixes of pages of {limit}")
        lines = [line for page in pages for line in sorted(_page_names(page, prefix), key=str.encode)]
        equal(lines, sorted(lines, key=str.encode), f"the lines of all pages of {limit}")


@check
async def only_the_last_page_has_no_cursor(storage: Storage, prefix: str) -> None:
    """Who gets no cursor has everything, and who gets one has not: no page in the middle looks like the end."""
    await _store(storage, prefix, ORDERED)
    for limit in (1, 5):
        seen = 0
        for page in await _pages(storage, prefix, limit):
            seen += len(page.entries)
            expect(page.cursor is not None or seen == len(ORDERED), "the listing ends before everything was listed")
    page = await storage.list_page(prefix)
    equal(page.cursor, None, "the cursor of a page that has everything")


@check
async def a_cursor_is_good_for_its_own_listing_alone(storage: Storage, prefix: str) -> None:
    """The cursor of a listing of "a/" is refused for "b/", and for a storage under another prefix."""
    await _store(storage, prefix, ("a/1", "a/2", "b/1", "b/2"))
    for place, start in ((storage, prefix), (storage.under(prefix.removesuffix("/")), "")):
        cursor = (await place.list_page(start + "a/", limit=1)).cursor
        following = await place.list_page(start + "a/", cursor=cursor)
        equal([entry.key for entry in following.entries], [start + "a/2"], "the page behind the first")
        with raises(InvalidArgumentError, "the cursor of another prefix"):
            await place.list_page(start + "b/", cursor=cursor)
        with raises(InvalidArgumentError, "the cursor of another storage"):
            await place.under(start + "b").list_page(cursor=cursor)


@check
async def what_is_no_page_is_refused(storage: Storage, prefix: str) -> None:
    """Limits outside 1 to 1,000, cursors that no page gave, other delimiters, and a cursor with a start are refused."""
    await _store(storage, prefix, ORDERED)
    for limit in (0, -1, 1001):
        with raises(InvalidArgumentError, f"a page of {limit}"):
            await storage.list_page(prefix, limit=limit)
    for cursor in ("*", "no cursor", "\u00e9", "a\n", "%%%"):
        with raises(InvalidArgumentError, f"a page with the cursor {cursor!a}"):
            await storage.list_page(prefix, cursor=cursor)
    for delimiter in ("", "-", "//"):
        with raises(InvalidArgumentError, f"a page with the delimiter {delimiter!r}"):
            await storage.list_page(prefix, delimiter=delimiter)  # type: ignore[arg-type]  # that is the point
    first = await storage.list_page(prefix, limit=1)
    with raises(InvalidArgumentError, "a page with a cursor and a start"):
        await storage.list_page(prefix, cursor=first.cursor, start_after=prefix + "a")
    for wrong in ("1", 1.0, True):
        with raises(TypeError, f"a page of {wrong!r}"):
            await storage.list_page(prefix, limit=wrong)  # type: ignore[arg-type]  # that is the point


@check
async def changes_between_pages_cost_no_other_key(storage: Storage, prefix: str) -> None:
    """While keys are put and deleted around the cursor, those that stay are listed once each, in order."""
    stay = [f"d{number // 5}/{number:02}" for number in range(20)]
    go = [f"{key}-goes" for key in stay]
    for limit in (1, 3, 7):
        await _store(storage, prefix, [*stay, *go])
        found: list[str] = []
        cursor: str | None = None
        while cursor is not None or not found:
            page = await storage.list_page(prefix, limit=limit, cursor=cursor)
            found += _page_names(page, prefix)
            cursor = page.cursor
            expect(len(found) < MANY, "a listing has no last page")
            await storage.delete(f"{prefix}{found[-1]}-goes", prefix + go[7 * len(found) % len(go)])
            await storage.put(prefix + "d0/!first", b"1")
            if found[-1] in stay:
                await storage.put(f"{prefix}{found[-1]}-came", b"1")
        equal(found, sorted(set(found), key=str.encode), "what was listed, beside itself in order and once each")
        equal([name for name in found if name in stay], stay, "those that were there all the time")
        await storage.delete_prefix(prefix)


@check
async def a_whole_directory_may_go_between_pages(storage: Storage, prefix: str) -> None:
    """When all that the next page would begin with is deleted, the listing goes on behind it."""
    await _store(storage, prefix, ["a/1", "a/2", "a/b/3", "a/b/4", "c/5", "d"])
    first = await storage.list_page(prefix, limit=2)
    await storage.delete_prefix(prefix + "a/")
    second = await storage.list_page(prefix, limit=2, cursor=first.cursor)
    equal(_page_names(second, prefix), ["c/5", "d"], "the page after the delete")


@check
async def ten_thousand_keys_are_listed_in_order(storage: Storage, prefix: str) -> None:
    """A listing of ten full pages is complete and ordered, and so is its part behind a start."""
    keys = sorted(f"d{number % 3}/{number * 7919 % MANY:05}" for number in range(MANY))
    await each(keys, lambda key: storage.put(prefix + key, b""))
    equal(await names(storage, prefix), keys, "what is listed")
    equal(await names(storage, prefix, start_after=keys[4321]), keys[4322:], "what is listed behind the 4,322nd")
    equal(await storage.delete_prefix(prefix), MANY, "how many were removed")
    equal(await names(storage, prefix), [], "what is listed after the delete")


@check
async def an_entry_says_what_head_says(storage: Storage, prefix: str) -> None:
    """Size, ETag and time in a listing are those of the object, however it was written."""
    await storage.put(prefix + "a", b"")
    await storage.put(prefix + "b/c", pattern(300_000), content_type="text/plain")
    async with storage.open_write(prefix + "b/d") as writer:
        await writer.write(b"1")
    await storage.copy(prefix + "b/c", prefix + "e")
    await storage.put(prefix + "a", b"again")
    entries = [entry async for entry in storage.list(prefix)]
    equal(len(entries), 4, "the number of entries")
    for entry in entries:
        info = await storage.head(entry.key)
        found = (entry.size, entry.etag, entry.modified)
        equal(found, (info.size, info.etag, info.modified), f"the entry of {entry.key}")


@check
async def an_entry_of_metadata_says_what_head_says(storage: Storage, prefix: str) -> None:
    """Metadata changes neither the size nor the ETag that is listed."""
    with needs(storage.capabilities.metadata):
        info = await storage.put(prefix + "a", b"1", metadata={"a": "b" * 1000})
        entries = [(entry.size, entry.etag) async for entry in storage.list(prefix)]
        equal(entries, [(1, info.etag)], "the entry")


@check
async def a_listing_can_be_left_in_the_middle(storage: Storage, prefix: str) -> None:
    """Leaving a listing early costs nothing, and the next one begins anew."""
    await _store(storage, prefix, ORDERED)
    for _ in range(10):
        async for entry in storage.list(prefix):
            equal(entry.key, prefix + ORDERED[0], "the first entry")
            break
    equal(len(await names(storage, prefix)), len(ORDERED), "the number of entries of a listing that is not left")


@check
async def keys_that_stay_are_listed_while_others_come_and_go(storage: Storage, prefix: str) -> None:
    """Listings during puts, streams and deletes raise nothing, show no aborted write, and miss none that stays."""
    stay = [f"{directory}/{number}" for directory in "abc" for number in range(5)]
    going = True

    async def change(directory: str) -> None:
        for number in range(15):
            await storage.put(f"{prefix}{directory}/x{number}", b"1")
            async with storage.open_write(f"{prefix}{directory}/new{number}/y") as writer:
                await writer.write(b"2")
            with raises(LookupError, "a block that fails"):
                async with storage.open_write(f"{prefix}{directory}/never{number}") as writer:
                    await writer.write(b"3")
                    raise LookupError
            await storage.delete(f"{prefix}{directory}/x{number}", f"{prefix}{directory}/new{number}/y")

    async def change_all() -> None:
        nonlocal going
        try:
            await together(change(directory) for directory in "abc")
        finally:
            going = False

    async def watch() -> None:
        while going:
            found = await names(storage, prefix)
            equal([name for name in found if name in stay], stay, "those that stay")
            strangers = [name for name in found if name not in stay and not name[2:].startswith(("x", "new"))]
            equal(strangers, [], "what nobody stored")
            await loop_cycles(1)

    await _store(storage, prefix, stay)
    await together((change_all(), watch()))
