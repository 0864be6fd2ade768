"""Configuration: environment, URLs, config objects; what is refused says what to set."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from micelio_storage import (
    Config,
    ConfigError,
    LocalConfig,
    MemoryConfig,
    S3Config,
    Storage,
    default_path,
    make_driver,
    open_storage,
)
from micelio_storage._open import PRODUCTION_PATH, config_from_environ, config_from_url, local_path

URLS = [
    ("memory:", MemoryConfig()),
    ("memory:?deadline=2.5", MemoryConfig(deadline=2.5)),
    ("memory:tests", MemoryConfig(name="tests")),
    ("memory:a.B-c_1?deadline=2.5", MemoryConfig(name="a.B-c_1", deadline=2.5)),
    ("file:", LocalConfig()),
    ("file:?durable=false", LocalConfig(durable=False)),
    ("file:///srv/micelio", LocalConfig(path="/srv/micelio")),
    ("file://localhost/srv/micelio", LocalConfig(path="/srv/micelio")),
    ("file:///srv/with%20space%3F?durable=false", LocalConfig(path="/srv/with space?", durable=False)),
    ("file:///srv?deadline=10", LocalConfig(path="/srv", deadline=10.0)),
    ("s3://bucket", S3Config(bucket="bucket")),
    ("s3://bucket/a/b/?region=eu-west-1", S3Config(bucket="bucket", prefix="a/b", region="eu-west-1")),
    (
        "s3://bbb/p?endpoint=http://127.0.0.1:8333&url_style=path",
        S3Config(bucket="bbb", prefix="p", endpoint="http://127.0.0.1:8333", url_style="path"),
    ),
]


@pytest.mark.parametrize(("url", "config"), URLS)
def test_a_url_says_the_same_as_a_config_object(url: str, config: object) -> None:
    assert config_from_url(url) == config


BAD_URLS = [
    ("", "memory:"),
    ("micelio", "write 'file:///micelio' for a directory, './micelio' for"),
    ("srv/x?durable=true", "write 'file:///srv/x'"),
    ("ftp://host/path", "'ftp'"),
    ("file:srv", "three slashes and an absolute path: 'file:///srv'"),
    ("file://srv/micelio", "'file:///srv/micelio'"),
    ("s3:bucket/prefix", "'s3://bucket/prefix'"),
    ("memory://x", "'memory:'"),
    ("memory:/x", "'memory:'"),
    ("memory:x?name=y", "twice"),
    ("file://", "three slashes"),
    ("s3://", "bucket"),
    ("s3:///prefix", "bucket"),
    ("s3://bucket?url_style=odd", "'auto' or 'path' or 'virtual'"),
    ("s3://bucket?colour=red", "concurrency, conditions, connect_timeout"),
    ("s3://key:secret@bucket", "must not contain secrets"),
    ("s3://bucket?secret_access_key=abc", "must not contain secrets"),
    ("s3://bucket?aws_session_token=abc", "must not contain secrets"),
    ("file:///srv?durable=yes", "'true' or 'false'"),
    ("file:///srv?deadline=soon", "number of seconds"),
    ("file:///srv?deadline=-1", "number of seconds"),
    ("file:///srv?durable=true&durable=false", "twice"),
    ("file:///srv?durable", "cannot be parsed"),
    ("file:///srv#part", "%23"),
    ("s3://[bucket", "cannot be parsed"),
]


@pytest.mark.case("Z3", "Z5")
@pytest.mark.parametrize(("url", "says"), BAD_URLS)
def test_a_url_that_cannot_be_meant_says_what_to_change(url: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_storage(url)
    assert says in str(caught.value)
    assert "abc" not in str(caught.value)


@pytest.mark.case("Z5")
def test_the_environment_chooses_the_back_end() -> None:
    assert config_from_environ({"STORAGE_LOCAL_PATH": "/srv/x"}) == LocalConfig(path="/srv/x")
    assert config_from_environ({"STORAGE_BACKEND": "", "STORAGE_LOCAL_PATH": "/x"}) == LocalConfig(path="/x")
    environ = {"STORAGE_BACKEND": "s3", "S3_BUCKET": "b", "S3_REGION": "r", "S3_PREFIX": "p", "S3_URL_STYLE": "path"}
    assert config_from_environ(environ) == S3Config(bucket="b", region="r", prefix="p", url_style="path")
    assert config_from_environ(environ | {"S3_ENDPOINT": ""}).endpoint is None  # type: ignore[union-attr]


@pytest.mark.case("Z5")
@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"STORAGE_BACKEND": "gcs"}, "'local' or 's3'"),
        ({"STORAGE_BACKEND": "S3"}, "'local' or 's3'"),
        ({"STORAGE_BACKEND": "s3"}, "S3_BUCKET"),
        ({"STORAGE_BACKEND": "s3", "S3_BUCKET": ""}, "S3_BUCKET"),
        ({"STORAGE_BACKEND": "s3", "S3_BUCKET": "b", "S3_URL_STYLE": "odd"}, "S3_URL_STYLE"),
    ],
)
def test_a_half_configured_back_end_says_what_to_set(environ: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        open_storage(environ=environ)


@pytest.mark.case("Z5")
def test_asking_for_s3_never_gives_another_back_end() -> None:
    for storage in (
        open_storage("s3://bucket"),
        open_storage(environ={"STORAGE_BACKEND": "s3", "S3_BUCKET": "bucket"}),
    ):
        assert repr(storage) == "<Storage on <S3Driver 'bucket'>>"


@pytest.mark.parametrize("durable", ["yes", "true", 1, None])
def test_durable_is_true_or_false(durable: Any) -> None:
    with pytest.raises(ConfigError, match=r"LocalConfig\.durable must be True or False, not "):
        open_storage(LocalConfig(path="/srv/x", durable=durable))


def test_where_a_storage_without_a_path_is_can_be_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("micelio_storage._open.PRODUCTION_PATH", str(tmp_path / "storage"))
    assert default_path() == default_path({}) == str(tmp_path / "storage")


ODD_PATHS = [
    ("", "empty"),
    ("/srv/x\n", "line breaks"),
    ("/srv/\x00x", "control characters"),
    (" /srv/x", "blanks"),
    ('"/srv/x"', "quotes"),
    ("'/srv/x'", "quotes"),
    ("$HOME/x", "not expanded"),
    ("/srv/${NAME}", "not expanded"),
    ("file:///srv/x", "not a URL"),
    ("s3://bucket", "not a URL"),
    ("~nobody-of-this-name/x", "home directory"),
]


@pytest.mark.parametrize(("path", "says"), ODD_PATHS)
@pytest.mark.case("G3")
def test_a_path_that_cannot_be_meant_is_shown_with_the_setting_that_gave_it(path: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        open_storage(LocalConfig(path=path))
    assert str(caught.value).startswith(f"LocalConfig.path is {path!a}")
    if path and "\0" not in path:
        with pytest.raises(ConfigError, match=says) as caught:
            open_storage(environ={"STORAGE_LOCAL_PATH": path})
        assert str(caught.value).startswith(f"STORAGE_LOCAL_PATH is {path!a}")


@pytest.mark.parametrize("path", ["/srv/a$", "/srv/a$1", "/srv/it's", "/srv/a b", "./c:d", "C:x"])
def test_odd_letters_in_a_path_are_kept(path: str) -> None:
    assert local_path(LocalConfig(path=path)) == path


@pytest.mark.case("G3")
def test_a_tilde_is_the_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    for config in (LocalConfig(path="~/data"), LocalConfig(path=Path("~/data"))):
        assert local_path(config) == "/home/somebody/data"
    assert repr(open_storage("~/data")) == "<Storage on <LocalDriver '/home/somebody/data'>>"


@pytest.mark.parametrize("target", ["/srv/x", Path("/srv/x"), LocalConfig(path="/srv/x")])
@pytest.mark.case("G3")
def test_a_path_is_a_storage_there(target: str | Path | LocalConfig) -> None:
    assert repr(open_storage(target)) == "<Storage on <LocalDriver '/srv/x'>>"


@pytest.mark.parametrize(("target", "shown"), [("./x", "./x"), ("../x", "../x"), (Path("x"), "x")])
def test_a_relative_path_is_one_from_the_working_directory(target: str | Path, shown: str) -> None:
    assert repr(open_storage(target)) == f"<Storage on <LocalDriver {shown!r}>>"


@pytest.mark.parametrize(
    ("target", "environ", "names"),
    [
        (None, "STORAGE_LOCAL_PATH", "STORAGE_LOCAL_PATH"),
        ("url", None, "the URL's path"),
        ("object", None, "LocalConfig.path"),
    ],
)
@pytest.mark.case("G3")
async def test_what_cannot_be_opened_names_the_setting_that_was_used(
    tmp_path: Path, target: str | None, environ: str | None, names: str
) -> None:
    place = tmp_path / "file"
    place.write_text("")
    given = {"url": f"file://{place}", "object": LocalConfig(path=place), None: None}[target]
    with pytest.raises(ConfigError) as caught:
        await open_storage(given, environ={environ: str(place)} if environ else None).open()
    assert str(place) in str(caught.value)
    assert f"change {names} " in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("S3_ENDPOINT_URL", "S3_ENDPOINT"),
        ("S3_BUCKET_NAME", "S3_BUCKET"),
        ("S3_SSE_KMS_KEY", "S3_SSE_KMS_KEY_ID is not read|S3_SSE_KMS_KEY is not read"),
        ("STORAGE_PATH", "STORAGE_LOCAL_PATH"),
        ("STORAGE_LOCAL_DIR", "STORAGE_LOCAL_"),
        ("S3_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"),
    ],
)
@pytest.mark.case("G5")
def test_a_variable_that_nobody_reads_is_refused_and_the_nearest_named(variable: str, nearest: str) -> None:
    environ = {"STORAGE_BACKEND": "s3", "S3_BUCKET": "bucket", variable: "hunter2"}
    with pytest.raises(ConfigError, match=nearest) as caught:
        open_storage(environ=environ)
    assert variable in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_variables_of_the_back_end_that_is_not_used_are_left_alone() -> None:
    assert config_from_environ({"S3_ENDPOINT_URL": "x", "STORAGE_LOCAL_PATH": "/x"}) == LocalConfig(path="/x")


def test_the_environment_sets_every_field_of_the_local_back_end() -> None:
    environ = {"STORAGE_LOCAL_PATH": "/x", "STORAGE_LOCAL_DURABLE": "false", "STORAGE_LOCAL_DEADLINE": "2.5"}
    assert config_from_environ(environ) == LocalConfig(path="/x", durable=False, deadline=2.5)
    environ = {"STORAGE_LOCAL_FILE_MODE": "0640", "STORAGE_LOCAL_DIRECTORY_MODE": "2750", "STORAGE_LOCAL_GROUP": "web"}
    assert config_from_environ(environ) == LocalConfig(file_mode=0o640, directory_mode=0o2750, group="web")
    with pytest.raises(ConfigError, match=r"STORAGE_LOCAL_DURABLE is 'yes'"):
        config_from_environ({"STORAGE_LOCAL_DURABLE": "yes"})


@pytest.mark.parametrize("text", ["640", "0640", "0o640", "00640"])
def test_a_mode_is_written_in_octal_digits(text: str) -> None:
    assert config_from_url(f"file:///srv?file_mode={text}") == LocalConfig(path="/srv", file_mode=0o640)


ODD_MODES: list[tuple[dict[str, Any], str]] = [
    ({"file_mode": 640}, r"file_mode is 0o1200: .*did you mean 0o640\?"),
    ({"file_mode": 644}, r"did you mean 0o644\?"),
    ({"file_mode": 0o2640}, "no others$"),
    ({"file_mode": -1}, "no others$"),
    ({"file_mode": 1 << 70}, "no others$"),
    ({"file_mode": 0o440}, "keeps the owner out"),
    ({"file_mode": 0o066}, "keeps the owner out"),
    ({"file_mode": "0640"}, "must be a number such as 0o650, not '0640'"),
    ({"file_mode": True}, "must be a number"),
    ({"file_mode": None}, "must be a number"),
    ({"file_mode": 416.0}, "must be a number"),
    ({"directory_mode": 2750}, r"directory_mode is 0o5276: .*did you mean 0o2750\?"),
    ({"directory_mode": 0o1777}, "no others$"),
    ({"directory_mode": 0o660}, "keeps the owner out"),
    ({"directory_mode": 0o077}, "keeps the owner out"),
    ({"directory_mode": b"0750"}, "must be a number such as 0o750"),
    ({"group": -1}, "number from 0 to"),
    ({"group": 1 << 32}, "number from 0 to"),
    ({"group": True}, "must be a name"),
    ({"group": 1.0}, "must be a name"),
    ({"group": b"web"}, "must be a name"),
    ({"group": ""}, "name or number of a group"),
    ({"group": "a b"}, "name or number of a group"),
    ({"group": "web\n"}, "name or number of a group"),
    ({"group": "a:b"}, "name or number of a group"),
    ({"group": "\udc00"}, "name or number of a group"),
]


@pytest.mark.parametrize(("fields", "says"), ODD_MODES)
def test_modes_and_groups_that_cannot_be_meant_are_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        open_storage(LocalConfig(path="/srv", **fields))
    assert str(caught.value).startswith(f"LocalConfig.{next(iter(fields))} ")


@pytest.mark.parametrize("text", ["rw-r-----", "0888", "64", "-640", "640 ", "0640640", "0x1a0", "\u0666\u0664\u0660"])
def test_a_text_that_is_no_mode_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"STORAGE_LOCAL_FILE_MODE is .*: it must be a mode in octal digits"):
        open_storage(environ={"STORAGE_LOCAL_FILE_MODE": text})
    with pytest.raises(ConfigError, match="keeps the owner out"):
        open_storage("file:///srv?directory_mode=0077")


def test_a_url_in_the_environment_says_it_all() -> None:
    assert config_from_environ({"STORAGE_URL": "memory:"}) == MemoryConfig()
    assert config_from_environ({"STORAGE_URL": "s3://b/p?region=r"}) == S3Config(bucket="b", prefix="p", region="r")
    for other in ("STORAGE_BACKEND", "STORAGE_LOCAL_PATH", "S3_BUCKET"):
        with pytest.raises(ConfigError, match=f"STORAGE_URL and {other}"):
            config_from_environ({"STORAGE_URL": "memory:", other: "local"})
    with pytest.raises(ConfigError, match="STORAGE_URL cannot be parsed"):
        config_from_environ({"STORAGE_URL": "s3://[b"})


@pytest.mark.parametrize(
    "config",
    [
        *(config for _, config in URLS),
        LocalConfig(path="/srv/\udce9?#%", file_mode=0o640, directory_mode=0o2750, group="users"),
        MemoryConfig(name="x", deadline=0.5),
        S3Config(bucket="bbb", prefix="\u00e9/?", region="r", part_size=8 << 21, sse="aws:kms", sse_kms_key_id="k/1"),
        S3Config(
            bucket="bbb", connect_timeout=1.5, checksums="off", profile="p q", public_endpoint="https://example.org/x"
        ),
    ],
)
def test_the_target_of_a_storage_is_a_url_that_says_the_same(config: Config) -> None:
    target = open_storage(config).target
    assert target is not None
    assert config_from_url(target) == config
    assert open_storage(target).target == target


def test_a_target_is_absolute_and_without_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    config = LocalConfig(path="data", public_url="https://example.org", url_keys="s" * 32)
    assert open_storage(config).target == f"file://{tmp_path}/data"
    assert open_storage(config).under("a").target is None
    assert Storage(make_driver(config)).target is None


class Parsed:
    """A URL as pydantic, yarl and httpx have it."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.scheme = text.partition(":")[0]

    def __str__(self) -> str:
        return self._text


