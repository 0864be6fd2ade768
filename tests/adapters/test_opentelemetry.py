"""OpenTelemetry: one span and one measurement for a call or a stream, and no call that is the worse for it."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import pickle
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from opentelemetry import trace
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NoOpTracerProvider, SpanKind, StatusCode
from prometheus_client.parser import text_string_to_metric_families
from support import fault_proxy
from support.blocks import PROJECT, block, program, served
from support.everywhere import place_of, storage_on
from support.fault_proxy import error, first
from support.s3_servers import Server
from support.s3_storage import driver_for

from micelio_storage import (
    AlreadyExistsError,
    Hook,
    InvalidKeyError,
    NotFoundError,
    NotModifiedError,
    PreconditionFailedError,
    Reader,
    Session,
    Storage,
    StorageError,
    UnavailableError,
    open_storage,
)
from micelio_storage.adapters.opentelemetry import DURATION_BUCKETS, observe_operations
from micelio_storage.driver import Key, ObjectInfo, WriteOptions
from micelio_storage.drivers.memory import MemoryDriver
from micelio_storage.sync import open_storage_sync

OPERATION = "micelio.storage.operation.name"
DRIVER = "micelio.storage.driver"
OUTCOME = "micelio.storage.outcome"


class Telemetry:
    """Providers that keep what they get in memory."""

    def __init__(self) -> None:
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meters = MeterProvider(metric_readers=[self.reader])
        self.tracer = self.tracers.get_tracer("the application's")

    def hook(self, *, keys: bool = False) -> Hook:
        return observe_operations(tracer_provider=self.tracers, meter_provider=self.meters, keys=keys)

    def spans(self) -> list[ReadableSpan]:
        """Those that have ended since the last time."""
        ended = [span for span in self.exporter.get_finished_spans() if span.name.startswith("storage.")]
        self.exporter.clear()
        return ended

    def points(self, name: str) -> list[Any]:
        """The points of `micelio.storage.operation.<name>`."""
        data = self.reader.get_metrics_data()
        metrics = [] if data is None else [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics]
        found = [metric for metric in metrics if metric.name == f"micelio.storage.operation.{name}"]
        return [point for metric in found for point in metric.data.data_points]

    def active(self) -> int:
        """How many operations are under way."""
        return sum(point.value for point in self.points("active"))


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    made = Telemetry()
    yield made
    made.tracers.shutdown()
    made.meters.shutdown()


@pytest.fixture(params=["memory", "disk", "seaweedfs"])
async def observed(
    request: pytest.FixtureRequest, tmp_path: Path, telemetry: Telemetry
) -> AsyncIterator[tuple[Storage, Telemetry]]:
    async with storage_on(request.param, request, tmp_path, [telemetry.hook(keys=True)]) as storage:
        yield storage.under(place_of(tmp_path)), telemetry


def attributes(span: ReadableSpan, *left_out: str) -> dict[str, Any]:
    return {name: value for name, value in (span.attributes or {}).items() if name not in left_out}


async def test_each_call_is_one_span_with_what_came_of_it(observed: tuple[Storage, Telemetry]) -> None:
    storage, telemetry = observed
    driver, place = storage._driver.name, storage._place
    with telemetry.tracer.start_as_current_span("request") as request:
        await storage.put("a", b"123")
        await storage.get("a", offset=1)
        await storage.copy("a", "b")
        await storage.list_page()
        await storage.delete("a", "b")
        assert trace.get_current_span() is request
    spans = telemetry.spans()
    shown = [attributes(span, "micelio.storage.attempts") for span in spans]
    assert [each.pop(OPERATION) for each in shown] == ["put", "get", "copy", "list", "delete"]
    assert [each.pop(DRIVER) for each in shown] == [driver] * 5
    assert [each.pop(OUTCOME) for each in shown] == ["done"] * 5
    assert shown == [
        {"micelio.storage.key": f"{place}a", "micelio.storage.bytes": 3},
        {"micelio.storage.key": f"{place}a", "micelio.storage.bytes": 2},
        {"micelio.storage.key": f"{place}a", "micelio.storage.target": f"{place}b", "micelio.storage.bytes": 3},
        {"micelio.storage.key": place, "micelio.storage.entries": 2},
        {"micelio.storage.entries": 2},
    ]
    assert [span.name for span in spans] == [f"storage.{name}" for name in ("put", "get", "copy", "list", "delete")]
    assert {span.kind for span in spans} == {SpanKind.CLIENT if driver == "s3" else SpanKind.INTERNAL}
    assert {span.parent.span_id for span in spans if span.parent} == {request.get_span_context().span_id}
    attempts = {(span.attributes or {}).get("micelio.storage.attempts") for span in spans[:2]}
    assert attempts == ({1} if driver == "s3" else {None})
    moved = {point.attributes["micelio.storage.io.direction"]: point.value for point in telemetry.points("io")}
    assert moved == {"write": 3, "read": 2}  # none of the copy's
    assert telemetry.active() == 0


async def test_a_stream_is_one_span_whoever_closes_it(observed: tuple[Storage, Telemetry]) -> None:
    storage, telemetry = observed
    with telemetry.tracer.start_as_current_span("request") as request:
        async with storage.open_write("a") as writer:
            for _ in range(200):
                await writer.write(bytes(1000))
            with telemetry.tracer.start_as_current_span("the application's") as other:
                await storage.exists("b")
        reader = await storage.open_read("a", chunk_size=1000)
        abandoned = await storage.open_write("c")
        await abandoned.write(b"1")
        assert telemetry.active() == 2
        assert trace.get_current_span() is request

    async def elsewhere() -> None:
        with telemetry.tracer.start_as_current_span("elsewhere") as there:
            async for _ in reader:
                pass
            await reader.aclose()
            await abandoned.abort()
            assert trace.get_current_span() is there

    await asyncio.create_task(elsewhere(), context=contextvars.Context())
    spans = {span.name: span for span in telemetry.spans()}
    assert sorted(spans) == ["storage.exists", "storage.open_read", "storage.open_write"]
    assert len(telemetry.points("duration")) == 4
    under_request = request.get_span_context().span_id
    assert spans["storage.open_read"].parent.span_id == under_request  # type: ignore[union-attr]  # it has one
    assert spans["storage.open_write"].parent.span_id == under_request  # type: ignore[union-attr]  # it has one
    assert spans["storage.exists"].parent.span_id == other.get_span_context().span_id  # type: ignore[union-attr]
    assert attributes(spans["storage.open_read"])["micelio.storage.bytes"] == 200_000
    assert attributes(spans["storage.open_write"])[OUTCOME] == "aborted"
    moved = [
        (p.attributes["micelio.storage.io.direction"], p.attributes[OUTCOME], p.value) for p in telemetry.points("io")
    ]
    assert sorted(moved) == [("read", "done", 200_000), ("write", "aborted", 1), ("write", "done", 200_000)]
    assert telemetry.active() == 0


async def test_answers_are_no_errors(observed: tuple[Storage, Telemetry]) -> None:
    storage, telemetry = observed
    etag = (await storage.put("a", b"1")).etag
    telemetry.spans()
    calls: list[tuple[Any, type[Exception], str]] = [
        (lambda: storage.get("b"), NotFoundError, "not found"),
        (lambda: _read(storage, "b"), NotFoundError, "not found"),
        (lambda: storage.get("a", if_none_match=etag), NotModifiedError, "not modified"),
        (lambda: storage.get("a", if_match='"b"'), PreconditionFailedError, "precondition failed"),
        (lambda: storage.put("a", b"", if_absent=True), AlreadyExistsError, "precondition failed"),
    ]
    for call, kind, outcome in calls:
        with pytest.raises(kind):
            await call()
        [span] = telemetry.spans()
        assert (span.status.status_code, span.events) == (StatusCode.UNSET, ())
        assert attributes(span)[OUTCOME] == outcome
        assert "error.type" not in attributes(span)
    assert [point for point in telemetry.points("duration") if "error.type" in point.attributes] == []
    task = asyncio.ensure_future(storage.update("a", _never))
    await asyncio.wait([task], timeout=0.01)
    task.cancel()
    await asyncio.wait([task])
    [span] = telemetry.spans()
    assert (span.status.status_code, attributes(span)[OUTCOME]) == (StatusCode.UNSET, "cancelled")


async def _never(_: bytes | None) -> bytes:
    await asyncio.Event().wait()
    return b""


async def _read(storage: Storage, key: str) -> None:
    async with storage.open_read(key):
        pass


class Failing(MemoryDriver):
    async def put(self, key: Key, data: object, options: WriteOptions) -> ObjectInfo:
        raise UnavailableError("the store does not answer")

    async def delete(self, keys: Any, options: Any) -> Mapping[Key, StorageError]:
        return {key: UnavailableError("the store does not answer") for key in keys}


class OwnError(Exception):
    """The application's."""


