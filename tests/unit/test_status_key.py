"""What `wghsm status` says while the gateway's key is rotated: who has moved to the new one, and who has not."""

import pytest

from tests.unit.status_samples import peer_status
from wghsm.cli.status import _describe, _shape
from wghsm.ipc.admin import PeerStatus, Status

_NEW, _OLD = "N" * 43 + "=", "O" * 43 + "="


def _peer(name: str, used: str | None) -> PeerStatus:
    return peer_status(
        name=name,
        public_key=name.rjust(44),
        gateway_key=used,
    )


def _status(*peers: PeerStatus, previous: str | None = _OLD, label: str | None = "gw-2024") -> Status:
    return Status(
        name="wg0",
        file="gw.yaml",
        public_key=_NEW,
        listen_port=0,
        fwmark=0,
        up=True,
        started=0.0,
        token=None,
        processes=[],
        peers=list(peers),
        counters={},
        key_label="gw-2025",
        previous_key=previous,
        previous_key_label=label,
    )


def _lines(status: Status, start: str) -> list[str]:
    return [line.strip() for line in _describe(status, 1.0) if line.strip().startswith(start)]


@pytest.fixture(autouse=True)
def _plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("click.style", lambda text, **_: text)


def test_both_keys_and_who_uses_which() -> None:
    peers = (_peer("alice", _OLD), _peer("bob", _NEW), _peer("carol", _OLD), _peer("dora", None))
    status = _status(*peers)
    assert _lines(status, "public key: N") == [f"public key: {_NEW} (gw-2025)"]
    assert _lines(status, "previous key") == [f"previous key: {_OLD} (gw-2024)"]
    assert _lines(status, "key rotation") == [
        "key rotation: 2 of 4 peers still use gw-2024: alice, carol; 1 not seen yet: dora"
    ]
    assert _lines(status, "gateway key") == [
        "gateway key: the peer still uses gw-2024",
        "gateway key: the peer uses gw-2025",
        "gateway key: the peer still uses gw-2024",
        "gateway key: not seen yet",
    ]
    shown = _shape(status)
    assert shown.still_on_previous_key == ["alice", "carol"]
    assert (shown.public_key, shown.key_label) == (_NEW, "gw-2025")
    assert (shown.previous_key, shown.previous_key_label) == (_OLD, "gw-2024")


def test_all_have_moved() -> None:
    assert _lines(_status(_peer("alice", _NEW)), "key rotation") == ["key rotation: 0 of 1 peers still use gw-2024"]


def test_without_a_rotation_there_is_one_key() -> None:
    status = _status(_peer("alice", _NEW), previous=None, label=None)
    assert not [line for line in _describe(status, 1.0) if "previous" in line or "gateway key" in line]
    assert _shape(status).still_on_previous_key == []


def test_a_token_that_is_not_open_has_told_no_key() -> None:
    status = _status(_peer("alice", None), previous=None)
    assert _lines(status, "previous key") == ["previous key: not known yet: the token is not open (gw-2024)"]
    assert _lines(status, "key rotation") == []
