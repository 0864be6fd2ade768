"""`micelio-storage serve`: the sessions of a storage on a page, for people with a browser."""

from __future__ import annotations

from ._command import serve

__all__ = ["serve"]
