"""What a gateway's custodian does when its token fails: observed fault by fault, for the tests and for the docs.

    observe(fault) -> Seen          a custodian process with short times, a token behind the rig, a peer that asks
    page()         -> text          docs/fault-matrix.md: what was seen, with equal rows put together

`script/test tests/token/test_fault_matrix.py --write-docs` writes the page. Its last column is measured in that run;
`without_times` is what the page says on any machine, where a repair is told by the tries that it takes.
"""

from __future__ import annotations

import functools
import itertools
import math
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.network.support import until
from tests.token import fault_live
from tests.token.custodian_process import PATIENCE, state_folder
from tests.token.faulty_token import FaultyToken, Watched, faulty_token, twins
from tests.unit.custodian.support import SoftwarePeer
from wghsm.exits import ExitCode
from wghsm.ipc import Counter
from wghsm.ipc import messages as m
from wghsm.pkcs11_backend._ckr import ckr_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["CRASHES", "HANGS", "PATH", "REPAIR_FAULTS", "RETURNS", "SLOW", "Seen", "live", "page", "without_times"]

PATH = ("C_DeriveKey", "C_GetAttributeValue", "C_DestroyObject", "C_SignInit", "C_Sign")
"""The calls of a handshake: the derivation's three, and the two of a derived PSK."""

_VENDOR = 0x80000001
RETURNS = (
    # A stale handle: the first step of the ladder.
    *(0xB3, 0xB0, 0x101, 0x60, 0x82),
    # The device, the module or the host: the second step.
    *(0x30, 0x31, 0x32, 0xE0, 0x05, 0x06, 0x02, 0x190, 0x1B, _VENDOR),
    # About the request or the PIN: nothing helps.
    *(0x70, 0x54, 0xA0, 0xA3, 0xA4),
)
"""Every CKR_ of the ladder's table, a vendor's and an unmapped one, and some that no repair helps."""

DURATIONS = ("once", "twice", "three times", "until it is cleared")
REPAIR_FAULTS = (
    *((function, 0x30) for function in ("C_Finalize", "C_Initialize", "C_GetSlotList", "C_OpenSession")),
    *((function, 0x30) for function in ("C_FindObjectsInit", "C_FindObjects", "C_CloseSession", "C_Logout")),
    ("C_OpenSession", 0xB1),
    *(("C_Login", ckr) for ckr in (0x30, 0xE0, 0xA0, 0xA3, 0xA4)),
)
"""Faults that meet the repair of another one, which lasts as long."""
HANGS = (*PATH, "C_Finalize", "C_Initialize", "C_OpenSession", "C_Login")
CRASHES = (*PATH, "C_Initialize", "C_Login")
SLOW = (0.001, 0.01, 0.1)

_REPAIR_ONLY = frozenset(HANGS) - frozenset(PATH)
_DEVICE_ERROR = 0x30


@dataclass(frozen=True)
class Seen:
    """The effect of a fault, how it ended, and how many seconds after the fault a handshake went through."""

    effect: str
    recovery: str
    seconds: float = field(default=math.nan, compare=False)


class Bench:
    """A custodian, its token and a peer with a derived PSK; a new custodian after each that ended."""

    def __init__(self, token: FaultyToken, watched: Watched, peer: SoftwarePeer) -> None:
        self.token = token
        self.custodian = watched
        self.peer = peer

    def settle(self) -> None:
        """Begin from good health: a handshake goes through."""
        self.token.rig.clear()
        self.custodian.until_accepted(self.peer)
        self.custodian.forget_status()

    def counted(self) -> tuple[int, int, int]:
        """Checks, repairs, times away."""
        counted = self.custodian.counters()
        return tuple(  # type: ignore[return-value]
            counted.get(one, 0) for one in (Counter.TOKEN_CHECKED, Counter.TOKEN_REPAIRED, Counter.TOKEN_AWAY)
        )


def _benches() -> Iterator[Bench]:
    with faulty_token() as token:
        psk = m.PskDerived(5)
        (secret,) = token.log_in([SoftwarePeer(1, token.public_key, psk).public])
        peer = SoftwarePeer(1, token.public_key, psk, secret)
        for incarnation in itertools.count(1):
            with state_folder() as state, Watched(token, state, [peer], incarnation=incarnation, cache=False) as one:
                one.ready()
                yield Bench(token, one, peer)
                token.rig.clear()


