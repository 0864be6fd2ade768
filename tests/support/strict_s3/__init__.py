"""A strict S3 server of our own, to try a client against: it verifies what real S3 verifies, and logs all of it.

Other servers that can be run in a test let much pass: wrong signatures, wrong checksums, races. This one does not.
"""

from ._checksums import Checksum, compute
from ._hosting import Hosted, in_a_thread
from ._server import ACCESS_KEY, SECRET_KEY, Request, StrictS3, running
from ._signatures import Credentials
from ._store import Part, Pattern, Settings, StoredObject, Upload

__all__ = [
    "ACCESS_KEY",
    "SECRET_KEY",
    "Checksum",
    "Credentials",
    "Hosted",
    "Part",
    "Pattern",
    "Request",
    "Settings",
    "StoredObject",
    "StrictS3",
    "Upload",
    "compute",
    "in_a_thread",
    "running",
]
