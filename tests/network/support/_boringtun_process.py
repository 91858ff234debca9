"""boringtun as a child process: what reaches it through the tunnel by TCP or UDP goes back as it came.

One line of JSON comes on standard input: host, port, private_key and peer (keys in base64). It answers `ready`, and
ends with its input.
"""

import asyncio
import contextlib
import json
import sys
from typing import TYPE_CHECKING

from mitmproxy_rs.wireguard import start_wireguard_server

if TYPE_CHECKING:
    from mitmproxy_rs import Stream


async def _echo(stream: "Stream") -> None:
    with contextlib.suppress(OSError):
        while data := await stream.read(65535):
            stream.write(data)
            await stream.drain()
        stream.close()  # type: ignore[no-untyped-call]


async def main() -> None:
    """Serve."""
    order = json.loads(sys.stdin.readline())
    server = await start_wireguard_server(
        order["host"], order["port"], order["private_key"], [order["peer"]], _echo, _echo
    )
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.close()


asyncio.run(main())
