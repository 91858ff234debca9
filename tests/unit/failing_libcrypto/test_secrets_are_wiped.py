"""A call of libcrypto fails in the middle, whichever it is: no secret stays in what C was given, or is to give."""

import ctypes
import functools
import subprocess
import tempfile
from collections.abc import Iterator
from ctypes import CFUNCTYPE, c_int, c_size_t, c_uint64, c_void_p
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.unit.noise import vectors as v
from wghsm.noise._transcript import Transcript
from wghsm.noise.curve import exchange

HERE = Path(__file__).parent
STEPS = ["read_static", "read_timestamp", "write_response", "write_initiation", "read_response", "split"]
ROOM = {"batch": "tunnel", "steps": "noise"}
PARTS = {
    "batch": ["apply_stream", "make_tag"],
    "steps": ["ready", *STEPS],
}
STATE = bytes(range(64))
SECRET = bytes(range(100, 132))


@functools.cache
def built(name: str) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory(prefix="wghsm-") as folder:
        target = Path(folder) / f"{name}.so"
        room = HERE.parents[2] / "wghsm" / ROOM[name]
        flags = ("-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", f"-I{room}")
        subprocess.run(["gcc", *flags, "-o", target, HERE / f"{name}.c", "-lcrypto"], check=True)
        return ctypes.CDLL(str(target))


def part(name: str, function: str, *types: type) -> "ctypes._CFunctionType":
    """A static function of C."""
    parts = PARTS[name]
    addresses = (c_void_p * len(parts)).in_dll(built(name), "parts")
    address = addresses[parts.index(function)]
    assert address is not None
    return CFUNCTYPE(c_int, *types)(address)


def failures(name: str) -> Iterator[int]:
    """The first call fails, the second, and so on; whoever asks ends it when nothing fails any more."""
    for number in range(1, 1000):
        built(name).fail_at(number)
        yield number
    pytest.fail("it never came to its end")


# Steps of a handshake: what each is given and gives, in C's order.


class Argument(NamedTuple):
    """What is in it before, and what must be in it once the step has failed; None: no matter what."""

    before: bytes
    after: bytes | None


def kept(value: bytes) -> Argument:
    return Argument(value, value)


def taken(secret: bytes) -> Argument:
    return Argument(secret, bytes(len(secret)))


def secret_result(length: int) -> Argument:
    return Argument(bytes(length), bytes(length))


def public_result(length: int) -> Argument:
    return Argument(bytes(length), None)


def transcript() -> Transcript:
    work = Transcript()
    work.chaining_key[:], work.hash[:] = STATE[:32], STATE[32:]
    return work


def sealed_static() -> bytes:
    work = transcript()
    work.mix_ephemeral(v.PUBLIC_E_I)
    work.mix_dh(bytearray(SECRET))
    return work.seal(v.PUBLIC_S_I)


def sealed_timestamp() -> bytes:
    work = transcript()
    work.mix_dh(bytearray(SECRET))
    return work.seal(v.TIMESTAMP)


def sealed_nothing() -> bytes:
    work = transcript()
    work.mix_ephemeral(v.PUBLIC_E_R)
    work.mix_dh(exchange(v.E_I, v.PUBLIC_E_R))
    work.mix_dh(bytearray(SECRET))
    work.mix_psk(bytearray(SECRET))
    return work.seal(b"")


