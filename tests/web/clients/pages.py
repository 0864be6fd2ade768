"""The page in Chromium, as the tests use it: what is on it, what was asked of the server, and lines that break."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from support.left_out import node_package

PROJECT = Path(__file__).parents[3]
sys.path.insert(0, str(PROJECT))  # the benchmarks are beside the tests and in no package that is installed

from benchmarks.browser import chromium  # noqa: E402

__all__ = ["Page", "breaking", "chromium"]

T = TypeVar("T")
PATIENCE = 120  # seconds


class Page:
    """The page as somebody has it before them."""

    def __init__(self, browser: Chrome, base: str) -> None:
        self.browser = browser
        self.base = base
        self._paths: dict[str, str] = {}  # of requests, by number
        self._early: list[dict[str, Any]] = []  # header fields of requests of which the browser has not said the path

    def open(self, where: str = "") -> None:
        """Go to a place on the page, and wait until it is drawn."""
        self.browser.get("about:blank")
        self.browser.get(f"{self.base}/{'#' * bool(where)}{where}")
        self.until(lambda: self.js("return !document.getElementById('panes').hidden"))

    def js(self, script: str, *arguments: Any) -> Any:
        return self.browser.execute_script(script, *arguments)

    def until(self, holds: Callable[[], T]) -> T:
        def try_it(_: object) -> T | None:
            return holds() or None

        found = WebDriverWait(self.browser, PATIENCE, poll_frequency=0.05).until(try_it)
        assert found is not None
        return found

    def text(self, selector: str) -> str:
        return str(self.js("return document.querySelector(arguments[0])?.innerText ?? ''", selector))

    def texts(self, selector: str) -> list[str]:
        return list(
            self.js("return [...document.querySelectorAll(arguments[0])].map((one) => one.innerText)", selector)
        )

    def is_seen(self, selector: str) -> bool:
        return bool(self.js("return Boolean(document.querySelector(arguments[0])?.checkVisibility())", selector))

    def press(self, *keys: str) -> None:
        ActionChains(self.browser).send_keys(*keys).perform()

    def click(self, selector: str) -> None:
        self.until(lambda: self.is_seen(selector))
        self.browser.find_element(By.CSS_SELECTOR, selector).click()

    def names(self) -> list[str]:
        """The files and folders that are drawn, in order."""
        return self.texts("#tree .row .name")

    def until_names(self, *names: str) -> None:
        self.until(lambda: self.names() == list(names))

    def upload(self, *paths: Path) -> None:
        self.browser.find_element(By.ID, "chosen").send_keys("\n".join(map(str, paths)))

    def complaints(self) -> list[str]:
        """What the browser has to say of the page: errors, and what its policy does not allow."""
        return [line["message"] for line in self.browser.get_log("browser")]

    def findings(self) -> list[str]:
        """What axe-core finds to be serious or worse."""
        self.js((node_package("axe-core") / "axe.min.js").read_text())
        run = "axe.run({resultTypes: ['violations']}).then(arguments[0], (wrong) => arguments[0](String(wrong)))"
        found = self.browser.execute_async_script(run)
        assert isinstance(found, dict), found
        return [
            f"{one['id']}: {one['nodes'][0]['html']} {one['nodes'][0].get('failureSummary')}"
            for one in found["violations"]
            if one["impact"] in ("serious", "critical")
        ]

    def asked(self) -> list[dict[str, Any]]:
        """The header fields of the requests since the last call, each with its path as ":path"."""
        paths, requests = self._paths, self._early
        for line in self.browser.get_log("performance"):
            message = json.loads(line["message"])["message"]
            given = message["params"]
            if message["method"] == "Network.requestWillBeSent":
                paths[given["requestId"]] = given["request"]["url"]
            elif message["method"] == "Network.requestWillBeSentExtraInfo":
                requests.append({"id": given["requestId"], **given["headers"]})
        self._early = [one for one in requests if one["id"] not in paths]
        return [{":path": paths[one["id"]], **one} for one in requests if one["id"] in paths]


@contextmanager
def breaking(port: int, after: int) -> Iterator[tuple[int, list[int]]]:
    """A port that leads to another, whose line breaks once: the first connection with so many bytes is reset.
    Gives it, and how many bytes each connection carried."""
    carried: list[int] = []
    broken = False
    ready, stopped = threading.Event(), None

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int | None) -> None:
        nonlocal broken
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
            if number is None:
                continue
            carried[number] += len(data)
            if not broken and carried[number] > after:
                broken = True
                raise ConnectionResetError
        writer.write_eof()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        carried.append(0)
        lines = [carry(reader, back, len(carried) - 1), carry(there, writer, None)]
        try:
            await asyncio.gather(*lines)
        except OSError:
            pass  # one end has gone, and the other is told by the next lines
        finally:
            writer.transport.abort()
            back.transport.abort()

    async def run() -> None:
        nonlocal stopped
        stopped = asyncio.Event()
        async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
            place.append(server.sockets[0].getsockname()[1])
            loops.append(asyncio.get_running_loop())
            ready.set()
            await stopped.wait()

    place: list[int] = []
    loops: list[asyncio.AbstractEventLoop] = []
    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    ready.wait(PATIENCE)
    try:
        yield place[0], carried
    finally:
        assert stopped is not None
        loops[0].call_soon_threadsafe(stopped.set)
        thread.join()
