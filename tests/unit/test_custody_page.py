"""docs/custody.md names tests that are there, and pages that are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "custody.md").read_text()


def test_every_test_that_is_named_is_there() -> None:
    missing, seen = [], 0
    for line in TEXT.splitlines():
        code = ""
        for name in re.findall(r"`([a-z0-9_/]+(?:\.py)?)`", line):
            if name.endswith(".py"):
                path = ROOT / "tests" / name
                code = path.read_text() if path.is_file() else ""
            elif code:
                seen += 1
                if f"def test_{name}(" not in code:
                    missing.append(name)
    assert missing == []
    assert seen > 35


def test_every_page_that_is_named_is_there() -> None:
    named = set(re.findall(r"\]\(([a-z-]+\.md)\)", TEXT))
    assert [name for name in sorted(named) if not (ROOT / "docs" / name).is_file()] == []