def arguments(step: str) -> list[Argument]:
    state = [kept(STATE[:32]), kept(STATE[32:])]
    match step:
        case "read_static":
            return [*state, kept(v.PUBLIC_E_I), taken(SECRET), kept(sealed_static()), secret_result(32)]
        case "read_timestamp":
            return [*state, taken(SECRET), kept(sealed_timestamp()), secret_result(12)]
        case "write_response":
            keys = [taken(v.E_R), kept(v.PUBLIC_E_I), kept(v.PUBLIC_S_I), taken(SECRET)]
            return [*state, *keys, public_result(32), public_result(16)]
        case "write_initiation":
            keys = [kept(v.E_I), kept(v.PUBLIC_S_R), kept(v.PUBLIC_S_I), taken(SECRET), kept(v.TIMESTAMP)]
            return [*state, *keys, public_result(32), public_result(48), public_result(28)]
        case "read_response":
            keys = [kept(v.E_I), kept(v.PUBLIC_E_R), taken(SECRET), taken(SECRET)]
            return [*state, *keys, kept(sealed_nothing())]
        case _:
            return [state[0], secret_result(32), secret_result(32)]


@pytest.mark.parametrize("step", STEPS)
def test_a_step_of_a_handshake(step: str) -> None:
    library = built("steps")
    library.fail_at(0)
    assert part("steps", "ready")()
    given = arguments(step)
    function = part("steps", step, *[c_void_p] * len(given))
    for number in failures("steps"):
        buffers = [ctypes.create_string_buffer(one.before, len(one.before)) for one in given]
        if function(*map(ctypes.addressof, buffers)) == 0:
            # The control: where nothing fails there are results.
            assert number > 8
            assert all(any(buffer.raw) for one, buffer in zip(given, buffers, strict=True) if not any(one.before))
            break
        for one, buffer in zip(given, buffers, strict=True):
            assert one.after in (None, buffer.raw), f"call {number}"


# A packet.

TEXT = 100


class Session(ctypes.Structure):
    """How a wghsm_sender begins."""

    _fields_ = (("stream", c_void_p), ("mac", c_void_p))


def new_session() -> "ctypes._Pointer[Session] | None":
    library = built("batch")
    library.wghsm_sender_new.restype = ctypes.POINTER(Session)
    library.wghsm_sender_new.argtypes = [c_void_p, ctypes.c_uint32, c_uint64]
    session = library.wghsm_sender_new(SECRET, 1, 1000)
    return session or None


@pytest.fixture
def session() -> Iterator[Session]:
    library = built("batch")
    library.fail_at(0)
    made = new_session()
    assert made is not None
    yield made.contents
    library.fail_at(0)
    library.wghsm_sender_free(made)


def test_a_session_is_made_whole_or_not_at_all() -> None:
    for number in failures("batch"):
        made = new_session()
        if made is not None:
            assert number == 5
            built("batch").wghsm_sender_free(made)
            break


def test_a_stream_that_fails_leaves_no_key_for_the_tag(session: Session) -> None:
    stream = part("batch", "apply_stream", c_void_p, c_uint64, c_void_p, c_size_t, c_void_p)
    before = b"\xaa" * 64
    for number in failures("batch"):
        memory, key = ctypes.create_string_buffer(before + bytes(TEXT)), ctypes.create_string_buffer(b"\xbb" * 32, 32)
        done = stream(session.stream, 1, ctypes.addressof(memory) + 64, TEXT, key)
        assert memory.raw.startswith(before)
        if done:
            assert number == 3
            assert key.raw not in (bytes(32), b"\xbb" * 32)
            break
        assert key.raw == bytes(32)


def test_a_tag_that_fails_leaves_no_key(session: Session) -> None:
    make_tag = part("batch", "make_tag", c_void_p, c_void_p, c_void_p, c_size_t, c_void_p)
    text, tag, half = bytes(TEXT), ctypes.create_string_buffer(16), ctypes.create_string_buffer(b"\xbb" * 16, 16)
    half_of_key = built("batch").half_of_key
    half_of_key.argtypes = [c_void_p, c_void_p]
    for number in failures("batch"):
        key = ctypes.create_string_buffer(SECRET, 32)
        done = make_tag(session.mac, key, text, TEXT, tag)
        assert key.raw == bytes(32)
        if done:
            assert number == 5
            assert any(tag.raw)
            break
        assert half_of_key(session.mac, half)
        assert half.raw == bytes(16)
