"""The examination of an S3 storage: what is well, what is not, and what to do about it. Nothing here imports the SDK
before a thread does."""

from ._examination import diagnose
from ._findings import Finding, Status

__all__ = ["Finding", "Status", "diagnose"]
