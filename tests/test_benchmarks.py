"""The benchmarks' own arithmetic, and that one command leaves figures, tables and a chart. Nothing here looks at how
long anything took."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import pytest
from support import s3_servers

PROJECT = Path(__file__).parent.parent
sys.path.insert(0, str(PROJECT))  # the benchmarks are beside the tests and in no package that is installed

from benchmarks import charts, child, compare, measuring, pictures, report, sessions, venues  # noqa: E402
from benchmarks.areas import Area  # noqa: E402
from benchmarks.contestants import (  # noqa: E402
    LOCAL,
    S3,
    Entrant,
    NotOfferedError,
    Target,
    programs,
)
from benchmarks.contestants.base import Contestant, spread  # noqa: E402
from benchmarks.measuring import Figures, Place, Results, Turn, Venue, Workload, measure_all  # noqa: E402
from benchmarks.records import Record, groups, middle, ratio  # noqa: E402

NOBODY = "a-distribution-that-nobody-has"


def records(unit: str, **values: list[float]) -> list[Record]:
    """One figure for each contestant in each round."""
    return [
        Record(place="here", workload="work", contestant=name, unit=unit, round=number, value=value)
        for name, figures in values.items()
        for number, value in enumerate(figures)
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `python -m benchmarks local --quick --only get-1` left."""
    out = tmp_path_factory.mktemp("results")
    command = [sys.executable, "-m", "benchmarks", "local", "--quick", "--only", "get-1", "--out", str(out)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == (out / "local.md").read_text().strip()
    return out


def test_a_run_leaves_every_figure_and_what_it_depends_on(run: Path) -> None:
    document = json.loads((run / "local.json").read_text())
    assert {"python", "kernel", "processors", "file systems", "libraries"} <= document["environment"].keys()
    figures = {(one["contestant"], one["unit"]) for one in document["records"] if one["place"] == "disk"}
    assert {("ours", "op/s"), ("ours", "CPU ms/op"), ("raw", "op/s"), ("aiofiles", "op/s")} <= figures
    assert all(one["workload"] == "get-1" and one["value"] > 0 for one in document["records"])
    assert document["failures"] == []


def test_a_run_leaves_a_table_with_ratios_and_what_was_equal(run: Path) -> None:
    text = (run / "local.md").read_text()
    line = next(line for line in text.splitlines() if line.startswith("| get-1") and "op/s" in line)
    header = next(line for line in text.splitlines() if line.startswith("| workload"))
    assert len(line.split("|")) == len(header.split("|"))
    assert "vs best peer" in header
    assert "vs raw" in header
    assert "4 KiB objects" in text
    assert "staged, then renamed" in text


def test_programs_that_copy_directories_are_measured_as_processes(tmp_path: Path) -> None:
    root, tree, back = tmp_path / "root", tmp_path / "tree", tmp_path / "back"
    tree.mkdir()
    (tree / "a.bin").write_bytes(b"some bytes")
    ours = programs.Ours(Target(root=str(root)), durable=False)
    for spent in (ours.upload(tree, "a"), ours.save(tree, "s"), ours.save(tree, "s")):
        assert min(spent) > 0
    assert ours.stored("a") == (1, len(b"some bytes"))
    ours.download("a", back)
    ours.restore("s", back / "restored")
    assert (back / "a.bin").read_bytes() == (back / "restored" / "a.bin").read_bytes() == b"some bytes"
    with pytest.raises(RuntimeError, match="false ended with 1"):
        programs.run(["false"], {})
    assert programs.version_of_program(NOBODY) is None


def test_sessions_and_workspaces_are_measured_in_processes_of_their_own() -> None:
    results = Results()
    chosen = [one for one in sessions.workloads("quick") if one.name in ("sweep, sessions", "load, files")]
    for venue in venues.local(venues.TMPFS, opened=False):
        asyncio.run(measure_all(venue, chosen, 1, results))
    assert results.failures == []
    units = {"ms", "CPU ms", "MiB above the start", "ms late, max", "ms late, p99"}
    assert {(one.workload, one.unit) for one in results.records} == {
        (name, unit) for name in ("sweep, sessions", "load, files") for unit in units
    }
    chart = sessions.AREA.draw(results.records, {})
    assert chart is not None
    assert "memory of sweep" in chart


def test_a_run_leaves_a_chart_whose_text_is_text(run: Path) -> None:
    chart = ElementTree.parse(run / "local.svg")
    texts = {"".join(element.itertext()).strip() for element in chart.iter("{http://www.w3.org/2000/svg}text")}
    assert {"get-1", "ours", "raw", "aiofiles"} <= texts


def test_a_workload_that_does_not_exist_is_refused_with_those_that_do() -> None:
    command = [sys.executable, "-m", "benchmarks", "local", "--quick", "--only", "nothing"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "get-1" in done.stderr


def test_a_peer_that_is_not_installed_is_named_and_takes_no_part(tmp_path: Path) -> None:
    absent = dataclasses.replace(LOCAL["obstore"], distribution=NOBODY)
    results, text = measured(tmp_path, {**LOCAL, "absent": absent}, {"ours": 1, "absent": 1})
    assert {record.contestant for record in results.records} == {"ours"}
    assert "Not installed: absent." in text
    assert results.failures == []


def test_a_peer_that_fails_is_named_with_its_reason_and_ends_nothing(tmp_path: Path) -> None:
    results, text = measured(tmp_path, LOCAL, {"aiofiles": 0, "ours": 1})
    assert {record.contestant for record in results.records} == {"ours"}
    assert "here, work, aiofiles: failed: RuntimeError: 0 instead of 1: less than the work was done" in text


def test_what_a_contestant_does_not_offer_is_said_to_be_so(tmp_path: Path) -> None:
    async def run(turn: Turn) -> Figures:
        return await measuring.time_taken(turn.contestant.first_page("any"), 1)

    _, text = measured(tmp_path, LOCAL, {"aiofiles": 1}, run)
    assert "here, work, aiofiles: not offered" in text


def test_each_round_begins_with_another_contestant(tmp_path: Path) -> None:
    order: list[str] = []

    async def run(turn: Turn) -> Figures:
        order.append(turn.name)
        return {"op/s": 1}

    measured(tmp_path, LOCAL, {"ours": 1, "raw": 1, "aiofiles": 1}, run, rounds=3)
    assert order == ["ours", "raw", "aiofiles", "raw", "aiofiles", "ours", "aiofiles", "ours", "raw"]


def test_a_ratio_is_taken_within_a_round_with_the_best_of_that_round() -> None:
    lines = records("op/s", ours=[10, 100, 1000], quick=[5, 200, 100], slow=[4, 25, 500])
    found = ratio(lines, "ours", ["quick", "slow"])
    assert found is not None
    assert (found.middle, found.least, found.most, found.rounds) == (2, 0.5, 2, 3)
    assert str(found) == "2.00 (0.50-2.00)"


def test_a_ratio_above_one_is_better_where_less_is_better_too() -> None:
    lines = records("ms", ours=[10], quick=[20], slow=[30])
    assert str(ratio(lines, "ours", ["quick", "slow"])) == "2.00"


def test_rounds_that_only_one_side_has_give_no_ratio() -> None:
    lines = records("op/s", ours=[10, 20, 30], other=[5])
    found = ratio(lines, "ours", ["other"])
    assert found is not None
    assert (found.middle, found.rounds) == (2, 1)
    assert ratio(lines, "ours", ["nobody"]) is None
    assert ratio(lines, "nobody", ["ours"]) is None


def test_a_figure_too_small_to_be_measured_is_not_divided_by() -> None:
    assert ratio(records("ms", ours=[0], other=[0]), "ours", ["other"]) is not None


def test_the_middle_is_the_median_of_the_rounds() -> None:
    lines = records("op/s", ours=[1, 100, 3], other=[7])
    assert middle(lines, "ours") == 3
    assert middle(lines, "nobody") is None


def test_those_that_sync_are_compared_apart() -> None:
    usual, durable = groups(LOCAL, LOCAL)
    assert (usual.ours, usual.raw) == ("ours", ["raw"])
    assert (durable.ours, durable.raw) == ("ours durable", ["raw durable"])
    assert set(durable.peers) == {"opendal", "opendal atomic", "file an event durable"}
    assert "opendal atomic" not in usual.peers


def test_a_table_has_a_row_for_each_step_of_what_was_scaled() -> None:
    lines = [dataclasses.replace(record, x=x) for x in (10, 1000) for record in records("ms", ours=[x], obstore=[1])]
    (group,) = groups(LOCAL, ["ours", "obstore"])
    text = report.table(lines, group)
    assert [row.split("|")[1].strip() for row in text.splitlines()[2:]] == ["work 10", "work 1,000"]
    assert {len(row) for row in text.splitlines()} == {len(text.splitlines()[0])}


def test_curves_are_drawn_through_what_was_scaled() -> None:
    lines = [dataclasses.replace(record, x=x) for x in (10, 1000) for record in records("ms", ours=[x], obstore=[1])]
    drawn = charts.curves([dataclasses.replace(line, workload="list, keys") for line in lines])
    assert drawn is not None
    assert "list (ms) by keys" in drawn


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (0, "0"), (0.0312, "0.031"), (1.234, "1.23"), (45.67, "45.7"), (12345.6, "12,346")]
)
def test_three_digits_are_shown(value: float | None, text: str) -> None:
    assert report.shown(value) == text


