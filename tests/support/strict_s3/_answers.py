"""XML, out and in: what S3 answers with, and the documents it is sent."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from urllib.parse import quote
from xml.sax.saxutils import escape

from ._errors import S3Error
from ._http import Answer

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
Value = object  # a text, a number, a truth, a mapping of elements, or a list of one of these
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def xml_answer(root: str, elements: Mapping[str, Value], *, headers: Mapping[str, str] | None = None) -> Answer:
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<{root} xmlns="{NAMESPACE}">{render(elements)}</{root}>'
    return Answer(200, {"Content-Type": "application/xml", **(headers or {})}, text.encode())


def render(elements: Mapping[str, Value]) -> str:
    """Elements in order; None is left out, a list repeats its element."""
    return "".join(
        f"<{name}>{_inner(one)}</{name}>"
        for name, value in elements.items()
        if value is not None
        for one in (value if isinstance(value, list) else [value])
    )


def _inner(value: Value) -> str:
    if isinstance(value, Mapping):
        return render(value)
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    if _NOT_XML.search(text):
        raise S3Error("InternalError", "A name cannot be written in XML 1.0; ask with encoding-type=url.")
    return escape(text, {'"': "&quot;", "\r": "&#13;"})


def legible(text: str) -> str:
    """The text without what XML cannot carry: for keys that are only echoed."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def error_answer(error: S3Error, resource: str, request_id: str) -> Answer:
    elements = {"Code": error.code, "Message": error.message, **error.details}
    elements |= {"Resource": resource, "RequestId": request_id}
    safe = {name: legible(value) for name, value in elements.items()}
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{render(safe)}</Error>'
    body = b"" if error.status == 304 else text.encode()
    return Answer(error.status, {"Content-Type": "application/xml"} if body else {}, body)


def iso_time(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def url_encoded(text: str) -> str:
    """As encoding-type=url has it: a space is a plus, and the slash stays."""
    return quote(text, safe="/ -_.*").replace("~", "%7E").replace(" ", "+")


def parse_xml(body: bytes, root: str) -> ET.Element:
    """The document's root, with namespaces taken off; MalformedXML when it is another document."""
    try:
        element = ET.fromstring(body)
    except (ET.ParseError, ValueError) as error:
        raise S3Error("MalformedXML") from error
    for one in element.iter():
        one.tag = one.tag.rpartition("}")[2]
    if element.tag != root:
        raise S3Error("MalformedXML")
    return element


def child(element: ET.Element, name: str) -> str:
    """The text of an element that has to be there."""
    if (text := element.findtext(name)) is None:
        raise S3Error("MalformedXML")
    return text


def only_children(element: ET.Element, known: Iterable[str]) -> None:
    if unknown := {one.tag for one in element} - set(known):
        raise S3Error("MalformedXML", f"Unknown elements: {sorted(unknown)}")