async def test_a_failure_is_an_error_with_its_type_and_says_no_key(telemetry: Telemetry) -> None:
    async def source() -> AsyncIterator[bytes]:
        yield b"1"
        raise OwnError("secret")

    async with Storage(Failing(), hooks=[telemetry.hook()]) as storage:
        calls: list[tuple[Any, type[BaseException], str]] = [
            (lambda: storage.put("secret", b"1"), UnavailableError, "UnavailableError"),
            (lambda: storage.get("../secret"), InvalidKeyError, "InvalidKeyError"),
            (lambda: storage.delete("secret", "b"), ExceptionGroup, "UnavailableError"),
            (lambda: storage.put("secret", source()), OwnError, f"{__name__}.OwnError"),
            (lambda: storage.put("secret", "text"), TypeError, "TypeError"),  # type: ignore[arg-type]  # what is tested
        ]
        for call, kind, error_type in calls:
            with pytest.raises(kind):
                await call()
            [span] = telemetry.spans()
            assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
            assert attributes(span)["error.type"] == error_type
            assert "secret" not in span.to_json()
    failed = {point.attributes["error.type"] for point in telemetry.points("duration")}
    assert failed == {error_type for _, _, error_type in calls}
    async with Storage(Failing(), hooks=[telemetry.hook(keys=True)]) as storage:
        with pytest.raises(UnavailableError):
            await storage.put("named", b"1")
        with pytest.raises(InvalidKeyError):
            await storage.put("\ud800" + "x" * 10_000, b"1")
    named, refused = telemetry.spans()
    assert named.status.description == "put 'named' (memory): the store does not answer"
    assert attributes(refused)["micelio.storage.key"].startswith("\\ud800x")
    assert len(attributes(refused)["micelio.storage.key"]) < 1100


