"""The state file: it remembers, it never goes back, and a damaged one is never silently replaced."""

import base64
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from wghsm.custodian.epochs import Record
from wghsm.custodian.journal import RECORDS
from wghsm.custodian.state import Batch, State, StateFault, make_folder
from wghsm.exits import ExitCode

_ALICE, _BOB = b"a" * 32, b"b" * 32


def _stamp(number: int) -> bytes:
    return number.to_bytes(12, "big")


def test_a_new_file_knows_nothing(tmp_path: Path) -> None:
    state = State(tmp_path)
    assert state.is_new
    assert (state.greatest(), state.psks(), state.identities(), state.last_own()) == ({}, {}, {}, None)
    assert state.path.stat().st_mode & 0o077 == 0


def test_it_remembers(tmp_path: Path) -> None:
    state = State(tmp_path)
    records = {(_ALICE, "derived"): Record(2**32 - 1, 2**32 - 1, 9), (_BOB, "wrapped"): Record(None, 1, 2**62)}
    state.write(Batch({_ALICE: _stamp(5), _BOB: _stamp(2**95)}, dict(list(records.items())[:1]), 123))
    state.write(Batch({}, dict(list(records.items())[1:])))
    state.close()
    again = State(tmp_path)
    assert not again.is_new
    assert again.greatest() == {_ALICE: _stamp(5), _BOB: _stamp(2**95)}
    assert again.psks() == records
    assert again.last_own() == 123


