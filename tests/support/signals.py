"""What a test's children do with signals must not depend on how pytest was started."""

from __future__ import annotations

import signal

ENDING = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)


def let_children_be_ended() -> None:
    """Undo for children what `pytest ... &` in a script and `nohup` do to all descendants: have signals ignored.

    An ignored signal stays ignored in every new program; one with a handler is at its default there. So whatever is
    ignored gets a handler that does nothing: this process goes on ignoring it.
    """
    for number in ENDING:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
