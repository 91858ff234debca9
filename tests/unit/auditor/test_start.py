"""The auditor's folder: made, given to its user, and nothing else given away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wghsm.auditor.start import _make_folder

if TYPE_CHECKING:
    from pathlib import Path

UID = 61106


def test_a_folder_is_made_and_given_to_the_auditor(tmp_path: Path) -> None:
    folder = tmp_path / "log" / "wg0"
    for _ in range(2):
        assert _make_folder(folder, UID, UID) == ""
        about = folder.stat()
        assert (about.st_uid, about.st_gid, about.st_mode & 0o777) == (UID, UID, 0o750)
    assert folder.parent.stat().st_uid != UID


def test_a_log_that_a_command_has_begun_goes_with_its_folder(tmp_path: Path) -> None:
    for name in ("commands.000001.jsonl", "commands.lock"):
        (tmp_path / name).touch()
    assert _make_folder(tmp_path, UID, UID) == ""
    assert tmp_path.stat().st_uid == UID


def test_a_folder_with_other_things_is_not_given_away(tmp_path: Path) -> None:
    (tmp_path / "passwd").touch()
    assert "holds other things than logs, such as passwd" in _make_folder(tmp_path, UID, UID)
    assert tmp_path.stat().st_uid != UID


def test_no_link_is_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    link = tmp_path / "link"
    link.symlink_to(target)
    assert str(link) in _make_folder(link, UID, UID)
    assert target.stat().st_uid != UID


def test_why_it_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert _make_folder(tmp_path / "file" / "log", UID, UID).endswith("Not a directory")
