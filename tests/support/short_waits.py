"""Waits between two attempts at a request, made short: which are made, and how many, is what tests look at, and half a
second before each takes minutes in all. What a store itself asks for with Retry-After stays as it is."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.retries.standard import ExponentialBackoff
from botocore.utils import ContainerMetadataFetcher

from micelio_storage.drivers.s3.requests._retries import RetryPolicy, seconds_in

SHARE = 0.05  # 0 to 50 ms before the second attempt, 0 to 100 before the third


def shorten(patch: pytest.MonkeyPatch) -> None:
    of_the_sdk, own = ExponentialBackoff.delay_amount, RetryPolicy.wait

    def wait(policy: RetryPolicy, made: int, retry_after: str) -> float:
        return own(policy, made, retry_after) * (1 if seconds_in(retry_after) else SHARE)

    def delay_amount(backoff: Any, context: Any) -> float:
        return float(of_the_sdk(backoff, context) * SHARE)

    patch.setattr(RetryPolicy, "wait", wait)
    patch.setattr(ContainerMetadataFetcher, "SLEEP_TIME", ContainerMetadataFetcher.SLEEP_TIME * SHARE)
    patch.setattr(ExponentialBackoff, "delay_amount", delay_amount)
