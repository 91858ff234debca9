"""boringtun, Cloudflare's WireGuard in Rust, as mitmproxy_rs has it: a server in user space without an interface.

    peer = lab.add(BoringTun(client))        client: a place made by Site.client with dials=False
    peer.echo(client.ipv4)                   TCP and UDP from the gateway through the tunnel and back

It answers handshakes and never begins one: mitmproxy_rs does not run boringtun's timers. It has no PSK either.
"""

import json
import sys
from pathlib import Path

from tests.network.support import _echo_process as echo
from tests.network.support.site import CLIENT_PORT, Client

__all__ = ["BoringTun"]


class BoringTun:
    """One boringtun in the place of a client."""

    def __init__(self, client: Client) -> None:
        """Start it, until it serves."""
        self.client = client
        site = client.site
        script = Path(__file__).with_name("_boringtun_process.py")
        self._process = client.namespace.start_python(script, folder=site.lab.scratch, label=f"boringtun-{client.name}")
        order = {
            "host": client.link.right.address(client.family),
            "port": CLIENT_PORT,
            "private_key": client.keys.private,
            "peer": site.gateway_key,
        }
        try:
            self._process.tell(json.dumps(order))
            assert self._process.next_line() == "ready"
        except BaseException:
            self.close()
            raise

    def echo(self, address: str) -> tuple[float, float]:
        """Send to inner `address` and compare; the shares of bytes over TCP and of datagrams that came back."""
        script = Path(__file__).with_name("_echo_process.py")
        done = self.client.site.namespace.run(sys.executable, script, address, limit=300)
        found = json.loads(done.stdout)
        return found["tcp"] / echo.BYTES, found["udp"] / len(echo.SIZES)

    def close(self) -> None:
        """End it."""
        self._process.stop()
