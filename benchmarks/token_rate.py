"""Handshakes a second as responder against what the bare token does through the same three calls.

    this process, as the handshake process    --- initiations, a window of them ---> custodian --- SoftHSM
                  as egress and ingress       <--- session keys ------------------      |          behind the rig,
    _bare_token   N threads that derive       ------------------------------------------+--------- which adds delay

A handshake takes two derives without the static-static cache, and one with it: so many times slower than its derives
the bare token is what a perfect custodian would reach. Both are measured in turn, with the same number of sessions and
the same delay added to each C call, and in the same round what `least` takes at that rhythm. The CPU time outside the
token is the custodian's less what its threads spend inside the module's calls, which the rig adds up in the same
sample. Called by __main__, which has asked wireguard-go for its rate before.
"""

import contextlib
import itertools
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.least import Measure, least_work
from benchmarks.ratios import Ratio, interleave, ratio_of
from tests.token.custodian_process import UID, Custodian, GatewayToken, state_folder
from tests.token.rig import Rig, rig_token
from tests.unit.custodian.support import SoftwarePeer
from wghsm.ipc import ChannelKind
from wghsm.ipc import messages as m
from wghsm.softhsm_setup import SoftHsmToken

__all__ = ["VALUES", "Cell", "cells", "measure_token"]

WINDOW = 64
"""Handshakes under way: no token is without work, and results can be gathered as beside a storm."""
PEERS = 1024
"""So many that no peer comes again while a thread of a busy machine still holds its last handshake, or too soon."""
GRAIN = 1 << 24
"""Nanoseconds between two timestamps of a peer."""
PATIENCE = 60.0

VALUES = ("rate", "of_wireguard_go", "cpu_outside", "cpu_least")
"""What is measured of a cell."""

_KEYS = (ChannelKind.CUSTODIAN_EGRESS, ChannelKind.CUSTODIAN_INGRESS)


@dataclass(frozen=True)
class Cell:
    """One line of the result: `delay` in milliseconds for each C call, worker sessions, with the cache or without."""

    delay: int
    sessions: int
    cached: bool

    @property
    def name(self) -> str:
        """As the documents name it."""
        return f"{self.delay}ms.{self.sessions}.{'cached' if self.cached else 'plain'}"

    @property
    def derives(self) -> int:
        """Derives of a handshake."""
        return 1 if self.cached else 2


def cells(*, quick: bool) -> list[Cell]:
    """What is measured."""
    delays, sessions = ((0, 1), (2,)) if quick else ((0, 1, 10), (1, 2, 4, 8))
    return [Cell(*one) for one in itertools.product(delays, sessions, (True, False))]


def measure_token(
    rounds: int, seconds: float, wireguard_go: float, say: Callable[[str], None], *, quick: bool = False
) -> dict[str, Ratio]:
    """Ratios of each cell.

    rate (1 is what the bare token allows), of_wireguard_go (the same rate as a share of `wireguard_go`, handshakes that
    it answers a second), cpu_outside (the CPU time outside the token, as a share of that inside) and cpu_least (the
    same as a multiple of what no custodian can do without).
    """
    wanted = cells(quick=quick)
    found: dict[str, Ratio] = {}
    with contextlib.ExitStack() as stack:
        rig = stack.enter_context(rig_token(uid=UID))
        for command in (("key", "generate", "gateway"), ("psk", "derive-root", "root")):
            _wghsm(rig.made, *command)
        bare = stack.enter_context(_bare_token(rig.made, max(cell.sessions for cell in wanted)))
        token = GatewayToken(rig.made, bare.public_key, b"")
        load = _Load(bare.public_key)
        least = stack.enter_context(least_work())
        for (sessions, cached), group in itertools.groupby(
            sorted(wanted, key=lambda cell: (cell.sessions, cell.cached, cell.delay)),
            lambda cell: (cell.sessions, cell.cached),
        ):
            with (
                state_folder() as state,
                Custodian(token, state, peers=load.peers, cache=cached, sessions=sessions) as custodian,
            ):
                custodian.ready()
                gateway = _Gateway(custodian, load, rig.rig)
                # Every peer once: afterwards the cache has all it will ever have.
                gateway.warm_up(PEERS)
                for cell in group:
                    say(f"{cell.name}: custodian / bare token")
                    on = _Contenders(gateway, bare, least, wireguard_go)
                    found |= _measure(cell, on, rounds, seconds, say)
    return {f"{cell.name}.{value}": found[f"{cell.name}.{value}"] for cell in wanted for value in VALUES}


