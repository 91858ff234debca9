"""Files that commands write: whole or not at all, and a full disk is said with the file's name."""

import errno
import os
from pathlib import Path

import pytest

from wghsm.cli._psk_file import new_file, replace_file


@pytest.fixture(autouse=True)
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)


def test_a_new_file_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "client.conf"
    with pytest.raises(OSError, match="No space left") as caught:
        new_file(path, b"half of it")
    assert caught.value.filename == str(path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_replaced_stays(tmp_path: Path) -> None:
    path = tmp_path / "wg0.yaml"
    path.write_text("version: 1\n")
    with pytest.raises(OSError, match="No space left") as caught:
        replace_file(path, "version: 2\n")
    assert caught.value.filename == str(path)
    assert [(each, each.read_text()) for each in tmp_path.iterdir()] == [(path, "version: 1\n")]
