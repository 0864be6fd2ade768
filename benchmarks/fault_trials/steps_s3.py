"""What a library does on S3 while something breaks. Steps answer with plain figures; nothing is judged here."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from .cancelling import cancel_often
from .libraries import NotOfferedError
from .libraries_s3 import S3, S3_LIBRARIES
from .steps import Answer, run

MIB = 1 << 20
CHUNKS = 16  # of a MiB: three parts and a bit
NEW = b"new" * 1000
FLIPPED = 1 * MIB  # bytes of the object of which a bit is turned over
RANGE = (100_000, 600_000)  # bytes
NO_ETAG = '"00000000000000000000000000000000"'


def write_conditionally(library: str, *, key: str, etag: str | None, taken: str) -> Answer:
    """Write with a condition that holds, to the key whose answer gets lost; and before, to see whether conditions are
    kept at all, with one that does not hold, to a key that is `taken`."""

    async def step() -> Answer:
        store = await _opened(library)
        refused = store.create(taken, NEW) if etag is None else store.replace(taken, NEW, NO_ETAG)
        control, _ = await _outcome(store, refused)
        if control == "not offered":
            return {"control": control}
        outcome, error = await _outcome(
            store, store.create(key, NEW) if etag is None else store.replace(key, NEW, etag)
        )
        return {"control": control, "outcome": outcome, "error": error}

    return run(step())


def read_flipped(library: str, *, key: str, part: bool) -> Answer:
    """Put an object and read it, or a part of it, while one bit of the answer is turned over."""
    data = random.Random(key).randbytes(FLIPPED)

    async def step() -> Answer:
        store = await _opened(library)
        await store.put(key, data)
        try:
            found = await store.get_range(key, *RANGE) if part else await store.get(key)
        except NotOfferedError:
            return {"outcome": "not offered"}
        except Exception as error:  # noqa: BLE001  # whatever it raises is what its user gets
            return {"outcome": "error", "error": _name(error)}
        return {"outcome": "right" if found == (data[slice(*RANGE)] if part else data) else "wrong"}

    return run(step())


def cancel_streams_s3(library: str, *, times: int) -> Answer:
    """Cancel streamed puts over an old object."""
    import boto3
    from botocore.config import Config

    async def step() -> Answer:
        store = await _opened(library)
        client = boto3.client("s3", config=Config(s3={"addressing_style": "path"}))

        def size(key: str) -> int | None:
            try:
                return int(client.head_object(Bucket=store.bucket, Key=key)["ContentLength"])
            except client.exceptions.ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                    return None
                raise

        answer = await cancel_often(store, size, times=times, chunk=MIB, chunks=CHUNKS, latest=0.06)
        del answer["keys"]
        return answer

    return run(step())


async def _opened(library: str) -> S3:
    store = S3_LIBRARIES[library].make()
    assert isinstance(store, S3)
    await store.open()
    return store


async def _outcome(store: S3, write: Coroutine[Any, Any, None]) -> tuple[str, str]:
    """What its user is told, and by which error."""
    try:
        await write
        return "done", ""
    except NotOfferedError:
        return "not offered", ""
    except Exception as error:  # noqa: BLE001  # whatever it raises is what its user gets
        said = f"{_name(error)}: {error}"
        return "conflict" if any(part in said for part in store.conflicts) else "error", _name(error)


def _name(error: Exception) -> str:
    return type(error).__name__


STEPS: Mapping[str, Callable[..., Answer]] = {
    step.__name__: step for step in (write_conditionally, read_flipped, cancel_streams_s3)
}