def test_no_more_is_done_at_once_than_was_asked_for() -> None:
    at_once, most = 0, 0

    async def one(number: int) -> int:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0)
        at_once -= 1
        return number

    assert asyncio.run(spread(one, [(number,) for number in range(100)], 7)) == sum(range(100))
    assert most == 7


@pytest.mark.parametrize("name", ["ours", "ours durable", "raw", "raw durable", "aiofiles"])
def test_a_contestant_on_files_does_all_the_work(name: str, tmp_path: Path) -> None:
    async def work() -> None:
        contestant = LOCAL[name].make(Target(root=str(tmp_path)))
        await contestant.open()
        try:
            assert await contestant.puts([("top/a/one", b"12345"), ("top/b/two", b"678")], 2) == 8
            assert await contestant.gets([("top/a/one", 0, None), ("top/b/two", 1, 2)], 2) == 7
            assert await contestant.heads(["top/a/one"], 1) == 5
            assert await contestant.put_stream("top/large", 3_000_000) == 3_000_000
            assert await contestant.get_stream("top/large") == 3_000_000
            assert await contestant.list("top") == 3
            await contestant.delete_prefix("top")
        finally:
            await contestant.aclose()

    asyncio.run(work())
    assert not [path for path in (tmp_path / "top").rglob("*") if path.is_file()]


