"""Keys, prefixes and session ids: what is refused, what is kept byte for byte."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from micelio_storage import InvalidKeyError, Key, Session, open_storage
from micelio_storage._keys import (
    MAX_KEY_BYTES,
    MAX_SEGMENT_BYTES,
    RESERVED_SEGMENT,
    Prefix,
    is_key_segment,
    parse_session_id,
)
from micelio_storage.testing._corpus import KEPT_KEYS, KEPT_PREFIXES, NO_KEYS, REFUSED_KEYS, REFUSED_PREFIXES


@pytest.mark.case("K1")
@pytest.mark.parametrize("text", [key for key, _ in REFUSED_KEYS], ids=ascii)
def test_a_bad_key_is_refused_with_a_short_ascii_sentence(text: str) -> None:
    with pytest.raises(InvalidKeyError) as caught:
        Key.parse(text)
    assert len(str(caught.value)) <= 300
    assert str(caught.value).isascii()


@pytest.mark.case("K6")
@pytest.mark.parametrize("text", KEPT_KEYS, ids=ascii)
def test_a_good_key_is_kept_byte_for_byte(text: str) -> None:
    key = Key.parse(text)
    assert key == text
    assert key.encode() == text.encode()
    assert Key.parse(key) is key
    assert f"{key.parent}/{key.name}".lstrip("/") == text.lstrip("/")


@pytest.mark.case("K2")
@pytest.mark.parametrize("value", NO_KEYS, ids=lambda value: type(value).__name__)
def test_what_is_no_str_is_a_type_error(value: Any) -> None:
    for parse in (Key.parse, Prefix.parse, parse_session_id):
        with pytest.raises(TypeError):
            parse(value)


@pytest.mark.case("K4")
@pytest.mark.parametrize("text", REFUSED_PREFIXES, ids=ascii)
def test_a_prefix_that_no_key_begins_with_is_refused(text: str) -> None:
    with pytest.raises(InvalidKeyError):
        Prefix.parse(text)


@pytest.mark.case("K5")
@pytest.mark.parametrize("text", KEPT_PREFIXES, ids=ascii)
def test_a_prefix_is_any_beginning_of_a_key(text: str) -> None:
    assert Prefix.parse(text) == text


BAD_SESSION_IDS = [
    *("", ".", "..", "a/b", "/", "/a", "../s2", "a\x00", "a\n", "a\\b", "a" * 129, " ", " a", "a ", "*", "s1/files"),
    *("\ud800", ".hidden", "-rf", "_a", "\u202eabc", "s1%2Ffiles", "é"),
]


@pytest.mark.case("K3")
@pytest.mark.parametrize("text", BAD_SESSION_IDS, ids=ascii)
def test_a_bad_session_id_is_refused(text: str) -> None:
    with pytest.raises(InvalidKeyError):
        Session(open_storage("memory:"), text)


@pytest.mark.parametrize("text", ["a", "0", "abc123", "A.b_c-d", "a" * 128])
def test_a_good_session_id_is_kept(text: str) -> None:
    assert Session(open_storage("memory:"), text).id == text


@pytest.mark.case("K8")
def test_lengths_are_counted_in_bytes_of_utf_8() -> None:
    assert Key.parse("€" * 85)
    with pytest.raises(InvalidKeyError, match=str(MAX_SEGMENT_BYTES)):
        Key.parse("€" * 86)
    longest = "/".join(["a" * 127] * 8)
    assert len(longest) == MAX_KEY_BYTES - 1
    assert Key.parse(longest + "b")
    with pytest.raises(InvalidKeyError, match=str(MAX_KEY_BYTES)):
        Key.parse(longest + "bc")


def test_a_key_is_made_by_parsing_and_in_no_other_way() -> None:
    for kind in (Key, Prefix):
        with pytest.raises(TypeError, match="parse"):
            kind("a")
        assert type(pickle.loads(pickle.dumps(kind.parse("a/b")))) is kind


@pytest.mark.case("K28")
def test_a_str_with_methods_of_its_own_cannot_cheat() -> None:
    class Liar(str):
        __slots__ = ()

        def __str__(self) -> str:
            return "harmless"

        def encode(self, *_: Any, **__: Any) -> bytes:
            return b"harmless"

    with pytest.raises(InvalidKeyError):
        Key.parse(Liar("../a"))
    assert Key.parse(Liar("a")) == "a"


@pytest.mark.case("K26")
@given(st.text(max_size=40))
def test_any_text_is_refused_or_kept(text: str) -> None:
    try:
        key = Key.parse(text)
    except InvalidKeyError:
        return
    assert key == text
    assert Prefix.parse(text) == text


@pytest.mark.case("K5")
@given(st.text(alphabet="ab./\\\x00%é", max_size=12))
def test_every_beginning_of_a_key_is_a_prefix(text: str) -> None:
    try:
        Key.parse(text)
    except InvalidKeyError:
        return
    for end in range(len(text)):
        if text[:end].rpartition("/")[2] != "..":
            assert Prefix.parse(text[:end]) == text[:end]


SEGMENTS = st.one_of(
    st.text(alphabet="ab./\\\x00%é\u200b\ufffe", min_size=1, max_size=5),
    st.integers(80, 260).map("é".__mul__),
    st.integers(250, 260).map("a".__mul__),
)


@given(st.lists(SEGMENTS, min_size=1, max_size=6))
def test_segments_that_are_judged_one_by_one_make_a_key_that_parse_would_make(segments: list[str]) -> None:
    text = "/".join(segments)
    judged = all(is_key_segment(name) and "/" not in name for name in segments)
    if judged and len(text.encode()) <= MAX_KEY_BYTES and segments[0] != RESERVED_SEGMENT:
        key = Key.of_segments(text)
        assert (key, type(key)) == (Key.parse(text), Key)
    elif "/" not in "".join(segments):
        with pytest.raises(InvalidKeyError):
            Key.parse(text)


@given(st.text())
@example("")
@example(".")
@example("..")
@example(".micelio")
@example("%")
@example("a/b\\c\x00\ud800")
def test_any_text_is_quoted_as_one_segment_and_taken_back(text: str) -> None:
    try:
        quoted = Key.quote(text)
    except InvalidKeyError:
        assert len(text.encode(errors="surrogatepass")) * 3 > 255
        return
    assert Key.parse(quoted).name == quoted
    assert Key.unquote(quoted) == text


@pytest.mark.parametrize("segment", ["", "a/b", "%2", "%zz", "%61", "a b", "%2f", "%ff", ".", ".micelio"])
def test_a_segment_that_was_not_quoted_is_not_unquoted(segment: str) -> None:
    with pytest.raises(InvalidKeyError):
        Key.unquote(segment)
