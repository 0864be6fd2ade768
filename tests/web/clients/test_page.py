"""The page of `micelio-storage serve` in Chromium: what people do on it, by mouse and by keys."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from selenium.webdriver.common.keys import Keys
from support.serving import serving

from .pages import Page, breaking, chromium

MIB = 1 << 20
Store = Callable[[str, bytes], Path]


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    """A storage in memory, for one test makes a hundred thousand files in it."""
    with tempfile.TemporaryDirectory(prefix="micelio-", dir="/dev/shm") as path:
        yield Path(path)


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def entered(root: Path, downloads: Path) -> Iterator[Page]:
    """A browser that has opened the link."""
    with serving(f"file://{root}") as served, chromium(downloads=downloads) as browser:
        browser.get(served.link)
        yield Page(browser, served.base)


@pytest.fixture
def page(entered: Page) -> Iterator[Page]:
    """The page, of which the browser has nothing to complain in the end."""
    entered.complaints()
    yield entered
    assert entered.complaints() == []


@pytest.fixture
def store(root: Path) -> Store:
    """Stores a file of a session, as any other program does."""

    def put(key: str, data: bytes) -> Path:
        path = root / "sessions" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    return put


@pytest.mark.case("B1")
def test_the_link_opens_the_page_and_leaves_no_token_where_scripts_or_histories_see_it(
    page: Page, store: Store
) -> None:
    store("entered/files/a.txt", b"1")
    assert page.browser.current_url == f"{page.base}/"
    assert page.js("return document.cookie") == ""
    page.open()
    page.until(lambda: "entered\n1 file · 1 B · just now" in page.texts("#session-list .row"))
    kept = page.browser.get_cookies()
    assert [(cookie["httpOnly"], cookie["sameSite"]) for cookie in kept] == [(True, "Strict")]
    page.browser.delete_all_cookies()
    page.browser.get(f"{page.base}/")
    page.until(lambda: page.is_seen("#locked"))
    assert not page.is_seen("#panes")
    assert all("401" in line for line in page.complaints())
    page.browser.add_cookie(kept[0])


@pytest.mark.case("B10")
def test_all_of_it_can_be_done_by_keys(page: Page, store: Store) -> None:
    store("keys/files/notes/first.md", b"# One\n\ntwo\n")
    store("keys/files/z.txt", b"z")
    page.open()
    page.until(lambda: page.is_seen("#session-list"))
    page.js("document.getElementById('session-search').focus()")
    page.press(*"key")
    page.until(lambda: [text.split("\n")[0] for text in page.texts("#session-list .row")] == ["keys"])
    page.js("document.getElementById('session-list').focus()")
    page.press(Keys.ENTER)
    page.until_names("notes", "z.txt")
    page.js("document.getElementById('tree').focus()")
    page.press(Keys.ARROW_RIGHT)
    page.until_names("notes", "first.md", "z.txt")
    assert page.js("return document.querySelector('#tree .row').getAttribute('aria-expanded')") == "true"
    page.press(Keys.ARROW_DOWN, Keys.ENTER)
    page.until(lambda: page.text("#preview-title") == "first.md" and page.is_seen("#stage .line"))
    assert page.texts("#stage .line")[0] == "# One"
    assert page.js("return [...document.querySelectorAll('#stage .line')].map((one) => one.dataset.n)") == list("123")
    page.press(Keys.ESCAPE)
    page.until(lambda: not page.is_seen("#preview"))
    assert page.js("return document.activeElement.id") == "tree"
    page.press(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    page.until_names("notes", "z.txt")
    page.press(Keys.END, Keys.DELETE)
    page.until(lambda: page.is_seen("#question"))
    assert page.text("#question-title") == "Delete z.txt?"
    assert page.js("return document.activeElement.id") == "no"
    page.press(Keys.ENTER)
    page.until(lambda: not page.is_seen("#question"))
    page.until_names("notes", "z.txt")
    page.press(Keys.DELETE)
    page.until(lambda: page.is_seen("#question"))
    page.press(Keys.TAB, Keys.ENTER)
    page.until_names("notes")


def test_files_are_found_by_the_beginning_of_their_path(page: Page, store: Store) -> None:
    for name in ("alpha/one.txt", "alpha/other.txt", "beta.txt"):
        store(f"search/files/{name}", b"1")
    page.open("session=search")
    page.until_names("alpha", "beta.txt")
    page.js("document.getElementById('file-search').focus()")
    page.press(*"alpha/on")
    page.until_names("one.txt")
    page.press(*"xx")
    page.until(lambda: "Nothing found" in page.text("#no-files"))
    page.press(*[Keys.BACKSPACE] * 10)
    page.until_names("alpha", "beta.txt")


@pytest.mark.case("B9")
def test_a_video_seeks_by_a_range_request(page: Page, store: Store) -> None:
    # Chromium looks at the bytes: a WAV is as good a video as any to seek in, and needs no encoder.
    rate, size = 192_000, 64 * MIB
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, 1, 2, 48_000, rate, 4, 16, b"data", size
    )
    store("video/files/film.mp4", head + bytes(size))
    page.open("session=video&file=sessions/video/files/film.mp4")
    page.until(lambda: page.js("return document.querySelector('video')?.readyState >= 1"))
    page.asked()
    page.js("const film = document.querySelector('video'); film.currentTime = film.duration * .8")
    page.until(
        lambda: page.js("const film = document.querySelector('video'); return !film.seeking && film.readyState >= 2")
    )
    ranges = [asked["Range"] for asked in page.asked() if asked[":path"].endswith("film.mp4") and "Range" in asked]
    assert any(0.7 * size < int(text.removeprefix("bytes=").partition("-")[0]) < 0.81 * size for text in ranges), ranges
    assert page.js("return document.querySelector('video').error") is None


HOSTILE = """<!doctype html><title>hostile</title><p id="said">nothing ran</p><script>
const said = document.getElementById("said"), files = "BASE/objects/sessions/hostile/files";
const found = {origin: self.origin};
const attempt = async (name, act) => {
  try { found[name] = String(await act()) } catch (error) { found[name] = error.name }
};
(async () => {
  await attempt("cookie", () => document.cookie);
  await attempt("storage", () => localStorage.length);
  await attempt("parent", () => parent.document.title);
  await attempt("listing", async () => (await fetch("BASE/api/sessions")).status);
  await attempt("read", async () => (await fetch(`${files}/victim`, {credentials: "include"})).status);
  await attempt("remove", async () => (await fetch(`${files}/victim`, {method: "DELETE", mode: "no-cors"})).type);
  await attempt("image", () => new Promise((done) => {
    const image = new Image();
    image.onload = () => done("loaded");
    image.onerror = () => done("refused");
    image.src = `${files}/dot.gif`;
  }));
  await attempt("form", () => {
    const form = document.createElement("form");
    [form.method, form.action] = ["post", "BASE/api/tree"];
    document.body.append(form);
    form.submit();
    return "sent";
  });
  said.textContent = JSON.stringify(found);
})();
</script>"""
DOT = (
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"
)


@pytest.mark.case("B7")
def test_hostile_html_has_no_origin_no_cookie_and_no_way_to_the_server(
    entered: Page, store: Store, downloads: Path
) -> None:
    page = entered
    victim = store("hostile/files/victim", b"1")
    store("hostile/files/dot.gif", DOT)
    store("hostile/files/page.html", HOSTILE.replace("BASE", page.base).encode())
    page.open("session=hostile&file=sessions/hostile/files/page.html")
    frame = page.until(lambda: page.js("return document.querySelector('iframe')"))
    page.browser.switch_to.frame(frame)
    page.until(lambda: page.text("p") == "nothing ran")
    page.browser.switch_to.default_content()
    page.asked()
    page.js("[...document.querySelectorAll('#choices button')].find((one) => one.innerText === 'With scripts').click()")
    page.until(lambda: "/running/" in page.js("return document.querySelector('iframe').src"))
    page.browser.switch_to.frame(page.js("return document.querySelector('iframe')"))
    said = page.until(lambda: page.text("p") != "nothing ran" and page.text("p"))
    page.browser.switch_to.default_content()
    assert json.loads(said) == {
        "origin": "null", "cookie": "SecurityError", "storage": "SecurityError", "parent": "SecurityError",
        "listing": "TypeError", "read": "TypeError", "remove": "TypeError", "image": "refused", "form": "sent",
    }  # fmt: skip
    assert victim.exists()
    assert {asked[":path"].partition("?")[0] for asked in page.asked()} == {
        f"{page.base}/running/sessions/hostile/files/page.html"
    }
    for path in ("preview", "running"):  # and so it is where it has a window of its own
        page.browser.get(f"{page.base}/{path}/sessions/hostile/files/page.html")
        assert page.js("return self.origin") == "null"
    page.browser.get(f"{page.base}/objects/sessions/hostile/files/page.html")  # which is a download
    page.until((downloads / "page.html").exists)
    (downloads / "page.html").unlink()
    assert victim.exists()
    page.complaints()


@pytest.mark.case("B7")
def test_hostile_svg_is_a_picture_and_no_program(page: Page, store: Store) -> None:
    svg = b"""<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40"><text id="t">quiet</text>
    <script>document.getElementById("t").textContent = "ran"; fetch("/api/state")</script></svg>"""
    store("svg/files/hostile.svg", svg)
    page.open("session=svg&file=sessions/svg/files/hostile.svg")
    page.until(lambda: page.js("return document.querySelector('#stage img')?.naturalWidth") == 40)
    page.browser.get("about:blank")
    page.asked()  # what the page itself asked for, which lists
    page.browser.get(f"{page.base}/preview/sessions/svg/files/hostile.svg")
    assert page.js("return [self.origin, document.documentElement.textContent.includes('quiet')]") == ["null", True]
    assert [asked[":path"] for asked in page.asked() if "/api/" in asked[":path"]] == []
    assert all("Blocked script execution" in line for line in page.complaints())


ODD = [
    "a b.txt", "ä ö ü.bin", "日本語.txt", "100%.txt", "%2e%2e", "semi;colon=1.txt", "it's.txt", "a#b&c+d.txt",
    "emoji 🌱.bin", "comma, dot..txt", "[brackets] (and) {braces}", "x" * 100 + ".html",
]  # fmt: skip


@pytest.mark.case("B9")
def test_odd_names_download_byte_for_byte(page: Page, store: Store, downloads: Path) -> None:
    stored = {name: store(f"odd/files/{name}", os.urandom(2000)).read_bytes() for name in ODD}
    page.open("session=odd")
    page.until(lambda: set(page.names()) == set(ODD))
    for name in ODD:  # a page each, for Chromium lets one begin ten downloads in a second
        page.open(urlencode({"session": "odd", "file": f"sessions/odd/files/{name}"}))
        page.until(lambda name=name: page.text("#preview-title") == name and page.text("#preview-facts"))
        page.click("#download")
        page.until((downloads / name).exists)
    assert {path.name: path.read_bytes() for path in downloads.iterdir()} == stored
    for path in downloads.iterdir():
        path.unlink()


@pytest.mark.case("B9")
def test_a_session_comes_as_a_zip_and_goes_when_it_is_confirmed(
    page: Page, store: Store, root: Path, downloads: Path
) -> None:
    store("whole/files/a/b.txt", b"one")
    store("whole/metadata.json", b"{}\n")
    page.open("session=whole")
    page.click("#zip")
    page.until((downloads / "whole.zip").exists)
    with zipfile.ZipFile(downloads / "whole.zip") as opened:
        assert {name: opened.read(name) for name in opened.namelist()} == {
            "files/a/b.txt": b"one",
            "metadata.json": b"{}\n",
        }
    page.click("#delete-session")
    page.until(lambda: page.is_seen("#question"))
    assert "2 files, 6 B" in page.text("#question-text")
    page.click("#no")
    page.until(lambda: not page.is_seen("#question"))
    assert (root / "sessions/whole").exists()
    page.click("#delete-session")
    page.click("#yes")
    page.until(lambda: not (root / "sessions/whole").exists())
    page.until(lambda: page.browser.current_url.rstrip("#/") == page.base)
    assert "whole" not in " ".join(page.texts("#session-list .row"))


@pytest.mark.case("B9")
def test_small_files_are_uploaded_and_replaced_only_if_somebody_says_so(page: Page, root: Path, tmp_path: Path) -> None:
    for name, data in (("one.txt", b"first"), ("two.bin", bytes(1000))):
        (tmp_path / name).write_bytes(data)
    page.open("session=new-one")
    page.until(lambda: "Drop files or folders here" in page.text("#no-files"))
    page.upload(tmp_path / "one.txt", tmp_path / "two.bin")
    page.until_names("one.txt", "two.bin")
    assert page.text("#uploads-title") == "2 files uploaded"
    folder = root / "sessions/new-one/files"
    (tmp_path / "one.txt").write_bytes(b"second")
    page.upload(tmp_path / "one.txt")
    page.until(lambda: "there already" in page.text("#upload-list"))
    assert (folder / "one.txt").read_bytes() == b"first"
    page.click("#upload-list .there button")
    page.until(lambda: (folder / "one.txt").read_bytes() == b"second")
    page.until(lambda: not page.is_seen("#upload-list .sending"))
    page.click("#close-uploads")
    assert all("412" in line for line in page.complaints())


def test_dropped_files_go_where_they_are_dropped(page: Page, store: Store, root: Path) -> None:
    store("drop/files/into/here.txt", b"1")
    page.open("session=drop")
    page.until_names("into")
    drop = """
      const data = new DataTransfer();
      data.items.add(new File(["dropped"], "dropped.txt"));
      const row = document.querySelector("#tree .row");
      for (const type of ["dragover", "drop"]) {
        row.dispatchEvent(new DragEvent(type, {dataTransfer: data, bubbles: true, cancelable: true}));
        const said = document.getElementById("files").dataset.drop;
        if (type === "dragover" && said !== "Drop to upload into into/") throw Error(said);
      }"""
    page.js(drop)
    path = root / "sessions/drop/files/into/dropped.txt"
    page.until(lambda: path.exists() and path.read_bytes() == b"dropped")
    page.until(lambda: "1 file uploaded" in page.text("#uploads-title"))
    page.click("#close-uploads")


@pytest.mark.case("B9")
def test_a_large_upload_goes_on_where_its_line_was_cut(entered: Page, root: Path, tmp_path: Path) -> None:
    data = os.urandom(50 * MIB)
    (tmp_path / "large.bin").write_bytes(data)
    port = int(entered.base.rpartition(":")[2])
    with breaking(port, 20 * MIB) as (other, carried):
        page = Page(entered.browser, f"http://127.0.0.1:{other}")
        page.open("session=large")
        page.upload(tmp_path / "large.bin")
        page.until(lambda: "1 file uploaded" in page.text("#uploads-title"))
        page.until_names("large.bin")
        page.click("#close-uploads")
    stored = (root / "sessions/large/files/large.bin").read_bytes()
    assert hashlib.sha256(stored).digest() == hashlib.sha256(data).digest()
    assert sum(carried) < 65 * MIB  # what the line had swallowed, and not all of it again
    assert max(carried) < 45 * MIB
    assert not list((root / "uploads").glob("*/0*"))
    entered.complaints()


@pytest.mark.case("B9")
def test_a_large_upload_goes_on_after_the_page_was_closed(page: Page, root: Path, tmp_path: Path) -> None:
    data = os.urandom(40 * MIB)
    (tmp_path / "closed.bin").write_bytes(data)
    page.open("session=closed")
    page.browser.execute_cdp_cmd("Network.enable", {})
    slow = {"offline": False, "latency": 1, "downloadThroughput": -1, "uploadThroughput": 8 * MIB}
    page.browser.execute_cdp_cmd("Network.emulateNetworkConditions", slow)
    page.upload(tmp_path / "closed.bin")
    page.until(lambda: list((root / "uploads").glob("*/*8388608")))  # two parts of 8 MiB are stored
    page.browser.execute_cdp_cmd("Network.emulateNetworkConditions", {**slow, "uploadThroughput": -1})
    page.open("session=closed")
    page.asked()
    page.upload(tmp_path / "closed.bin")
    page.until(lambda: "1 file uploaded" in page.text("#uploads-title"))
    assert (root / "sessions/closed/files/closed.bin").read_bytes() == data
    offsets = [int(asked["Upload-Offset"]) for asked in page.asked() if "Upload-Offset" in asked]
    assert len(offsets) == 1
    assert 8 * MIB < offsets[0] < 40 * MIB
    page.click("#close-uploads")
    assert all("beforeunload" in line for line in page.complaints())  # it would have asked, had somebody clicked


@pytest.mark.case("B9")
def test_a_hundred_thousand_files_do_not_freeze_the_page(page: Page, store: Store, root: Path) -> None:
    folder = store("many/files/f000000", b"").parent
    for number in range(1, 100_000):
        (folder / f"f{number:06}").touch()
    page.open("session=many")
    page.until(lambda: len(page.names()) > 10)
    page.js("""
      window.longest = 0;
      new PerformanceObserver((list) => list.getEntries().forEach((one) => (longest = Math.max(longest, one.duration))))
        .observe({type: "longtask"});
      window.most = 0;
      window.ended = false;
      const tree = document.getElementById("tree");
      const step = () => {
        tree.scrollTop = tree.scrollHeight;
        most = Math.max(most, tree.querySelectorAll(".row").length);
        ended = tree.scrollHeight >= 100000 * 36;
        if (!ended) requestAnimationFrame(step);
      };
      step();""")
    page.until(lambda: page.js("return ended"))
    page.until(lambda: page.names()[-1:] == ["f099999"])
    assert page.js("return most") < 100
    assert page.js("return longest") < 500  # milliseconds; 20 to 60 on a machine that does nothing else
    page.js("document.getElementById('tree').focus()")
    page.press(Keys.HOME)
    page.until(lambda: page.names()[0] == "f000000")
    shutil.rmtree(root / "sessions/many")


@pytest.mark.case("B10")
def test_nothing_keeps_anybody_out_who_sees_or_moves_otherwise(page: Page, store: Store) -> None:
    store("axe/files/notes/a.md", b"# One\n")
    store("axe/files/page.html", b"<!doctype html><html lang=en><title>t</title><p>one</p>")
    for dark in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": dark}]
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        for place in (
            "", "session=none", "session=axe", "session=axe&file=sessions/axe/files/notes/a.md",
            "session=axe&file=sessions/axe/files/page.html", "all", "session=axe&file=none",
        ):  # fmt: skip
            page.open(place)
            page.until(lambda: page.is_seen("#tree .row") or page.is_seen("#no-files b"))
            assert page.findings() == [], (dark, place)
        page.open("session=axe")
        page.click("#delete-session")
        page.until(lambda: page.is_seen("#question"))
        assert page.findings() == []
        page.click("#no")
        page.click("#new-session")
        assert page.findings() == []
        page.click("#no-name")
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert all("404" in line for line in page.complaints())


@pytest.mark.case("B10")
def test_a_narrow_screen_has_one_pane_at_a_time(page: Page, store: Store) -> None:
    store("narrow/files/a.txt", b"1")
    narrow = {"width": 360, "height": 700, "deviceScaleFactor": 1, "mobile": False}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", narrow)
    panes = [".sessions", ".files", ".preview"]
    for place, seen in (("", 0), ("session=narrow", 1), ("session=narrow&file=sessions/narrow/files/a.txt", 2)):
        page.open(place)
        page.until(
            lambda seen=seen: [page.is_seen(f".pane{one}") for one in panes] == [one == panes[seen] for one in panes]
        )
        assert page.js("return document.documentElement.scrollWidth") == 360
        assert page.findings() == []
    page.click("#close")
    page.until(lambda: page.is_seen(".pane.files"))
    page.click(".back")
    page.until(lambda: page.is_seen(".pane.sessions"))
    wide = {"width": 1280, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", wide)


@pytest.mark.case("B5")
def test_read_only_shows_nothing_that_changes_something(root: Path, store: Store) -> None:
    store("kept/files/a.txt", b"1")
    with serving(f"file://{root}", "--read-only") as served, chromium() as browser:
        browser.get(served.link)
        page = Page(browser, served.base)
        page.open("session=kept&file=sessions/kept/files/a.txt")
        page.until(lambda: page.is_seen("#stage .line"))
        assert page.is_seen("#read-only")
        shown = """return [...document.querySelectorAll(".changes, [aria-label^=Delete]")]
          .filter((one) => one.checkVisibility()).map((one) => one.outerHTML)"""
        assert page.js(shown) == []
        page.js("document.getElementById('tree').focus()")
        page.press(Keys.DELETE)
        assert not page.is_seen("#question")
        assert page.complaints() == []
