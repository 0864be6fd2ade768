"""Google ADK's artifact services: our contract, on ours and on what the framework ships; and what breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest
from google.adk.agents import BaseAgent
from google.adk.agents.callback_context import CallbackContext
from google.adk.agents.invocation_context import InvocationContext
from google.adk.artifacts.base_artifact_service import BaseArtifactService
from google.adk.artifacts.file_artifact_service import FileArtifactService
from google.adk.artifacts.in_memory_artifact_service import InMemoryArtifactService
from google.adk.cli.service_registry import ServiceRegistry
from google.adk.errors.input_validation_error import InputValidationError
from google.adk.events import Event
from google.adk.runners import Runner
from google.adk.sessions import InMemorySessionService
from google.genai.types import Blob, Content, FileData, Part
from support import processes
from support.cancelling import cancel_everywhere

from micelio_storage import AmbiguousWriteError, IntegrityError, LocalConfig, Storage, open_storage
from micelio_storage.adapters.adk import MicelioArtifactService, artifact_service
from micelio_storage.drivers.memory import MemoryDriver

from .contracts import EVERYWHERE, LONE, ODD_IDS, failures, table

PAGE = Path(__file__).parents[2] / "docs" / "adapters" / "adk.md"
Open = Callable[[], BaseArtifactService]
HERE = {"app_name": "app", "user_id": "u@x.example", "session_id": "s-1"}
USER = {**HERE, "session_id": None}


async def save(service: BaseArtifactService, filename: str, artifact: Any, **where: Any) -> int:
    part = Part(text=artifact) if isinstance(artifact, str) else artifact
    return await service.save_artifact(**{**HERE, **where}, filename=filename, artifact=part)


async def load(service: BaseArtifactService, filename: str, version: int | None = None, **where: Any) -> Any:
    part = await service.load_artifact(**{**HERE, **where}, filename=filename, version=version)
    return part if part is None or part.text is None else part.text


class Contract:
    async def versions(self, make: Open) -> None:
        """Versions are numbered from 0; each can be loaded, without a number the newest; what is not there is None."""
        service = make()
        assert await load(service, "a") is None
        assert [await save(service, "a", f"v{n}") for n in range(12)] == list(range(12))
        assert await service.list_versions(**HERE, filename="a") == list(range(12))
        assert [await load(service, "a", n) for n in (0, 2, 11, None)] == ["v0", "v2", "v11", "v11"]
        assert [await load(service, "a", n) for n in (-1, 12, 10**12)] == [None] * 3
        assert await service.list_versions(**HERE, filename="b") == []
        assert await service.get_artifact_version(**HERE, filename="b") is None
        assert await service.list_artifact_versions(**HERE, filename="b") == []

    async def types_stay(self, make: Open) -> None:
        """Bytes come back as bytes with their type, a text/csv too; text comes back as text, also an empty one."""
        service = make()
        parts = [
            Part.from_bytes(data=b"\x89PNG\x00", mime_type="image/png"),
            Part.from_bytes(data=b"a,b", mime_type="text/csv"),
            Part(inline_data=Blob(data=b"x", mime_type="application/pdf", display_name="Überblick.pdf")),
            Part(text="é\n🙂"),
            Part(text=""),
        ]
        for number, part in enumerate(parts):
            assert await service.save_artifact(**HERE, filename="a", artifact=part) == number
            assert await service.load_artifact(**HERE, filename="a", version=number) == part
        await service.save_artifact(**HERE, filename="b", artifact={"inlineData": {"data": "AAE=", "mimeType": "x/y"}})
        assert await load(service, "b") == Part.from_bytes(data=b"\x00\x01", mime_type="x/y")
        with pytest.raises(InputValidationError):
            await save(service, "c", Part())

    async def more_of_a_part(self, make: Open) -> None:
        """What a part says beside its bytes stays: a thought and its signature."""
        service = make()
        part = Part(inline_data=Blob(data=b"x", mime_type="a/b"), thought=True, thought_signature=b"\x00\xff")
        await save(service, "a", part)
        assert await load(service, "a") == part

    async def files_elsewhere(self, make: Open) -> None:
        """A part that names a file elsewhere comes back."""
        service, part = make(), Part(file_data=FileData(file_uri="gs://b/k", mime_type="video/mp4"))
        await save(service, "a", part)
        assert await load(service, "a") == part

    async def values_stay(self, make: Open) -> None:
        """What was saved or loaded may be changed afterwards, and changes nothing that is stored."""
        service, part, custom = make(), Part(text="one"), {"n": [1]}
        await service.save_artifact(**HERE, filename="a", artifact=part, custom_metadata=custom)
        part.text = "two"
        custom["n"].append(2)
        for _ in range(2):
            loaded = await service.load_artifact(**HERE, filename="a")
            described = await service.get_artifact_version(**HERE, filename="a")
            assert loaded is not None
            assert described is not None
            assert (loaded.text, described.custom_metadata) == ("one", {"n": [1]})
            loaded.text = "three"
            described.custom_metadata["n"] = 3

    async def what_is_said(self, make: Open) -> None:
        """The type, the time and metadata of each version are known, be the metadata kilobytes."""
        service = make()
        large = {"note": "é" * 5000, "in": {"list": [1, None, True]}}
        first = Part.from_bytes(data=b"x", mime_type="image/png")
        await service.save_artifact(**HERE, filename="a", artifact=first, custom_metadata=large)
        await service.save_artifact(**HERE, filename="a", artifact=first)
        one, two = await service.list_artifact_versions(**HERE, filename="a")
        assert (one.version, one.mime_type, one.custom_metadata) == (0, "image/png", large)
        assert (two.version, two.mime_type, two.custom_metadata) == (1, "image/png", {})
        assert 0 < one.create_time <= two.create_time + 1
        assert one.canonical_uri != two.canonical_uri
        assert await service.get_artifact_version(**HERE, filename="a") == two
        assert await service.get_artifact_version(**HERE, filename="a", version=0) == one
        assert await load(service, "a", 0) == first

    async def nested_names(self, make: Open) -> None:
        """`doc` and `doc/nested` are two artifacts, listed by their whole names, and deleted one by one."""
        service, names = make(), ["dir/ü b.txt", "doc", "doc/nested"]
        for name in names:
            await save(service, name, name)
        assert await service.list_artifact_keys(**HERE) == names
        await service.delete_artifact(**HERE, filename="doc")
        await service.delete_artifact(**HERE, filename="none")
        assert await service.list_artifact_keys(**HERE) == [name for name in names if name != "doc"]
        assert [await load(service, name) for name in names] == [names[0], None, names[2]]
        assert await save(service, "doc", "again") == 0

    async def of_the_user(self, make: Open) -> None:
        """What begins with `user:` is there in all sessions of the user, and loads as it is listed."""
        service = make()
        await save(service, "user:a", "shared")
        await save(service, "a", "mine")
        for session in ("s-1", "other"):
            keys = await service.list_artifact_keys(**{**HERE, "session_id": session})
            assert keys == (["a", "user:a"] if session == "s-1" else ["user:a"])
            assert await load(service, "user:a", session_id=session) == "shared"
        assert await load(service, "user:a", session_id=None) == "shared"
        assert await load(service, "user:a", user_id="another") is None
        await service.delete_artifact(**HERE, filename="a")
        assert await load(service, "user:a") == "shared"

    async def without_a_session(self, make: Open) -> None:
        """What is saved without a session belongs to the user, as the interface says, and loads as it is listed."""
        service = make()
        await save(service, "a", "shared", session_id=None)
        assert await load(service, "a", session_id=None) == "shared"
        [name] = await service.list_artifact_keys(**HERE)
        assert await load(service, name) == "shared"

    async def apart(self, make: Open) -> None:
        """Apps, users and sessions never mix, such as user `u/s2`, session `s2/a`, session `user`; or are refused."""
        service = make()
        places = [
            *({"app_name": app, "user_id": "u"} for app in ("p", "p/u")),
            *({"user_id": user, "session_id": "a"} for user in ("u", "u/s2", "u/user", "u/sessions")),
            *({"user_id": "u", "session_id": session} for session in ("s2", "user", "users", "user/a", "s2/a")),
        ]
        saved = []
        for place in places:
            try:
                await save(service, "a", str(place), **place)
                saved.append(place)
            except InputValidationError:
                continue
        for place in saved:
            assert await load(service, "a", **place) == str(place)
            assert await service.list_versions(**{**HERE, **place}, filename="a") == [0]
            assert await service.list_artifact_keys(**{**HERE, **place}) == ["a"]
            assert await service.list_artifact_keys(**{**HERE, **place, "session_id": None}) == []

    async def odd_names(self, make: Open) -> None:
        """Any text is the name of a file, and no two share their versions."""
        service = make()
        odds = sorted((*ODD_IDS, *LONE))
        assert await asyncio.gather(*(save(service, odd, ascii(odd)) for odd in odds)) == [0] * len(odds)
        assert await service.list_artifact_keys(**HERE) == odds
        assert [await load(service, odd) for odd in odds] == [*map(ascii, odds)]

    async def odd_ids(self, make: Open) -> None:
        """Any text is an app, a user or a session."""
        service = make()
        for field in HERE:
            odds = [*ODD_IDS, *LONE]
            await asyncio.gather(*(save(service, f"of {field}", ascii(odd), **{field: odd}) for odd in odds))
            found = await asyncio.gather(*(load(service, f"of {field}", 0, **{field: odd}) for odd in odds))
            assert found == [*map(ascii, odds)]

    async def forty_at_once(self, make: Open) -> None:
        """Of forty that save at once, each gets a version of its own, and all are there."""
        service = make()
        numbers = await asyncio.gather(*(save(service, "a", f"by {n}") for n in range(40)))
        assert sorted(numbers) == list(range(40))
        for n, number in enumerate(numbers):
            assert await load(service, "a", number) == f"by {n}"

    async def references(self, make: Open) -> None:
        """References to artifacts are followed within the session and the user, and not in circles."""
        service = make()
        user = "artifact://apps/app/users/u@x.example"
        await save(service, "a", "found")
        for number, uri in enumerate(
            (f"{user}/sessions/s-1/artifacts/a/versions/0", f"{user}/sessions/s-1/artifacts/r/versions/0")
        ):
            await save(service, "r", Part(file_data=FileData(file_uri=uri)))
            assert await load(service, "r", number) == "found"
        await save(service, "c", Part(file_data=FileData(file_uri=f"{user}/sessions/s-1/artifacts/c/versions/0")))
        with pytest.raises(InputValidationError):
            await load(service, "c")
        for bad in (
            f"{user}/sessions/other/artifacts/a/versions/0",
            "artifact://apps/app/users/v/artifacts/a/versions/0",
        ):
            with pytest.raises(InputValidationError):
                await save(service, "r", Part(file_data=FileData(file_uri=bad)))

    async def rewinding(self, make: Open) -> None:
        """What a rewind saves to remove an artifact loads as none, and the versions before it stay."""
        service = make()
        await save(service, "a", "one")
        await save(service, "a", Part(inline_data=Blob(mime_type="application/octet-stream", data=b"")))
        assert await load(service, "a") is None
        assert await load(service, "a", 0) == "one"

    async def another_process(self, make: Open) -> None:
        """What was saved is there for the next process."""
        await save(make(), "a", "one")
        assert await load(make(), "a") == "one"


@pytest.mark.parametrize("storage_everywhere", EVERYWHERE, indirect=True)
async def test_the_contract_holds(storage_everywhere: Storage) -> None:
    def make(check: str) -> Open:
        return lambda: MicelioArtifactService(storage_everywhere.under(check))

    assert await failures(Contract, make) == {}


async def test_the_page_says_how_the_frameworks_own_services_do(tmp_path: Path) -> None:
    results = {
        "`MicelioArtifactService`": {},
        "`InMemoryArtifactService`": await failures(Contract, lambda check: InMemoryArtifactService),
        "`FileArtifactService`": await failures(Contract, lambda check: lambda: FileArtifactService(tmp_path / check)),
    }
    assert table(Contract, results) in PAGE.read_text()


class Noting(BaseAgent):
    """An agent that notes what it was told, in the session and for the user."""

    async def _run_async_impl(self, ctx: InvocationContext) -> AsyncGenerator[Event, None]:
        context = CallbackContext(ctx)
        content = ctx.user_content
        assert content is not None
        assert content.parts is not None
        version = await context.save_artifact("note.txt", content.parts[0])
        await context.save_artifact("user:notes/all.txt", content.parts[0])
        yield Event(author=self.name, content=Content(parts=[Part(text=f"version {version}")]))


@pytest.mark.parametrize("storage_everywhere", ["memory", "disk"], indirect=True)
async def test_an_agents_artifacts_are_there_for_the_next_runner(storage_everywhere: Storage) -> None:
    said = []
    for text in ("one", "two"):
        sessions = InMemorySessionService()
        await sessions.create_session(**HERE)
        service = MicelioArtifactService(storage_everywhere)
        runner = Runner(app_name="app", agent=Noting(name="n"), session_service=sessions, artifact_service=service)
        message = Content(role="user", parts=[Part(text=text)])
        async for event in runner.run_async(user_id=HERE["user_id"], session_id="s-1", new_message=message):
            assert event.content is not None
            assert event.content.parts is not None
            said += [part.text for part in event.content.parts]
    assert said == ["version 0", "version 1"]
    assert await service.list_artifact_keys(**HERE) == ["note.txt", "user:notes/all.txt"]
    assert [await load(service, "note.txt", number) for number in (0, 1)] == ["one", "two"]


@pytest.mark.parametrize("storage_everywhere", ["memory", "disk"], indirect=True)
async def test_the_bytes_of_an_artifact_are_an_object_with_its_type(storage_everywhere: Storage) -> None:
    service = MicelioArtifactService(storage_everywhere)
    await save(service, "charts/a.png", Part.from_bytes(data=b"\x89PNG", mime_type="image/png"))
    key = "adk/app/u%40x.example/sessions/s-1/charts%2Fa.png/0000000000"
    data, info = await storage_everywhere.get_with_info(key)
    assert (data, info.content_type) == (b"\x89PNG", "image/png")
    described = await service.get_artifact_version(**HERE, filename="charts/a.png")
    assert described is not None
    assert described.canonical_uri == f"micelio:{key}"


@pytest.mark.parametrize("kind", ["", "no type", "a/b\r\nx: y", "é/x", "x" * 300])
async def test_a_type_that_no_header_can_hold_stays_all_the_same(kind: str) -> None:
    async with open_storage("memory:") as storage:
        part = Part(inline_data=Blob(data=b"x", mime_type=kind))
        await save(MicelioArtifactService(storage), "a", part)
        assert await load(MicelioArtifactService(storage), "a") == part


async def test_two_processes_that_save_get_versions_of_their_own(tmp_path: Path) -> None:
    async def work(name: str) -> None:
        async with open_storage(LocalConfig(path=tmp_path, durable=False)) as storage:
            service = MicelioArtifactService(storage)
            for n in range(20):
                number = await save(service, "a", f"{name}{n}")
                assert await load(service, "a", number) == f"{name}{n}"

    children = [processes.start(lambda name=name: work(name)) for name in "xy"]
    assert [processes.wait_for(child) for child in children] == [0, 0]
    async with open_storage(LocalConfig(path=tmp_path)) as storage:
        service = MicelioArtifactService(storage)
        found = [await load(service, "a", number) for number in await service.list_versions(**HERE, filename="a")]
    assert sorted(found) == sorted(f"{name}{n}" for name in "xy" for n in range(20))


class Losing(MemoryDriver):
    """Each second put is done and its answer lost, each fourth not done either."""

    puts = 0

    async def put(self, *arguments: Any) -> Any:
        self.puts += 1
        if self.puts % 4 == 0:
            raise AmbiguousWriteError("the request was lost")
        done = await super().put(*arguments)
        if self.puts % 2 == 0:
            raise AmbiguousWriteError("the answer was lost")
        return done


async def test_a_save_whose_answer_got_lost_is_one_version() -> None:
    async with Storage(Losing()) as storage:
        service = MicelioArtifactService(storage)
        assert [await save(service, "a", str(n)) for n in range(20)] == list(range(20))
        assert [await load(service, "a", n) for n in range(20)] == [str(n) for n in range(20)]
        assert sorted(await asyncio.gather(*(save(service, "b", str(n)) for n in range(20)))) == list(range(20))


async def test_a_save_whose_answers_all_get_lost_says_so() -> None:
    class Lost(MemoryDriver):
        async def put(self, *arguments: Any) -> Any:
            raise AmbiguousWriteError("the request was lost")

    async with Storage(Lost()) as storage:
        with pytest.raises(AmbiguousWriteError):
            await save(MicelioArtifactService(storage), "a", "x")


async def test_a_cancelled_save_is_a_version_or_none() -> None:
    async with open_storage("memory:") as storage:
        service = MicelioArtifactService(storage)

        async def one() -> None:
            await save(service, "a", "text")

        expected = 0
        async for _, outcome in cancel_everywhere(one):
            numbers = await service.list_versions(**HERE, filename="a")
            assert numbers == list(range(len(numbers)))
            assert len(numbers) - expected == 1 or (len(numbers) == expected and outcome == "cancelled")
            assert numbers == [] or await load(service, "a") == "text"
            expected = len(numbers)


async def test_what_is_no_version_or_damaged_is_told_apart() -> None:
    async with open_storage("memory:") as storage:
        service = MicelioArtifactService(storage)
        await save(service, "a", "x")
        place = "adk/app/u%40x.example/sessions/s-1/a/"
        for name in ("readme", "1", "0000000001/x", "\u0660" * 10):
            await storage.put(f"{place}{name}", b"")
        assert await service.list_versions(**HERE, filename="a") == [0]
        for metadata in ({}, {"adk": "{"}, {"adk": "[]"}, {"adk": '{"id": "x"}'}, {"adk": '{"length": 3, "id": "x"}'}):
            await storage.put(f"{place}0000000002", b"xyz", metadata=metadata)
            for read in (service.load_artifact, service.get_artifact_version):
                with pytest.raises(IntegrityError):
                    await read(**HERE, filename="a")


async def test_metadata_that_no_json_can_hold_is_refused_before_anything_is_stored() -> None:
    async with open_storage("memory:") as storage:
        service = MicelioArtifactService(storage)
        for bad in ({"x": object()}, {"x": {1, 2}}):
            with pytest.raises(InputValidationError):
                await service.save_artifact(**HERE, filename="a", artifact=Part(text="x"), custom_metadata=bad)
        with pytest.raises(InputValidationError):
            await save(service, "a", Part(inline_data=Blob(mime_type="a/b")))
        assert [entry async for entry in storage.list()] == []


def test_a_service_by_uri_works_on_each_loop(tmp_path: Path) -> None:
    registry = ServiceRegistry()
    registry.register_artifact_service("micelio+file", artifact_service)
    service = registry.create_artifact_service(f"micelio+file://{tmp_path}/root", agents_dir=str(tmp_path))
    assert isinstance(service, MicelioArtifactService)
    for number in range(3):
        assert asyncio.run(save(service, "a", str(number))) == number
    assert asyncio.run(load(service, "a")) == "2"