def _measure(
    cell: Cell, on: "_Contenders", rounds: int, seconds: float, say: Callable[[str], None]
) -> dict[str, Ratio]:
    rig = on.gateway.rig
    rig.clear()
    if cell.delay:
        rig.slow(cell.delay / 1000)

    def ours() -> dict[str, float]:
        run = on.gateway.sample(seconds)
        return {
            "handshakes/s": run.done / run.seconds,
            "CPU ms": (run.inside + run.outside) * 1000 / run.done,
            "inside": run.inside * 1000 / run.done,
            "outside": run.outside * 1000 / run.done,
        }

    def theirs() -> dict[str, float]:
        answer = on.bare.ask(cell.sessions, seconds)
        return {
            "handshakes/s": answer["derives"] / answer["seconds"] / cell.derives,
            "CPU ms": answer["cpu"] * 1000 / answer["derives"] * cell.derives,
            "least CPU ms": on.least(cell.delay, cell.derives, cell.sessions, WINDOW, seconds),
        }

    samples = interleave(ours, theirs, rounds, say)
    inside, outside = ([sample[name] for sample in samples.ours] for name in ("inside", "outside"))
    least = [sample["least CPU ms"] for sample in samples.theirs]
    say(f"outside the token {median(outside):.3f} ms, the least {median(least):.3f} ms")
    rates = [sample["handshakes/s"] for sample in samples.ours]
    of_wireguard_go = Ratio(
        tuple(rate / on.wireguard_go for rate in rates), median(rates), on.wireguard_go, "handshakes/s"
    )
    return {
        f"{cell.name}.rate": ratio_of(samples, "handshakes/s", "handshakes/s"),
        f"{cell.name}.of_wireguard_go": of_wireguard_go,
        f"{cell.name}.cpu_outside": _share(outside, inside),
        f"{cell.name}.cpu_least": _share(outside, least),
    }


def _share(outside: list[float], of: list[float]) -> Ratio:
    rounds = tuple(a / b for a, b in zip(outside, of, strict=True))
    return Ratio(rounds, median(outside), median(of), "CPU ms outside the token")


@dataclass(frozen=True)
class _Contenders:
    gateway: "_Gateway"
    bare: "_Bare"
    least: Measure
    wireguard_go: float


