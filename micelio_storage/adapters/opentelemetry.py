"""Spans and metrics of OpenTelemetry for each operation, as a hook. What goes wrong on its side is logged, and no call
is the worse for it.

```python
from micelio_storage.adapters.opentelemetry import observe_operations

storage = open_storage("memory:", hooks=[observe_operations()])
```
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import Token
from importlib.metadata import version
from types import TracebackType
from typing import Final, TypeVarTuple

from opentelemetry import context as contexts
from opentelemetry import metrics, trace
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, Context
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import Span, SpanKind, StatusCode, TracerProvider, set_span_in_context

from .._hooks import Hook, Operation, own_logger

__all__ = ["DURATION_BUCKETS", "observe_operations"]

NAME = "micelio_storage"
VERSION = version(NAME)  # read here: it takes a look at the disk
STREAMS = ("open_read", "open_write")
DIRECTIONS = {  # of the bytes that pass through this process: a copy's do not
    **dict.fromkeys(("get", "open_read", "download_file"), "read"),
    **dict.fromkeys(("put", "open_write", "upload_file", "update"), "write"),
}
LONGEST_KEY = 1024  # characters: more are in no key, but in what was given for one
SESSION = re.compile(r"(?:^|/)sessions/([A-Za-z0-9][A-Za-z0-9._-]{0,127})/")

DURATION_BUCKETS: Final = (
    *(0.0001, 0.0005, 0.001, 0.0025, 0.005),
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
"""Seconds. Small objects in memory and on disk take 0.1 to 1 ms, requests to S3 5 to 500 ms, streams longer."""

Ts = TypeVarTuple("Ts")


def observe_operations(
    *, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None, keys: bool = False
) -> Hook:
    """A hook that gives OpenTelemetry one span, and measurements, for each operation; a reader or writer is one, from
    being opened to being closed. One hook is enough for any number of storages.

    The providers are the process's unless given, also where these are set later; `NoOpTracerProvider()` leaves spans
    out, `NoOpMeterProvider()` metrics. With `keys`, spans have the whole keys, and what errors say, which may name
    them; without, no span says whose file it is, but for the id of the session.
    """
    return _Observing(tracer_provider, meter_provider, keys)


class _Observing:
    """The hook, with its instruments."""

    def __init__(
        self, tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None, keys: bool
    ) -> None:
        self._recipe = tracer_provider, meter_provider, keys
        self.keys = keys
        self.tracer = trace.get_tracer(NAME, VERSION, tracer_provider)
        meter = metrics.get_meter(NAME, VERSION, meter_provider)
        self.duration = meter.create_histogram(
            "micelio.storage.operation.duration",
            "s",
            "How long operations took; a reader or writer from being opened to being closed.",
            explicit_bucket_boundaries_advisory=DURATION_BUCKETS,
        )
        self.io = meter.create_counter("micelio.storage.operation.io", "By", "Bytes that were read or written.")
        self.active = meter.create_up_down_counter(
            "micelio.storage.operation.active", "{operation}", "Operations that are under way, open streams too."
        )
        self._told: set[type[Exception]] = set()

    def __reduce__(self) -> tuple[type[_Observing], tuple[object, ...]]:
        """In another process the instruments are made anew."""
        return type(self), self._recipe

    def __call__(self, operation: Operation) -> AbstractContextManager[None]:
        if contexts.get_value(_SUPPRESS_INSTRUMENTATION_KEY):
            return nullcontext()  # an exporter that uses a storage must not export what that takes
        return _Observed(self, operation)

    def safely(self, step: Callable[[*Ts], object], *arguments: *Ts) -> bool:
        """Whether the step was done. What a provider, processor or exporter raises is logged, each kind once."""
        try:
            step(*arguments)
        except Exception as error:  # noqa: BLE001  # what exporters raise is nobody's to list
            if type(error) not in self._told:
                self._told.add(type(error))
                own_logger.warning("telemetry is incomplete: OpenTelemetry raised (told once)", exc_info=error)
            return False
        return True


class _Observed:
    """One operation. It may be left in another task or thread than it was entered in, where it is a stream."""

    __slots__ = ("_begun", "_context", "_counted", "_observing", "_operation", "_span", "_token", "_what")

    def __init__(self, observing: _Observing, operation: Operation) -> None:
        self._observing = observing
        self._operation = operation
        self._what = {"micelio.storage.operation.name": operation.name, "micelio.storage.driver": operation.driver}
        self._span: Span | None = None
        self._context: Context | None = None
        self._token: Token[Context] | None = None

    def __enter__(self) -> None:
        self._counted = self._observing.safely(self._observing.active.add, 1, self._what)
        self._observing.safely(self._start_span)
        self._begun = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        seconds = time.perf_counter() - self._begun
        if self._token is not None and kind is not GeneratorExit:  # a coroutine is given up in any context
            contexts.detach(self._token)
        if self._counted:
            self._observing.safely(self._observing.active.add, -1, self._what)
        status = self._operation.outcome.status
        result: dict[str, str] = {"micelio.storage.outcome": status}
        if error is not None and status == "failed":
            result["error.type"] = _error_type(error)
        self._observing.safely(self._measure, seconds, self._what | result)
        if self._span is not None:
            self._observing.safely(self._end_span, self._span, result, error)

    def _start_span(self) -> None:
        operation = self._operation
        attributes = self._what.copy()
        session = SESSION.search(operation.key) if operation.key is not None else None
        if session is not None:
            attributes["session.id"] = session[1]
        if self._observing.keys:
            for name, key in (("key", operation.key), ("target", operation.target)):
                if key is not None:
                    attributes[f"micelio.storage.{name}"] = _sayable(key)
        kind = SpanKind.CLIENT if operation.driver == "s3" else SpanKind.INTERNAL
        span = self._observing.tracer.start_span(f"storage.{operation.name}", kind=kind, attributes=attributes)
        self._span, self._context = span, set_span_in_context(span)
        if operation.name not in STREAMS:  # what is done with an open stream is the application's, and no part of it
            self._token = contexts.attach(self._context)

    def _end_span(self, span: Span, result: dict[str, str], error: BaseException | None) -> None:
        try:
            if span.is_recording():
                outcome = self._operation.outcome
                counts = {"bytes": outcome.bytes, "entries": outcome.entries, "attempts": outcome.attempts}
                known = {f"micelio.storage.{name}": count for name, count in counts.items() if count is not None}
                span.set_attributes({**result, **known})
                if "error.type" in result:
                    span.set_status(StatusCode.ERROR, _sayable(str(error)) if self._observing.keys else None)
        finally:
            span.end()

    def _measure(self, seconds: float, attributes: dict[str, str]) -> None:
        self._observing.duration.record(seconds, attributes, self._context)
        moved, direction = self._operation.outcome.bytes, DIRECTIONS.get(self._operation.name)
        if moved is not None and direction is not None:
            attributes = attributes | {"micelio.storage.io.direction": direction}
            self._observing.io.add(moved, attributes, self._context)


def _error_type(error: BaseException) -> str:
    """The class, with its module where that is somebody else's; of a group of one kind, that kind."""
    if isinstance(error, BaseExceptionGroup):
        kinds = {_error_type(each) for each in error.exceptions}
        if len(kinds) == 1:
            return kinds.pop()
    kind = type(error)
    if kind.__module__ == "builtins" or kind.__module__.partition(".")[0] == NAME:
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


def _sayable(text: str) -> str:
    """Text as exporters can encode it: what is refused as a key may be of any length, and no text at all."""
    return text[:LONGEST_KEY].encode("utf-8", "backslashreplace").decode()