def test_ours_on_s3_does_all_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(target: Target) -> None:
        contestant = S3["ours"].make(target)
        await contestant.open()
        try:
            assert await contestant.puts([("top/a/one", b"12345"), ("top/b/two", b"678")], 2) == 8
            assert await contestant.gets([("top/a/one", 0, None), ("top/b/two", 1, 2)], 2) == 7
            assert await contestant.heads(["top/a/one"], 1) == 5
            assert await contestant.put_stream("top/large", 9 << 20) == 9 << 20
            assert await contestant.get_stream("top/large") == 9 << 20
            assert await contestant.list("top") == 3
            assert await contestant.delete(["top/a/one", "top/b/two"]) == 2
            assert await contestant.list("top") == 1
        finally:
            await contestant.aclose()

    with s3_servers.strict() as server:
        target = Target(
            endpoint=server.endpoint, bucket=server.bucket, access_key=server.access_key, secret_key=server.secret_key
        )
        for variable, value in target.environ().items():
            monkeypatch.setenv(variable, value)
        asyncio.run(work(target))


def test_servers_that_are_not_installed_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert venues.s3(venues.NGINX, venues.SEAWEEDFS) == ([], [venues.NO_NGINX, venues.NO_SEAWEEDFS])


def test_the_memory_of_a_stream_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    place = Place(name="here", target=Target(root=str(tmp_path)), entrants=LOCAL)
    turn = Turn(workload="put", place=place, name="aiofiles", number=0)
    figures = asyncio.run(child.ask(turn, "memory of put", 8 << 20))
    assert list(figures) == ["MiB above the start"]
    assert (tmp_path / "memory/put.bin").stat().st_size == 8 << 20


