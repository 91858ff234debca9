"""The journal of timestamps: what it was told is there, and what a crash has cut off does no harm."""

from pathlib import Path

import pytest

from wghsm.custodian.journal import RECORDS, Journal

_ALICE, _BOB = b"a" * 32, b"b" * 32
_HEAD = _RECORD = 64


def _stamp(number: int) -> bytes:
    return number.to_bytes(12, "big")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "state.journal"
    Journal.create(path)
    return path


def _opened(path: Path) -> Journal:
    journal = Journal(path)
    journal.clear()
    return journal


def test_it_is_private_and_keeps_its_length(path: Path) -> None:
    journal, length = _opened(path), path.stat().st_size
    assert path.stat().st_mode & 0o077 == 0
    while journal.append({_ALICE: _stamp(1)}):
        assert path.stat().st_size == length


def test_the_greatest_of_each_key_counts(path: Path) -> None:
    journal = _opened(path)
    for batch in ({_ALICE: _stamp(2), _BOB: _stamp(2**95)}, {_ALICE: _stamp(3)}, {_ALICE: _stamp(1)}):
        assert journal.append(batch)
    journal.close()
    assert Journal(path).read() == {_ALICE: _stamp(3), _BOB: _stamp(2**95)}


def test_one_that_is_full_takes_nothing_until_it_is_emptied(path: Path) -> None:
    journal = _opened(path)
    for number in range(RECORDS):
        assert journal.append({_ALICE: _stamp(number)})
    assert not journal.append({_BOB: _stamp(1)})
    assert journal.read() == {_ALICE: _stamp(RECORDS - 1)}
    journal.clear()
    assert (journal.is_empty, journal.read()) == (True, {})
    assert journal.append({number.to_bytes(32, "big"): _stamp(number) for number in range(RECORDS)})
    assert len(journal.read()) == RECORDS


def test_nothing_is_written_over_before_it_was_emptied(path: Path) -> None:
    journal = _opened(path)
    journal.append({_ALICE: _stamp(1)})
    journal.close()
    again = Journal(path)
    assert not again.is_empty
    assert not again.append({_BOB: _stamp(2)})
    assert again.read() == {_ALICE: _stamp(1)}


@pytest.mark.parametrize("kept", range(_RECORD))
def test_a_record_that_was_cut_off_is_passed_over(path: Path, kept: int) -> None:
    journal = _opened(path)
    for number in (1, 2):
        journal.append({_ALICE: _stamp(number)})
    journal.close()
    whole = path.read_bytes()
    end = _HEAD + _RECORD + kept
    path.write_bytes(whole[:end].ljust(len(whole), b"\0"))
    assert Journal(path).read() == {_ALICE: _stamp(1)}


def test_what_is_no_journal_is_told(path: Path) -> None:
    whole = path.read_bytes()
    for content in (b"", whole[:-1], whole + b"\0", b"x" + whole[1:]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="it is"):
            Journal(path)
