"""The server as a process: prints its address, serves until its standard input is closed.

`python -m support.strict_s3 --port 0 --discard`, with PYTHONPATH=tests.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from ._server import ACCESS_KEY, SECRET_KEY, StrictS3


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--access-key", default=ACCESS_KEY)
    parser.add_argument("--secret-key", default=SECRET_KEY)
    parser.add_argument("--region", default="us-east-1")
    parser.add_argument("--bucket", action="append", default=[], help="may be given more than once")
    parser.add_argument("--discard", action="store_true", help="keep sizes and checksums only; serve a pattern")
    parser.add_argument("--completes-twice", action="store_true")
    for name in ("ignores", "refuses", "deny"):
        parser.add_argument(f"--{name}", action="append", default=[], help="may be given more than once")
    return parser.parse_args()


async def _serve(options: argparse.Namespace) -> None:
    arguments = vars(options)
    host, port = arguments.pop("host"), arguments.pop("port")
    server = StrictS3(buckets=arguments.pop("bucket") or ["bucket"], **arguments)
    await server.start(host, port)
    print(server.endpoint, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    await server.stop()


if __name__ == "__main__":
    asyncio.run(_serve(_options()))