def test_a_url_that_a_library_has_parsed_is_one() -> None:
    assert open_storage(Parsed("s3://bucket/p?region=r")).target == "s3://bucket/p?region=r"
    assert open_storage(Parsed("memory:x")).target == "memory:x"
    with pytest.raises(ConfigError, match="'ftp'"):
        open_storage(Parsed("ftp://host/"))
    with pytest.raises(TypeError, match="not SplitResult"):
        open_storage(urlsplit("s3://bucket"))


def test_several_storages_are_configured_by_prefixes() -> None:
    environ = {
        "STORAGE_URL": "memory:",
        "A_STORAGE_LOCAL_PATH": "/srv/a",
        "B_STORAGE_BACKEND": "s3",
        "B_S3_BUCKET": "bucket",
    }
    assert open_storage(environ=environ).target == "memory:"
    assert open_storage(environ=environ, environ_prefix="A_").target == "file:///srv/a"
    assert open_storage(environ=environ, environ_prefix="B_").target == "s3://bucket"
    assert open_storage(environ=environ, environ_prefix="C_").target == "file:"


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"A_STORAGE_BACKEND": "gcs"}, "A_STORAGE_BACKEND is 'gcs'"),
        ({"A_STORAGE_BACKEND": "s3"}, "A_STORAGE_BACKEND is s3, but A_S3_BUCKET is not set"),
        ({"A_STORAGE_URL": "memory:", "A_S3_BUCKET": "b"}, "A_STORAGE_URL and A_S3_BUCKET are both set"),
        ({"A_STORAGE_URL": "s3://[b"}, "A_STORAGE_URL cannot be parsed"),
        ({"A_STORAGE_LOCAL_PAHT": "x"}, "A_STORAGE_LOCAL_PAHT is not a setting: did you mean A_STORAGE_LOCAL_PATH"),
        ({"A_STORAGE_LOCAL_PATH": "x\n"}, r"A_STORAGE_LOCAL_PATH is 'x\\n'"),
        ({"A_STORAGE_SECRET": "x"}, "A_STORAGE_SECRET is not read"),
    ],
)
def test_errors_name_variables_with_their_prefix(environ: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        open_storage(environ=environ, environ_prefix="A_")


@pytest.mark.parametrize("prefix", ["MY-APP_", "a b", "1A_", "A=", None, b"A_"])
def test_what_begins_no_name_of_a_variable_is_no_prefix(prefix: Any) -> None:
    with pytest.raises(ConfigError, match="prefix of variables' names"):
        open_storage(environ={}, environ_prefix=prefix)


def test_a_prefix_beside_a_target_is_refused() -> None:
    with pytest.raises(ConfigError, match="leave it out"):
        open_storage("memory:", environ_prefix="A_")


@pytest.mark.parametrize("target", [1, b"memory:", {"bucket": "b"}])
def test_what_is_no_configuration_is_a_type_error(target: Any) -> None:
    with pytest.raises(TypeError):
        open_storage(target)


def test_a_deadline_in_a_config_object_is_checked() -> None:
    with pytest.raises(ValueError, match="deadline"):
        open_storage(MemoryConfig(deadline=-1))


async def test_a_local_storage_opens_where_the_environment_says(tmp_path: Path) -> None:
    async with open_storage(environ={"STORAGE_LOCAL_PATH": str(tmp_path / "here")}) as storage:
        await storage.put("a", b"1")
    assert (tmp_path / "here" / "a").read_bytes() == b"1"


def test_the_default_place_is_the_production_path_or_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: True)
    assert default_path({}) == PRODUCTION_PATH
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setenv("XDG_DATA_HOME", "/home/somebody/data")
    assert default_path({"XDG_DATA_HOME": "/home/somebody/data"}) == "/home/somebody/data/micelio/storage"
    with pytest.raises(ConfigError, match="STORAGE_LOCAL_PATH"):
        default_path({})