async def test_spans_name_the_session_and_metrics_do_not(telemetry: Telemetry) -> None:
    async with open_storage("memory:", hooks=[telemetry.hook()]) as storage:
        session = Session(storage.under("tenants/acme"), "abc123")
        await session.files.put("sessions/other/a", b"1")
        await session.update_metadata(lambda document: document | {"a": 1})
        await session.usage()
        assert {attributes(span)["session.id"] for span in telemetry.spans()} == {"abc123"}
        await storage.put("sessions/lonely", b"1")  # no file of a session
        await storage.put("mysessions/abc/d", b"1")
        assert [attributes(span).get("session.id") for span in telemetry.spans()] == [None, None]
    for name in ("duration", "io", "active"):
        assert [point for point in telemetry.points(name) if "session.id" in point.attributes] == []


async def test_durations_have_buckets_for_what_storages_take(telemetry: Telemetry) -> None:
    async with open_storage("memory:", hooks=[telemetry.hook()]) as storage:
        await storage.put("a", b"1")
    [point] = telemetry.points("duration")
    assert tuple(point.explicit_bounds) == DURATION_BUCKETS == tuple(sorted(DURATION_BUCKETS))
    assert 0 < point.sum < 60
    assert dict(point.attributes) == {OPERATION: "put", DRIVER: "memory", OUTCOME: "done"}
    [span] = telemetry.spans()
    assert [exemplar.span_id for exemplar in point.exemplars] == [span.context.span_id]  # type: ignore[union-attr]


