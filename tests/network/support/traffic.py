"""Ordinary traffic between namespaces: pings, a file over TCP with its hash, iperf3.

Called by tests and benchmarks. Everything waits for a condition with a limit in seconds.
"""

import json
import math
import re
import secrets
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

from tests.network.support.netns import Namespace
from tests.network.support.process import until

LATE = 20


@dataclass(frozen=True)
class PingResult:
    """What a series of echo requests brought; `missing` holds the sequence numbers without an answer.

    `said` is what ping(8) said, where it misses something.
    """

    sent: int
    received: int
    missing: tuple[int, ...] = ()
    said: str = ""

    @property
    def lost(self) -> int:
        """The number of requests without an answer."""
        return self.sent - self.received


def ping(
    namespace: Namespace, address: str, count: int = 5, interval: float = 0.1, size: int = 56, wait: float | None = None
) -> PingResult:
    """Send `count` echo requests with `size` bytes of payload.

    Without `wait` a late answer is no loss: ping goes on asking until it has `count` answers, at most for LATE seconds,
    and the first `count` requests are judged. With `wait` it leaves that many seconds after the last request if
    no answer came, and much sooner after an answer: for requests that shall be lost.
    """
    patience = ["-w", str(LATE + math.ceil(count * interval))] if wait is None else ["-W", str(wait)]
    done = namespace.run(
        *["ping", "-n", "-c", str(count), "-i", str(interval), "-s", str(size), *patience, address],
        check=False,
        limit=count * interval + (wait or LATE) * 2 + 30,
    )
    if " packets transmitted, " not in done.stdout:
        raise RuntimeError(f"ping {address}: {done.stderr or done.stdout}")
    answered = _answered(done.stdout)
    missing = tuple(number for number in range(1, count + 1) if number not in answered)
    return PingResult(count, count - len(missing), missing, done.stdout + done.stderr if missing else "")


def _answered(output: str) -> set[int]:
    return {int(number) for number in re.findall(r"^.*bytes from .*icmp_seq=(\d+)", output, re.MULTILINE)}


def ping_until(namespace: Namespace, address: str, limit: float = 30.0) -> None:
    """Ping until the first answer; raises TimeoutError after `limit` seconds."""
    command = ["ping", "-n", "-c", "1", "-W", "1", address]
    until(lambda: namespace.run(*command, check=False).returncode == 0, f"an echo from {address}", limit, pause=0.1)


class Pinger:
    """Echo requests in the background, ten a second by default; shows outages by sequence number and time."""

    def __init__(self, namespace: Namespace, address: str, scratch: Path, interval: float = 0.1) -> None:
        self._process = namespace.start(
            *["ping", "-n", "-D", "-i", str(interval), address],
            folder=scratch,
            label=f"ping-{secrets.token_hex(4)}",
            env={"LC_ALL": "C"},
        )

    def answers(self) -> list[tuple[float, int]]:
        """Give (unix time in seconds, sequence number) of each answer so far."""
        found = re.findall(r"^\[([\d.]+)\] \d+ bytes from .*icmp_seq=(\d+)", self._process.stdout(), re.MULTILINE)
        return [(float(when), int(sequence)) for when, sequence in found]

    def answer_after(self, moment: float, limit: float = 30.0) -> float:
        """Wait for the first answer that came after `moment` (unix time) and give its time."""

        def first() -> float | None:
            return next((when for when, _ in self.answers() if when > moment), None)

        return until(first, "an echo", limit)

    def stop(self) -> PingResult:
        """End it and give the account; what was sent after the last request with an answer is not called missing."""
        self._process.signal(signal.SIGINT)
        self._process.wait()
        found = re.search(r"(\d+) packets transmitted, (\d+) received", self._process.stdout())
        if found is None:
            raise RuntimeError(f"ping: {self._process.stderr() or self._process.stdout()}")
        answered = _answered(self._process.stdout())
        missing = tuple(number for number in range(1, max(answered, default=0)) if number not in answered)
        return PingResult(int(found[1]), len(answered), missing)

    def close(self) -> None:
        """End it."""
        self._process.stop()


@dataclass(frozen=True)
class CopyResult:
    """A finished copy: bytes that arrived, SHA-256 of both sides in hexadecimal, seconds."""

    bytes: int
    sent_sha256: str
    received_sha256: str
    seconds: float

    @property
    def intact(self) -> bool:
        """Whether the same bytes arrived."""
        return self.sent_sha256 == self.received_sha256


class FileCopy:
    """A file of random bytes copied over TCP in the background; `wait` for the result."""

    def __init__(
        self, sender: Namespace, receiver: Namespace, address: str, scratch: Path, size: int, rate: int = 0
    ) -> None:
        """Start to copy `size` bytes to `address`, one of the receiver's; `rate` in bytes a second, 0 is unbounded."""
        self.size = size
        self._label = f"copy-{secrets.token_hex(4)}"
        self._target = scratch / f"{self._label}.data"
        script = Path(__file__).with_name("_copy_process.py")
        words = ["receive", address, str(self._target)]
        self._receiver = receiver.start_python(script, *words, folder=scratch, label=f"{self._label}-receive")
        try:
            port = self._receiver.next_line()
            words = ["send", address, port, str(size), str(rate)]
            self._sender = sender.start_python(script, *words, folder=scratch, label=f"{self._label}-send")
        except BaseException:
            self._receiver.stop()
            raise

    def arrived(self) -> int:
        """Give the number of bytes that stand in the receiver's file so far."""
        return self._target.stat().st_size if self._target.exists() else 0

    def wait_for(self, share: float, limit: float = 60.0) -> None:
        """Wait until a share (0 to 1) of the file has arrived."""
        until(lambda: self.arrived() >= share * self.size, f"{share:.0%} of the file", limit)

    def wait(self, limit: float = 120.0) -> CopyResult:
        """Wait for the end; raises TimeoutError after `limit` seconds, RuntimeError when a side failed."""
        sent = cast("dict[str, Any]", json.loads(self._sender.next_line(limit)))
        received = cast("dict[str, Any]", json.loads(self._receiver.next_line(limit)))
        self.close()
        return CopyResult(received["bytes"], sent["sha256"], received["sha256"], sent["seconds"])

    def close(self) -> None:
        """End both sides and remove the file."""
        self._sender.stop()
        self._receiver.stop()
        self._target.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def iperf3(
    server: Namespace, client: Namespace, address: str, scratch: Path, seconds: int = 5, options: str = ""
) -> dict[str, Any]:
    """Run iperf3 from `client` to `address` of `server`; gives its JSON (see ["end"]["sum_received"])."""
    label = f"iperf3-{secrets.token_hex(4)}"
    command = ["iperf3", "--server", "--one-off", "--forceflush", "--bind", address]
    with server.start(*command, folder=scratch, label=label) as process:
        until(lambda: "listening" in process.stdout(), "iperf3 listens")
        words = ["iperf3", "--client", address, "--time", str(seconds), "--json", *options.split()]
        done = client.run(*words, limit=seconds + 60)
    return cast("dict[str, Any]", json.loads(done.stdout))
