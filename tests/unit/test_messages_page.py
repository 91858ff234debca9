"""docs/messages.md says what the code says: made from its source, and how what is put together there is followed."""

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SITE = Path(__file__).parents[2] / "docs" / "site"


@pytest.fixture
def spoken(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SITE))
    return importlib.import_module("spoken").spoken


def _said(spoken: Any, root: Path, source: str, room: str = "cli/work.py") -> set[tuple[str, str, str, str]]:
    path = root / "wghsm" / room
    path.parent.mkdir(parents=True)
    path.write_text(source)
    return {(each.how, each.word, each.text, each.remedy) for each in spoken(root)}


def test_the_page_is_what_the_code_says() -> None:
    made = subprocess.run([sys.executable, SITE / "messages.py"], check=True, capture_output=True, text=True).stdout
    page = SITE.parent / "messages.md"
    assert page.read_text() == made, "run: python docs/site/messages.py > docs/messages.md"


_ERROR = """
class WorkError(Exception):
    exit_code = ExitCode.TOKEN_UNUSABLE
"""


def test_an_error_has_the_exit_code_of_its_class(spoken: Any, tmp_path: Path) -> None:
    source = _ERROR + "def work(path):\n    raise WorkError(f'{path} cannot be used; remove it')\n"
    assert _said(spoken, tmp_path, source) == {("end", "TOKEN_UNUSABLE", "PATH cannot be used; remove it", "")}


def test_a_text_is_followed_through_names_branches_and_functions(spoken: Any, tmp_path: Path) -> None:
    source = (
        _ERROR
        + """
HINT = "look at the log"

def work(path):
    why = "it is used elsewhere"
    if path:
        why = "it is not there"
    else:
        why = reason(path)
    raise WorkError(why)

def reason(path):
    return f"no path is given; {HINT}"
"""
    )
    texts = {text for _, _, text, _ in _said(spoken, tmp_path, source)}
    assert texts == {"it is not there", "no path is given; look at the log"}


def test_a_function_that_passes_a_text_on_is_one_that_says_it(spoken: Any, tmp_path: Path) -> None:
    source = "def _tell(level, text):\n    _log.warning('%s', text)\n\ndef work(n):\n    _tell(1, f'{n} were lost')\n"
    assert _said(spoken, tmp_path, source) == {("log", "warning", "N were lost", "")}


def test_a_log_line_names_what_is_filled_in(spoken: Any, tmp_path: Path) -> None:
    source = "def work(up, peer):\n    _log.info('%s is %s (%d)', peer.name, 'up' if up else 'down', peer.pid)\n"
    assert _said(spoken, tmp_path, source) == {("log", "info", "PEER is (up or down) (PID)", "")}


def test_a_fault_of_the_gateway_file_has_its_remedy(spoken: Any, tmp_path: Path) -> None:
    source = """
def check(line):
    for it in line:
        yield it, f"the port {it} is taken", "write another one"
"""
    said = _said(spoken, tmp_path, source, room="config/rules.py")
    assert said == {("file", "", "the port IT is taken", "write another one")}