class _Load:
    """The initiations of all peers, in the order in which every custodian gets them; made before a round."""

    def __init__(self, gateway: bytes) -> None:
        self.peers = [SoftwarePeer(slot, gateway) for slot in range(PEERS)]
        self._made: list[m.AcceptInitiation] = []
        self._start = time.time_ns()

    def messages(self, first: int, count: int) -> Sequence[m.AcceptInitiation]:
        """Messages number `first` and on; a peer comes again after PEERS of them, with a later timestamp."""
        for number in range(len(self._made), first + count):
            peer = self.peers[number % PEERS]
            self._made.append(peer.initiation(number, self._start + number // PEERS * GRAIN))
        return self._made[first : first + count]


@dataclass(frozen=True)
class _Run:
    """Handshakes `done`, in how many seconds, and CPU seconds of the custodian in the module's calls and outside."""

    done: int
    seconds: float
    inside: float
    outside: float


class _Gateway:
    """One custodian and how far it has come in the load."""

    def __init__(self, custodian: Custodian, load: _Load, rig: Rig) -> None:
        self._custodian = custodian
        self._load = load
        self.rig = rig
        self._next = 0
        self._rate = 5000.0

    def warm_up(self, count: int) -> None:
        """Shake hands so many times."""
        for _ in self._answers(iter(self._load.messages(self._next, count))):
            pass

    def sample(self, seconds: float) -> _Run:
        """Shake hands for so long, and 2 * WINDOW times at least, from the answer number WINDOW on."""
        over = False
        load = self._load.messages(self._next, int(self._rate * seconds * 1.5) + 4 * WINDOW)
        answers = self._answers(itertools.takewhile(lambda _: not over, load))
        for _ in itertools.islice(answers, WINDOW):
            pass
        began, cpu, inside = time.monotonic(), _cpu(self._custodian.process.pid), self.rig.cpu_seconds()
        done = 0
        for _ in answers:
            done += 1
            if done >= 2 * WINDOW and time.monotonic() - began >= seconds:
                break
        took, inside = time.monotonic() - began, self.rig.cpu_seconds() - inside
        used = _cpu(self._custodian.process.pid) - cpu
        over = True
        for _ in answers:
            pass
        self._rate = done / took
        return _Run(done, took, inside, used - inside)

    def _answers(self, messages: Iterator[m.AcceptInitiation]) -> Iterator[None]:
        """Keep WINDOW of them under way; ends when all that were sent are answered."""
        channel = self._custodian.channels[ChannelKind.HANDSHAKE_CUSTODIAN]
        keys = [self._custodian.channels[kind] for kind in _KEYS]
        under_way = 0
        for message in itertools.islice(messages, WINDOW):
            channel.send(message)
            under_way += 1
        self._next += under_way
        while under_way:
            ready = select.select([channel, *keys], [], [], PATIENCE)[0]
            if not ready:
                raise RuntimeError(f"{under_way} handshakes had no answer: {self._custodian.log_text()[-2000:]}")
            for each in ready:
                if each is not channel:
                    _drain(each.fileno())
                    continue
                for answer, _ in channel.messages(1000):
                    if not isinstance(answer, m.InitiationAccepted):
                        raise TypeError(f"the custodian refused: {answer}; {self._custodian.log_text()[-2000:]}")
                    yield
                    following = next(messages, None)
                    if following is None:
                        under_way -= 1
                    else:
                        channel.send(following)
                        self._next += 1


def _cpu(pid: int) -> float:
    """CPU seconds of a process with all its threads by its own clock (clock_getres(2)), finer than /proc's ticks."""
    return time.clock_gettime_ns(~pid << 3 | 2) / 1e9


def _drain(descriptor: int) -> None:
    """Drop the session keys unread: decoding them would cost the custodian's core."""
    with contextlib.suppress(BlockingIOError):
        while os.read(descriptor, 65536):
            pass


class _Bare:
    """The process that derives and does nothing else."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.public_key = bytes.fromhex(json.loads(self._line())["public_key"])

    def ask(self, sessions: int, seconds: float) -> dict[str, float]:
        """Derive for so long with so many sessions."""
        assert self._process.stdin is not None  # noqa: S101
        self._process.stdin.write(json.dumps({"sessions": sessions, "seconds": seconds}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, float] = json.loads(self._line())
        return answer

    def _line(self) -> str:
        assert self._process.stdout is not None  # noqa: S101
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the bare token's process ended with {self._process.wait()}")
        return line


@contextlib.contextmanager
def _bare_token(made: SoftHsmToken, sessions: int) -> Iterator[_Bare]:
    program = Path(__file__).with_name("_bare_token.py")
    with tempfile.TemporaryDirectory(prefix="wghsm-", dir="/tmp") as folder:
        library = Path(folder) / "bare.so"
        subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", library, program.with_name("_bare.c")], check=True)
        process = subprocess.Popen(
            [sys.executable, program, library, made.uri, str(sessions), str(UID)],
            env={**os.environ, **made.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Ctrl-C is for this process, which ends the other one.
            process_group=0,
        )
        try:
            yield _Bare(process)
        finally:
            process.kill()
            process.communicate()


def _wghsm(made: SoftHsmToken, *arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "wghsm", *arguments, "--token", made.uri],
        env={**os.environ, **made.environment},
        capture_output=True,
        check=True,
    )
