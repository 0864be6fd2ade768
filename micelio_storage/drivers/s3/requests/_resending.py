"""Which requests may be sent again: a write with a condition only after a failure that shows that it was not done.

Sent again after it was done, it would be refused by its own doing; or, when somebody has deleted the object meanwhile,
bring it back. So the SDK and the HTTP client, which know nothing of that, are kept from it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

import aiohttp
from botocore.exceptions import ClientError, ConnectTimeoutError, ProxyConnectionError

LONGEST_WAIT = 20.0  # seconds between two attempts: the SDK's own

# Of the request under way:
once: ContextVar[bool] = ContextVar("micelio_s3_once", default=False)  # whether it has a condition
made: ContextVar[int] = ContextVar("micelio_s3_made", default=0)  # attempts, before the SDK was asked
sent_whole: ContextVar[bool] = ContextVar("micelio_s3_sent_whole", default=True)  # whether the store may have all of it

# By these S3 says that it has not begun, or has not got all of the body. All other 500s may come after the deed.
NOT_DONE = frozenset({
    "SlowDown", "ServiceUnavailable", "Throttling", "ThrottlingException", "TooManyRequests", "RequestLimitExceeded",
    "RequestTimeout",
})  # fmt: skip


def is_conditional(operation: str, parameters: Mapping[str, Any], headers: Mapping[str, str] | None) -> bool:
    """Whether the request is a write with a condition."""
    if operation in ("get_object", "head_object"):
        return False
    return bool(headers) or not parameters.keys().isdisjoint(("IfMatch", "IfNoneMatch"))


def seconds_to_wait(
    most_attempts: int,
    *,
    response: tuple[Any, Mapping[str, Any]] | None,
    caught_exception: Exception | None,
    attempts: int,
    operation: Any,
    **_: object,
) -> float | None:
    """Asked by the SDK, after an attempt, whether to send the request again, and when: raises if that could do it
    twice; None leaves it to the SDK, which knows neither 429 nor Retry-After."""
    attempts += made.get()
    if response is None:
        if caught_exception is not None and made.get() and attempts >= most_attempts:
            raise caught_exception
        if once.get() and caught_exception is not None and not was_not_done(caught_exception):
            raise caught_exception
        return None
    status, headers = _status_of(response[1]), response[0].headers
    error = ClientError(response[1], operation.name)
    if once.get() and status >= 500 and not was_not_done(error):
        raise error
    if status in (301, 302, 307) and operation.name == "HeadBucket" and "x-amz-bucket-region" not in headers:
        raise error  # the SDK asks this to learn the region, and after such an answer it would ask again, for ever
    if made.get() and attempts >= most_attempts and (status >= 500 or was_not_done(error)):
        made_so_far = {"RetryAttempts": attempts - 1, "HTTPStatusCode": status}
        raise ClientError({**response[1], "ResponseMetadata": made_so_far}, operation.name)
    if attempts >= most_attempts or status not in (429, 503):
        return None
    retry_after = str(headers.get("Retry-After", ""))
    longest = min(float(retry_after) if retry_after.isdecimal() else 2.0 ** (attempts - 1), LONGEST_WAIT)
    if retry_after.isdecimal():
        return longest
    return random.uniform(0, longest) if status == 429 else None


def was_not_done(error: Exception) -> bool:
    """Whether the failure shows that the store has not done what it was asked for: it says so, or was never asked, or
    got a part of the body only."""
    if isinstance(error, ClientError):
        return error.response.get("Error", {}).get("Code") in NOT_DONE or _status_of(error.response) == 429
    if isinstance(error, ConnectTimeoutError | ProxyConnectionError) or not sent_whole.get():
        return True
    cause = getattr(error, "kwargs", {}).get("error")  # the SDK calls all broken connections the same
    return isinstance(cause, aiohttp.ClientConnectorError)


def _status_of(answer: Mapping[str, Any]) -> int:
    return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
