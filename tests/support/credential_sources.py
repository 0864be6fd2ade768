"""Where an SDK gets credentials that expire: a container's role, and the token service of a web identity."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlsplit

from .strict_s3 import Credentials, Hosted, in_a_thread


class CredentialSource(Hosted):
    """Gives `current` to whoever asks in one of the two ways, and logs what was asked: a path, or an action.

    `status`: what it answers with; other than 200, there are no credentials in the answer, but `refusal`.
    """

    def __init__(self, current: Credentials) -> None:
        super().__init__()
        self.current = current
        self.status = 200
        self.refusal = "{}"
        self.log: list[str] = []
        self.authorizations: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        _, target, _ = lines[0].split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        form = dict(parse_qsl(body.decode() or urlsplit(target).query))
        self.log.append(form.get("Action", target))
        self.authorizations.append(headers.get("authorization", ""))
        text = _xml(self.current, form["Action"]) if "Action" in form else _json(self.current)
        answer = (text if self.status == 200 else self.refusal).encode()
        head = f"HTTP/1.1 {self.status} Told\r\nContent-Length: {len(answer)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + answer)
        await writer.drain()


def _iso(credentials: Credentials) -> str:
    return datetime.fromtimestamp(credentials.expires or 0, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _json(credentials: Credentials) -> str:
    return json.dumps({
        "AccessKeyId": credentials.access_key,
        "SecretAccessKey": credentials.secret_key,
        "Token": credentials.session_token,
        "Expiration": _iso(credentials),
    })  # fmt: skip


def _xml(credentials: Credentials, action: str) -> str:
    return f"""<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<{action}Result><Credentials><AccessKeyId>{credentials.access_key}</AccessKeyId>
<SecretAccessKey>{credentials.secret_key}</SecretAccessKey><SessionToken>{credentials.session_token}</SessionToken>
<Expiration>{_iso(credentials)}</Expiration></Credentials>
<AssumedRoleUser><AssumedRoleId>A:s</AssumedRoleId><Arn>arn:aws:sts::1:assumed-role/r/s</Arn></AssumedRoleUser>
</{action}Result></{action}Response>"""


@contextmanager
def running(current: Credentials) -> Iterator[CredentialSource]:
    """The source on a loop in a thread of its own."""
    with in_a_thread(CredentialSource(current)) as source:
        yield source