def test_a_contestant_offers_nothing_by_itself() -> None:
    """So that one that lacks a call is found out, and not measured doing nothing."""
    with pytest.raises(NotOfferedError):
        asyncio.run(Contestant(Target()).get_stream("key"))


def measured(
    directory: Path,
    entrants: dict[str, Entrant],
    done: dict[str, int],
    run: Callable[[Turn], Awaitable[Figures]] | None = None,
    rounds: int = 1,
) -> tuple[Results, str]:
    """The results and the report of one workload, at which everybody does as much as `done` says of one."""

    @contextmanager
    def enter() -> Iterator[Target]:
        yield Target(root=str(directory))

    async def count(turn: Turn) -> Figures:
        async def work() -> int:
            return done[turn.name]

        return await measuring.rate(work(), 1, "op", 1)

    work = Workload(name="work", run=run or count, contestants=list(done), equal="nothing")
    venue = Venue(name="here", entrants=entrants, enter=enter)
    results = Results()
    asyncio.run(measure_all(venue, [work], rounds, results))
    area = Area(
        name="area", title="Title", rounds=1, venues=lambda: ([venue], ()), workloads=lambda _: [work],
        draw=lambda *_: None,
    )  # fmt: skip
    written = report.Report(
        area=area, command="", environment={}, venues=[venue], workloads=[work], results=results, seconds=0
    )
    assert written.write(directory / "out") == [directory / "out/area.json", directory / "out/area.md"]
    return results, (directory / "out/area.md").read_text()


def test_a_picture_of_the_demo_says_what_it_said_and_nothing_of_this_machine() -> None:
    picture = pictures.as_picture(
        ["storing /somewhere as session demo-1 in /elsewhere", "│ put │ 1,376 files/s │", "removed again from /there"]
    )
    shown = "".join(ElementTree.fromstring(picture).itertext()).replace("\xa0", " ")
    assert "$ micelio-storage demo" in shown
    assert "│ put │ 1,376 files/s │" in shown
    assert not re.search(r"/(somewhere|elsewhere|there)", picture)
    assert re.findall(r"https?://[^\"]*", picture) == ["http://www.w3.org/2000/svg"]  # nothing is fetched


def test_the_chart_is_drawn_from_the_tables_of_the_page() -> None:
    page = (PROJECT / "docs" / "performance.md").read_text()
    found = pictures.published(page)
    assert {record.workload for record in found} == set(pictures.WORKLOADS)
    assert {record.contestant for record in found} >= {"ours", "ours durable", "obstore", "opendal", "aiofiles"}
    head = "### On disk\n**In memory**\n| workload | unit | ours |\n| get-1 | op/s | 9 |\n"
    table = head + "**ext4**\n| get-1 | op/s | 1,234 |\n"
    assert [record.value for record in pictures.published(table)] == [1234.0]


@pytest.mark.parametrize("name", ["demo", "peers"])
def test_the_pictures_of_the_readme_are_small_and_whole(name: str) -> None:
    path = PROJECT / "docs" / "pictures" / f"{name}.svg"
    ElementTree.parse(path)
    assert path.stat().st_size < 64 << 10


