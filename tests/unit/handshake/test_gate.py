"""The gate against the table of PROTOCOL.md section 7."""

from __future__ import annotations

import os

import pytest

from wghsm.handshake.gate import CookieAnswer, Dropped, Gates
from wghsm.ipc import Counter
from wghsm.ipc.messages import Endpoint
from wghsm.noise import CookieMaker, CookieReply, Initiation

from .bench import gates

SECOND = 10**9
OURS = os.urandom(32)
SOURCE = Endpoint("192.0.2.9", 4000)


def _message() -> Initiation:
    return Initiation(77, os.urandom(32), os.urandom(48), os.urandom(28))


def _judge(
    gate: Gates, data: bytes, now: int, *, load: bool, source: Endpoint = SOURCE
) -> Dropped | CookieAnswer | bytes:
    message = Initiation.decode(data)
    assert isinstance(message, Initiation)
    return gate.judge(message, data, source, now, os.urandom, under_load=load)


@pytest.mark.parametrize("load", [False, True])
def test_bad_mac1_is_dropped(load: bool) -> None:
    data = CookieMaker(os.urandom(32)).authenticate(_message(), 0)
    assert _judge(gates(OURS), data, 0, load=load) == Dropped(Counter.BAD_MAC1)


def test_good_mac1_passes_without_load() -> None:
    assert _judge(gates(OURS), CookieMaker(OURS).authenticate(_message(), 0), 0, load=False) == OURS


def test_under_load_a_cookie_comes_back_and_then_lets_in() -> None:
    gate, maker = gates(OURS), CookieMaker(OURS)
    answer = _judge(gate, maker.authenticate(_message(), 0), 0, load=True)
    assert isinstance(answer, CookieAnswer)
    assert len(answer.data) == 64
    reply = CookieReply.decode(answer.data)
    assert isinstance(reply, CookieReply)
    assert reply.receiver == 77
    assert maker.consume_reply(reply, 0) is None
    assert _judge(gate, maker.authenticate(_message(), 1), 1, load=True) == OURS
    # The cookie vouches for one source only.
    other = Endpoint("192.0.2.10", 4000)
    assert isinstance(_judge(gate, maker.authenticate(_message(), 1), 1, load=True, source=other), CookieAnswer)


def test_under_load_a_proven_source_is_limited() -> None:
    gate, maker = gates(OURS), CookieMaker(OURS)
    answer = _judge(gate, maker.authenticate(_message(), 0), 0, load=True)
    assert isinstance(answer, CookieAnswer)
    reply = CookieReply.decode(answer.data)
    assert isinstance(reply, CookieReply)
    maker.consume_reply(reply, 0)
    verdicts = [_judge(gate, maker.authenticate(_message(), 1), 1, load=True) for _ in range(6)]
    assert verdicts == [OURS] * 5 + [Dropped(Counter.RATE_LIMITED)]
    assert _judge(gate, maker.authenticate(_message(), SECOND), SECOND, load=True) == OURS


def test_a_source_that_is_no_address_is_dropped() -> None:
    data = CookieMaker(OURS).authenticate(_message(), 0)
    assert _judge(gates(OURS), data, 0, load=True, source=Endpoint("nowhere", 1)) == Dropped(Counter.MALFORMED)


def test_under_load_a_source_gets_as_many_cookies_as_it_can_use() -> None:
    gate, maker = gates(OURS), CookieMaker(OURS)
    verdicts = [_judge(gate, maker.authenticate(_message(), 0), 0, load=True) for _ in range(7)]
    assert all(isinstance(verdict, CookieAnswer) for verdict in verdicts[:5])
    assert verdicts[5:] == [Dropped(Counter.RATE_LIMITED)] * 2
    other = Endpoint("192.0.2.10", 4000)
    assert isinstance(_judge(gate, maker.authenticate(_message(), 0), 0, load=True, source=other), CookieAnswer)
    assert isinstance(_judge(gate, maker.authenticate(_message(), SECOND), SECOND, load=True), CookieAnswer)


def test_more_sources_than_can_be_told_apart_all_get_cookies() -> None:
    gate, maker = gates(OURS), CookieMaker(OURS)
    data = maker.authenticate(_message(), 0)
    for number in range(70_000):
        source = Endpoint(f"198.{18 + number // 65536}.{number // 256 % 256}.{number % 256}", 4000)
        assert isinstance(_judge(gate, data, 0, load=True, source=source), CookieAnswer)
