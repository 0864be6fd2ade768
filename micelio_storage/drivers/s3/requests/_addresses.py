"""Where the store is, and whose. No I/O."""

from __future__ import annotations


def is_amazon(endpoint: str) -> bool:
    """Whether the endpoint is one of AWS's own."""
    host = endpoint.partition("://")[2].partition("/")[0].partition(":")[0]
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn"))
