"""Django: the methods that its own tests of storages call, on memory, disk and a store; no upload loses to another."""

from __future__ import annotations

import io
import os
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import django
import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured, SuspiciousFileOperation
from django.core.files.base import ContentFile, File
from django.core.files.storage import FileSystemStorage, Storage
from django.core.files.storage.handler import StorageHandler
from django.core.files.uploadedfile import InMemoryUploadedFile, SimpleUploadedFile, TemporaryUploadedFile
from django.test import override_settings
from support.everywhere import place_of
from support.s3_servers import Server
from support.s3_storage import set_credentials

from micelio_storage import InvalidKeyError, KeyConflictError, LocalConfig, MemoryConfig, NotSupportedError
from micelio_storage.adapters.django import MicelioStorage

if not settings.configured:
    settings.configure(
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        INSTALLED_APPS=["django.contrib.staticfiles"],
        STATIC_URL="/static/",
        USE_TZ=True,
    )
    django.setup()

from django.core.management import call_command  # behind the settings
from django.db import connection, models
from django.db.migrations.writer import MigrationWriter

Request = pytest.FixtureRequest
KINDS = ("memory", "disk", "seaweedfs")


def options_of(kind: str, request: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `OPTIONS` says for an empty place of this kind."""
    if kind == "memory":
        return {"target": "memory:", "prefix": "media"}
    if kind == "disk":
        return {"target": str(tmp_path / "root")}
    server: Server = request.getfixturevalue(f"{kind}_server")
    set_credentials(monkeypatch, server)
    place = f"{server.bucket}/{place_of(tmp_path)}"
    return {"target": f"s3://{place}?endpoint={server.endpoint}&region={server.region}&url_style=path"}


@pytest.fixture(params=KINDS)
def storage(request: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MicelioStorage]:
    options = options_of(request.param, request, tmp_path, monkeypatch)
    backend = "micelio_storage.adapters.django.MicelioStorage"
    made = StorageHandler({"default": {"BACKEND": backend, "OPTIONS": options}})["default"]
    yield made
    made._whole.close()


@pytest.fixture
def memory() -> Iterator[MicelioStorage]:
    made = MicelioStorage("memory:")
    yield made
    made._whole.close()


def content_of(storage: Storage, name: str) -> bytes:
    with storage.open(name) as file:
        return bytes(file.read())


# -- what Django's own tests of its storages call


def test_files_are_written_read_and_deleted_as_text_and_bytes(storage: MicelioStorage) -> None:
    assert not storage.exists("a.txt")
    with storage.open("a.txt", "w") as file:
        file.write("héllo\n")
        assert not storage.exists("a.txt")
    assert storage.exists("a.txt")
    with storage.open("a.txt", "r") as file:
        assert file.read() == "héllo\n"
    with storage.open("a.txt") as file:
        assert (file.read(), file.size, file.name) == ("héllo\n".encode(), 7, "a.txt")
    with storage.open("a.txt", "wb") as file:
        file.write(b"other")
    with storage.open("a.txt", "r") as file:
        assert (list(file.chunks(2)), file.mode) == (["ot", "he", "r"], "r")
    with pytest.raises(FileExistsError), storage.open("a.txt", "x") as file:
        file.write("late")
    storage.delete("a.txt")
    storage.delete("a.txt")
    assert not storage.exists("a.txt")
    with pytest.raises(FileNotFoundError):
        storage.open("a.txt")
    with pytest.raises(FileNotFoundError):
        storage.size("a.txt")
    with pytest.raises(ValueError, match="must be given"):
        storage.delete("")
    for mode in ("a", "r+b", "rw", "rbt", ""):
        with pytest.raises(ValueError, match="is read"):
            storage.open("a.txt", mode)


def test_a_file_whose_block_raises_publishes_nothing(storage: MicelioStorage) -> None:
    storage.save("a", ContentFile(b"old"))
    for mode, data in (("w", "new"), ("wb", b"new")):
        with pytest.raises(ZeroDivisionError), storage.open("a", mode) as file:
            file.write(data)
            raise ZeroDivisionError
        dropped = [storage.open("a", mode)]  # and so does one that is dropped open
        dropped[0].write(data)
        with pytest.warns(ResourceWarning):
            dropped.clear()
    assert content_of(storage, "a") == b"old"


class Breaking(ContentFile):
    def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
        yield b"half"
        raise ZeroDivisionError


def test_a_source_that_breaks_leaves_nothing(storage: MicelioStorage) -> None:
    with pytest.raises(ZeroDivisionError):
        storage.save("a", Breaking(b""))
    assert not storage.exists("a")
    assert storage.listdir("") == ([], [])


def test_djangos_own_leaves_what_is_half_written_in_place(tmp_path: Path) -> None:
    """What the page says of it."""
    own = FileSystemStorage(tmp_path)
    with pytest.raises(ZeroDivisionError):
        own.save("a", Breaking(b""))
    assert content_of(own, "a") == b"half"
    with pytest.raises(ZeroDivisionError), own.open("a", "wb") as file:
        file.write(b"ne")
        raise ZeroDivisionError
    assert content_of(own, "a") == b"ne"


def test_files_open_again(storage: MicelioStorage) -> None:
    storage.save("a", ContentFile(b"one"))
    with storage.open("a") as file:
        assert file.read() == b"one"
        assert file.open().read() == b"one"
    with storage.open("a", "w") as other:
        other.write("another")
    with file.open() as again:
        assert (again.read(), again.size) == (b"another", 7)


@pytest.mark.parametrize(
    "kind", ["bytes", "text", "large", "in memory", "temporary", "pipe", "simple", "stored", "raw"]
)
def test_content_of_any_kind_is_saved_and_stays_open(kind: str, storage: MicelioStorage) -> None:
    expected = {"large": b"x" * 3_000_000, "text": "è".encode()}.get(kind, b"some bytes")
    reading, writing = os.pipe()
    os.write(writing, b"some bytes")
    os.close(writing)
    with open(reading, "rb") as pipe, TemporaryUploadedFile("t", "text/plain", 1, "utf8") as temporary:
        temporary.write(expected)
        temporary.seek(0)
        storage.save("stored", ContentFile(expected))
        content: Any = {
            "bytes": lambda: ContentFile(expected),
            "text": lambda: ContentFile("è"),
            "large": lambda: ContentFile(expected),
            "in memory": lambda: InMemoryUploadedFile(io.BytesIO(expected), "", "t", "text/plain", 10, None),
            "temporary": lambda: temporary,
            "pipe": lambda: File(pipe),
            "simple": lambda: SimpleUploadedFile("t", expected),
            "stored": lambda: storage.open("stored"),
            "raw": lambda: io.BytesIO(expected),
        }[kind]()
        assert storage.save("place/a.bin", content) == "place/a.bin"
        assert not content.closed
        content.close()
    with storage.open("place/a.bin") as file:
        assert file.read() == expected
    assert storage.size("place/a.bin") == len(expected)
    named = ContentFile(b"1", name="its/own.name")
    assert storage.save(None, named) == "its/own.name"


def test_directories_are_listed(storage: MicelioStorage) -> None:
    assert storage.listdir("") == ([], [])
    for name in ("b.txt", "a.txt", "dir/c.txt", "dir/sub/d.txt"):
        storage.save(name, ContentFile(b"1"))
    assert storage.listdir("") == storage.listdir(".") == (["dir"], ["a.txt", "b.txt"])
    assert storage.listdir("dir") == storage.listdir("./dir/.") == (["sub"], ["c.txt"])
    assert storage.listdir("nothing") == ([], [])
    assert [storage.exists(name) for name in ("dir", "dir/sub", "di")] == [True, True, False]


def test_times_are_aware_or_not_as_the_settings_say(storage: MicelioStorage) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)
    storage.save("a", ContentFile(b"1"))
    with override_settings(USE_TZ=True):
        aware = storage.get_modified_time("a")
        assert before < aware < datetime.now(UTC) + timedelta(seconds=2)
        assert aware.utcoffset() == timedelta(0)
    with override_settings(USE_TZ=False):
        assert storage.get_modified_time("a") == aware.astimezone().replace(tzinfo=None)
    for time_of in (storage.get_accessed_time, storage.get_created_time):
        with pytest.raises(NotImplementedError):
            time_of("a")
    with pytest.raises(NotImplementedError):
        storage.path("a")


def test_names_never_lead_out_of_the_storage(storage: MicelioStorage) -> None:
    for name in ("..", "../a", "a/../../b", "/etc/passwd", "a\x00b", "a\\..\\b", "\ud800", ".micelio/x", "x" * 300):
        for call in (storage.exists, storage.open, storage.delete, storage.size, storage.get_modified_time):
            with pytest.raises(SuspiciousFileOperation) as caught:
                call(name)
            assert isinstance(caught.value.__cause__, InvalidKeyError)
        with pytest.raises(SuspiciousFileOperation):
            storage.save(name, ContentFile(b"1")) and storage.save(name.replace("\\", "/"), ContentFile(b"1"))
    for name in ("..", "/etc"):
        with pytest.raises(SuspiciousFileOperation):
            storage.listdir(name)
    assert storage.save("./a//b.txt", ContentFile(b"1")) == "a/b.txt"
    assert storage.listdir("") == (["a"], [])


def test_a_file_has_no_files_below_it_on_disk(tmp_path: Path) -> None:
    storage = MicelioStorage(tmp_path / "root")
    storage.save("file.txt", ContentFile(b"1"))
    with pytest.raises(FileExistsError) as caught:
        storage.save("file.txt/child.txt", ContentFile(b"1"))
    assert isinstance(caught.value.__cause__, KeyConflictError)
    storage._whole.close()


def test_the_name_of_a_directory_is_taken(storage: MicelioStorage) -> None:
    storage.save("dir/file", ContentFile(b"1"))
    assert storage.save("dir", ContentFile(b"1")).startswith("dir_")


def test_urls_are_below_the_base_or_signed(
    memory: MicelioStorage, tmp_path: Path, seaweedfs_server: Server, monkeypatch: pytest.MonkeyPatch, request: Request
) -> None:
    with pytest.raises(ValueError, match="base_url") as caught:
        memory.url("a")
    assert isinstance(caught.value.__cause__, NotSupportedError)
    public = MicelioStorage("memory:", base_url="https://example.org/media")
    assert public.url("a b/ü?.txt") == "https://example.org/media/a%20b/%C3%BC%3F.txt"
    assert (public.url(None), public.url("//evil.org/x")) == (
        "https://example.org/media/",
        "https://example.org/media/evil.org/x",
    )
    signed = MicelioStorage(
        LocalConfig(path=tmp_path / "root", public_url="https://files.example.org", url_keys="k" * 32)
    )
    assert signed.url(signed.save("a", ContentFile(b"1"))).startswith("https://files.example.org/a?")
    signed._whole.close()
    on_s3 = MicelioStorage(**options_of("seaweedfs", request, tmp_path, monkeypatch), url_expires=60)
    url = on_s3.url(on_s3.save("a.txt", ContentFile(b"some bytes")))
    with urllib.request.urlopen(url, timeout=30) as answer:
        assert answer.read() == b"some bytes"
    on_s3._whole.close()


# -- names that are taken


def test_a_name_that_is_taken_gets_another_within_its_length(storage: MicelioStorage) -> None:
    assert storage.save("a.tar.gz", ContentFile(b"1")) == "a.tar.gz"
    other = storage.save("a.tar.gz", ContentFile(b"2"))
    assert other.startswith("a_") and other.endswith(".tar.gz")  # noqa: PT018  # one name
    short = storage.save("a.tar.gz", ContentFile(b"3"), max_length=16)
    assert len(short) == 16
    assert [content_of(storage, name) for name in ("a.tar.gz", other, short)] == [b"1", b"2", b"3"]
    with pytest.raises(SuspiciousFileOperation, match="max_length"):
        storage.save("a.tar.gz", ContentFile(b"4"), max_length=10)


def all_at_once(storage: Storage, count: int, max_length: int) -> dict[str, bytes]:
    """What is found under the names that files got which were saved under one name, when each had seen that it is
    free."""
    barrier, seen, look = threading.Barrier(count), threading.local(), storage.is_name_available

    def look_together(name: str, max_length: int | None = None) -> bool:
        free = bool(look(name, max_length))
        if not hasattr(seen, "once"):
            seen.once = barrier.wait(30)
        return free

    storage.is_name_available = look_together
    contents = [ContentFile(b"%d" % number) for number in range(count)]
    with ThreadPoolExecutor(count) as threads:
        names = list(threads.map(lambda content: storage.save("a.txt", content, max_length), contents))
    return {name: content_of(storage, name) for name in names}


def test_ten_that_save_under_one_name_at_once_get_ten_names(storage: MicelioStorage) -> None:
    found = all_at_once(storage, 10, max_length=14)
    assert sorted(found.values()) == sorted(b"%d" % number for number in range(10))
    assert max(map(len, found)) <= 14


def test_djangos_own_forgets_the_length_when_a_name_is_taken_meanwhile(tmp_path: Path) -> None:
    """What the page says of it."""
    found = all_at_once(FileSystemStorage(tmp_path), 2, max_length=12)
    assert max(map(len, found)) > 12


def test_what_can_be_read_once_is_saved_whole_when_its_name_is_taken_meanwhile(memory: MicelioStorage) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *_: Any) -> int:
            raise io.UnsupportedOperation

    look = memory.is_name_available

    def look_and_lose(name: str, max_length: int | None = None) -> bool:
        free = look(name, max_length)
        if name == "a" and free:
            memory._storage.put("a", b"somebody else's")
        return free

    memory.is_name_available = look_and_lose  # type: ignore[method-assign]  # what happens in between
    other = memory.save("a", Pipe(b"only once"), max_length=None)
    assert other != "a"
    assert content_of(memory, other) == b"only once"
    assert content_of(memory, "a") == b"somebody else's"


def test_a_file_is_replaced_where_that_is_allowed(tmp_path: Path) -> None:
    storage = MicelioStorage(tmp_path / "root", allow_overwrite=True)
    assert [storage.save("a.txt", ContentFile(data)) for data in (b"1", b"2")] == ["a.txt"] * 2
    assert content_of(storage, "a.txt") == b"2"
    assert storage.get_available_name("a.txt") == "a.txt"
    assert storage.save("much-too-long.txt", ContentFile(b"3"), max_length=8) == "much.txt"
    storage._whole.close()


# -- in an application


class Document(models.Model):
    file = models.FileField(storage=MicelioStorage("memory:fields"), upload_to="documents/%Y")

    class Meta:
        app_label = "documents"


def test_a_model_keeps_its_files_in_the_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    with connection.schema_editor() as editor:
        editor.create_model(Document)
    document = Document()
    document.file.save("a b.txt", ContentFile(b"1"))
    document.refresh_from_db()
    assert document.file.name == f"documents/{datetime.now(UTC):%Y}/a_b.txt"
    assert (document.file.read(), document.file.size) == (b"1", 1)
    document.file.close()
    with document.file.open("rb") as file:
        assert file.read() == b"1"
    document.file.delete()
    assert Document._meta.get_field("file").storage.listdir("documents") == ([], [])


def test_a_storage_is_written_into_migrations() -> None:
    storage = MicelioStorage("memory:", prefix="media", url_expires=60)
    path, arguments, options = storage.deconstruct()
    assert (path, arguments) == ("micelio_storage.adapters.django.MicelioStorage", ("memory:",))
    assert options == {"prefix": "media", "url_expires": 60}
    assert "MicelioStorage('memory:'" in MigrationWriter.serialize(storage)[0]


def test_static_files_are_collected_once(tmp_path: Path) -> None:
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "site.css").write_text("body { background: url('dot.png') }")
    (tmp_path / "static" / "dot.png").write_bytes(b"png")
    os.utime(tmp_path / "static" / "site.css", (1e9, 1e9))
    os.utime(tmp_path / "static" / "dot.png", (1e9, 1e9))
    said = io.StringIO()
    backend = {"BACKEND": "micelio_storage.adapters.django.MicelioStorage", "OPTIONS": {"target": f"{tmp_path}/root"}}
    with override_settings(STATICFILES_DIRS=[tmp_path / "static"], STORAGES={"staticfiles": backend}):
        for _ in range(2):
            call_command("collectstatic", interactive=False, stdout=said)
    assert (tmp_path / "root" / "site.css").read_text().startswith("body")
    assert "2 static files copied" in said.getvalue()
    assert "0 static files copied, 2 unmodified" in said.getvalue()


def test_a_configuration_that_cannot_be_meant_is_djangos_own_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for options in ({"target": "ftp://host/x"}, {"target": "memory:", "prefix": "../x"}):
        with pytest.raises(ImproperlyConfigured) as caught:
            MicelioStorage(**options)
        assert caught.value.__cause__ is not None
    monkeypatch.setenv("MEDIA_STORAGE_URL", "memory:media")
    assert "media" in repr(MicelioStorage(environ_prefix="MEDIA_"))
    assert MicelioStorage(MemoryConfig()).listdir("") == ([], [])


def test_many_threads_and_a_fork_use_one_storage(tmp_path: Path) -> None:
    storage = MicelioStorage(tmp_path / "root")
    with ThreadPoolExecutor(8) as threads:
        names = list(threads.map(lambda number: storage.save("a.txt", ContentFile(b"%d" % number)), range(40)))
    assert len(set(names)) == 40
    child = os.fork()
    if child == 0:
        done = 1
        try:
            done = int(content_of(storage, names[3]) != b"3")
            storage.save("child.txt", ContentFile(b"1"))
        finally:
            os._exit(done)
    assert os.waitpid(child, 0)[1] == 0
    assert storage.exists("child.txt")
    storage._whole.close()
