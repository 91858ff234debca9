"""What `wghsm status` says of a peer's pre-shared key: whether the peer has moved to the file's epoch."""

import pytest

from tests.unit.status_samples import peer_status
from wghsm.cli.status import _psk_epoch


@pytest.mark.parametrize(
    ("kind", "epoch", "confirmed", "words"),
    [
        ("none", None, None, ""),
        ("none", None, -1, ""),
        ("derived", 0, None, ", epoch 0; not used by the peer yet"),
        ("derived", 0, 0, ", epoch 0; the peer uses it"),
        ("derived", 1, 0, ", epoch 1; the peer still uses epoch 0"),
        ("wrapped", 7, 7, ", epoch 7; the peer has moved"),
        ("derived", 0, -1, ", epoch 0; the peer still has none"),
        ("object", None, None, "; not used by the peer yet"),
        ("object", None, 0, ""),
        ("object", None, -1, "; the peer still has none"),
    ],
)
def test_status_says_who_has_moved(kind: str, epoch: int | None, confirmed: int | None, words: str) -> None:
    peer = peer_status(
        preshared_key=kind,
        psk_epoch=epoch,
        psk_confirmed=confirmed,
    )
    assert _psk_epoch(peer) == words
