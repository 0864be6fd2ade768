"""Work on a storage by processes that are killed, and a model that knows what must be there afterwards."""

from __future__ import annotations

from ._model import Kind, Loss
from ._run import MOST, PROCESSES, SESSIONS, TASKS, Report, Tell, soak

__all__ = ["MOST", "PROCESSES", "SESSIONS", "TASKS", "Kind", "Loss", "Report", "Tell", "soak"]
