"""Histories of three processes on three keys: each is a story in which one thing happens after the other."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Callable, Coroutine
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from faults.children import run_all
from faults.linear import Did, story
from faults.scale import scaled
from micelio_storage import LocalConfig, NotFoundError, PreconditionFailedError, Storage, open_storage

PROCESSES = 3
KEYS = 3
CALLS = 6  # of each process in one history
KINDS = ("get", "put", "put if absent", "put if match", "put if match", "delete")


@pytest.mark.case("C15")
def test_what_three_processes_see_is_always_one_story(tmpfs: Path) -> None:
    histories = scaled(300, 3000)
    gate = multiprocessing.get_context("fork").Barrier(PROCESSES)

    def process(name: int) -> Callable[[], Coroutine[Any, Any, dict[str, list[Did]]]]:
        async def work() -> dict[str, list[Did]]:
            choices = random.Random(name)
            found: dict[str, list[Did]] = {}
            async with open_storage(LocalConfig(path=tmpfs / "root", durable=False)) as storage:
                for history in range(histories):
                    etags: dict[str, str] = {}
                    gate.wait(60)
                    for number in range(CALLS):
                        key = f"{history}/{choices.randrange(KEYS)}"
                        data = b"%d.%d" % (name, number)
                        did = await call(storage, key, choices.choice(KINDS), data, etags)
                        found.setdefault(key, []).append(did)
            return found

        return work

    calls: dict[str, list[Did]] = {}
    for found in run_all([process(name) for name in range(PROCESSES)]):
        for key, some in found.items():
            calls.setdefault(key, []).extend(some)
    assert any(meet(some) for some in calls.values()), "the processes never met, so this shows nothing"
    for key, some in calls.items():
        assert story(some), f"no story explains {key}: {sorted(some, key=lambda did: did.began)}"


async def call(storage: Storage, key: str, kind: str, data: bytes, etags: dict[str, str]) -> Did:
    """Make the call; `etags` are the last ones that this process has seen."""
    wanted = etags.get(key, '"none"') if kind == "put if match" else None
    etag = None
    began = time.monotonic_ns()
    try:
        if kind == "get":
            async with storage.open_read(key) as reader:
                data, etag = await reader.read(), reader.info.etag
        elif kind == "delete":
            await storage.delete(key)
        else:
            etag = (await storage.put(key, data, if_absent=kind == "put if absent", if_match=wanted)).etag
    except (NotFoundError, PreconditionFailedError):
        pass  # an answer like others: `etag` says it
    ended = time.monotonic_ns()
    if etag is not None:
        etags[key] = etag
    return Did(began=began, ended=ended, kind=kind, data=data, etag=etag, wanted=wanted)


def meet(calls: list[Did]) -> bool:
    """Whether two calls were under way at the same time."""
    ordered = sorted(calls, key=lambda did: did.began)
    return any(one.ended > other.began for one, other in pairwise(ordered))


PUT = {"kind": "put", "data": b"1", "etag": "one"}
OVER = {"kind": "put", "data": b"2", "etag": "two"}


@pytest.mark.case("C15")
@pytest.mark.parametrize(
    "calls",
    [
        pytest.param([PUT, OVER, {"kind": "get", "data": b"1", "etag": "one"}], id="stale read"),
        pytest.param([PUT, {"kind": "get"}], id="lost write"),
        pytest.param([PUT, {"kind": "delete"}, {"kind": "get", "data": b"1", "etag": "one"}], id="back from the dead"),
        pytest.param([PUT, {"kind": "put if absent", "data": b"2", "etag": "two"}], id="two creators"),
        pytest.param([PUT, OVER, {"kind": "put if match", "wanted": "one", "etag": "3"}], id="lost update"),
        pytest.param([PUT, {"kind": "put if match", "wanted": "one"}], id="refused for nothing"),
        pytest.param([PUT, {"kind": "get", "data": b"2", "etag": "one"}], id="bytes of another version"),
    ],
)
def test_what_cannot_have_happened_is_no_story(calls: list[dict[str, Any]]) -> None:
    one_after_another = [Did(began=2 * time, ended=2 * time + 1, **each) for time, each in enumerate(calls)]
    assert story(one_after_another) is None
    assert story(one_after_another[:-1]) is not None


def test_calls_that_meet_may_have_happened_in_either_order() -> None:
    put, get = Did(began=0, ended=9, **PUT), {"began": 1, "ended": 2, "kind": "get"}
    for seen in ({}, {"data": b"1", "etag": "one"}):
        assert story([put, Did(**get, **seen)])
    assert story([put, Did(**get), Did(began=3, ended=4, kind="get", data=b"1", etag="one")])
    assert not story([put, Did(**get, data=b"1", etag="one"), Did(began=3, ended=4, kind="get")])
