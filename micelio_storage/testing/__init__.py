"""The conformance kit: one list of promises for every driver, to be run by any test runner, or by none.

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    async def test_my_driver_keeps_its_promises(check): await run(check, MyDriver(...))

All checks always run. Where drivers may differ, `capabilities` decides which answer is right. `BROKEN_DRIVERS` are the
kit's own test: each is found by the checks named with it, and by no others.
"""

from __future__ import annotations

from ._expect import Check, CheckFailed
from ._run import Result, run, run_all
from .broken._all import BROKEN_DRIVERS
from .checks._all import CHECKS

__all__ = ["BROKEN_DRIVERS", "CHECKS", "Check", "CheckFailed", "Result", "run", "run_all"]
