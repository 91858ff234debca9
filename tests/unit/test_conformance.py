"""docs/conformance.md names code and tests that are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROWS = [
    line.strip("|").split("|")
    for line in (ROOT / "docs" / "conformance.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| what holds")
]


def _quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_page_has_rows() -> None:
    assert len(ROWS) > 50


def test_every_module_that_is_named_is_there() -> None:
    named = {name for row in ROWS if len(row) == 3 for name in _quoted(row[1])}
    assert [name for name in sorted(named) if not (ROOT / "wghsm" / name).is_file()] == []


def test_every_test_that_is_named_is_there() -> None:
    missing = []
    for row in ROWS:
        text = ""
        for name in _quoted(row[-1]):
            if name.endswith(".py"):
                path = ROOT / "tests" / name
                text = path.read_text() if path.is_file() else ""
            elif re.fullmatch(r"[a-z0-9_]+", name) and f"def test_{name}(" not in text:
                missing.append(name)
    assert missing == []