def test_a_run_beside_itself_has_no_ratio_that_fell(run: Path) -> None:
    done = compared(run / "local.json", run / "local.json")
    assert done.returncode == 0, done.stderr
    assert re.match(r"[1-9]\d* ratios are in both runs; 0 fell by more than 10%\.\n$", done.stdout)


def test_a_ratio_that_fell_is_printed_with_both_runs(run: Path, tmp_path: Path) -> None:
    document = json.loads((run / "local.json").read_text())
    for record in document["records"]:
        if (record["contestant"], record["unit"]) == ("ours", "op/s"):
            record["value"] /= 2
    document["environment"]["kernel"] = "another"
    (tmp_path / "new.json").write_text(json.dumps(document))
    done = compared(run / "local.json", tmp_path / "new.json")
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| disk, ours: get-1, op/s")]
    assert [row.split("|")[2].strip() for row in rows] == ["best peer", "raw"]
    assert all(row.split("|")[5].strip() == "0.50" for row in rows)
    assert "CPU ms/op" not in done.stdout
    assert "- kernel: was " in done.stdout
    back = compared(tmp_path / "new.json", run / "local.json")
    assert " 0 fell by more" in back.stdout


def test_a_ratio_whose_rounds_lie_apart_is_told_from_one_that_may_be_noise() -> None:
    old = run_of(ours=[10, 12, 14], raw=[10, 10, 10])
    overlapping, apart = run_of(ours=[7, 8, 11], raw=[10, 10, 10]), run_of(ours=[7, 8, 9], raw=[10, 10, 10])
    assert "| overlap" in compare.as_markdown(old, overlapping, 0.1)
    assert "| all worse" in compare.as_markdown(old, apart, 0.1)
    assert "0 fell by more than 50%" in compare.as_markdown(old, apart, 0.5)


def test_a_peer_that_only_one_run_had_changes_no_ratio() -> None:
    old = run_of(ours=[10], obstore=[10])
    assert "0 fell" in compare.as_markdown(old, run_of(ours=[10], obstore=[10], opendal=[100]), 0.1)


def test_a_ratio_that_is_in_one_run_only_is_named() -> None:
    old, new = run_of(ours=[10], raw=[10], obstore=[10]), run_of(ours=[10], obstore=[10])
    text = compare.as_markdown(old, new, 0.1)
    assert text.startswith("1 ratios are in both runs; 0 fell")
    assert "- version of raw: was 1, is None" in text
    other = dataclasses.replace(new, records=[dataclasses.replace(one, workload="other") for one in new.records])
    assert "- only in the old run: here, ours: work, op/s, beside best peer" in compare.as_markdown(new, other, 0.1)
    assert "- only in the new run: here, ours: other, op/s, beside best peer" in compare.as_markdown(new, other, 0.1)


def test_what_cannot_be_compared_is_refused_with_its_reason(run: Path, tmp_path: Path) -> None:
    broken, other = tmp_path / "broken.json", tmp_path / "s3.json"
    broken.write_text("{}")
    other.write_text((run / "local.json").read_text().replace('"area": "local"', '"area": "s3"'))
    reasons = {
        broken: "is not what `python -m benchmarks` leaves",
        other: "compare like runs",
        tmp_path / "none.json": "No such file",
    }
    for path, reason in reasons.items():
        with pytest.raises(SystemExit, match=reason):
            compare.main([str(run / "local.json"), str(path)])


def compared(old: Path, new: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", "compare", str(old), str(new)]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60)


def run_of(**values: list[float]) -> compare.Run:
    contenders = {
        name: compare.Contender(role=LOCAL[name].role, durable=LOCAL[name].durable, version="1") for name in values
    }
    return compare.Run(area="area", environment={}, contestants={"here": contenders}, records=records("op/s", **values))
