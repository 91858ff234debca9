"""The rotation of section 5 against a model of it, what waits and what expires, and no dropped key left in memory."""

import gc
import mmap
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.tunnel.support import SECOND, START, Chosen, install_receive, install_send, ip_packet, key
from wghsm.tunnel import Times
from wghsm.tunnel.slots import WAITING, Expiry, ReceiveSession, ReceiveSlots, SeenKeys, SendSession, SendSlots
from wghsm.tunnel.virtio import PLAIN

pytestmark = pytest.mark.usefixtures("engine")

_Step = Literal["initiator", "responder", "data", "drop"]


def _receive(number: int, initiator: bool) -> ReceiveSession:
    return ReceiveSession(install_receive(number, initiator=initiator), START, Times(), Chosen.engine)


def _send(number: int, initiator: bool = True) -> SendSession:
    return SendSession(install_send(number, initiator=initiator), START, Times(), Chosen.engine)


def _numbers(slots: ReceiveSlots) -> dict[str, int]:
    return {slot: session.number for session, slot in slots.sessions()}


@given(st.lists(st.sampled_from(["initiator", "responder", "data", "drop"]), max_size=12))
def test_receive_slots_follow_section_5(steps: list[_Step]) -> None:
    slots = ReceiveSlots()
    model: dict[str, int] = {}
    alive: dict[int, ReceiveSession] = {}
    for number, step in enumerate(steps, 1):
        gone: list[ReceiveSession] = []
        if step in ("initiator", "responder"):
            alive[number] = _receive(number, step == "initiator")
            gone = slots.install(alive[number])
            if step == "responder":
                model.pop("previous", None)
                model["next"] = number
            else:
                older = model.pop("next", None) or model.pop("current", None)
                model = {"current": number} | ({"previous": older} if older else {})
        elif step == "data" and slots.next is not None:
            gone = slots.confirm()
            older = model.pop("current", None)
            model = {"current": model["next"]} | ({"previous": older} if older else {})
        elif step == "drop" and slots.current is not None:
            gone = [slots.current]
            slots.drop(slots.current)
            del model["current"]
        assert _numbers(slots) == model
        for session in gone:
            del alive[session.number]
            assert session.opener.closed
        assert set(alive) == set(model.values())
        assert not any(session.opener.closed for session in alive.values())


def test_a_late_activation_of_an_older_session_changes_nothing() -> None:
    slots = SendSlots()
    older, newer = _send(1, False), _send(2)
    slots.install(older)
    slots.install(newer)
    assert slots.activate(2)
    assert not slots.activate(1)
    assert slots.current is newer
    assert not hasattr(older, "cipher")


def test_what_waits_is_bounded() -> None:
    slots = SendSlots()
    sessions = [_send(number) for number in range(1, WAITING + 2)]
    for session in sessions:
        slots.install(session)
    assert not hasattr(sessions[0], "cipher")
    assert not slots.activate(1)
    assert slots.activate(2)
    assert [(session.number, slot) for session, slot in slots.sessions()] == [
        (2, "current"),
        (3, "pending"),
        (4, "pending"),
    ]


def _seal(session: SendSession, read: bytes) -> None:
    out = Chosen.engine.outgoing(lambda: None)
    assert session.sealer.seal(read, 1420, out) == 0
    assert out.count == 1


def test_a_closed_session_seals_nothing() -> None:
    session = _send(1)
    session.close()
    session.close()
    with pytest.raises(ValueError, match="gone"):
        _seal(session, b"")


def test_expiry_gives_each_session_once() -> None:
    expiry: Expiry[SendSession] = Expiry()
    first, second = _send(1), _send(2)
    expiry.add(3, first)
    expiry.add(4, second)
    assert expiry.next() == START + 180 * SECOND
    assert list(expiry.due(START + 180 * SECOND - 1)) == []
    assert list(expiry.due(START + 180 * SECOND)) == [(3, first), (4, second)]
    assert list(expiry.due(START + 180 * SECOND)) == []
    assert expiry.next() is None


def test_seen_keys_are_kept_for_their_time() -> None:
    seen = SeenKeys(keep=540)
    assert seen.add(key(1), 0)
    assert seen.add(key(2), 100)
    assert not seen.add(key(1), 540)
    assert seen.add(key(1), 541)
    assert not seen.add(key(2), 541)


def _memory_holds(masked: bytes, mask: int) -> int:
    """How often the bytes that `masked` hides with `mask` stand in this process's memory."""
    needle = bytearray(byte ^ mask for byte in masked)
    hits = 0
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:  # noqa: PTH123
        for line in maps.readlines():
            where, mode = line.split()[:2]
            if "rw" not in mode:
                continue
            start, end = (int(part, 16) for part in where.split("-"))
            memory.seek(start)
            # Pages of their own, which are gone afterwards: a copy on the heap would be found the next time.
            with mmap.mmap(-1, end - start) as block:
                memory.readinto(block)
                found = block.find(needle)
                while found >= 0:
                    hits += 1
                    found = block.find(needle, found + 1)
    needle[:] = bytes(len(needle))
    # The needle itself stands in memory while it is looked for.
    return hits - 1


def test_no_copy_of_a_dropped_key_stays_in_memory() -> None:
    mask = 0x5A
    # Another key for each engine: looking for one leaves copies of it behind.
    masked = bytes((number * 37 + len(Chosen.engine.name)) % 256 for number in range(32))
    message = install_send(1)
    # Not byte by byte: the pieces of a growing bytes object would be copies of the test's own.
    secret = (int.from_bytes(masked, "big") ^ int.from_bytes(bytes([mask]) * 32, "big")).to_bytes(32, "big")
    message = type(message)(1, 3, 9, True, START, secret)
    del secret
    session = SendSession(message, START, Times(), Chosen.engine)
    _seal(session, PLAIN + ip_packet("10.0.0.1", "10.0.0.2"))
    assert _memory_holds(masked, mask) > 0
    session.close()
    gc.collect()
    assert _memory_holds(masked, mask) == 0
