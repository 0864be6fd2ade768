"""The command `serve` as a process, on real sockets; and what its page is made of."""

from __future__ import annotations

import http.client
import re
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import is_one_line, use_storage
from support.serving import Served, ended, serving

from micelio_storage.cli import _app, serve
from micelio_storage.cli.serve import _server


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = use_storage(tmp_path, monkeypatch)
    (root / "sessions/abc/files").mkdir(mode=0o700, parents=True)
    (root / "sessions/abc/files/a").write_text("abc")
    return root


@pytest.fixture
def served(root: Path) -> Iterator[Served]:
    with serving() as served:
        yield served


def raw(served: Served, path: str, cookie: str, host: str = "127.0.0.1") -> str:
    """The whole answer to a GET whose path is sent as it is."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:
        head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode("latin-1"))
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode("latin-1")


def enter(served: Served) -> str:
    """The cookie that the link is exchanged for."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    connection.request("GET", served.link.removeprefix(served.base))
    cookie = (connection.getresponse().headers["Set-Cookie"] or "").partition(";")[0]
    connection.close()
    return cookie


TRAVERSALS = [
    "/../etc/passwd", "/objects/../../etc/passwd", "/objects/%2e%2e/%2e%2e/etc/passwd", "/objects/..%2f..%2fetc/passwd",
    "/objects/%2e%2e%2fetc%2fpasswd", "/objects//etc/passwd", "/objects/%2fetc/passwd", "/objects/..%5c..%5cetc",
    "/objects/\\..\\etc", "/objects/%252e%252e/etc/passwd", "/objects/.%2e/page.js", "/objects/a/../../../etc",
    "/objects/%c0%ae%c0%ae/etc", "/objects/a%00", "/objects/.micelio/locks", "/objects/....//etc/passwd",
    "/objects/..;/etc/passwd", "/objects/%u002e%u002e/etc", "/page.js/../_site.py", "/objects/../api/state",
    "//etc/passwd", "/preview/../objects/x", "/objects/a/%2e", "/objects/%ff", "/objects/sessions/abc/files/../../../a",
]  # fmt: skip


@pytest.mark.case("B6")
def test_no_spelling_of_a_path_leaves_the_storage_and_no_query_is_logged(served: Served) -> None:
    cookie = enter(served)
    assert len(TRAVERSALS) >= 20
    for path in TRAVERSALS:
        answer = raw(served, path, cookie)
        assert answer.split(" ")[1].startswith("4"), (path, answer[:200])
        assert "root:" not in answer
    found = raw(served, "/objects/sessions/abc/files/a", cookie)
    assert (found.split(" ")[1], found.endswith("abc")) == ("200", True)
    assert "\r\nserver:" not in found.lower()
    assert raw(served, "/api/state", cookie, "127.0.0.1\r\nHost: evil.example").split(" ")[1] in ("400", "403")
    assert raw(served, "/api/tree?prefix=secret-query", cookie).split(" ")[1] == "200"
    assert ended(served, signal.SIGINT) == (130, b"micelio-storage: interrupted\n")


@pytest.mark.case("B8")
def test_a_signal_ends_it_cleanly_also_while_somebody_downloads(root: Path) -> None:
    with (root / "sessions/abc/files/large").open("wb") as file:
        file.truncate(1 << 30)
    with serving() as served, socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:
        request = (
            f"GET /objects/sessions/abc/files/large HTTP/1.1\r\nHost: localhost\r\nCookie: {enter(served)}\r\n\r\n"
        )
        connection.sendall(request.encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        assert ended(served, signal.SIGTERM) == (143, b"micelio-storage: terminated\n")
    assert list((root / ".micelio").rglob("staging/*")) == []


@pytest.mark.case("B8")
def test_what_cannot_be_served_is_one_line_that_says_what_to_do(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        rows = [
            (["--port", port], 1, f"port {port} is taken: give another one, or --port 0"),
            (["--host", "192.0.2.1"], 2, "not an address of this machine"),
            (["--host", "no such host"], 2, "not an address of this machine"),
            (["--port", "65536"], 2, "--port"),
            (["file:///none/such"], 3, "there is no storage at"),
            (["http://127.0.0.1:8000"], 2, "http"),
            (["s3://"], 2, "bucket"),
        ]
        for arguments, code, text in rows:
            got = _app.run(["serve", *arguments])
            out, err = capfd.readouterr()
            assert (got, out, is_one_line(err)) == (code, "", True), (arguments, err)
            assert text in err


@pytest.mark.case("B8")
def test_without_uvicorn_it_says_what_to_install(
    root: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "micelio_storage.cli.serve._server", raising=False)
    assert _app.run(["serve"]) == 1
    err = capfd.readouterr().err
    assert is_one_line(err)
    assert "pip install 'micelio_storage[web]'" in err


def test_who_opens_it_to_others_is_told_what_that_means(
    root: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def at_once(*_: object) -> None:
        """Serve nobody."""

    monkeypatch.setattr(_server, "serve_until_cancelled", at_once)
    for host, shown, words in (
        ("0.0.0.0", r"127\.0\.0\.1", "read and change"),
        ("127.0.0.1", r"127\.0\.0\.1", ""),
        ("::1", r"\[::1\]", ""),
        ("localhost", "localhost", ""),
    ):
        assert _app.run(["serve", "--host", host]) == 0
        out = capfd.readouterr().out
        assert re.search(rf"^  http://{shown}:\d+/\?token=[\w-]{{43}}$", out, flags=re.MULTILINE), out
        assert ("nothing is encrypted" in out, words in out) == (bool(words), True)


@pytest.mark.case("B4")
def test_the_page_has_no_script_or_style_in_its_markup_and_names_no_other_server() -> None:
    folder = Path(serve.__file__).parent
    page, script, style = (folder.joinpath(f"page.{kind}").read_text() for kind in ("html", "js", "css"))
    assert re.findall(r"<script(?![^>]* src=\"/page.js\")|<style|\son\w+=|\sstyle=|javascript:", page) == []
    assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", script) == []
    named = re.findall(r"https?://[^'\"\s)]+", page + script + style)
    assert set(named) == {"http://www.w3.org/2000/svg"}  # a name space, which nobody fetches
