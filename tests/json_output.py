"""What a command printed with --json, held to its shape: the run helpers of all tests call `check_json`."""

import json
from collections.abc import Sequence
from os import PathLike

import msgspec

from wghsm.cli._json_table import OUTPUTS

__all__ = ["check_json", "command_of"]


def check_json(words: Sequence[str | PathLike[str]], stdout: str | bytes) -> None:
    """If `wghsm WORDS` printed JSON, that must be whole, of its shape, and without a field that is not documented."""
    plain = [str(word) for word in words]
    if "--json" not in plain or "--help" in plain or not stdout:
        return
    name = command_of(plain)
    output = OUTPUTS[name]
    for text in stdout.splitlines() if output.lines else [stdout]:
        document = json.loads(text)
        shaped = msgspec.convert(document, output.shape)
        # What the shape does not know is lost on the way; what it has of its own is added.
        assert json.loads(msgspec.json.encode(shaped)) == document, name


def command_of(words: Sequence[str]) -> str:
    """The command of these words, as the table names it."""
    named = max((name for name in OUTPUTS if words[: len(name.split())] == name.split()), key=len)
    options = (f"{named} {word}" for word in words if word.startswith("--"))
    return next((name for name in options if name in OUTPUTS), named)
