"""A check that cannot fail is a defect: drivers that are broken on purpose are found, each by exactly the checks that
are meant for it; and what stands around every check finds what it should."""

from __future__ import annotations

import ast
import asyncio
import warnings
from contextlib import nullcontext
from pathlib import Path

import pytest
from support.everything import is_chosen

import micelio_storage.testing
from micelio_storage import NotFoundError, NotSupportedError, Storage, StorageError
from micelio_storage._streams import _Stream
from micelio_storage.driver import BytesLike, Driver, Key, WriteOptions
from micelio_storage.drivers.memory import MemoryDriver, MemoryUpload
from micelio_storage.testing import BROKEN_DRIVERS, CHECKS, CheckFailed, Result, run, run_all
from micelio_storage.testing._expect import equal, expect, needs, raises

PACKAGE = Path(micelio_storage.testing.__file__).parent
SOON = 0.05  # seconds: patience with leftovers that never go, and the deadline of what never ends


# The loop makes no difference to what a broken driver does; fifty kits on one loop take long enough.
@pytest.mark.asyncio(loop_factories=["asyncio"])
@pytest.mark.parametrize("broken", BROKEN_DRIVERS, ids=lambda driver: driver.__name__)
async def test_a_broken_driver_is_found_by_the_checks_that_are_meant_for_it(broken: type[Driver]) -> None:
    """The others must pass. They have their turns: each is run on a sixteenth of the drivers, every day on others."""
    first = list(BROKEN_DRIVERS).index(broken)
    chosen = [
        check
        for number, check in enumerate(CHECKS, first)
        if is_chosen(number) or check.__name__ in BROKEN_DRIVERS[broken]
    ]
    results = await run_all(broken, checks=chosen, deadline=30, patience=SOON)
    failed = {result.name: repr(result.error) for result in results if result.error is not None}
    assert set(failed) == BROKEN_DRIVERS[broken], failed


class _Overtaking(MemoryDriver):
    """Writes as if nobody else did meanwhile."""

    class _Upload(MemoryUpload):
        async def write(self, data: BytesLike) -> None:
            at = self._buffer.tell()
            await asyncio.sleep(0)
            self._buffer.seek(at)
            await super().write(data)

    async def upload(self, key: Key, options: WriteOptions) -> MemoryUpload:
        return self._Upload(self, key, options)


