"""The `micelio-storage` command: what it does, shows and answers, in this process where that is enough."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.commands import is_one_line, use_storage
from support.hostile_archives import tar_of

import micelio_storage
from micelio_storage import testing
from micelio_storage._open import config_from_url
from micelio_storage.cli import _app, _invocation, _report, _trials
from micelio_storage.cli._operations import check_apart
from micelio_storage.cli._policy import bucket_policy, iam_policy, lifecycle
from micelio_storage.cli._transfer import receive
from micelio_storage.driver import (
    AccessDeniedError,
    DeleteOptions,
    Download,
    Key,
    ReadOptions,
    StorageError,
    UnavailableError,
    WriteOptions,
)
from micelio_storage.drivers.memory import MemoryDriver
from micelio_storage.transfer import Outcome, Report

MIB = 1 << 20


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return use_storage(tmp_path, monkeypatch)


Answer = tuple[int, str, str]
Said = Callable[..., Answer]


@pytest.fixture
def said(root: Path, capfd: pytest.CaptureFixture[str]) -> Said:
    """Run the command in this process: its exit code, and what it wrote."""

    def run(*arguments: str) -> Answer:
        code = _app.run(arguments)
        out, err = capfd.readouterr()
        return code, out, err

    return run


# -- archive, unarchive, url


@pytest.mark.parametrize("target", ["all.zip", "all.tar"])
def test_unarchive_takes_what_archive_wrote(said: Said, tmp_path: Path, target: str) -> None:
    for name in ("a", "b/c"):
        (tmp_path / "source").write_text(name)
        said("put", "source", f"from/{name}")
    assert said("archive", "from/", target) == (0, "", "")
    assert said("unarchive", target, "to/") == (0, "", "")
    assert [said("cat", f"to/{name}")[1] for name in ("a", "b/c")] == ["a", "b/c"]
    code, out, err = said("unarchive", target, "to/")
    assert (code, out, is_one_line(err)) == (1, "", True)
    assert json.loads(said("archive", "from/b", target, "--json")[1])["files"] == 1


def test_archive_writes_to_a_pipe_in_the_format_that_is_asked_for(
    root: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    (tmp_path / "source").write_text("text")
    assert _app.run(["put", "source", "a"]) == 0
    capfdbinary.readouterr()
    assert _app.run(["archive", "", "-", "--kind", "tar"]) == 0
    with tarfile.open(fileobj=io.BytesIO(capfdbinary.readouterr().out)) as tar:
        assert tar.getnames() == ["a"]
    assert _app.run(["archive", "", "-", "--json"]) == 2


def test_unarchive_stores_nothing_of_an_archive_that_is_made_to_harm(said: Said, tmp_path: Path) -> None:
    (tmp_path / "bad.tar").write_bytes(tar_of(("good", b"1"), ("../up", b"2")))
    code, out, err = said("unarchive", "bad.tar")
    assert (code, out, is_one_line(err)) == (1, "", True)
    assert "../up" in err
    assert said("ls")[1] == ""


def test_url_signs_what_a_put_is_bound_to_where_keys_are_set(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_PUBLIC_URL", "https://files.example.org")
    monkeypatch.setenv("STORAGE_URL_KEYS", "k" * 32)
    bound = ("--content-length", "5", "--sha256", "ab" * 32, "--if-absent", "--content-type", "text/plain")
    code, out, err = said("url", "k", "--method", "PUT", *bound)
    assert (code, err) == (0, "send with it: content-type: text/plain\n")
    for said_in_it in ("content-length=5", f"sha256={'ab' * 32}", "if-absent=1", "content-type=text%2Fplain"):
        assert said_in_it in out
    assert said("url", "k", "--round-to", "86400") == said("url", "k", "--round-to", "86400")
    assert is_one_line(said("url", "k", "--method", "PUT", "--sha256", "none")[2])


# -- put, get, cat


def test_what_is_put_from_a_file_comes_back_by_cat(said: Said, tmp_path: Path) -> None:
    (tmp_path / "source").write_text("hello\n")
    code, out, err = said("put", "source", "a/b.txt")
    assert (code, out.count("\n"), err) == (0, 1, "")
    assert said("cat", "a/b.txt") == (0, "hello\n", "")


def test_put_keeps_content_type_and_metadata(said: Said, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"12345")
    options = ("--content-type", "text/plain", "--metadata", "owner=ann", "--metadata", "note=a=b")
    said("put", "source", "k", *options)
    code, out, _ = said("stat", "--json", "k")
    info = json.loads(out)
    assert code == 0
    assert (info["key"], info["size"], info["content_type"]) == ("k", 5, "text/plain")
    assert info["metadata"] == {"owner": "ann", "note": "a=b"}


def test_put_if_absent_leaves_an_object_alone(said: Said, tmp_path: Path) -> None:
    (tmp_path / "source").write_text("one")
    assert said("put", "--if-absent", "source", "k")[0] == 0
    (tmp_path / "source").write_text("two")
    code, _, err = said("put", "--if-absent", "source", "k")
    assert (code, is_one_line(err)) == (1, True)
    assert said("cat", "k")[1] == "one"


def test_put_if_match_replaces_the_object_with_that_etag_and_no_other(said: Said, tmp_path: Path) -> None:
    (tmp_path / "source").write_text("one")
    said("put", "source", "k")
    etag = json.loads(said("stat", "--json", "k")[1])["etag"]
    assert said("put", "--if-match", etag, "source", "k")[0] == 0
    assert said("put", "--if-match", etag, "source", "k")[0] == 1


def test_get_names_the_file_as_the_key_ends(said: Said, tmp_path: Path) -> None:
    (tmp_path / "source").write_text("x")
    said("put", "source", "a/b/name.txt")
    assert said("get", "a/b/name.txt") == (0, "", "")
    assert (tmp_path / "name.txt").read_text() == "x"


@pytest.mark.parametrize(("target", "path"), [("other", "other"), ("there", "there/name.txt")])
def test_get_writes_to_a_file_or_into_a_directory(said: Said, tmp_path: Path, target: str, path: str) -> None:
    (tmp_path / "source").write_text("x")
    (tmp_path / "there").mkdir()
    said("put", "source", "a/name.txt")
    assert said("get", "a/name.txt", target)[0] == 0
    assert (tmp_path / path).read_text() == "x"


def test_get_of_a_missing_object_leaves_the_target_alone(said: Said, tmp_path: Path) -> None:
    (tmp_path / "target").write_text("old")
    assert said("get", "missing", "target")[0] == 3
    assert said("get", "missing")[0] == 3
    assert (tmp_path / "target").read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"target"}


async def test_get_that_fails_halfway_leaves_the_target_alone(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("old")
    async with micelio_storage.Storage(BreakingDriver()) as storage:
        await storage.put("k", bytes(4 * MIB))
        with pytest.raises(UnavailableError):
            await receive(storage, key="k", path=tmp_path / "target", meter=_report.Meter())
    assert texts_in(tmp_path) == {"target": "old"}


def texts_in(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.iterdir()}


class BreakingDriver(MemoryDriver):
    """Downloads break after their first chunk."""

    async def read(self, key: Key, options: ReadOptions) -> Any:
        return BreakingDownload(await super().read(key, options))


class BreakingDownload:
    def __init__(self, inner: Download) -> None:
        self.info = inner.info
        self.span = inner.span
        self.readall = inner.readall
        self.aclose = inner.aclose
        self._inner = inner
        self._given = False

    async def read(self) -> bytes:
        if self._given:
            raise UnavailableError("the line is cut")
        self._given = True
        return await self._inner.read()


@pytest.mark.by_turns
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), "0123456789"),
        (("--offset", "7"), "789"),
        (("--offset", "-2"), "89"),
        (("--length", "3"), "012"),
        (("--offset", "2", "--length", "3"), "234"),
        (("--offset", "8", "--length", "30"), "89"),
    ],
)
def test_cat_writes_the_part_that_is_asked_for(
    said: Said, tmp_path: Path, options: Sequence[str], expected: str
) -> None:
    (tmp_path / "source").write_text("0123456789")
    said("put", "source", "k")
    assert said("cat", "k", *options) == (0, expected, "")


# -- ls, stat, rm, cp


@pytest.fixture
def tree(said: Said, tmp_path: Path) -> Said:
    (tmp_path / "source").write_text("abc")
    for key in ("a/1", "a/2", "ab", "b", "sessions/s1/files/x", "sessions/s2/files/y/z"):
        said("put", "source", key)
    return said


def test_ls_lists_keys_in_order(tree: Said) -> None:
    assert tree("ls")[1].splitlines() == ["a/1", "a/2", "ab", "b", "sessions/s1/files/x", "sessions/s2/files/y/z"]


def test_ls_takes_a_prefix_as_text(tree: Said) -> None:
    assert tree("ls", "a") == (0, "a/1\na/2\nab\n", "")
    assert tree("ls", "nothing") == (0, "", "")


def test_ls_json_is_one_object_a_line(tree: Said) -> None:
    lines = [json.loads(line) for line in tree("ls", "--json", "a/")[1].splitlines()]
    assert [(line["key"], line["size"]) for line in lines] == [("a/1", 3), ("a/2", 3)]
    assert all(line["etag"] and line["modified"] for line in lines)


def test_ls_long_shows_size_and_time(tree: Said) -> None:
    size, day, clock, key = tree("ls", "--long", "ab")[1].split()
    assert (size, key, day.count("-"), clock.count(":")) == ("3", "ab", 2, 2)


def test_ls_sessions_lists_ids(tree: Said) -> None:
    assert tree("ls", "--sessions")[1] == "s1\ns2\n"
    assert tree("ls", "--sessions", "s2")[1] == "s2\n"
    assert json.loads(tree("ls", "--sessions", "--json", "s1")[1]) == {"session": "s1"}
    assert tree("ls", "--sessions", "--long", "s2")[1].split() == ["1", "files", "3", "bytes", "s2"]


@pytest.mark.parametrize("key", ["[red]alert[/red]", ":smile:", "ключ/鍵", "a b  c", "\\[x]".replace("\\", "")])
def test_odd_keys_are_shown_as_they_are(said: Said, tmp_path: Path, key: str) -> None:
    (tmp_path / "source").write_text("x")
    assert said("put", "source", key)[0] == 0
    assert said("ls")[1] == f"{key}\n"
    assert f"  {key}\n" in said("stat", key)[1]


def test_stat_shows_what_is_known(said: Said, tmp_path: Path) -> None:
    (tmp_path / "source").write_text("abc")
    said("put", "source", "k", "--content-type", "text/plain", "--metadata", "a=b")
    out = said("stat", "k")[1]
    for words in ("key           k", "size          3", "content type  text/plain", "metadata      a=b"):
        assert words in out.splitlines()


def test_rm_removes_what_is_named_and_nothing_else(tree: Said) -> None:
    assert tree("rm", "a/1", "b", "missing") == (0, "", "")
    assert tree("ls", "a")[1] == "a/2\nab\n"


def test_rm_of_a_prefix_needs_yes_where_nobody_can_be_asked(tree: Said) -> None:
    code, out, err = tree("rm", "--prefix", "a/")
    assert (code, out, is_one_line(err)) == (2, "", True)
    assert "--yes" in err
    assert tree("ls", "a/")[1] == "a/1\na/2\n"
    assert tree("rm", "--prefix", "a/", "--yes") == (0, "removed: 2\n", "")
    assert tree("ls", "a")[1] == "ab\n"


@pytest.mark.by_turns
@pytest.mark.parametrize("arguments", [(), ("k", "--prefix", "a"), ("--prefix", "", "--yes")])
def test_rm_refuses_what_cannot_be_meant(tree: Said, arguments: Sequence[str]) -> None:
    assert tree("rm", *arguments)[0] == 2
    assert len(tree("ls")[1].splitlines()) == 6


def test_cp_takes_content_type_and_metadata_along(said: Said, tmp_path: Path) -> None:
    (tmp_path / "source").write_text("abc")
    said("put", "source", "k", "--content-type", "text/plain", "--metadata", "a=b")
    assert said("cp", "k", "other") == (0, "", "")
    first, second = (json.loads(said("stat", "--json", key)[1]) for key in ("k", "other"))
    assert first | {"key": 0, "etag": 0, "modified": 0} == second | {"key": 0, "etag": 0, "modified": 0}


# -- cp -r, migrate


def test_cp_recursive_copies_all_below_a_prefix(tree: Said) -> None:
    code, out, err = tree("cp", "-r", "sessions", "backup/x")
    assert (code, err, out.splitlines()[0]) == (0, "", "copied 2, skipped 0, conflicts 0, failed 0")
    assert tree("ls", "backup")[1] == "backup/x/s1/files/x\nbackup/x/s2/files/y/z\n"
    assert tree("cp", "-r", "sessions/", "backup/x/")[1].startswith("copied 0, skipped 2,")


def test_cp_recursive_leaves_other_objects_alone_unless_told(tree: Said, tmp_path: Path) -> None:
    (tmp_path / "source").write_text("other")
    tree("put", "source", "c/1")
    code, out, err = tree("cp", "-r", "a", "c")
    assert (code, err) == (1, "")
    assert out.splitlines()[:3] == [
        "conflict  'a/1': the target has a different object",
        "conflicts were left as they are: --overwrite replaces what is at the target",
        "copied 1, skipped 0, conflicts 1, failed 0",
    ]
    assert tree("cat", "c/1")[1] == "other"
    assert tree("cp", "-r", "a", "c", "--overwrite", "--dry-run")[1].startswith("would be copied 1, skipped 1,")
    assert tree("cat", "c/1")[1] == "other"
    assert tree("cp", "-r", "a", "c", "--overwrite")[0] == 0
    assert tree("cat", "c/1")[1] == "abc"


def test_cp_recursive_of_two_urls_is_migrate(
    tree: Said, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_BACKEND", "nonsense")  # which is not looked at
    urls = (f"file://{root}", f"file://{tmp_path}/other")
    assert tree("cp", "-r", *urls)[1].startswith("copied 6, skipped 0,")
    assert tree("migrate", *urls)[1].startswith("copied 0, skipped 6,")


def test_migrate_says_in_json_what_became_of_each_key(tree: Said, root: Path, tmp_path: Path) -> None:
    urls = (f"file://{root}", f"file://{tmp_path}/other")
    (tmp_path / "source").write_text("other")
    tree("--storage", urls[1], "put", "source", "a/1")
    code, out, err = tree("migrate", *urls, "--prefix", "a", "--delete-source", "--concurrency", "1", "--json")
    *lines, summary = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (1, "")
    assert lines == [
        {"key": "a/1", "result": "conflict", "size": 3, "reason": "the target has a different object"},
        {"key": "a/2", "result": "copied", "size": 3, "deleted": True},
        {"key": "ab", "result": "copied", "size": 3, "deleted": True},
    ]
    assert summary.pop("seconds") >= 0
    assert summary == {
        "copied": 2, "skipped": 0, "conflicts": 1, "failed": 0, "gone": 0, "foreign": 0, "deleted": 2,
            "bytes": 6, "dry_run": False,
    }  # fmt: skip
    assert tree("ls", "a")[1] == "a/1\n"


def test_a_dry_run_of_migrate_changes_nothing(tree: Said, root: Path, tmp_path: Path) -> None:
    code, out, _ = tree("migrate", f"file://{root}", f"file://{tmp_path}/other", "--dry-run", "--delete-source")
    assert (code, out.splitlines()[0]) == (
        0,
        "would be copied 6, skipped 0, conflicts 0, failed 0, would be deleted 6",
    )
    assert len(tree("ls")[1].splitlines()) == 6
    assert tree("--storage", f"file://{tmp_path}/other", "ls")[1] == ""


def test_a_report_shows_some_failures_and_counts_the_rest() -> None:
    done = Report(seconds=2.0)
    for number in range(30):
        done.add(Outcome(key=f"k{number}", result="failed", reason="two\nlines"))
    done.add(Outcome(key="k", result="copied", size=5 << 20))
    lines = list(_report.migration_lines(done))
    assert lines[0] == "failed    'k0': two lines"
    assert lines[20:] == [
        "and 10 more",
        "copied 1, skipped 0, conflicts 0, failed 30",
        "5,242,880 bytes, 2.0 s, 2.5 MiB/s",
    ]


@pytest.mark.parametrize(
    ("source", "target", "apart"),
    [
        ("file:///srv/a", "file:///srv/a", False),
        ("file:///srv/a", "file:///srv/a/b", False),
        ("file:///srv/a/b", "file:///srv/a", False),
        ("file:///srv/a", "file:///srv/x/../a/", False),
        ("file:///srv/a", "file:///srv/ab", True),
        ("file:///srv/a", "file:///srv/b", True),
        ("file:///", "file:///srv/b", False),
        ("file:///srv/a", "memory:", True),
        ("memory:", "memory:", True),
        ("s3://b", "s3://b", False),
        ("s3://b", "s3://b/a", False),
        ("s3://b/a/b", "s3://b/a", False),
        ("s3://b/a", "s3://b/a?region=x", False),
        ("s3://b/a", "s3://b/a?endpoint=http://x/", True),
        ("s3://b/a?endpoint=http://x", "s3://b/a?endpoint=http://x/", False),
        ("s3://b/a", "s3://b/ab", True),
        ("s3://b", "s3://c", True),
        ("s3://b", "file:///b", True),
    ],
)
def test_storages_one_inside_the_other_are_not_migrated(source: str, target: str, apart: bool) -> None:
    configs = config_from_url(source), config_from_url(target)
    if apart:
        check_apart(*configs)
    else:
        with pytest.raises(micelio_storage.InvalidArgumentError):
            check_apart(*configs)


def test_a_link_to_a_storage_is_that_storage(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    with pytest.raises(micelio_storage.InvalidArgumentError):
        check_apart(*(config_from_url(f"file://{tmp_path}/{name}") for name in ("there", "link")))


# -- policy


def test_policy_prints_what_aws_takes(said: Said) -> None:
    key = "arn:aws-cn:kms:cn-north-1:123456789012:key/12ab"
    url = f"s3://my-bucket/a?region=cn-north-1&sse=aws:kms&sse_kms_key_id={key}"
    for kind, expected in [
        (("iam",), iam_policy("my-bucket", "a", partition="aws-cn", kms_key=key)),
        (("bucket",), bucket_policy("my-bucket", partition="aws-cn")),
        (("bucket", "--sid", "Ours"), bucket_policy("my-bucket", partition="aws-cn", name="Ours")),
        (("lifecycle",), lifecycle("a")),
        (("lifecycle", "--days", "30"), lifecycle("a", days=30)),
    ]:
        code, out, err = said("policy", kind[0], url, *kind[1:])
        assert (code, json.loads(out), err) == (0, expected, "")


# -- errors


@pytest.mark.by_turns
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("cat", "missing"), 3),
        (("stat", "missing"), 3),
        (("get", "missing"), 3),
        (("cp", "missing", "other"), 3),
        (("cat", "k", "--offset", "99"), 1),
        (("put", "no-such-file", "k"), 1),
        (("put", ".", "k"), 1),
        (("get", "k", "no/such/directory"), 1),
        (("cat", "/bad"), 2),
        (("stat", "a//b"), 2),
        (("get", ".."), 2),
        (("get", "k", "-"), 2),
        (("ls", "../x"), 2),
        (("put", "k", "a\udcff"), 2),
        (("put", "k", "k", "--if-match", "unquoted"), 2),
        (("put", "k", "k", "--if-match", '"x"', "--if-absent"), 2),
        (("put", "k", "k", "--metadata", "no-equals"), 2),
        (("put", "k", "k", "--metadata", "a=1", "--metadata", "a=2"), 2),
        (("cat", "k", "--length", "-1"), 2),
        (("cat", "k", "--length", "x"), 2),
        (("cat",), 2),
        (("cat", "k", "--no-such-option"), 2),
        (("no-such-command",), 2),
        ((), 2),
        (("--storage", "ftp://x", "ls"), 2),
        (("--storage", "file:///x?no_such=1", "ls"), 2),
        (("check", "relative/path"), 2),
        (("demo", "no-such-directory"), 2),
        (("cp", "-r", "a", "a/b"), 2),
        (("cp", "-r", "a", "file:///b"), 2),
        (("cp", "-r", "", "b"), 2),
        (("cp", "a", "b", "--dry-run"), 2),
        (("migrate", "memory:"), 2),
        (("migrate", "memory:", "relative/path"), 2),
        (("migrate", "file:///a", "file:///a/b"), 2),
        (("migrate", "memory:", "memory:", "--prefix", "/"), 2),
        (("migrate", "memory:", "memory:", "--concurrency", "0"), 2),
        (("policy", "iam", "file:///x"), 2),
        (("policy", "iam", "s3://a*b"), 2),
        (("policy", "iam", "s3://bucket/a//b"), 2),
        (("policy", "iam", "s3://bucket", "--days", "3"), 2),
        (("policy", "lifecycle", "s3://bucket", "--days", "0"), 2),
        (("policy", "other", "s3://bucket"), 2),
    ],
    ids=lambda value: " ".join(value).encode("ascii", "replace").decode() if isinstance(value, tuple) else None,
)
def test_each_kind_of_failure_has_its_code_and_one_line(
    said: Said, tmp_path: Path, arguments: Sequence[str], code: int
) -> None:
    (tmp_path / "k").write_text("abc")
    said("put", "k", "k")
    got, out, err = said(*arguments)
    assert (got, out) == (code, "")
    assert is_one_line(err), err


def test_several_failures_are_a_line_each() -> None:
    error = ExceptionGroup("2 of 3", [AccessDeniedError("one"), ExceptionGroup("x", [UnavailableError("two\nlines")])])
    assert _report.error_lines(error) == ["micelio-storage: one", "micelio-storage: two lines"]
    assert _report.exit_code(error) == 1


def test_rm_names_each_object_that_it_could_not_remove(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_invocation, "open_storage", lambda _: micelio_storage.Storage(RefusingDriver()))
    code, out, err = said("rm", "a", "b", "c")
    assert (code, out) == (1, "")
    assert err.splitlines() == [f"micelio-storage: delete '{key}' (memory): not yours" for key in "abc"]


class RefusingDriver(MemoryDriver):
    async def delete(self, keys: Sequence[Key], options: DeleteOptions) -> Mapping[Key, StorageError]:
        return {key: AccessDeniedError("not yours") for key in keys}


def test_debug_shows_where_an_error_comes_from(said: Said) -> None:
    assert "Traceback" not in said("cat", "missing")[2]
    code, _, err = said("--debug", "cat", "missing")
    assert code == 3
    assert err.startswith("Traceback")
    assert is_one_line(err.splitlines(keepends=True)[-1])


def test_the_option_before_the_command_chooses_the_storage(said: Said, root: Path, tmp_path: Path) -> None:
    (tmp_path / "source").write_text("x")
    assert said("--storage", f"file://{tmp_path}/other", "put", "source", "k")[0] == 0
    assert (tmp_path / "other" / "k").read_text() == "x"
    assert not root.exists()


# -- check


def test_check_names_the_promises_that_a_broken_store_does_not_keep(
    said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = [check for check in testing.CHECKS if "metadata" in check.__name__]
    monkeypatch.setattr(_trials, "run_all", partial(testing.run_all, checks=chosen))
    monkeypatch.setattr(_trials, "make_driver", lambda _: ForgetfulDriver())
    code, out, err = said("check", "memory:")
    broken = [line for line in out.splitlines() if line.startswith("BROKEN")]
    assert (code, err) == (1, "")
    assert broken
    assert out.count("        promised: ") == len(broken)
    assert f"{len(chosen) - len(broken)} of {len(chosen)} promises" in out


class ForgetfulDriver(MemoryDriver):
    """Loses the metadata of what is put."""

    async def put(self, key: Key, data: bytes | bytearray | memoryview, options: WriteOptions) -> Any:
        return await super().put(key, data, WriteOptions(condition=options.condition))