async def test_attempts_show_what_was_sent_again(seaweedfs_server: Server, telemetry: Telemetry) -> None:
    url = urlsplit(seaweedfs_server.endpoint)
    busy = first(error("SlowDown"), times=2, method="GET", target="otel/a")
    with fault_proxy.running(str(url.hostname), url.port or 80, busy) as proxy:
        driver = driver_for(seaweedfs_server, endpoint=proxy.endpoint, conditions="all")
        async with Storage(driver, hooks=[telemetry.hook()]) as storage:
            await storage.put("otel/a", b"1")
            assert await storage.get("otel/a") == b"1"
    put, get = telemetry.spans()
    assert [attributes(span)["micelio.storage.attempts"] for span in (put, get)] == [1, 3]
    assert [span.status.status_code for span in (put, get)] == [StatusCode.UNSET] * 2


async def test_a_reader_that_is_traced_reads_as_plainly_as_one_that_is_not(telemetry: Telemetry) -> None:
    async with open_storage("memory:", hooks=[telemetry.hook()]) as storage:
        await storage.put("a", b"1")
        async with storage.open_read("a") as reader:
            assert reader._plain_read is not None


async def test_the_parent_is_whose_task_made_the_call(telemetry: Telemetry) -> None:
    async def work(storage: Storage, name: str) -> int:
        with telemetry.tracer.start_as_current_span(name) as span:
            await storage.put(name, b"1")
            await storage.update(name, lambda data: (data or b"") + b"2")
            async with storage.open_read(name) as reader:
                await reader.read()
            assert trace.get_current_span() is span
            return span.get_span_context().span_id

    async with open_storage("memory:", hooks=[telemetry.hook(keys=True)]) as storage:
        ids = await asyncio.gather(*(work(storage, f"{number}") for number in range(50)))
    spans = telemetry.spans()
    assert len(spans) == 150
    for span in spans:
        assert span.parent is not None
        assert span.parent.span_id == ids[int(attributes(span)["micelio.storage.key"])]


async def test_what_runs_within_a_call_is_a_part_of_it(telemetry: Telemetry) -> None:
    async def change(_: bytes | None) -> bytes:
        with telemetry.tracer.start_as_current_span("storage.inner"):
            return b"1"

    async with open_storage("memory:", hooks=[telemetry.hook()]) as storage:
        await storage.update("a", change)
    inner, outer = telemetry.spans()
    assert (inner.name, outer.name) == ("storage.inner", "storage.update")
    assert inner.parent == outer.context


class Broken(SpanProcessor):
    """Raises as spans begin, as they end, or never."""

    def __init__(self) -> None:
        self.when = ""

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        if self.when == "start":
            raise ZeroDivisionError("the processor's own")

    def on_end(self, span: ReadableSpan) -> None:
        if self.when == "end":
            raise ZeroDivisionError("the processor's own")


class BrokenExporter(SpanExporter):
    def export(self, spans: Any) -> SpanExportResult:
        raise ZeroDivisionError("the exporter's own")


class BrokenMeters(NoOpMeterProvider):
    """Whose instruments raise."""

    def get_meter(self, *arguments: Any, **options: Any) -> Any:
        meter = super().get_meter("broken")

        def break_down(*arguments: Any, **options: Any) -> None:
            raise ZeroDivisionError("the meter's own")

        for make in ("create_histogram", "create_counter", "create_up_down_counter"):
            instrument = getattr(meter, make)("broken")
            instrument.record = instrument.add = break_down
            setattr(meter, make, lambda *_, made=instrument, **__: made)
        return meter