_all_benches: list[Iterator[Bench]] = []
_current: list[Bench] = []


def bench() -> Bench:
    """A bench whose custodian lives."""
    if not _all_benches:
        _all_benches.append(_benches())
    if not _current or _current[-1].custodian.process.poll() is not None:
        _current[:] = [next(_all_benches[0])]
    return _current[0]


def close() -> None:
    """End what `bench` has begun."""
    for benches in _all_benches:
        benches.close()  # type: ignore[attr-defined]
    _all_benches.clear()
    _current.clear()


@functools.cache
def returned(function: str, ckr: int, duration: str) -> Seen:
    """`function` of the handshake path returns `ckr`."""
    one = bench()
    one.settle()
    rig, custodian = one.token.rig, one.custodian
    checks, repairs, away = one.counted()
    inits = rig.calls("C_Initialize")
    times = {"once": 1, "twice": 2, "three times": 3}.get(duration)
    rig.fail(function, ckr, times=times)
    assert not custodian.accepts(one.peer), f"{function} failed with {ckr:#x}, and nobody noticed"
    refused = time.monotonic()
    # Until the check is through, requests still go to the token, and could meet the fault in its place.
    until(lambda: one.counted()[0] == checks + 1, "the check")
    if times is None:
        status = custodian.status("away")
        assert status.detail
        inits = rig.calls("C_Initialize")
        rig.clear()
        refused = time.monotonic()
    custodian.until_accepted(one.peer)
    seconds = time.monotonic() - refused
    now_checks, now_repairs, now_away = one.counted()
    assert now_checks == checks + 1
    anew = rig.calls("C_Initialize") - inits
    if now_away > away:
        assert (now_away, now_repairs) == (away + 1, repairs + 1)
        return Seen("handshakes wait, sessions go on; the token is away", _tries(anew), seconds)
    if now_repairs > repairs:
        step = "its second step, the module begun anew" if anew else "its first step, the sessions opened anew"
        return Seen("handshakes wait for the ladder", step, seconds)
    return Seen("one handshake is refused; the token is checked and found well", "none needed", seconds)


def _tries(number: int) -> str:
    return "the first try after it" if number == 1 else f"try {number} after it"


@functools.cache
def while_repairing(function: str, ckr: int) -> Seen:
    """A derivation fails, and in the repair `function` returns `ckr`; both until they are cleared."""
    one = bench()
    one.settle()
    rig, custodian = one.token.rig, one.custodian
    logins = rig.calls("C_Login")
    rig.fail(function, ckr)
    rig.fail("C_DeriveKey", _DEVICE_ERROR)
    custodian.asked(one.peer)
    if function == "C_Login" and ckr in (0xA0, 0xA3, 0xA4):
        fault = custodian.fault()
        assert fault.exit_code == ExitCode.PIN_REFUSED
        assert ckr_name(ckr) in fault.text
        assert rig.calls("C_Login") == logins + 1
        return Seen("the gateway ends with exit code 3; the PIN is sent once", "the operator")
    custodian.status("away")
    inits = rig.calls("C_Initialize")
    rig.clear()
    seconds = custodian.until_accepted(one.peer)
    tries = _tries(rig.calls("C_Initialize") - inits)
    return Seen("handshakes wait, sessions go on; the token is away", tries, seconds)


@functools.cache
def hung(function: str) -> Seen:
    """`function` does not return."""
    one = _begin(function, "hang")
    fault = one.custodian.fault()
    assert fault.exit_code == ExitCode.FAILURE
    assert "has not answered" in fault.text
    return _next("the custodian ends by itself after its limit; handshakes wait, sessions go on")


@functools.cache
def crashed(function: str) -> Seen:
    """`function` brings the process down."""
    one = _begin(function, "crash")
    assert one.custodian.end() == -signal.SIGSEGV
    return _next("the custodian dies, and nothing else; handshakes wait, sessions go on")


