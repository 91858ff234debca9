"""New PINs: halves, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wghsm.ceremony import complaint, join_halves


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_halves_are_joined(first: bytes, second: bytes) -> None:
    assert join_halves(bytearray(first), bytearray(second)) == first + second


@pytest.mark.parametrize(
    ("pin", "lengths", "half", "good"),
    [
        (b"k3x9-q7z", None, False, True),
        (b"k3x9q", None, False, False),
        (b"k3x9-q", (8, 32), False, False),
        (b"k3x9-q7zw", (4, 8), False, False),
        (b"123456", None, False, False),
        (b"987654", None, False, False),
        (b"aaaaaaaa", None, False, False),
        (b"123457", None, False, True),
        (b"k3x", None, True, False),
        (b"k3x9", None, True, True),
        (b"1234", None, True, False),
        (b"k3x9q", (4, 8), True, False),
        (b"", None, False, False),
        (b"", None, True, False),
    ],
)
def test_what_is_refused(pin: bytes, lengths: tuple[int, int] | None, half: bool, good: bool) -> None:
    assert (complaint(bytearray(pin), lengths, half=half) is None) == good


def test_two_pins_must_differ() -> None:
    pin = bytearray(b"k3x9-q7z")
    assert complaint(pin, None, other=bytearray(pin)) == "it must differ from the other one"
    assert complaint(pin, None, other=bytearray(b"k3x9-q7y")) is None


@given(st.binary(min_size=1, max_size=60), st.booleans())
def test_no_complaint_quotes_a_pin(pin: bytes, half: bool) -> None:
    said = complaint(bytearray(pin), (6, 32), half=half) or ""
    assert len(pin) < 4 or pin.decode("latin-1") not in said
