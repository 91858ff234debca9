"""What the inventory reads of a custodian's state file, which the custodian itself writes here."""

import base64
from pathlib import Path

import msgspec
import pytest

from wghsm import audit
from wghsm.custodian.epochs import Record
from wghsm.custodian.state import Batch, State
from wghsm.inventory import Notes, Seen, notes_of_log, notes_of_state
from wghsm.noise.tai64n import from_unix_ns

ALICE, BOB, OWN = bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 32


def _stamp(moment: int) -> bytes:
    return from_unix_ns(moment * 10**9)


def _write(folder: Path) -> State:
    state = State(folder)
    state.write(
        Batch(
            greatest={ALICE: _stamp(1_700_000_000), BOB: _stamp(1_600_000_000)},
            psks={(ALICE, "derived"): Record(None, 7, 1_650_000_000 * 10**9), (BOB, "object"): Record(0, 0, 0)},
            identities={ALICE: OWN},
        )
    )
    return state


@pytest.mark.parametrize("running", [False, True])
def test_what_a_state_file_tells(tmp_path: Path, running: bool) -> None:
    state = _write(tmp_path)
    if not running:
        state.close()
    before = sorted(path.name for path in tmp_path.iterdir())
    notes = Notes()
    notes_of_state(tmp_path, notes)
    assert notes.psks == {(ALICE, "derived"): (7, Seen(1_650_000_000, "state file"))}
    assert notes.peers == {ALICE: Seen(1_700_000_000, "peer's clock"), BOB: Seen(1_600_000_000, "peer's clock")}
    assert notes.keys == {OWN: Seen(1_700_000_000, "peer's clock")}
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    if running:
        state.close()


def test_a_missing_a_damaged_and_a_foreign_file_tell_nothing(tmp_path: Path) -> None:
    for content in (None, b"", b"SQLite format 3\0 and nothing of it", b"x" * 5000):
        if content is not None:
            (tmp_path / "state.sqlite").write_bytes(content)
        notes = Notes()
        notes_of_state(tmp_path, notes)
        assert notes == Notes()


def _record(kind: audit.Kind, seconds: int, result: str = "ok", peer: bytes = ALICE) -> audit.Record:
    return audit.Record(
        v=1,
        stream=f"wg0/gateway/{'0' * 32}",
        seq=0,
        time=f"2024-01-01T00:00:{seconds:02}.000000Z",
        prev="0" * 64,
        kind=kind,
        operation="accept",
        result=result,
        peer=base64.b64encode(peer).decode(),
        key=base64.b64encode(OWN).decode(),
    )


def test_what_the_audit_log_tells() -> None:
    notes = Notes()
    records = [
        _record("key.use", 7),
        _record("key.use", 5, peer=BOB),
        _record("key.use", 3),
        _record("key.use", 9, result="refused"),
        _record("peer.change", 11),
        msgspec.structs.replace(_record("key.use", 12), peer="no key"),
        _record("checkpoint", 8),
        _record("checkpoint", 6),
    ]
    notes_of_log(records, notes)
    start = 1_704_067_200
    assert notes.peers == {ALICE: Seen(start + 7, "audit log"), BOB: Seen(start + 5, "audit log")}
    assert notes.keys == {OWN: Seen(start + 7, "audit log")}
    assert notes.sealed == Seen(start + 8, "audit log")
