"""What scripts were promised of --json stays: json-version-1.txt has a line for each field of version 1.

New fields go there too, once they are released: python -m tests.unit.cli.test_json_promise
"""

import re
from pathlib import Path

from wghsm.cli._json_page import fields
from wghsm.cli._json_table import OUTPUTS, VERSION

PROMISED = Path(__file__).with_name("json-version-1.txt")


def _now() -> dict[tuple[str, str], str]:
    """The type of each field, with a question mark where it may be left out, by command and path."""
    return {
        (command, field.path): field.type + ("?" if field.optional else "")
        for command, output in OUTPUTS.items()
        for field in fields(output)
    }


def _keeps(said: str, now: str) -> bool:
    """Whether a field of the type `now` has the words of `said`, and is of that type otherwise."""
    words = [set(re.findall("`[^`]+`", each)) for each in (said, now)]
    return words[0] <= words[1] and re.sub("`.*`", "", said) == re.sub("`.*`", "", now)


def test_nothing_that_was_promised_is_broken() -> None:
    now = _now()
    broken = []
    for line in PROMISED.read_text().splitlines():
        command, path, said = line.split("\t")
        if not _keeps(said, now.get((command, path), "")):
            broken.append(f"{line} -> {now.get((command, path), 'gone')}")
    assert broken == [], "docs/json.md promises them: keep them, or raise VERSION and begin another file"
    assert PROMISED.name == f"json-version-{VERSION}.txt"


if __name__ == "__main__":
    PROMISED.write_text("".join(f"{command}\t{path}\t{said}\n" for (command, path), said in _now().items()))