def _begin(function: str, kind: str) -> Bench:
    one = bench()
    one.settle()
    rig = one.token.rig
    if function in _REPAIR_ONLY:
        rig.fail("C_DeriveKey", _DEVICE_ERROR)
    (rig.hang if kind == "hang" else rig.crash)(function)
    one.custodian.begin(one.peer)
    return one


def _next(effect: str) -> Seen:
    _current[0].token.rig.clear()
    began = time.monotonic()
    one = bench()
    one.custodian.until_accepted(one.peer)
    return Seen(effect, "the next custodian, started by the supervisor", time.monotonic() - began)


@functools.cache
def slowed(delay: float) -> Seen:
    """Every call takes `delay` seconds longer."""
    one = bench()
    one.settle()
    counts = [one.token.rig.calls(name) for name in PATH]
    one.token.rig.slow(delay)
    began, refused = time.monotonic(), 0
    for _ in range(5):
        refused += not one.custodian.accepts(one.peer)
    spent = time.monotonic() - began
    calls = sum(one.token.rig.calls(name) for name in PATH) - sum(counts)
    one.token.rig.clear()
    assert refused == 0
    assert calls * delay <= spent < calls * delay + PATIENCE
    assert one.custodian.process.poll() is None
    effect = f"no handshake is lost; each takes {calls // 5} calls of the token as responder"
    return Seen(effect, "none needed", one.custodian.until_accepted(one.peer))


@functools.cache
def with_a_twin() -> Seen:
    """The first of two tokens fails, then works again."""
    with twins() as (first, second), state_folder() as state:
        peer = SoftwarePeer(1, first.public_key)
        changes = {"twins": [second.made.uri], "psk_root": None}
        with Watched(first, state, [peer], changes=changes) as custodian:
            custodian.ready()
            custodian.until_accepted(peer)
            first.rig.fail("*", _DEVICE_ERROR)
            assert not custodian.accepts(peer)
            refused = time.monotonic()
            custodian.status("ready", "'second'")
            custodian.until_accepted(peer)
            seconds = time.monotonic() - refused
            first.rig.clear()
            custodian.status("ready", "'first'")
            custodian.until_accepted(peer)
            counted = custodian.counters()
            assert (counted[Counter.TOKEN_AWAY], counted[Counter.TOKEN_SWITCHED]) == (1, 2)
    return Seen(
        "handshakes wait for the ladder and one try more, then the second token serves",
        "back to the first at the next look for it; no handshake waits for that",
        seconds,
    )


def live() -> dict[str, tuple[str, list[float]]]:
    """The faults of the handshake path under a whole gateway's traffic."""
    return fault_live.observed(PATH, RETURNS, SLOW)


# The page.

_LIVE = """
## Under live traffic

A whole gateway with a stock client whose numbered packets run both ways, while another peer's handshakes meet the
faults one after the other.
"""

_HEAD = """\
# What happens when the token fails

This page is written by the tests, from what they see: `script/test tests/token/test_fault_matrix.py --write-docs`.
A custodian process with a SoftHSM token serves handshakes, with a derived PSK and without a cache; a module between
them (tests/token/rig) returns errors, is slow, hangs or crashes on command. The same faults are tried under a whole
gateway's traffic as well: no packet is lost while the token is away.

**Away** means: status and one log line say since when and why; live sessions go on until they are 180 seconds old;
requests are refused at once, without a call of the token; and the custodian tries again after 1, 2, 4 ... 30 seconds.
A token that fails within 10 seconds of its repair is away as well, and not repaired in a loop. When it is back,
handshakes go on by themselves. A request's error climbs the ladder only if the same calls with known-good data
(the base point, the PSK root's check value, a sample sealed by the wrapping key) fail too, so no peer's data can. A
handshake's call may take 20 seconds and a repair 90; then the custodian ends, and the supervisor starts another after
0.1 s, doubling to 10 s.

The ladder: the first step closes and opens the sessions, logs in and finds the keys again; the second does C_Finalize
and C_Initialize before that.

The last column was measured in the run that wrote this page: from the moment when the fault was gone (where it ends by
itself, from the first handshake that it refused) until a handshake went through; least and greatest of the row's cases.
The custodians of these tests have shorter times than a gateway's, so as not to wait for minutes: they try again after
0.2 and 0.4 s. A gateway's tries come up to 30 s after the fault has gone. A custodian that is started anew comes after
the supervisor's pause, which is not counted here.
"""


