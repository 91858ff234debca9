"""A UDP relay that stands between two peers and spoils packets on command.

    left peer  <->  relay's left socket | rules for each direction | relay's right socket  <->  target

To the left peer the relay's left address is the endpoint, to the target the relay's right one. Answers go to wherever
the left peer last sent from. The process itself is _relay_process.py; what it decides comes from a seed.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, cast

from tests.network.support.netns import End

Direction = Literal["to_right", "to_left"]


@dataclass(frozen=True)
class Rules:
    """What happens to the packets of one direction; probabilities from 0 to 1, times in seconds.

    `drop_next` loses that many packets to come, `drop_types` every packet whose first byte is listed (WireGuard's
    message types), `reorder` holds a packet back until the next one has passed or `hold` seconds have.
    """

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    hold: float = 0.2
    delay: float = 0.0
    jitter: float = 0.0
    drop_next: int = 0
    drop_types: tuple[int, ...] = ()


@dataclass(frozen=True)
class Counts:
    """Packets of one direction since the start."""

    received: int
    forwarded: int
    dropped: int
    duplicated: int
    reordered: int


class Relay:
    """The relay's process, told what to do over its standard input."""

    def __init__(self, left: End, right: End, target: str, scratch: Path, family: int = 4, seed: int = 1) -> None:
        """Start it between two ends of one namespace; `target` is `address:port` (IPv6 in brackets)."""
        if left.namespace is not right.namespace:
            raise ValueError("both ends of a relay stand in one namespace")
        address, _, port = target.rpartition(":")
        self._process = left.namespace.start_python(
            Path(__file__).with_name("_relay_process.py"),
            *[left.address(family), right.address(family), address.strip("[]"), port, str(seed)],
            folder=scratch,
            label=f"relay-{left.namespace.name}-{left.interface}",
        )
        try:
            ports = self._process.next_line().split()
        except BaseException:
            self._process.stop()
            raise
        self._right, self._family = right, family
        self.left_endpoint = left.endpoint(family, int(ports[0]))
        self.right_endpoint = right.endpoint(family, int(ports[1]))

    def rule(self, direction: Direction | None = None, rules: Rules | None = None) -> None:
        """Set the rules of a direction (None: both); without rules everything passes. Holds once it returns."""
        for each in ("to_right", "to_left") if direction is None else (direction,):
            fields = dataclasses.asdict(rules or Rules())
            self._process.ask({"verb": "rule", "direction": each, "rules": fields})

    def counts(self, direction: Direction) -> Counts:
        """Give the counters of a direction."""
        answer = self._process.ask({"verb": "counts", "direction": direction})
        return Counts(**cast("dict[str, int]", answer))

    def roam(self) -> None:
        """Speak to the target from another port: to it the left peer has moved. Nothing on its way is lost."""
        port = cast("int", self._process.ask({"verb": "roam"}))
        self.right_endpoint = self._right.endpoint(self._family, port)

    def captured(self, direction: Direction) -> list[bytes]:
        """Give the packets that came in for a direction, at most the last 4,096, before any rule."""
        answer = self._process.ask({"verb": "captured", "direction": direction})
        return [bytes.fromhex(packet) for packet in cast("list[str]", answer)]

    def inject(self, direction: Direction, packet: bytes) -> None:
        """Send a packet of the caller's own onwards in a direction, past the rules."""
        self._process.ask({"verb": "inject", "direction": direction, "packet": packet.hex()})

    def close(self) -> None:
        """End it."""
        self._process.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
