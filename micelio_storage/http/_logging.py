"""Signed URLs out of access logs: whoever reads a log could use them."""

from __future__ import annotations

import logging
import re
from collections.abc import MutableMapping

# The signature alone lets somebody in; the token is part of temporary credentials.
_SECRETS = re.compile(r"(?i)\b(signature|x-amz-signature|x-amz-security-token)=[^&\s\"']*")
HIDDEN = r"\1=..."


class HideSignatures(logging.Filter):
    """Takes the signatures of signed URLs out of what is logged, ours and those of S3.

    ```python
    import logging
    from micelio_storage.http import HideSignatures

    for name in ("uvicorn.access", "hypercorn.access", "aiohttp.access", "httpx", "httpcore"):
        logging.getLogger(name).addFilter(HideSignatures())
    ```

    The arguments of a record keep their kinds and number, for formatters count on them (uvicorn's on five).
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record, and let it pass."""
        if isinstance(record.msg, str):
            record.msg = _hidden(record.msg)
        if isinstance(record.args, tuple):
            record.args = tuple(_hidden(value) for value in record.args)
        elif isinstance(record.args, MutableMapping):  # hypercorn's, which is a kind of its own
            for name, value in list(record.args.items()):
                record.args[name] = _hidden(value)
        return True


def _hidden(value: object) -> object:
    if isinstance(value, str) and "=" in value:
        return _SECRETS.sub(HIDDEN, value)
    if isinstance(value, bytes) and b"=" in value:
        return _SECRETS.sub(HIDDEN, value.decode("latin-1")).encode("latin-1")
    return value
