"""What the SDK asks after each of its attempts, answered by the one policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from .._answers import count_in
from .._failures import RefusalError
from .._retries import RetryPolicy, status_of, this_attempt


class Retries:
    """Knows what the SDK does not: writes that may be done all the same, 429, Retry-After, attempts before its own."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy

    def seconds_to_wait(
        self,
        *,
        response: tuple[Any, Mapping[str, Any]] | None,
        caught_exception: Exception | None,
        attempts: int,
        operation: Any,
        **_: object,
    ) -> float | None:
        """Asked whether to send the request again, and when: raises if that could do it twice; None leaves it to the
        SDK."""
        attempt = this_attempt()
        is_own = operation.name != "HeadBucket"  # by which the SDK asks, in between, for the bucket's region
        made = attempts + attempt.made
        is_last = attempt.made > 0 and made >= self._policy.attempts
        if response is None:
            if is_own:
                attempt.failed(caught_exception)
            if caught_exception is not None and (
                is_last or (attempt.conditional and not attempt.was_not_done(caught_exception))
            ):
                raise caught_exception
            return None
        status, headers = status_of(response[1]), response[0].headers
        refusal, error = RefusalError(response[1], operation.name), ClientError(response[1], operation.name)
        if is_own and status >= 300:
            attempt.failed(refusal)
        was_not_done = attempt.was_not_done(refusal)
        if attempt.conditional and status >= 500 and not was_not_done:
            raise error
        if status in (301, 302, 307) and not is_own and "x-amz-bucket-region" not in headers:
            raise error  # the SDK asks this to learn the region, and after such an answer it would ask again, for ever
        if is_last and (status >= 500 or was_not_done):
            made_so_far = {"RetryAttempts": made - 1, "HTTPStatusCode": status}
            raise ClientError({**response[1], "ResponseMetadata": made_so_far}, operation.name)
        retry_after = str(headers.get("Retry-After", ""))
        if made < self._policy.attempts and (status == 429 or (status == 503 and count_in(retry_after) is not None)):
            return self._policy.wait(made, retry_after)
        return None