def without_times(text: str) -> str:
    """The page without what depends on the machine: the last column."""
    return "\n".join(line.rpartition(" | ")[0] if line.startswith("| ") else line for line in text.splitlines())


def times_of(text: str) -> list[str]:
    """The cells of the last column."""
    cells = [line.rpartition(" | ")[2].removesuffix(" |") for line in text.splitlines() if line.startswith("| ")]
    return [cell for cell in cells if cell != _TIME]


_TIME = "time, measured"
_Row = tuple[str, Seen, list[float]]


def page() -> str:
    """The whole page, observed anew where it was not yet."""
    parts = [_HEAD]
    parts += ["\n## A call of a handshake returns an error\n", _table(_returns())]
    parts += ["\n## A repair meets another error, until it is cleared\n", _table(_repairs())]
    rows = _together({name: hung(name) for name in HANGS}, "hangs in ")
    rows += _together({name: crashed(name) for name in CRASHES}, "crashes in ")
    slow = {f"takes {delay * 1000:g} ms longer for every call": slowed(delay) for delay in SLOW}
    rows += [(what, seen, [seen.seconds]) for what, seen in slow.items()]
    parts += ["\n## The module\n", _table(rows)]
    parts += [_LIVE, _table([(what, Seen(effect, "by itself"), spent) for what, (effect, spent) in live().items()])]
    twin = with_a_twin()
    parts += ["\n## Several tokens\n", _table([("the first of two tokens fails", twin, [twin.seconds])])]
    names = ", ".join(f"`{ckr_name(ckr)}`" for ckr in RETURNS)
    parts += [f'\n"Any error" is each of {names}.\n']
    return "".join(parts)


def _returns() -> list[_Row]:
    rows = []
    for duration in DURATIONS:
        seen = {(ckr, name): returned(name, ckr, duration) for name in PATH for ckr in RETURNS}
        for outcome in dict.fromkeys(seen.values()):
            calls: dict[int, tuple[str, ...]] = {}
            for ckr in RETURNS:
                names = tuple(name for name in PATH if seen[ckr, name] == outcome)
                if names:
                    calls[ckr] = names
            for names in dict.fromkeys(calls.values()):
                ckrs = [ckr for ckr in calls if calls[ckr] == names]
                what = "any error" if len(ckrs) == len(RETURNS) else _code(map(ckr_name, ckrs))
                where = "any call" if names == PATH else _code(names)
                spent = [seen[ckr, name].seconds for ckr in ckrs for name in names]
                rows.append((f"{what} from {where}, {duration}", outcome, spent))
    return rows


def _repairs() -> list[_Row]:
    seen = {f"{ckr_name(ckr)}` from `{name}": while_repairing(name, ckr) for name, ckr in REPAIR_FAULTS}
    return _together(seen)


def _together(seen: dict[str, Seen], what: str = "") -> list[_Row]:
    """The faults that were seen to do the same, put together."""
    rows = []
    for one in dict.fromkeys(seen.values()):
        names = [name for name in seen if seen[name] == one]
        rows.append((f"{what}{_code(names)}", one, [seen[name].seconds for name in names]))
    return rows


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _table(rows: list[_Row]) -> str:
    lines = ["", f"| fault | effect | recovery | {_TIME} |", "|---|---|---|---|"]
    lines += [f"| {fault} | {seen.effect} | {seen.recovery} | {_span(spent)} |" for fault, seen, spent in rows]
    return "\n".join(lines) + "\n"


def _span(seconds: list[float]) -> str:
    """The least and the greatest; nothing where it is for the operator to recover."""
    if all(map(math.isnan, seconds)):
        return "-"
    least, greatest = f"{min(seconds):.2f}", f"{max(seconds):.2f}"
    return f"{least} s" if least == greatest else f"{least} to {greatest} s"
