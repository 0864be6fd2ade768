"""The S3 driver's door. Nothing behind it imports the SDK before a thread does."""

from ._driver import S3Driver, abort_uploads

__all__ = ["S3Driver", "abort_uploads"]
