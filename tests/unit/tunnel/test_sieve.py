"""The sieve: what passes, for whom there is room, both twins alike, and the reading that drops a flood in C."""

import os
import socket
from hashlib import blake2s

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.tunnel.support import ENGINES, PLACE, SECOND, START, Chosen, Ingress, datagram, key
from wghsm.ipc import Counter, Role
from wghsm.ipc import messages as m
from wghsm.noise.cookie import CookieChecker, CookieMaker, source_bytes
from wghsm.noise.messages import Initiation, Response
from wghsm.process.endpoints import Source, received
from wghsm.tunnel._sieve import ffi, lib
from wghsm.tunnel.sieve import BURST, COST, SOURCES, SPACING, AnySieve, Verdict, packed_host
from wghsm.tunnel.transmit import prepare

pytestmark = pytest.mark.usefixtures("engine")

IDENTITY, OTHER = key(1), key(2)
SALT = bytes(32)
OPEN = BURST // COST["open"]
PROVEN = BURST // COST["proven"]
FAIR = BURST // COST["fair"]
CHECKER = CookieChecker(IDENTITY)
_FIRST = Initiation(5, key(3), bytes(48), bytes(28))


def place(number: int) -> Source:
    return ((f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}", 1000), b"")


def bare(identity: bytes = IDENTITY) -> bytes:
    """An initiation with a good mac1 and no mac2."""
    return CookieMaker(identity).authenticate(_FIRST, START)


def proven(source: Source, identity: bytes = IDENTITY) -> bytes:
    """One of somebody who has got a cookie."""
    maker = CookieMaker(identity)
    first = Initiation.decode(maker.authenticate(_FIRST, START))
    assert isinstance(first, Initiation)
    proof = source_bytes(packed_host(source), source[0][1])
    maker.consume_reply(CHECKER.reply(first, proof, bytes(24), key(9), START), START)
    return maker.authenticate(_FIRST, START)


def sieve() -> AnySieve:
    made = Chosen.engine.sieve(SALT, 1)
    CHECKER.reply(_FIRST, b"somebody", bytes(24), key(9), START)
    made.serve([m.Gate(OTHER), m.Gate(IDENTITY, *CHECKER.secret(START))])
    return made


def passed(made: AnySieve, messages: list[tuple[bytes, Source]], now: int = START) -> int:
    said = [made.judge(data, source, now) for data, source in messages]
    assert set(said) <= {Verdict.PASS, Verdict.CROWDED, Verdict.NO_ROOM}
    return len(said) - said.count(Verdict.NO_ROOM)


def test_shape_type_and_mac1() -> None:
    made = sieve()
    good = bare()
    for data, verdict in (
        (b"", Verdict.MALFORMED),
        (good[:31], Verdict.MALFORMED),
        (good[:-1], Verdict.MALFORMED),
        (good + b"\0", Verdict.MALFORMED),
        (b"\3\0\0\0" + bytes(61), Verdict.MALFORMED),
        (b"\1\0\0\1" + good[4:], Verdict.UNKNOWN_TYPE),
        (bytes(148), Verdict.UNKNOWN_TYPE),
        (b"\5\0\0\0" + good[4:], Verdict.UNKNOWN_TYPE),
        (good[:120] + b"\1" + good[121:], Verdict.BAD_MAC1),
        (bare(key(4)), Verdict.BAD_MAC1),
        (good, Verdict.PASS),
        (bare(OTHER), Verdict.PASS),
        (CookieMaker(IDENTITY).authenticate(Response(1, 2, bytes(32), bytes(16)), START), Verdict.PASS),
        (b"\3\0\0\0" + bytes(60), Verdict.PASS),
    ):
        assert made.judge(data, PLACE, START) == verdict


def test_mac1_is_for_those_who_are_served() -> None:
    made = Chosen.engine.sieve(SALT, 1)
    assert made.judge(bare(key(4)), PLACE, START) == Verdict.PASS
    made.serve([m.Gate(IDENTITY)])
    assert made.judge(bare(key(4)), PLACE, START) == Verdict.BAD_MAC1
    made.serve([])
    assert made.judge(bare(key(4)), PLACE, START) == Verdict.PASS


def test_transport_passes_where_its_index_may_be_one() -> None:
    made = sieve()
    data = b"\4\0\0\0" + (70001).to_bytes(4, "little") + bytes(24)
    assert made.judge(data, PLACE, START) == Verdict.UNKNOWN_INDEX
    made.add_index(70001)
    made.add_index(70001 + 65536)
    assert made.judge(data, PLACE, START) == Verdict.PASS
    made.remove_index(70001 + 65536)
    assert made.judge(data, PLACE, START) == Verdict.PASS
    made.remove_index(70001)
    assert made.judge(data, PLACE, START) == Verdict.UNKNOWN_INDEX


def test_who_shows_a_cookie_has_room_of_his_own() -> None:
    """A flood without mac2, and one with a wrong one, fill every room but this."""
    made = sieve()
    junk = bare()[:-16] + bytes(15) + b"\1"
    for data in (bare(), junk, proven(place(7))):
        assert passed(made, [(data, place(1))] * (OPEN + 2)) in (OPEN + 1, 0)
    sources = [place(number) for number in range(FAIR + 2000)]
    assert passed(made, [(junk, source) for source in sources]) <= FAIR
    assert made.judge(bare(), place(10**6), START) == Verdict.NO_ROOM
    mine = proven(place(10**6))
    assert passed(made, [(mine, place(10**6))] * (PROVEN + 5)) == PROVEN
    later = START + 120 * SECOND
    passed(made, [(bare(), place(number)) for number in range(OPEN + 2000)], later)
    assert made.judge(mine, place(10**6), later) == Verdict.NO_ROOM


def test_a_source_that_had_no_turn_has_one() -> None:
    made = sieve()
    assert passed(made, [(bare(), place(1))] * (OPEN + 100)) == OPEN + 1
    assert [made.judge(bare(), place(2), START) for _ in range(2)] == [Verdict.CROWDED, Verdict.NO_ROOM]
    near: Source = (("2001:db8:0:1::7", 1, 0, 0), b"")
    far: Source = (("2001:db8:0:2::7", 1, 0, 0), b"")
    neighbour: Source = (("2001:db8:0:1::8", 2, 0, 0), b"")
    said = [made.judge(bare(), one, START) for one in (near, neighbour, far)]
    assert said == [Verdict.CROWDED, Verdict.NO_ROOM, Verdict.CROWDED]
    later = START + SPACING
    passed(made, [(bare(), place(1))] * OPEN, later)
    assert made.judge(bare(), near, later) == Verdict.CROWDED


def test_room_comes_back() -> None:
    made = sieve()
    passed(made, [(bare(), place(1))] * (OPEN + 1))
    for step in range(1, 20):
        assert passed(made, [(bare(), place(1))] * 5, START + step * COST["open"]) == 1


def test_a_full_queue_is_for_the_proven() -> None:
    made = sieve()
    made.shut(START)
    response = CookieMaker(IDENTITY).authenticate(Response(1, 2, bytes(32), bytes(16)), START)
    shown = proven(PLACE)
    for data in (bare(), bare()[:-16] + key(4)[:16], shown[:-1] + bytes([shown[-1] ^ 1])):
        assert made.judge(data, PLACE, START + SECOND // 200) == Verdict.NO_ROOM
    assert made.judge(shown, PLACE, START + SECOND // 200) == Verdict.CROWDED
    for data in (response, b"\3\0\0\0" + bytes(60)):
        assert made.judge(data, PLACE, START + SECOND // 200) == Verdict.PASS
    assert made.judge(bare(), PLACE, START + SECOND // 100) == Verdict.PASS


_SOURCES = st.sampled_from([PLACE, *(place(n) for n in range(3)), (("fd00::1", 5, 0, 0), b""), (("fd00::2", 5), b"")])
_MESSAGES = st.sampled_from(
    [
        bare(),
        bare(OTHER),
        proven(PLACE),
        proven((("fd00::1", 5), b"")),
        bare()[:-1] + b"\1",
        b"\3\0\0\0" + bytes(60),
        b"\4\0\0\0" + bytes(60),
    ]
)


@st.composite
def _damaged(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(_MESSAGES))
    data[draw(st.integers(0, len(data) - 1))] ^= draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))])


_STEPS = st.tuples(
    _MESSAGES | _damaged() | st.binary(max_size=160),
    _SOURCES,
    st.sampled_from([0, 0, 1, COST["open"], COST["fair"], SPACING, SECOND, 130 * SECOND]),
    st.sampled_from([0, 0, 0, 1]),
    st.sampled_from([1, 1, 3, OPEN]),
)


@given(st.lists(_STEPS, max_size=30))
def test_the_twins_agree(steps: list[tuple[bytes, Source, int, int, int]]) -> None:
    both = [engine.sieve(SALT, 1) for engine in ENGINES.values()]
    now = START
    for one in both:
        one.serve([m.Gate(OTHER), m.Gate(IDENTITY, *CHECKER.secret(START))])
        one.add_index(0)
    for data, source, pause, shut, times in steps:
        now += pause
        for one in both[: len(both) * shut]:
            one.shut(now)
        for _ in range(times):
            assert both[0].judge(data, source, now) == both[1].judge(data, source, now)


@given(st.binary(min_size=1, max_size=32), st.binary(max_size=300))
def test_blake2s(mac_key: bytes, data: bytes) -> None:
    digest = ffi.new("uint8_t[16]")
    lib.wghsm_mac(mac_key, len(mac_key), data, len(data), digest)
    assert bytes(digest) == blake2s(data, key=mac_key, digest_size=16).digest()


def test_several_sieves_share_the_room() -> None:
    made = [Chosen.engine.sieve(SALT, 4) for _ in range(4)]
    assert sum(passed(one, [(bare(), place(1))] * OPEN) for one in made) <= OPEN + 8


def test_sources_are_spread() -> None:
    """Neighbours fall into buckets of their own, or else one of them would keep the others out."""
    made = sieve()
    passed(made, [(bare(), place(1))] * (OPEN + 1))
    number = 100
    assert passed(made, [(bare(), place(10 + n)) for n in range(number)]) > number * (1 - 2 * number / SOURCES)


# Reading.

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(params=["127.0.0.1", "::1"])
def pair(request: pytest.FixtureRequest) -> Pair:
    """A socket made ready as ingress does, and one that is connected to it."""
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    near, far = socket.socket(family, socket.SOCK_DGRAM), socket.socket(family, socket.SOCK_DGRAM)
    request.addfinalizer(near.close)
    request.addfinalizer(far.close)
    near.setblocking(False)
    level, option = (socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO) if ":" in request.param else (socket.IPPROTO_IP, 8)
    near.setsockopt(level, option, 1)
    prepare(near)
    near.bind((request.param, 0))
    far.bind((request.param, 0))
    far.connect(near.getsockname())
    return near, far


def compiled() -> AnySieve:
    made = ENGINES["compiled"].sieve(SALT, 1)
    made.serve([m.Gate(IDENTITY)])
    made.add_index(7)
    return made


DATA = b"\4\0\0\0" + (7).to_bytes(4, "little")


def test_a_sweep_drops_counts_and_stops_before_what_passes(pair: Pair) -> None:
    near, far = pair
    made, counts = compiled(), [0] * len(Verdict)
    for data in (
        b"",
        b"\1\0\0\0" + os.urandom(144),
        os.urandom(3),
        bytes(40),
        b"\4\0\0\0" + bytes(1400),
        DATA + bytes(60000),
    ):
        far.send(data)
    far.send(b"\2\0\0\0" + bytes(40))
    swept = made.sweep(near.fileno(), START, counts)
    assert swept is not None
    assert swept[0] == DATA + bytes(60000)
    assert counts == [0, 2, 1, 1, 1, 0, 0]
    assert made.sweep(near.fileno(), START, counts) is None
    assert counts == [0, 1, 0, 0, 0, 0, 0]
    assert made.sweep(near.fileno(), START, counts) is None
    assert not any(counts)


def test_a_sweep_gives_what_recvmsg_gives(pair: Pair) -> None:
    near, far = pair
    if far.family == socket.AF_INET:
        far.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 3)
    else:
        far.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, 3)
    segments = [(socket.IPPROTO_UDP, 103, (100).to_bytes(2, "little"))]
    for _ in range(2):
        far.sendmsg([(DATA + bytes(92)) * 3 + DATA + bytes(30)], segments)
    data, control, _, address = near.recvmsg(65536, 1000)
    info, ecn, segment = received(control)
    assert compiled().sweep(near.fileno(), START, [0] * len(Verdict)) == (data, segment, (address, info), ecn)
    assert ecn == 3
    assert info