@pytest.mark.parametrize(
    ("name", "guard"),
    [
        ("two_tasks_at_one_reader_do_not_mix", "_turn"),
        ("two_tasks_at_one_writer_do_not_mix", "_turn"),
        ("a_reader_or_writer_is_opened_once", "_begun"),
    ],
)
async def test_a_reader_or_writer_without_its_guard_is_found(
    name: str, guard: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = next(check for check in CHECKS if check.__name__ == name)
    await run(check, _Overtaking())
    unguarded = property(lambda _: nullcontext() if guard == "_turn" else False, lambda *_: None)
    monkeypatch.setattr(_Stream, guard, unguarded, raising=False)
    with pytest.raises((CheckFailed, StorageError)), warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        await run(check, _Overtaking(), patience=SOON)


def test_broken_drivers_name_checks_that_exist() -> None:
    known = {check.__name__ for check in CHECKS}
    assert all(names and names <= known for names in BROKEN_DRIVERS.values())


def test_every_check_has_a_name_of_its_own_and_one_sentence() -> None:
    assert len({check.__name__ for check in CHECKS}) == len(CHECKS)
    sentences = [" ".join((check.__doc__ or "").split()) for check in CHECKS]
    assert [text for text in sentences if not text.endswith(".") or ". " in text] == []
    assert len(set(sentences)) == len(CHECKS)


def test_the_kit_needs_no_test_runner_and_survives_optimisation() -> None:
    others = {
        PACKAGE / "pytest_micelio_storage.py",
        *(PACKAGE / "soak").rglob("*.py"),
    }  # whose asserts check types alone
    files = set(PACKAGE.rglob("*.py")) - others
    nodes = [(path, node) for path in files for node in ast.walk(ast.parse(path.read_text()))]
    found = [f"{path.name}:{node.lineno}" for path, node in nodes if isinstance(node, ast.Assert)]
    for path, node in nodes:
        if isinstance(node, (ast.Import, ast.ImportFrom)) and "pytest" in ast.dump(node):
            found.append(f"{path.name}:{node.lineno}")
    assert found == []


# -- what stands around every check


class Watched(MemoryDriver):
    """Keeps in view what is left when it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.left: list[Key] | None = None

    async def aclose(self) -> None:
        self.left = list(self._order)
        await super().aclose()


async def store(storage: Storage, prefix: str) -> None:
    await storage.put(prefix + "a/b", b"1")
    await storage.put(prefix + "c", b"1")


async def test_what_a_check_stored_is_removed() -> None:
    driver = Watched()
    await run(store, driver)
    assert driver.left == []


async def test_what_a_check_stored_is_removed_when_it_fails_or_closes_the_storage() -> None:
    async def fail(storage: Storage, prefix: str) -> None:
        await store(storage, prefix)
        expect(False, "on purpose")

    class Kept(Watched):
        async def aclose(self) -> None:
            self.left = list(self._order)

    async def close(storage: Storage, prefix: str) -> None:
        await store(storage, prefix)
        await storage.aclose()

    driver = Kept()
    with pytest.raises(CheckFailed, match="on purpose"):
        await run(fail, driver)
    assert driver.left == []
    await run(close, driver)
    assert driver.left == []


async def test_an_error_of_the_storage_fails_a_check_as_it_is() -> None:
    async def miss(storage: Storage, prefix: str) -> None:
        await storage.get(prefix + "a")

    with pytest.raises(NotFoundError):
        await run(miss, MemoryDriver())


async def test_a_check_that_never_ends_is_ended() -> None:
    async def hang(storage: Storage, prefix: str) -> None:
        await store(storage, prefix)
        await asyncio.Event().wait()

    driver = Watched()
    with pytest.raises(CheckFailed, match="not done after"):
        await run(hang, driver, deadline=SOON)
    assert driver.left == []


async def test_a_timeout_of_the_check_itself_is_told_from_the_deadline() -> None:
    async def time_out(storage: Storage, prefix: str) -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        await run(time_out, MemoryDriver())


async def test_a_cancellation_from_nowhere_fails_the_check() -> None:
    async def invent(storage: Storage, prefix: str) -> None:
        raise asyncio.CancelledError

    with pytest.raises(CheckFailed, match="nobody had cancelled"):
        await run(invent, MemoryDriver())


async def test_a_cancellation_from_outside_comes_out_when_all_is_cleaned_up() -> None:
    begun = asyncio.Event()

    async def wait(storage: Storage, prefix: str) -> None:
        await store(storage, prefix)
        begun.set()
        await asyncio.Event().wait()

    driver = Watched()
    task = asyncio.ensure_future(run(wait, driver))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert driver.left == []


async def test_an_unfinished_write_fails_the_check() -> None:
    async def begin(storage: Storage, prefix: str) -> None:
        await storage._driver.upload(Key.parse(prefix + "a"), WriteOptions())

    with pytest.raises(CheckFailed, match="1 unfinished writes are left"):
        await run(begin, MemoryDriver(), patience=SOON)


async def test_a_task_that_is_left_fails_the_check_and_is_ended() -> None:
    left: list[asyncio.Task[object]] = []

    async def leave(storage: Storage, prefix: str) -> None:
        left.append(asyncio.create_task(asyncio.Event().wait(), name="left"))

    with pytest.raises(CheckFailed, match=r"1 tasks are left: .*Event\.wait"):
        await run(leave, MemoryDriver(), patience=SOON)
    assert left[0].cancelled()


async def test_a_task_of_the_driver_may_live_as_long_as_it_is_open() -> None:
    class Housekeeping(MemoryDriver):
        async def open(self) -> None:
            self.task = asyncio.create_task(asyncio.Event().wait())

        async def aclose(self) -> None:
            self.task.cancel()
            await asyncio.wait([self.task])

    class Forgetful(Housekeeping):
        async def aclose(self) -> None:
            pass

    await run(store, Housekeeping(), patience=SOON)
    with pytest.raises(CheckFailed, match="1 tasks are left"):
        await run(store, Forgetful(), patience=SOON)


async def test_what_goes_wrong_afterwards_is_a_note_of_what_went_wrong_first() -> None:
    class Stubborn(MemoryDriver):
        async def unfinished(self) -> list[str]:
            return ["staged"]

    async def fail(storage: Storage, prefix: str) -> None:
        expect(False, "first")

    with pytest.raises(CheckFailed, match="first") as caught:
        await run(fail, Stubborn(), patience=SOON)
    assert "1 unfinished writes are left: staged" in caught.value.__notes__[0]


async def test_all_checks_are_run_and_told_one_by_one() -> None:
    async def fail(storage: Storage, prefix: str) -> None:
        """It fails
        on purpose."""
        expect(False, "on purpose")

    told: list[Result] = []
    results = await run_all(MemoryDriver, checks=[store, fail], tell=told.append)
    assert results == told
    assert [(result.name, result.sentence) for result in results] == [("store", ""), ("fail", "It fails on purpose.")]
    assert results[0].error is None
    assert isinstance(results[1].error, CheckFailed)
    assert all(result.seconds >= 0 for result in results)


# -- what checks are written with


def test_equal_shows_both_values_and_no_megabytes() -> None:
    equal(1, 1, "one")
    with pytest.raises(CheckFailed, match="the number: 1 instead of 2"):
        equal(1, 2, "the number")
    with pytest.raises(CheckFailed) as caught:
        equal(bytes(10**6), [str(number) for number in range(10**5)], "the object")
    assert len(str(caught.value)) < 500


def test_raises_lets_the_wanted_error_in_and_no_other_out() -> None:
    with raises(NotFoundError) as caught:
        raise NotFoundError("gone")
    assert caught.error.message == "gone"
    with (
        pytest.raises(CheckFailed, match="a get: no error came out, where NotFoundError"),
        raises(NotFoundError, "a get"),
    ):
        pass
    with pytest.raises(CheckFailed, match=r"a get: KeyError \('a'\) instead"), raises(NotFoundError, "a get"):
        raise KeyError("a")
    with pytest.raises(CheckFailed, match=r"^within$"), raises(NotFoundError, "a get"):
        expect(False, "within")
    with pytest.raises(asyncio.CancelledError), raises(NotFoundError, "a get"):
        raise asyncio.CancelledError


def test_needs_wants_the_answer_that_the_capability_asks_for() -> None:
    with needs(True):
        pass
    with pytest.raises(NotSupportedError), needs(True), raises(NotFoundError):
        raise NotSupportedError("no")
    with needs(False), raises(NotFoundError):
        raise NotSupportedError("no")
    with pytest.raises(CheckFailed, match="deny"), needs(False):
        pass
    with pytest.raises(NotFoundError), needs(False):
        raise NotFoundError("gone")
