"""The PIN latch: a refused PIN stays refused over restarts, another is tried, and the file tells nothing useful."""

import hashlib
import re
from pathlib import Path

import pytest

from wghsm.custodian.latch import LatchFault, PinLatch

_WRONG, _OTHER = bytearray(b"12345678"), bytearray(b"12345679")


def _refuse(folder: Path, pin: bytearray) -> None:
    latch = PinLatch(folder, "token 'gw'")
    assert not latch.is_refused(pin)
    latch.close()


def test_a_refused_pin_is_known_again(tmp_path: Path) -> None:
    _refuse(tmp_path, _WRONG)
    assert PinLatch(tmp_path, "token 'gw'").is_refused(_WRONG)
    assert not PinLatch(tmp_path, "token 'gw'").is_refused(_OTHER)
    assert not PinLatch(tmp_path, "token 'other'").is_refused(_WRONG)


def test_every_refused_pin_counts(tmp_path: Path) -> None:
    _refuse(tmp_path, _WRONG)
    _refuse(tmp_path, _OTHER)
    for pin in (_WRONG, _OTHER):
        assert PinLatch(tmp_path, "token 'gw'").is_refused(pin)


def test_a_pin_that_is_taken_opens_it(tmp_path: Path) -> None:
    _refuse(tmp_path, _WRONG)
    latch = PinLatch(tmp_path, "token 'gw'")
    assert not latch.is_refused(_OTHER)
    latch.open()
    assert not latch.path.exists()
    assert not PinLatch(tmp_path, "token 'gw'").is_refused(_WRONG)
    # Later in the same process the token refuses it after all.
    latch.close()
    assert PinLatch(tmp_path, "token 'gw'").is_refused(_OTHER)
    assert not PinLatch(tmp_path, "token 'gw'").is_refused(_WRONG)


def test_the_operator_may_delete_it(tmp_path: Path) -> None:
    _refuse(tmp_path, _WRONG)
    (tmp_path / "pin-refused").unlink()
    assert not PinLatch(tmp_path, "token 'gw'").is_refused(_WRONG)


def test_the_file_holds_16_bits_and_a_fresh_salt(tmp_path: Path) -> None:
    salts = set()
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        _refuse(folder, _WRONG)
        path = folder / "pin-refused"
        assert path.stat().st_mode & 0o777 == 0o600
        header, salt, fingerprint = path.read_text().splitlines()
        assert header == "wghsm-pin-refused 1"
        assert re.fullmatch("[0-9a-f]{4}", fingerprint)
        salts.add(salt)
        made = hashlib.scrypt(_WRONG, salt=bytes.fromhex(salt) + b"token 'gw'", n=2**14, r=8, p=1, dklen=2)
        assert made.hex() == fingerprint
    assert len(salts) == 2


@pytest.mark.parametrize(
    "text", ["", "nonsense\n", "wghsm-pin-refused 1\nzz\n1234\n", "wghsm-pin-refused 1\n\n", "\xff"]
)
def test_a_file_that_cannot_be_read_is_no_permission(tmp_path: Path, text: str) -> None:
    (tmp_path / "pin-refused").write_text(text, encoding="latin-1")
    with pytest.raises(LatchFault, match="delete the file"):
        PinLatch(tmp_path, "token 'gw'").is_refused(_WRONG)


def test_tokens_of_one_gateway_have_a_latch_each(tmp_path: Path) -> None:
    first, second = (PinLatch(tmp_path, name, shared=True) for name in ("token 'a'", "token 'b'"))
    assert first.path != second.path
    assert not first.is_refused(_WRONG)
    first.close()
    assert not second.is_refused(_OTHER)
    second.open()
    assert PinLatch(tmp_path, "token 'a'", shared=True).is_refused(_WRONG)