def test_timestamps_never_go_back(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.write(Batch({_ALICE: _stamp(500)}, own=500))
    state.write(Batch({_ALICE: _stamp(499)}, own=499))
    assert (state.greatest(), state.last_own()) == ({_ALICE: _stamp(500)}, 500)


def test_a_confirmed_epoch_never_goes_back(tmp_path: Path) -> None:
    state, key = State(tmp_path), (_ALICE, "derived")
    for confirmed, newest, expected in ((None, 0, None), (0, 1, 0), (None, 2, 0), (2, 2, 2), (1, 3, 2)):
        state.write(Batch(psks={key: Record(confirmed, newest, newest * 10)}))
        assert state.psks() == {key: Record(expected, newest, newest * 10)}


def test_a_file_of_the_first_version_is_taken_over(tmp_path: Path) -> None:
    State(tmp_path).close()
    database = sqlite3.connect(tmp_path / "state.sqlite")
    database.executescript(
        "DROP TABLE psk; DROP TABLE identity; ALTER TABLE peer ADD COLUMN psk_epoch INTEGER; PRAGMA user_version = 1;"
    )
    with database:
        database.execute("INSERT INTO peer VALUES (?, ?, 7)", (_ALICE, _stamp(5)))
        database.execute("INSERT INTO peer VALUES (?, ?, NULL)", (_BOB, _stamp(6)))
    database.close()
    for _ in range(2):
        state = State(tmp_path)
        assert state.greatest() == {_ALICE: _stamp(5), _BOB: _stamp(6)}
        assert state.psks() == {(_ALICE, "derived"): Record(7, 7, 0)}
        state.close()


def test_a_file_of_the_second_version_is_taken_over(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.write(Batch({_ALICE: _stamp(5)}, {(_ALICE, "derived"): Record(1, 2, 3)}, 9))
    state.close()
    database = sqlite3.connect(tmp_path / "state.sqlite")
    database.executescript("DROP TABLE identity; PRAGMA user_version = 2;")
    database.close()
    for identities in ({}, {_ALICE: _BOB}):
        state = State(tmp_path)
        assert (state.greatest(), state.psks()) == ({_ALICE: _stamp(5)}, {(_ALICE, "derived"): Record(1, 2, 3)})
        assert (state.identities(), state.last_own()) == (identities, 9)
        state.write(Batch(identities={_ALICE: _BOB}))
        state.close()


def test_a_file_of_the_third_version_is_taken_over(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.write(Batch({_ALICE: _stamp(5)}, own=9))
    state.close()
    (tmp_path / "state.journal").unlink()
    database = sqlite3.connect(tmp_path / "state.sqlite")
    database.execute("PRAGMA user_version = 3")
    database.close()
    for expected in (5, 6):
        state = State(tmp_path)
        assert (state.greatest(), state.last_own()) == ({_ALICE: _stamp(expected)}, 9)
        state.write(Batch({_ALICE: _stamp(6)}))
        state.close()


def test_the_identity_that_a_peer_last_used_is_remembered(tmp_path: Path) -> None:
    state = State(tmp_path)
    for own in (b"1" * 32, b"2" * 32, b"1" * 32):
        state.write(Batch(identities={_ALICE: own, _BOB: b"3" * 32}))
        assert state.identities() == {_ALICE: own, _BOB: b"3" * 32}


def _write_and_die(folder: Path, number: int = 1) -> None:
    """In a process of its own, so many batches of _ALICE's."""
    program = (
        "import os, sys, pathlib\n"
        "from wghsm.custodian.state import Batch, State\n"
        "state = State(pathlib.Path(sys.argv[1]))\n"
        "for number in range(int(sys.argv[2])):\n"
        "    state.write(Batch({b'a' * 32: (number + 1).to_bytes(12, 'big')}, own=7))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(folder), str(number)], check=False)
    assert done.returncode == -9


@pytest.mark.parametrize("number", [1, RECORDS // 2, RECORDS // 2 + 1, RECORDS])
def test_a_batch_is_there_after_a_kill(tmp_path: Path, number: int) -> None:
    _write_and_die(tmp_path, number)
    state = State(tmp_path)
    assert (state.greatest(), state.last_own()) == ({_ALICE: _stamp(number)}, 7)


def test_a_batch_that_is_longer_than_the_journal_is_remembered(tmp_path: Path) -> None:
    many = {number.to_bytes(32, "big"): _stamp(number) for number in range(1, RECORDS + 2)}
    state = State(tmp_path)
    state.write(Batch(many))
    state.close()
    assert State(tmp_path).greatest() == many


def test_others_find_in_the_database_what_has_settled(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.write(Batch({_ALICE: _stamp(5)}, own=9))
    state.settle()
    (tmp_path / "copy").mkdir()
    for file in tmp_path.glob("state.sqlite*"):
        shutil.copy(file, tmp_path / "copy")
    database = sqlite3.connect(tmp_path / "copy" / "state.sqlite")
    assert database.execute("SELECT timestamp FROM peer").fetchall() == [(_stamp(5),)]
    database.close()


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _garbage(path: Path) -> None:
    path.write_bytes(os.urandom(8192))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def _scribble(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    whole[4096:4200] = b"\xff" * 104
    path.write_bytes(whole)


def _another_program(path: Path) -> None:
    path.unlink()
    sqlite3.connect(path).execute("CREATE TABLE t (x)").connection.close()


_DAMAGES = [
    *[("state.sqlite", damage) for damage in (_empty, _garbage, _cut, _scribble, _another_program)],
    *[("state.journal", damage) for damage in (_empty, _garbage, _cut, _another_program)],
]


@pytest.mark.parametrize(("name", "damage"), _DAMAGES)
def test_a_damaged_file_is_a_fault_and_stays(tmp_path: Path, name: str, damage: Callable[[Path], None]) -> None:
    state = State(tmp_path)
    state.write(Batch({_ALICE: _stamp(5)}))
    state.close()
    path = tmp_path / name
    damage(path)
    before = path.read_bytes()
    with pytest.raises(StateFault, match="damaged") as caught:
        State(tmp_path)
    assert str(state.path) in str(caught.value)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


def test_a_missing_journal_is_damage(tmp_path: Path) -> None:
    State(tmp_path).close()
    (tmp_path / "state.journal").unlink()
    with pytest.raises(StateFault, match=r"state\.journal beside it is missing"):
        State(tmp_path)


def test_an_old_journal_is_not_taken_for_that_of_a_new_file(tmp_path: Path) -> None:
    _write_and_die(tmp_path)
    for file in tmp_path.glob("state.sqlite*"):
        file.unlink()
    assert State(tmp_path).greatest() == {}


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.close()
    database = sqlite3.connect(state.path)
    database.execute("PRAGMA user_version = 5")
    database.close()
    with pytest.raises(StateFault, match="version 5"):
        State(tmp_path)


def test_an_unfinished_creation_is_no_damage(tmp_path: Path) -> None:
    (tmp_path / "state.new").write_bytes(b"half")
    assert State(tmp_path).is_new


def test_the_folder_is_the_custodians_own(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "gateways" / "wg0", 61100, 61100)
    about = folder.stat()
    assert (about.st_uid, about.st_gid, about.st_mode & 0o777) == (61100, 61100, 0o700)
    assert (tmp_path / "gateways" / "wg0").stat().st_uid == os.geteuid()
    folder.chmod(0o755)
    assert make_folder(tmp_path / "gateways" / "wg0", 61100, 61100).stat().st_mode & 0o777 == 0o700


def test_a_link_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "custodian").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateFault, match="state folder"):
        make_folder(tmp_path, 61100, 61100)
    assert (tmp_path / "elsewhere").stat().st_uid == os.geteuid()


def test_a_timestamp_can_be_forgotten_and_nothing_else_is(tmp_path: Path) -> None:
    state = State(tmp_path)
    record = Record(1, 1, 9)
    state.write(Batch({_ALICE: _stamp(5), _BOB: _stamp(6)}, {(_ALICE, "derived"): record}, 123))
    state.forget([_ALICE])
    state.write(Batch({_ALICE: _stamp(2)}))
    state.close()
    again = State(tmp_path)
    assert again.greatest() == {_ALICE: _stamp(2), _BOB: _stamp(6)}
    assert again.psks() == {(_ALICE, "derived"): record}
    assert again.last_own() == 123


def _forget(folder: Path, key: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "wghsm.custodian.forgetting", str(folder), key]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_what_is_forgotten_does_not_come_back_out_of_the_journal(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    state = State(tmp_path / "state")
    state.write(Batch({_ALICE: _stamp(5), _BOB: _stamp(6)}))
    state.forget([_ALICE])
    shutil.copytree(tmp_path / "state", tmp_path / "crashed")
    assert State(tmp_path / "crashed").greatest() == {_BOB: _stamp(6)}


def test_forgetting_without_a_gateway_is_done_by_the_owner(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    state = State(tmp_path)
    state.write(Batch({_ALICE: _stamp(5), _BOB: _stamp(6)}))
    busy = _forget(tmp_path, base64.b64encode(_ALICE).decode())
    assert (busy.returncode, len(busy.stderr.splitlines())) == (ExitCode.SYSTEM, 1)
    state.close()
    assert _forget(tmp_path, base64.b64encode(_ALICE).decode()).returncode == 0
    assert State(tmp_path).greatest() == {_BOB: _stamp(6)}
    assert {each.stat().st_uid for each in tmp_path.iterdir()} == {os.geteuid()}


def test_forgetting_what_is_not_there_is_told(tmp_path: Path) -> None:
    gone = _forget(tmp_path / "none", base64.b64encode(_ALICE).decode())
    assert (gone.returncode, "no state" in gone.stderr) == (ExitCode.FAILURE, True)
    assert _forget(tmp_path, "key").returncode == ExitCode.BAD_CONFIG
