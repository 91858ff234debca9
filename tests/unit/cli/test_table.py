"""Listings at a terminal and in a pipe: columns stand under their headings, and nothing is cut off."""

import re
import sys

import pytest
from rich.text import Text

from wghsm.cli._table import show_beside, show_table

HEADINGS = ("NAME", "ALLOWED IPS", "LAST HANDSHAKE", "ID")
ROWS: list[tuple[str | Text, ...]] = [
    ("alice", "10.8.0.2/32, fd1d:a588:796b::2/128", "-", "776769646b03a91ee2c29a4d"),
    ("ä", "10.8.0.3/32", "3 min ago", Text("0123456789abcdef01234567", style="red")),
]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """What rich and click take for a terminal."""
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return monkeypatch


def drawn(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()


def test_in_a_pipe_a_row_is_a_line_without_colours_or_blanks_at_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(HEADINGS, [*ROWS, ("x" * 300, "", "", "")])
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert len(lines) == 4
    assert "\x1b" not in text
    assert all(line == line.rstrip() for line in lines)
    assert [lines[place].index(word) for place, word in enumerate(("ALLOWED", "10.8.0.2", "10.8.0.3"))] == [302] * 3


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
def test_at_a_terminal_no_line_is_wider_and_no_word_is_lost(
    terminal: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: int
) -> None:
    terminal.setenv("COLUMNS", str(columns))
    show_table(HEADINGS, ROWS)
    lines = drawn(capsys)
    assert max(map(len, lines)) <= columns
    words = " ".join(lines)
    for word in ("NAME", "ALLOWED", "alice", "10.8.0.2/", "HANDSHAKE", "min"):
        assert word in words
    for word in ("10.8.0.2/32,", "fd1d:a588:796b::2/128", "10.8.0.3/32") if columns >= 60 else ():
        assert word in words
    if columns >= 80:
        assert "776769646b03a91ee2c29a4d" in words


def test_labels_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(("LABEL",), [("a\x1b[2Jb\nc",)])
    assert capsys.readouterr().out == "LABEL\na?[2Jb?c\n"


def test_a_long_text_goes_on_under_its_beginning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "one two three four five six seven eight nine ten"
    show_beside("  lead: ", text)
    assert drawn(capsys) == [f"  lead: {text}"]
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    show_beside("  lead: ", text)
    assert drawn(capsys) == ["  lead: one two three four", "        five six seven eight", "        nine ten"]
