"""Every block of Python in the README, the documentation and docstrings runs, as it stands there."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import typer
from aiohttp import ClientSession, FormData
from aiohttp.test_utils import TestClient, TestServer
from pydantic import ValidationError
from support.blocks import block, blocks, program, run_block, served
from support.s3_servers import Server
from support.s3_storage import set_credentials
from sybil import Example

import micelio_storage
from micelio_storage import (
    ConfigError,
    Key,
    LocalConfig,
    S3Config,
    UnavailableError,
    open_storage,
)
from micelio_storage.cli import _app

PROJECT = Path(__file__).parent.parent
PAGES = sorted((PROJECT / "docs").rglob("*.md"))
# Those of adapters import what only `-m adapters` has, which runs them.
SOURCES = [
    path
    for path in [PROJECT / "README.md", *PAGES, *sorted(Path(micelio_storage.__file__).parent.rglob("*.py"))]
    if path.parent.name != "adapters"
]
LONGEST_README = 9_000  # characters: one page


BLOCKS = list(blocks(SOURCES))


@pytest.mark.parametrize("example", BLOCKS)
def test_a_block_of_python_runs(
    example: Example, tmpfs: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    run_block(example, tmpfs, monkeypatch, request)


def test_there_are_blocks_to_run() -> None:
    assert len(BLOCKS) >= 40


# -- the README


def test_the_readme_is_one_page() -> None:
    assert len((PROJECT / "README.md").read_text()) <= LONGEST_README


@pytest.mark.parametrize("path", ["README.md", "docs/index.md", "docs/getting-started.md"])
def test_the_first_program_runs_when_pasted_into_a_file(path: str, tmp_path: Path) -> None:
    (tmp_path / "first.py").write_text(block(path))
    done = subprocess.run([sys.executable, "-W", "error", "first.py"], cwd=tmp_path, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout
    assert (tmp_path / "data").is_dir()


@pytest.mark.parametrize(("number", "begin", "most"), [(1, "FastAPI", 15), (2, "list_sessions", 10), (3, "s3://", 5)])
def test_the_readme_says_it_in_few_lines(number: int, begin: str, most: int) -> None:
    code = block("README.md", number)
    assert begin in code
    assert len([line for line in code.splitlines() if line.strip()]) <= most


def test_the_readmes_two_commands_are_one_line_each() -> None:
    section = (PROJECT / "README.md").read_text().partition("## Two commands\n")[2].partition("\n## ")[0]
    commands = [line for line in section.splitlines() if "python3 -m venv" in line]
    assert len(commands) == 2
    assert commands[0].endswith(" demo")
    assert " && .venv/bin/pytest" in commands[1]


def test_what_the_readme_and_the_pages_link_to_is_there() -> None:
    for page in [PROJECT / "README.md", *PAGES]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            assert target.startswith("https://") or (page.parent / target).exists(), (page.name, target)


# -- recipes


async def test_a_session_is_stored_and_streamed_back_by_the_readmes_fastapi(
    tmpfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmpfs)
    app = program(block("README.md", 1))["app"]
    data = os.urandom(3 << 20)
    async with served(app) as url, ClientSession() as client:
        async with client.put(f"{url}/sessions/abc123/files/src/main.ex", data=io.BytesIO(data)) as answer:
            assert (answer.status, (await answer.json())["size"]) == (200, len(data))
        async with client.get(f"{url}/sessions/abc123/files/src/main.ex") as answer:
            assert (answer.status, await answer.read()) == (200, data)
        async with client.get(f"{url}/sessions/abc123/files/src/main.ex", headers={"Range": "bytes=1-3"}) as answer:
            assert (answer.status, await answer.read()) == (206, data[1:4])
        async with client.get(f"{url}/sessions/abc123/files/missing") as answer:
            assert answer.status == 404
    assert (tmpfs / "data/sessions/abc123/files/src/main.ex").read_bytes() == data


async def test_the_recipe_for_fastapi_takes_forms(tmpfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_LOCAL_PATH", str(tmpfs))
    app = program(block("docs/recipes/fastapi.md"))["app"]
    async with served(app) as url, ClientSession() as client:
        form = FormData()
        form.add_field("file", b"%PDF", filename="report.pdf", content_type="application/pdf")
        async with client.post(f"{url}/sessions/abc123/files", data=form) as answer:
            assert (answer.status, (await answer.json())["size"]) == (200, 4)
        async with client.get(f"{url}/sessions/abc123/files/report.pdf") as answer:
            assert (answer.content_type, await answer.read()) == ("application/pdf", b"%PDF")


async def test_the_recipe_for_fastapi_has_answers_for_errors() -> None:
    app = program(block("docs/recipes/fastapi.md", 1))["app"]

    @app.get("/{key:path}")
    async def get(key: str) -> None:
        if key == "busy":
            raise UnavailableError("the store does not answer")
        Key.parse(key)

    async with served(app) as url, ClientSession() as client:
        for path, status in (("a//b", 400), ("busy", 503), ("good", 200)):
            async with client.get(f"{url}/{path}") as answer:
                assert answer.status == status


async def test_the_recipe_for_streaming_responses_streams_and_misses() -> None:
    async with open_storage("memory:") as storage:
        await storage.put("a/b", b"some bytes", content_type="text/plain")
        app = program(block("docs/recipes/fastapi.md", 3), storage=storage)["app"]
        async with served(app) as url, ClientSession() as client:
            async with client.get(f"{url}/files/a/b") as answer:
                assert (answer.headers["content-length"], await answer.read()) == ("10", b"some bytes")
            async with client.get(f"{url}/files/missing") as answer:
                assert answer.status == 404


async def test_the_recipe_for_dependencies_counts_and_takes_another_storage(
    tmpfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_LOCAL_PATH", str(tmpfs))
    names = program(block("docs/recipes/fastapi.md", 2))
    app, path = names["app"], "/sessions/abc123/visits"
    async with served(app) as url, ClientSession(url) as client, open_storage("memory:") as other:
        for visits in (1, 2):
            async with client.post(path) as answer:
                assert await answer.json() == {"visits": visits}
        app.dependency_overrides[names["get_storage"]] = lambda: other
        async with client.post(path) as answer:
            assert await answer.json() == {"visits": 1}
        assert [entry.key async for entry in other.list()] == ["sessions/abc123/metadata.json"]
    assert json.loads((tmpfs / "sessions/abc123/metadata.json").read_text()) == {"visits": 2}


async def test_the_recipe_for_settings_opens_two_storages_of_one_environment(
    tmpfs: Path, monkeypatch: pytest.MonkeyPatch, seaweedfs_server: Server
) -> None:
    names = program(block("docs/recipes/settings.md"))
    set_credentials(monkeypatch, seaweedfs_server)
    prefix = f"settings-{tmpfs.name}"
    exports = {"BUCKET": seaweedfs_server.bucket, "PREFIX": prefix, "ENDPOINT": seaweedfs_server.endpoint}
    for name, value in {**exports, "URL_STYLE": "path", "REGION": seaweedfs_server.region}.items():
        monkeypatch.setenv(f"APP_EXPORTS__{name}", value)
    monkeypatch.setenv("APP_FILES__PATH", str(tmpfs))
    monkeypatch.setenv("APP_FILES__DURABLE", "false")
    settings = await names["main"]()
    assert settings.files == LocalConfig(path=str(tmpfs), durable=False)
    assert (tmpfs / "report.csv").read_bytes() == b"a,b\n1,2\n"
    async with open_storage(settings.exports) as opened:
        assert await opened.get("report.csv") == b"a,b\n1,2\n"
        await opened.delete("report.csv")
    for name, wrong in (("APP_EXPORTS__BUKCET", "b"), ("APP_FILES__DEADLINE", "soon")):
        with monkeypatch.context() as patch:
            patch.setenv(name, wrong)
            with pytest.raises(ValidationError, match=name.partition("__")[2].lower()):
                names["Settings"]()
    with monkeypatch.context() as patch:
        patch.setenv("APP_FILES__FILE_MODE", "0640")
        with pytest.raises(ConfigError, match="did you mean 0o640"):
            open_storage(names["Settings"]().files)
        patch.setenv("APP_FILES__FILE_MODE", str(0o640))
        open_storage(names["Settings"]().files)


async def test_the_recipe_for_agents_runs_tells_and_keeps(tmpfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmpfs)
    monkeypatch.setenv("STORAGE_LOCAL_PATH", str(tmpfs / "storage"))
    (tmpfs / "runs").mkdir()
    app = program(block("docs/recipes/agents.md"))["app"]
    async with served(app) as url, ClientSession() as client:
        session = f"{url}/sessions/abc123"
        async with client.get(f"{session}/zip") as answer:
            assert answer.status == 404
        for number in (1, 2):  # the second finds what the first one left, though its directory is gone
            command = ["sh", "-c", f"echo {number} >> note.txt; cat note.txt"]
            async with client.post(f"{session}/runs", json={"command": command}) as answer:
                assert answer.status == 202
            headers = {"Last-Event-ID": "2"} if number > 1 else {}  # after the three of the first run
            said = []
            async with client.get(f"{session}/events", headers=headers) as answer:
                async for line in answer.content:
                    if line.startswith(b"data: "):
                        said.append(json.loads(line[6:]))
                        if said[-1]["type"] == "ended":
                            break
            output = [event["text"] for event in said if event["type"] == "output"]
            assert output == [f"{each}\n" for each in range(1, number + 1)]
            shutil.rmtree(tmpfs / "runs" / "abc123")
        async with client.get(f"{session}/zip") as answer:
            assert zipfile.ZipFile(io.BytesIO(await answer.read())).read("note.txt") == b"1\n2\n"


async def test_the_recipe_for_aiohttp_stores_and_serves(tmpfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_LOCAL_PATH", str(tmpfs))
    app = program(block("docs/recipes/aiohttp.md"))["app"]
    async with TestServer(app) as server, TestClient(server) as client:
        async with client.put("/files/a/b", data=b"some bytes") as answer:
            assert (answer.status, (await answer.json())["size"]) == (201, 10)
        async with client.get("/files/a/b") as answer:
            assert (answer.status, await answer.read()) == (200, b"some bytes")


@pytest.mark.parametrize(
    ("path", "number", "some", "passed"),
    [
        ("docs/drivers.md", 0, "put_returns or copy_goes", 2),
        ("docs/recipes/testing.md", 0, "job", 1),
        ("docs/recipes/testing.md", 1, "memory or disk or loop", 4),
    ],
)
def test_tests_in_the_documentation_pass_as_pasted(
    path: str, number: int, some: str, passed: int, tmp_path: Path
) -> None:
    (tmp_path / "test_mine.py").write_text(block(path, number))
    (tmp_path / "pytest.ini").write_text("[pytest]\n")  # none of this project's settings
    plugin = "pytest_micelio_storage"  # by name too: it may have been installed before it had one
    command = [sys.executable, "-m", "pytest", "-q", "-p", plugin, "-k", some, "test_mine.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert f"{passed} passed" in done.stdout, done.stdout + done.stderr


# -- what else is said


def test_every_error_is_described() -> None:
    text = (PROJECT / "docs" / "errors.md").read_text()
    errors = [name for name in micelio_storage.__all__ if name.endswith("Error")]
    assert [name for name in errors if f"`{name}`" not in text] == []


def test_every_field_of_a_configuration_is_described() -> None:
    for page, config in (("disk.md", LocalConfig), ("s3.md", S3Config)):
        text = (PROJECT / "docs" / page).read_text()
        fields = [field.name for field in dataclasses.fields(config) if not field.name.startswith("_")]
        assert [field for field in fields if f"`{field}`" not in text] == []


def test_every_command_is_described() -> None:
    group: Any = typer.main.get_command(_app.whole())
    text = (PROJECT / "docs" / "command.md").read_text()
    assert [name for name in group.commands if f"micelio-storage {name}" not in text] == []


def test_nothing_names_a_path_of_a_machine_or_a_secret() -> None:
    for path in [PROJECT / "CHANGELOG.md", *SOURCES, *PAGES]:
        text = path.read_text()
        assert "/home/" not in text, path
        assert "/root/" not in text, path