def test_importing_the_library_imports_nothing_optional() -> None:
    code = "import micelio_storage, sys; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    optional = {"aioboto3", "botocore", "typer", "rich", "micelio_storage.testing", "micelio_storage.drivers.local"}
    assert optional & set(loaded) == set()


def test_a_process_that_looks_at_one_object_on_disk_imports_nothing_that_it_does_not_need(tmp_path: Path) -> None:
    """Each of them takes a tenth of such a process's time, or more."""
    program = f"""
import asyncio, sys
from micelio_storage import LocalConfig, open_storage
async def main():
    async with open_storage(LocalConfig(path={str(tmp_path)!r})) as storage:
        return await storage.exists("a/b")
print(asyncio.run(main()), *(name for name in sys.argv[1:] if name in sys.modules))
"""
    heavy = ["anyio", "aiofiles", "awscrt", "botocore", "difflib", "micelio_storage.sessions", "platformdirs"]
    done = subprocess.run([sys.executable, "-c", program, *heavy], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_a_process_that_moves_a_directory_imports_neither_archives_nor_what_they_need(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_bytes(b"bytes")
    program = f"""
import asyncio, sys
from micelio_storage import LocalConfig, open_storage
from micelio_storage.transfer import download_tree, upload_tree
async def main():
    async with open_storage(LocalConfig(path={str(tmp_path / "root")!r}, durable=False)) as storage:
        await upload_tree({str(tmp_path / "tree")!r}, storage)
        return (await download_tree(storage, {str(tmp_path / "back")!r})).copied
print(asyncio.run(main()), *(name for name in sys.argv[1:] if name in sys.modules))
"""
    heavy = ["anyio", "aiofiles", "tarfile", "zipfile", "micelio_storage.sessions", "pathspec"]
    done = subprocess.run([sys.executable, "-c", program, *heavy], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("1\n", "")
