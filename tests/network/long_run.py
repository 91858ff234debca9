"""The scenario that takes minutes: wireguard-go as initiator with its real timers, all kinds of peers side by side.

    start    one gateway, four clients, a numbered stream each way with each
             ... 120 s, a re-key; 240 s, a re-key; 360 s, a re-key ...
    finish   wait for the third re-key of each, stop the streams, report

Called by the fixture `real_timers`, so that it runs beside the other network tests.
"""

from dataclasses import dataclass

from tests.network.support import Lab, UdpStream, ping_until
from tests.network.support.gateway_token import GatewayToken
from tests.network.support.site import Client, Site

__all__ = ["REKEYS", "LongRun"]

REKEYS = 3
LIMIT = 3 * 125 + 60.0
"""Seconds that three re-keys may take, counted from the wait for them."""


@dataclass(frozen=True)
class Report:
    """One stream: the numbers that were lost, how many arrived, and the handshakes of its client."""

    lost: tuple[int, ...]
    received: int
    handshakes: int


class LongRun:
    """The scenario, running since it was made."""

    rate = 5

    def __init__(self, lab: Lab, token: GatewayToken) -> None:
        self._site = Site(lab, token)
        self._clients = [
            self._site.client("none4"),
            self._site.client("none6", family=6),
            self._site.client("derived4", "derived"),
            self._site.client("object6", "object", family=6),
        ]
        self._site.start()
        self._streams: dict[str, tuple[Client, UdpStream]] = {}
        for client in self._clients:
            client.start()
            ping_until(client.namespace, self._site.inner4)
            here, there = self._site.namespace, client.namespace
            self._stream(
                f"{client.name} from the client", client, UdpStream(there, here, "10.8.0.1", lab.scratch, self.rate)
            )
            self._stream(
                f"{client.name} to the client", client, UdpStream(here, there, client.ipv6, lab.scratch, self.rate)
            )

    def _stream(self, name: str, client: Client, stream: UdpStream) -> None:
        self._streams[name] = client, self._site.lab.add(stream)

    def finish(self) -> dict[str, Report]:
        """Wait for the re-keys that are still to come, and report on each stream by name."""
        for client in self._clients:
            client.wait_for_handshakes(REKEYS + 1, LIMIT)
        reports = {}
        for name, (client, stream) in self._streams.items():
            # Some packets more under the newest session.
            stream.wait_for(self.rate)
            found = stream.finish()
            reports[name] = Report(found.lost, found.received, client.handshakes())
        return reports
