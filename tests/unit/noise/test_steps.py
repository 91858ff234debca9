"""The steps in C and in Python: the same results of the same arguments, the same refusals, and secrets taken over."""

import inspect
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.noise import vectors as v
from wghsm.noise import Reason, _chosen, _native, _steps
from wghsm.noise._kdf import aead_seal
from wghsm.noise._transcript import Transcript
from wghsm.noise.curve import LOW_ORDER_POINTS, exchange, public_key

TWINS = [_native, _steps]
octets32 = st.binary(min_size=32, max_size=32)
# Secrets and points at their edges, and any others.
secrets = st.one_of(st.just(bytes(32)), octets32)
points = st.one_of(st.sampled_from(sorted(LOW_ORDER_POINTS)), octets32, octets32.map(public_key))

Step = Callable[[ModuleType, Transcript], object]


def both(state: bytes, step: Step) -> object:
    """What both twins make of `step` from the same state; the state after it is compared as well if it passed."""
    results, states = [], []
    for twin in TWINS:
        work = Transcript()
        work.chaining_key[:], work.hash[:] = state[:32], state[32:]
        result = step(twin, work)
        results.append(result)
        states.append(None if isinstance(result, Reason) else (work.chaining_key, work.hash))
    assert results[0] == results[1]
    assert states[0] == states[1]
    return results[0]


states = st.binary(min_size=64, max_size=64)


def test_the_steps_in_c_are_built_and_chosen() -> None:
    assert _chosen.steps is _native


def test_the_twins_have_the_same_steps() -> None:
    assert _native.__all__ == _steps.__all__
    for name in _steps.__all__:
        assert inspect.signature(getattr(_native, name)) == inspect.signature(getattr(_steps, name))


