"""mac1, mac2 and cookies: who can pass, for how long, and what is refused."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.noise import vectors as v
from wghsm.noise import (
    CookieChecker,
    CookieMaker,
    CookieReply,
    Initiation,
    Reason,
    Rejected,
    Response,
    cookie_key,
    mac1_key,
    source_bytes,
)
from wghsm.noise.constants import COOKIE_SECRET_MAX_AGE, COOKIE_USABLE_TIME, NSEC_PER_SEC
from wghsm.noise.curve import public_key
from wghsm.noise.messages import NO_MAC

T0 = 10**15
SOURCE = source_bytes(bytes((203, 0, 113, 9)), 1024)
OTHER_SOURCE = source_bytes(bytes((203, 0, 113, 9)), 1025)
RESPONDER = public_key(b"\x11" * 32)
STRANGER = public_key(b"\x12" * 32)
INITIATION = Initiation(7, b"e" * 32, b"s" * 48, b"t" * 28)
RESPONSE = Response(8, 7, b"e" * 32, b"n" * 16)

octets32 = st.binary(min_size=32, max_size=32)
messages: st.SearchStrategy[Initiation | Response] = st.sampled_from([INITIATION, RESPONSE])


def decoded(data: bytes) -> Initiation | Response:
    message = Initiation.decode(data) if len(data) == 148 else Response.decode(data)
    assert not isinstance(message, Rejected)
    return message


def exchange_cookie(maker: CookieMaker, checker: CookieChecker, now: int, source: bytes = SOURCE) -> CookieReply:
    """The maker sends, the checker answers with a cookie, the maker keeps it."""
    sent = decoded(maker.authenticate(INITIATION, now))
    reply = checker.reply(sent, source, b"n" * 24, b"f" * 32, now)
    assert maker.consume_reply(reply, now) is None
    return reply


def test_keys_of_the_labels() -> None:
    assert mac1_key(RESPONDER) != cookie_key(RESPONDER)
    assert len(mac1_key(RESPONDER)) == len(cookie_key(RESPONDER)) == 32


@given(octets32, messages, st.binary(min_size=6, max_size=18), octets32, st.binary(min_size=24, max_size=24))
def test_round_trip(public: bytes, message: Initiation | Response, source: bytes, secret: bytes, nonce: bytes) -> None:
    maker, checker = CookieMaker(public), CookieChecker(public)
    first = maker.authenticate(message, T0)
    assert checker.mac1_valid(first)
    assert decoded(first).mac2 == NO_MAC
    assert not checker.mac2_valid(first, source, T0)
    reply = CookieReply.decode(checker.reply(decoded(first), source, nonce, secret, T0).encode())
    assert isinstance(reply, CookieReply)
    assert reply.receiver == message.sender
    assert maker.consume_reply(reply, T0) is None
    second = maker.authenticate(message, T0 + 1)
    assert checker.mac1_valid(second)
    assert checker.mac2_valid(second, source, T0 + 1)
    assert not checker.mac2_valid(second, source + b"\0", T0 + 1)


@given(messages, st.data())
def test_any_flipped_bit_breaks_mac1_or_mac2(message: Initiation | Response, data: st.DataObject) -> None:
    maker, checker = CookieMaker(RESPONDER), CookieChecker(RESPONDER)
    exchange_cookie(maker, checker, T0)
    sent = maker.authenticate(message, T0)
    assert checker.mac1_valid(sent)
    assert checker.mac2_valid(sent, SOURCE, T0)
    bit = data.draw(st.integers(0, len(sent) * 8 - 1))
    bad = bytearray(sent)
    bad[bit // 8] ^= 1 << bit % 8
    assert checker.mac1_valid(bad) == (bit // 8 >= len(sent) - 16)
    assert not checker.mac2_valid(bad, SOURCE, T0)


def test_mac1_is_for_one_receiver() -> None:
    sent = CookieMaker(RESPONDER).authenticate(INITIATION, T0)
    assert CookieChecker(RESPONDER).mac1_valid(sent)
    assert not CookieChecker(STRANGER).mac1_valid(sent)


def test_a_cookie_is_for_one_source() -> None:
    maker, checker = CookieMaker(RESPONDER), CookieChecker(RESPONDER)
    exchange_cookie(maker, checker, T0)
    sent = maker.authenticate(INITIATION, T0)
    assert checker.mac2_valid(sent, SOURCE, T0)
    assert not checker.mac2_valid(sent, OTHER_SOURCE, T0)


def test_the_maker_uses_a_cookie_for_115_seconds() -> None:
    maker, checker = CookieMaker(RESPONDER), CookieChecker(RESPONDER)
    exchange_cookie(maker, checker, T0)
    assert decoded(maker.authenticate(INITIATION, T0 + COOKIE_USABLE_TIME - 1)).mac2 != NO_MAC
    assert decoded(maker.authenticate(INITIATION, T0 + COOKIE_USABLE_TIME)).mac2 == NO_MAC
    assert COOKIE_USABLE_TIME == 115 * NSEC_PER_SEC


def test_a_cookie_at_time_zero_counts() -> None:
    maker, checker = CookieMaker(RESPONDER), CookieChecker(RESPONDER)
    exchange_cookie(maker, checker, 0)
    assert checker.mac2_valid(maker.authenticate(INITIATION, 0), SOURCE, 0)


def test_the_checker_knows_its_secret_for_120_seconds() -> None:
    maker, checker = CookieMaker(RESPONDER), CookieChecker(RESPONDER)
    exchange_cookie(maker, checker, T0)
    sent = maker.authenticate(INITIATION, T0)
    assert checker.mac2_valid(sent, SOURCE, T0 + COOKIE_SECRET_MAX_AGE - 1)
    assert not checker.mac2_valid(sent, SOURCE, T0 + COOKIE_SECRET_MAX_AGE)


def test_the_secret_is_renewed_only_when_it_is_old() -> None:
    checker = CookieChecker(RESPONDER)
    message = decoded(CookieMaker(RESPONDER).authenticate(INITIATION, T0))

    def cookie(fresh: bytes, now: int) -> bytes:
        return checker.reply(message, SOURCE, b"n" * 24, fresh, now).cookie

    first = cookie(b"1" * 32, T0)
    assert cookie(b"2" * 32, T0 + COOKIE_SECRET_MAX_AGE - 1) == first
    renewed = cookie(b"2" * 32, T0 + COOKIE_SECRET_MAX_AGE)
    assert renewed != first
    assert cookie(b"1" * 32, T0 + 2 * COOKIE_SECRET_MAX_AGE) == first


def test_a_reply_without_a_message_is_refused() -> None:
    other = CookieMaker(RESPONDER)
    reply = exchange_cookie(other, CookieChecker(RESPONDER), T0)
    maker = CookieMaker(RESPONDER)
    assert maker.consume_reply(reply, T0) == Rejected(Reason.UNEXPECTED_COOKIE)
    assert decoded(maker.authenticate(INITIATION, T0)).mac2 == NO_MAC


def test_one_reply_for_each_message() -> None:
    maker, checker = CookieMaker(RESPONDER), CookieChecker(RESPONDER)
    reply = exchange_cookie(maker, checker, T0)
    assert maker.consume_reply(reply, T0) == Rejected(Reason.UNEXPECTED_COOKIE)
    maker.authenticate(INITIATION, T0)
    assert maker.consume_reply(reply, T0) is None


def test_a_reply_to_another_message_is_refused() -> None:
    maker, checker = CookieMaker(RESPONDER), CookieChecker(RESPONDER)
    earlier = decoded(maker.authenticate(INITIATION, T0))
    maker.authenticate(replace(INITIATION, sender=9), T0)
    reply = checker.reply(earlier, SOURCE, b"n" * 24, b"f" * 32, T0)
    assert maker.consume_reply(reply, T0) == Rejected(Reason.AUTHENTICATION)


@given(st.data())
def test_any_flipped_bit_of_a_reply_is_refused_and_the_right_one_still_passes(data: st.DataObject) -> None:
    maker, checker = CookieMaker(RESPONDER), CookieChecker(RESPONDER)
    sent = decoded(maker.authenticate(INITIATION, T0))
    reply = checker.reply(sent, SOURCE, b"n" * 24, b"f" * 32, T0).encode()
    bit = data.draw(st.integers(64, len(reply) * 8 - 1))
    bad = bytearray(reply)
    bad[bit // 8] ^= 1 << bit % 8
    forged = CookieReply.decode(bytes(bad))
    assert isinstance(forged, CookieReply)
    assert maker.consume_reply(forged, T0) == Rejected(Reason.AUTHENTICATION)
    assert decoded(maker.authenticate(INITIATION, T0)).mac2 == NO_MAC
    good = CookieReply.decode(reply)
    assert isinstance(good, CookieReply)
    assert maker.consume_reply(good, T0) is None


def test_a_reply_of_another_identity_is_refused() -> None:
    maker = CookieMaker(RESPONDER)
    sent = decoded(maker.authenticate(INITIATION, T0))
    reply = CookieChecker(STRANGER).reply(sent, SOURCE, b"n" * 24, b"f" * 32, T0)
    assert maker.consume_reply(reply, T0) == Rejected(Reason.AUTHENTICATION)


def test_own_entropy_of_a_wrong_length_is_a_fault() -> None:
    checker = CookieChecker(RESPONDER)
    message = decoded(CookieMaker(RESPONDER).authenticate(INITIATION, T0))
    with pytest.raises(ValueError, match="cookie secret"):
        checker.reply(message, SOURCE, b"n" * 24, b"f" * 31, T0)
    with pytest.raises(ValueError, match="nonce"):
        checker.reply(message, SOURCE, b"n" * 12, b"f" * 32, T0)


def test_wiping_ends_every_cookie() -> None:
    maker, checker = CookieMaker(RESPONDER), CookieChecker(RESPONDER)
    exchange_cookie(maker, checker, T0)
    sent = maker.authenticate(INITIATION, T0)
    assert checker.mac2_valid(sent, SOURCE, T0)
    checker.wipe()
    assert checker._secret == bytes(32)
    assert not checker.mac2_valid(sent, SOURCE, T0)


@given(st.binary(max_size=100))
def test_short_data_has_no_valid_macs(data: bytes) -> None:
    checker = CookieChecker(RESPONDER)
    assert not checker.mac1_valid(data)
    assert not checker.mac2_valid(data, SOURCE, T0)


def test_section_17_reply_is_not_for_others() -> None:
    reply = CookieReply.decode(v.COOKIE_REPLY)
    assert isinstance(reply, CookieReply)
    maker = CookieMaker(RESPONDER)
    maker.authenticate(INITIATION, T0)
    assert maker.consume_reply(reply, T0) == Rejected(Reason.AUTHENTICATION)
