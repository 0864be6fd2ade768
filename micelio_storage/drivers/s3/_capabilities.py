"""What an S3 storage claims to do until it is known better: with conditional writes, and without."""

from __future__ import annotations

from dataclasses import replace

from ...driver import Capabilities

ALL_CONDITIONS = Capabilities(signed_urls=True, fresh_etags=False, exact_times=False)
NO_CONDITIONS = replace(ALL_CONDITIONS, if_absent=False, if_match=False, if_match_streams=False, delete_if_match=False)
