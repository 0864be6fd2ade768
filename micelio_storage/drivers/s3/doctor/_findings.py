"""What an examination of a store says: one value for each thing that was looked at. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from ....driver import AccessDeniedError, NotSupportedError, StorageError

Status: TypeAlias = Literal["ok", "note", "warning", "failed", "unknown"]
"""How it is with something: only "failed" keeps the storage from working."""

_LONGEST_WORDS = 200  # characters of what a server says that a finding repeats


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at (`check`), how it is (`status`, and `text` in words), and what to do about it (`advice`, empty
    if there is nothing to do)."""

    check: str
    status: Status
    text: str
    advice: str = ""


def refusal(check: str, error: StorageError, action: str, place: str) -> Finding:
    """Why the store did not do something for which the credentials need the action (of IAM)."""
    if isinstance(error, AccessDeniedError):
        advice = f"allow {action}: `micelio-storage policy iam {place}` prints a policy"
        return Finding(check, "failed", "the store refuses it to these credentials", advice)
    return Finding(check, "failed", error.message, "try again later" if error.retryable else "")


def not_told(check: str, error: StorageError, action: str) -> Finding:
    """A setting of the bucket that the store does not say. Nothing fails without it."""
    if isinstance(error, AccessDeniedError):
        return Finding(check, "unknown", f"these credentials may not look: that takes {action}")
    if isinstance(error, NotSupportedError):
        return Finding(check, "unknown", "the store has no such setting")
    return Finding(check, "unknown", f"the store does not say: {error.message}")


def answer_behind(error: StorageError) -> dict[str, Any]:
    """The answer that the error was made of; empty if there was none."""
    answer = getattr(error.__cause__, "response", None)
    return answer if isinstance(answer, dict) else {}


def headers_of(answer: dict[str, Any]) -> dict[str, str]:
    """The headers of an answer, with their names in small letters."""
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return {str(name).lower(): str(value) for name, value in headers.items()}


def shown(text: object) -> str:
    """What a server says, as a terminal may get it."""
    words = ascii(str(text))[1:-1]
    return words if len(words) <= _LONGEST_WORDS else words[:_LONGEST_WORDS] + "..."