def test_a_read_of_many_is_dropped_or_kept_whole(pair: Pair) -> None:
    near, far = pair
    made, counts = compiled(), [0] * len(Verdict)
    segments = [(socket.IPPROTO_UDP, 103, (100).to_bytes(2, "little"))]
    strange = b"\4\0\0\0" + bytes(96)
    far.sendmsg([strange * 5 + b"\4"], segments)
    far.sendmsg([strange * 5 + DATA + bytes(92)], segments)
    swept = made.sweep(near.fileno(), START, counts)
    assert swept is not None
    assert swept[0] == strange * 5 + DATA + bytes(92)
    assert counts == [0, 1, 0, 5, 0, 0, 0]


def test_a_sweep_ends_though_more_comes(pair: Pair) -> None:
    near, far = pair
    near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    made, counts = compiled(), [0] * len(Verdict)
    for _ in range(300):
        far.send(b"\5")
    assert made.sweep(near.fileno(), START, counts) is None
    assert counts[Verdict.MALFORMED] == 256


def test_a_sweep_judges_and_uses_up_nothing(pair: Pair) -> None:
    """What is kept is judged again where it is taken."""
    near, far = pair
    made = compiled()
    for _ in range(OPEN + 10):
        far.send(bare())
        assert made.sweep(near.fileno(), START, [0] * len(Verdict)) is not None


