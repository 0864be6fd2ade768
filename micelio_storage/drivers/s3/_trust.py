"""What an S3 storage claims to do, with conditions and without."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...driver import Capabilities

ALL_CONDITIONS = Capabilities(signed_urls=True, fresh_etags=False, exact_times=False)
NO_CONDITIONS = replace(ALL_CONDITIONS, if_absent=False, if_match=False, delete_if_match=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What was found out about a store. `copies`: it keeps conditions on CopyObject too, which many ignore that keep
    those on writes."""

    capabilities: Capabilities
    copies: bool = False