@pytest.mark.parametrize("when", ["start", "end", "export", "measure"])
async def test_no_call_is_the_worse_for_a_provider_that_raises(
    when: str, telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    broken = Broken()
    telemetry.tracers.add_span_processor(broken)
    if when == "export":
        telemetry.tracers.add_span_processor(SimpleSpanProcessor(BrokenExporter()))
    meters = BrokenMeters() if when == "measure" else telemetry.meters
    hook = observe_operations(tracer_provider=telemetry.tracers, meter_provider=meters)
    async with open_storage("memory:", hooks=[hook]) as storage:
        for broken.when in (when, ""):
            await storage.put("a", b"1")
            assert await storage.get("a") == b"1"
            async with storage.open_write("b") as writer:
                await writer.write(b"2")
            with pytest.raises(NotFoundError):
                await storage.get("c")
    assert not trace.get_current_span().is_recording()
    assert telemetry.active() == 0
    warned = [record for record in caplog.records if record.name == "micelio_storage"]
    assert len(warned) == (0 if when == "export" else 1)  # the SDK itself logs what exporters raise
    assert len([span for span in telemetry.spans() if span.name == "storage.put"]) == (1 if when == "start" else 2)
    assert sum(point.count for point in telemetry.points("duration")) == (0 if when == "measure" else 8)


async def test_an_exporter_that_uses_the_storage_is_not_traced_itself(telemetry: Telemetry) -> None:
    kept: list[asyncio.Task[ObjectInfo]] = []

    class Exporter(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            kept.append(asyncio.ensure_future(storage.put(f"spans/{len(kept)}", b"1")))
            return SpanExportResult.SUCCESS

    telemetry.tracers.add_span_processor(SimpleSpanProcessor(Exporter()))
    async with open_storage("memory:", hooks=[telemetry.hook()]) as storage:
        await storage.put("a", b"1")
        while not all(task.done() for task in kept):
            await asyncio.wait(kept)
        assert len(kept) == 1


async def test_a_process_without_a_provider_is_not_troubled() -> None:
    async with open_storage("memory:", hooks=[observe_operations()]) as storage:
        await storage.put("a", b"1")
        async with storage.open_read("a") as reader:
            assert await reader.read() == b"1"


async def test_spans_or_metrics_can_be_left_out(telemetry: Telemetry) -> None:
    hooks = [
        observe_operations(tracer_provider=NoOpTracerProvider(), meter_provider=telemetry.meters),
        observe_operations(tracer_provider=telemetry.tracers, meter_provider=NoOpMeterProvider()),
    ]
    async with open_storage("memory:", hooks=hooks[:1]) as storage:
        await storage.put("a", b"1")
    assert (telemetry.spans(), len(telemetry.points("duration"))) == ([], 1)
    async with open_storage("memory:", hooks=hooks[1:]) as storage:
        await storage.put("a", b"1")
    assert (len(telemetry.spans()), sum(point.count for point in telemetry.points("duration"))) == (1, 1)


def test_the_hook_pickles_with_a_storage(tmp_path: Path) -> None:
    hook = observe_operations(keys=True)
    copied = pickle.loads(pickle.dumps(open_storage(tmp_path, hooks=[hook])))
    assert copied._hooks[0]._recipe == (None, None, True)


# -- attacks


@pytest.mark.every_loop
async def test_a_hundred_streams_at_once_end_once_each_however_they_end(
    telemetry: Telemetry, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    async def stream(number: int) -> None:
        with telemetry.tracer.start_as_current_span("work"):
            writer = await storage.open_write(f"{number}")
            for _ in range(number % 7):
                await writer.write(bytes(1000))
                await asyncio.sleep(0)
            if number % 4 == 0:
                await writer.commit()
            elif number % 4 == 1:
                await writer.abort()
            elif number % 4 == 2:
                asyncio.current_task().cancel()  # type: ignore[union-attr]  # a task runs this
                async with writer:
                    await asyncio.sleep(0)
            else:
                circle: list[Any] = [writer]  # dropped open, and found by the collector of garbage alone
                circle.append(circle)

    gc.disable()
    try:
        async with open_storage(tmp_path / "root", hooks=[telemetry.hook()]) as storage:
            await asyncio.gather(*(stream(number) for number in range(100)), return_exceptions=True)
            await asyncio.to_thread(gc.collect)
    finally:
        gc.enable()
    outcomes = [attributes(span)[OUTCOME] for span in telemetry.spans()]
    assert (len(outcomes), outcomes.count("done")) == (100, 25)
    assert outcomes.count("aborted") == 75
    assert telemetry.active() == 0
    assert sum(point.count for point in telemetry.points("duration")) == 100
    assert len(recwarn) == 25


async def test_no_telemetry_is_made_where_garbage_is_collected(telemetry: Telemetry) -> None:
    """That may be within any line of Python, also one that holds the lock of an instrument."""
    async with open_storage("memory:", hooks=[telemetry.hook()]) as storage:
        await storage.put("a", b"1")
        reader = await storage.open_read("a")
        telemetry.spans()
        with pytest.warns(ResourceWarning):
            del reader
        assert (telemetry.spans(), telemetry.active()) == ([], 1)
        while not telemetry.exporter.get_finished_spans():
            await asyncio.sleep(0)
        assert telemetry.active() == 0


async def test_a_call_that_is_given_up_in_another_context_is_left(
    telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_storage("memory:", hooks=[telemetry.hook()]) as storage:
        call = storage.update("a", _never)
        contextvars.copy_context().run(call.send, None)
        call.close()
        assert not trace.get_current_span().is_recording()
    [span] = telemetry.spans()
    assert attributes(span)[OUTCOME] == "cancelled"
    assert telemetry.active() == 0
    assert caplog.records == []


def test_threads_have_their_own_parents_at_the_door_without_async(telemetry: Telemetry, tmp_path: Path) -> None:
    def work(number: int) -> int:
        with telemetry.tracer.start_as_current_span(f"work {number}") as span:
            storage.put(f"{number}", b"1")
            with storage.open_write(f"{number}.b") as file:
                file.write(b"2")
            with storage.open_read(f"{number}") as file:
                file.read()
            return span.get_span_context().span_id

    hook = telemetry.hook(keys=True)
    with open_storage_sync(tmp_path / "root", hooks=[hook]) as storage, ThreadPoolExecutor(8) as threads:
        ids = list(threads.map(work, range(40)))
    spans = telemetry.spans()
    assert len(spans) == 120
    for span in spans:
        assert span.parent is not None
        assert span.parent.span_id == ids[int(attributes(span)["micelio.storage.key"].partition(".")[0])]
    assert telemetry.active() == 0


def test_a_stream_whose_loop_is_gone_is_left_when_its_storage_is_closed(telemetry: Telemetry) -> None:
    storage = open_storage("memory:", hooks=[telemetry.hook()])
    kept: list[Reader] = []

    async def leave_open() -> None:
        await storage.open()
        await storage.put("a", b"1")
        kept.append(await storage.open_read("a"))

    asyncio.run(leave_open())
    asyncio.run(storage.aclose())
    assert telemetry.active() == 0
    assert [attributes(span)[OUTCOME] for span in telemetry.spans()] == ["done", "aborted"]


# -- Prometheus


async def test_prometheus_scrapes_what_the_page_says(tmpfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = "docs/adapters/opentelemetry.md"
    monkeypatch.setenv("STORAGE_LOCAL_PATH", str(tmpfs))
    app = program(block(page, 1))["app"]
    async with served(app) as url, aiohttp.ClientSession(url) as client:
        async with client.put("/files/a", data=b"some bytes") as answer:
            assert answer.status == 405  # the page's application only reads
        (tmpfs / "a").write_bytes(b"some bytes")
        for path, status in (("a", 200), ("missing", 404)):
            async with client.get(f"/files/{path}") as answer:
                assert answer.status == status
        async with client.get("/metrics/") as answer:
            scraped = {
                (sample.name, sample.labels.get(OUTCOME.replace(".", "_")), sample.labels.get("le")): sample
                for family in text_string_to_metric_families(await answer.text())
                for sample in family.samples
                if sample.name.startswith("micelio_")
            }
    duration = "micelio_storage_operation_duration_seconds"
    assert scraped[f"{duration}_count", "done", None].value == 1
    assert scraped[f"{duration}_count", "not found", None].value == 1
    assert scraped[f"{duration}_bucket", "done", "+Inf"].value == 1
    bounds = {float(le) for name, _, le in scraped if name.endswith("_bucket") and le}
    assert bounds == {*DURATION_BUCKETS, float("inf")}
    assert scraped["micelio_storage_operation_io_bytes_total", "done", None].value == 10
    assert scraped["micelio_storage_operation_active", None, None].value == 0
    text = (PROJECT / page).read_text()
    for (name, *_), sample in scraped.items():
        for word in (name.removesuffix("_created").removesuffix("_sum"), *sample.labels):
            assert word in text or word.startswith("otel_scope_"), word