def test_without_the_compiled_module_the_twin_is_chosen() -> None:
    program = (
        "import sys; sys.modules['wghsm.noise._libcrypto'] = None\n"
        "from wghsm.noise import _chosen, _steps\n"
        "sys.exit(_chosen.steps is not _steps)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def sealed_for(state: bytes, mix: Callable[[Transcript], object], plain: bytes) -> bytes:
    """`plain` as the other side would seal it after `mix`."""
    work = Transcript()
    work.chaining_key[:], work.hash[:] = state[:32], state[32:]
    mix(work)
    return work.seal(plain) if work.key else bytes(len(plain) + 16)


@given(states, points, secrets, octets32, st.booleans())
def test_read_static(state: bytes, ephemeral: bytes, shared: bytes, static: bytes, right: bool) -> None:
    def mix(work: Transcript) -> None:
        work.mix_ephemeral(ephemeral)
        work.mix_dh(bytearray(shared))

    sealed = sealed_for(state, mix, static) if right else static + static[:16]
    result = both(state, lambda twin, work: twin.read_static(work, ephemeral, bytearray(shared), sealed))
    refused = Reason.AUTHENTICATION if any(shared) else Reason.ZERO_DH
    assert result == (static if right and any(shared) else refused)


@given(states, secrets, st.binary(min_size=12, max_size=12), st.booleans())
def test_read_timestamp(state: bytes, shared: bytes, timestamp: bytes, right: bool) -> None:
    sealed = sealed_for(state, lambda work: work.mix_dh(bytearray(shared)), timestamp) if right else bytes(28)
    result = both(state, lambda twin, work: twin.read_timestamp(work, bytearray(shared), sealed))
    refused = Reason.AUTHENTICATION if any(shared) else Reason.ZERO_DH
    assert result == (timestamp if right and any(shared) else refused)


@given(states, octets32, points, points, secrets)
def test_write_response(state: bytes, private: bytes, ephemeral: bytes, static: bytes, psk: bytes) -> None:
    result = both(
        state, lambda twin, work: twin.write_response(work, bytearray(private), ephemeral, static, bytearray(psk))
    )
    if any(exchange(private, ephemeral)) and any(exchange(private, static)):
        assert isinstance(result, tuple)
        assert result[0] == public_key(private)
    else:
        assert result is Reason.ZERO_DH


@given(states, octets32, points, octets32, secrets, st.binary(min_size=12, max_size=12))
def test_write_initiation(
    state: bytes, private: bytes, remote: bytes, own: bytes, shared: bytes, timestamp: bytes
) -> None:
    kept = bytearray(private)
    result = both(
        state, lambda twin, work: twin.write_initiation(work, kept, remote, own, bytearray(shared), timestamp)
    )
    assert kept == private
    assert (result is Reason.ZERO_DH) == (not any(shared) or not any(exchange(private, remote)))


@given(states, octets32, points, secrets, secrets, st.booleans())
def test_read_response(state: bytes, private: bytes, ephemeral: bytes, shared: bytes, psk: bytes, right: bool) -> None:
    def mix(work: Transcript) -> None:
        work.mix_ephemeral(ephemeral)
        if work.mix_dh(exchange(private, ephemeral)) and work.mix_dh(bytearray(shared)):
            work.mix_psk(bytearray(psk))
        else:
            work.key = None

    sealed = sealed_for(state, mix, b"") if right else b"\x55" * 16
    kept = bytearray(private)
    result = both(
        state,
        lambda twin, work: twin.read_response(work, kept, ephemeral, bytearray(shared), bytearray(psk), sealed),
    )
    assert kept == private
    if not any(shared) or not any(exchange(private, ephemeral)):
        assert result is Reason.ZERO_DH
    else:
        assert result is (None if right else Reason.AUTHENTICATION)


@given(states)
def test_split(state: bytes) -> None:
    assert isinstance(both(state, lambda twin, work: twin.split(work)), tuple)


@pytest.mark.parametrize("twin", TWINS, ids=["c", "python"])
def test_secrets_are_taken_over_whatever_comes_of_it(twin: ModuleType) -> None:
    def taken(step: Callable[..., object], *lengths: int) -> None:
        for wrong in (None, *range(len(lengths))):
            given_secrets = [bytearray(b"\x77" * (31 if place == wrong else 32)) for place in range(len(lengths))]
            if wrong is None:
                step(*given_secrets)
            else:
                with pytest.raises(ValueError, match="32"):
                    step(*given_secrets)
            assert not any(any(secret) for secret in given_secrets)

    sealed = aead_seal(bytearray(32), bytes(32), b"")
    taken(lambda shared: twin.read_static(Transcript(), v.PUBLIC_E_I, shared, sealed), 32)
    taken(lambda shared: twin.read_timestamp(Transcript(), shared, sealed[:28]), 32)
    taken(lambda own, psk: twin.write_response(Transcript(), own, v.PUBLIC_E_I, v.PUBLIC_S_I, psk), 32, 32)
    kept = bytearray(v.E_I)
    taken(lambda shared: twin.write_initiation(Transcript(), kept, v.PUBLIC_S_R, v.PUBLIC_S_I, shared, v.TIMESTAMP), 32)
    taken(lambda shared, psk: twin.read_response(Transcript(), kept, v.PUBLIC_E_R, shared, psk, sealed[:16]), 32, 32)


@pytest.mark.parametrize(
    "arguments",
    [(bytes(31), bytes(48)), (bytes(32), bytes(47)), (bytes(33), bytes(48)), (bytes(32), b"")],
)
def test_c_is_given_exact_lengths_only(arguments: tuple[bytes, bytes]) -> None:
    ephemeral, sealed = arguments
    with pytest.raises(ValueError, match="bytes were expected"):
        _native.read_static(Transcript(), ephemeral, bytearray(b"\x01" * 32), sealed)
    with pytest.raises(ValueError, match="bytes were expected"):
        _native.write_response(Transcript(), bytearray(32), ephemeral, sealed[:31], bytearray(32))
