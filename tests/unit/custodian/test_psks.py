"""PSKs at run time: who may write what, and that none of them stays in memory."""

import errno
import os

import pytest

from wghsm.custodian import psks
from wghsm.ipc import messages as m


@pytest.mark.parametrize(
    ("label", "length", "allowed", "number"),
    [
        ("wghsm-psk-alice", 32, False, errno.EPERM),
        ("alice", 32, True, errno.EPERM),
        ("wghsm-psk-" + "a" * 200, 32, True, errno.EPERM),
        ("gateway", 32, True, errno.EPERM),
        ("wghsm-psk-alice", 31, True, errno.EINVAL),
        ("wghsm-psk-alice", 33, True, errno.EINVAL),
    ],
)
def test_a_psk_that_is_refused_is_wiped(label: str, length: int, allowed: bool, number: int) -> None:
    psk = bytes(bytearray(os.urandom(length)))
    result = psks.refusal(m.PutPsk(4, label, psk), allowed=allowed)
    assert result is not None
    assert (result.request, result.errno) == (4, number)
    assert not any(psk)


def test_what_may_be_written() -> None:
    assert psks.refusal(m.PutPsk(4, "wghsm-psk-alice", bytes(32)), allowed=True) is None
    assert psks.refusal(m.DeletePsk(4, "wghsm-psk-alice"), allowed=True) is None
    assert psks.refusal(m.DeletePsk(4, "gateway"), allowed=True) is not None
