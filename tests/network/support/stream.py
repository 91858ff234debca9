"""A numbered UDP stream between two namespaces, and the account of what arrived.

    sender (rate, numbers 0, 1, 2 ...)  ->  tunnel under test  ->  receiver (notes number and time)

The processes are _stream_process.py. Used to show that a re-key or a restart loses nothing.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

from tests.network.support.netns import Namespace
from tests.network.support.process import until


@dataclass(frozen=True)
class StreamReport:
    """What a stream has lived through; packets by number, `longest_gap` in seconds between two arrivals."""

    sent: int
    received: int
    lost: tuple[int, ...]
    duplicates: int
    reordered: int
    longest_gap: float


class UdpStream:
    """A sender and a receiver in the background; `finish` stops the sender and gives the report."""

    def __init__(
        self,
        sender: Namespace,
        receiver: Namespace,
        address: str,
        scratch: Path,
        rate: int = 200,
        size: int = 200,
    ) -> None:
        """Start to send `rate` packets a second of `size` bytes to `address`, which is one of the receiver's."""
        script = Path(__file__).with_name("_stream_process.py")
        label = f"stream-{id(self):x}"
        self._receiver = receiver.start_python(script, "receive", address, folder=scratch, label=f"{label}-receive")
        try:
            port = self._receiver.next_line()
            words = ["send", address, port, str(rate), str(size)]
            self._sender = sender.start_python(script, *words, folder=scratch, label=f"{label}-send")
        except BaseException:
            self._receiver.stop()
            raise

    def received(self) -> int:
        """Give the number of different packets that have arrived so far."""
        return cast("int", self._receiver.ask({"verb": "count"}))

    def wait_for(self, packets: int, limit: float = 30.0) -> None:
        """Wait until that many more packets have arrived."""
        goal = self.received() + packets
        until(lambda: self.received() >= goal, f"{packets} more packets of the stream", limit, pause=0.1)

    def finish(self, quiet: float = 3.0) -> StreamReport:
        """Stop sending, wait until all has arrived or nothing does for `quiet` seconds, and report."""
        sent = cast("int", self._sender.ask({"verb": "stop"}))
        answer = self._receiver.ask({"verb": "finish", "sent": sent, "quiet": quiet}, limit=60.0)
        found = cast("dict[str, Any]", answer)
        self.close()
        return StreamReport(
            sent=sent,
            received=found["received"],
            lost=tuple(found["lost"]),
            duplicates=found["duplicates"],
            reordered=found["reordered"],
            longest_gap=found["longest_gap"],
        )

    def close(self) -> None:
        """End both processes."""
        self._sender.stop()
        self._receiver.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