def test_the_receivers_sieve_knows_its_sessions_and_no_others(pair: Pair) -> None:
    """Installed, rotated out, expired: what is for a session is kept, and all else is dropped and counted."""
    near, far = pair
    before, Chosen.engine = Chosen.engine, ENGINES["compiled"]
    try:
        ingress = Ingress()
    finally:
        Chosen.engine = before

    def kept() -> set[int]:
        for number in range(1, 5):
            far.send(datagram(key(number), 1000 + number, 0, b""))
        return {
            int.from_bytes(swept[0][4:8], "little")
            for _ in range(4)
            if (swept := ingress.receiver.sweep(near.fileno(), START))
        }

    for number in range(1, 5):
        ingress.install(number)
    assert kept() == set(ingress.receiver.by_index)
    assert len(ingress.receiver.by_index) < 4
    ingress.receiver.expire(START + 200 * SECOND)
    assert kept() == set()
    assert ingress.stats.counters(Role.INGRESS)[Counter.UNKNOWN_INDEX] > 4
    assert ingress.receiver.besieged(START)


def test_an_error_of_the_socket_is_passed_over(pair: Pair) -> None:
    near, far = pair
    made = compiled()
    near.connect(far.getsockname())
    far.close()
    near.send(b"to nobody")
    assert made.sweep(near.fileno(), START, [0] * len(Verdict)) is None
    near.send(b"the socket works")
