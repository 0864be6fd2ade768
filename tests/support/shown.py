"""All that an error or a log may show to somebody: what is secret has to be in none of it."""

from __future__ import annotations

import logging
import pickle
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

SDK = ("aiobotocore", "botocore")  # its debug log shows requests with all of their headers


@contextmanager
def everything_logged() -> Iterator[list[logging.LogRecord]]:
    """All records of all loggers, debugging or not."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield records
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


def not_of_the_sdk(records: list[logging.LogRecord]) -> list[str]:
    """What was logged by anybody else."""
    return [str(record.__dict__) for record in records if not record.name.startswith(SDK)]


def everything_said(error: BaseException) -> str:
    """The error as logs, reports and debuggers show it, with the variables of every frame."""
    frames = traceback.TracebackException.from_exception(error, capture_locals=True).format()
    return "".join([*frames, repr(error), repr(vars(error)), repr(error.__cause__), str(pickle.dumps(error))])
