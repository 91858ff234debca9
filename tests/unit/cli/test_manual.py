"""The manual and the completion know every command, and are made from the code."""

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from tests.unit.config.samples import GOOD
from wghsm import __version__
from wghsm.cli import _completing, _gateway_files, main
from wghsm.cli._manual import Page, markdown, pages, roff
from wghsm.config import load_text
from wghsm.exits import ExitCode

COMMANDS = Path(__file__).parents[3] / "docs" / "commands.md"
TOKEN = load_text(GOOD, "good").token.uri
PAGES = list(pages(main, "wghsm"))


def test_the_page_of_commands_is_that_of_the_code() -> None:
    assert COMMANDS.read_text() == markdown(PAGES), "run: wghsm man --markdown > docs/commands.md"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_command_has_a_page_with_an_example(page: Page) -> None:
    assert page.summary
    assert page.text
    if not page.commands:
        assert "xample" in "".join((*page.text, *page.end))
    assert all(about for _, about in (*page.options, *page.commands))


def test_exit_codes_have_meanings() -> None:
    assert len({code.meaning for code in ExitCode}) == len(ExitCode)
    assert int(ExitCode.NOT_RUNNING) == 6
    assert ExitCode(6) is ExitCode.NOT_RUNNING


def test_man_pages_are_good_roff(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["man", "--out", str(tmp_path / "man1")], standalone_mode=False)
    assert done.exception is None
    assert {path.name for path in (tmp_path / "man1").iterdir()} == {page.file for page in PAGES}
    assert (tmp_path / "man1/wghsm.1").stat().st_mode & 0o777 == 0o666 & ~_umask()
    for page in PAGES:
        source = roff(page, __version__)
        assert not re.search(r"^[.'](?!TH|SH|TP|PP|nf|fi|nh|ad)", source, re.MULTILINE)
        words = ["groff", "-man", "-Tutf8", "-Wbreak", "-wmac", "-wsyntax", "-wchar"]
        done_page = subprocess.run(words, input=source, capture_output=True, text=True, check=True)
        assert done_page.stderr == ""
        plain = re.sub(r"\x1b\[[0-9;]*m", "", done_page.stdout)
        assert not re.search(r"[a-z]\u2010$", plain, re.MULTILINE), "a word is broken"


@pytest.mark.parametrize("before", [None, "an older page"])
def test_a_full_disk_leaves_the_pages_as_they_were(tmp_path: Path, before: str | None) -> None:
    """Files that may not be longer than a few hundred bytes stand for the disk."""
    folder = tmp_path / "man1"
    if before is not None:
        folder.mkdir()
        (folder / "wghsm.1").write_text(before)
    done = subprocess.run(
        ["/bin/sh", "-c", 'ulimit -f 1; exec "$@"', "sh", sys.executable, "-m", "wghsm", "man", "--out", folder],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == ExitCode.FAILURE
    assert re.fullmatch(rf"wghsm: {folder}/wghsm[a-z-]*\.1: File too large\n", done.stderr)
    assert {path.name: path.read_text() for path in tmp_path.glob("man1/*")} == ({"wghsm.1": before} if before else {})
    assert folder.exists() == (before is not None)


def test_a_page_that_is_not_there() -> None:
    done = CliRunner().invoke(main, ["man", "nonsense"], standalone_mode=False)
    assert isinstance(done.exception, click.UsageError)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_for_shells(shell: str) -> None:
    done = CliRunner().invoke(main, ["completion", shell], standalone_mode=False)
    assert "_WGHSM_COMPLETE" in done.output


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _offered(words: list[str], begun: str) -> list[str]:
    return [item.value for item in ShellComplete(main, {}, "wghsm", "_WGHSM_COMPLETE").get_completions(words, begun)]


def test_names_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_gateway_files, "FOLDER", tmp_path)
    monkeypatch.setattr(_completing, "running_gateways", lambda: ["wg0", "wg1", "office"])
    assert _offered(["peer", "show"], "") == []
    (tmp_path / "wg0.yaml").write_text(GOOD)
    (tmp_path / "bad.yaml").write_text("version: [")
    assert _offered(["peer", "disable"], "al") == ["alice"]
    assert _offered(["key", "show"], "wghsm") == ["wghsm-psk-root"]
    assert _offered(["status"], "wg") == ["wg0", "wg1"]
    assert "office" in _offered(["reload"], "")
    assert {"wg0", "bad"} < set(_offered(["up"], ""))
    assert "bob" in _offered(["psk", "export", "-c", str(tmp_path / "wg0.yaml")], "")
    assert "peer" in _offered([], "p")
    assert _offered(["key", "list", "--token"], "") == [TOKEN]
    assert _offered(["man", "peer"], "l") == ["list"]
    assert _offered(["man", "peer", "list"], "") == []
    assert _offered(["peer", "config"], "b") == ["bob"]
    assert _offered(["rekey", "wg0"], "b") == ["bob"]
    monkeypatch.setenv("_WGHSM_COMPLETE", "bash_complete")
    assert _offered(["token", "show", "--token"], "") == [f"'{TOKEN}'"]
