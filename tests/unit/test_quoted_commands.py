"""Each `wghsm` command that a page quotes is one: its words are commands, and its options are theirs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from wghsm.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PAGES = sorted({ROOT / "README.md", *ROOT.glob("docs/*.md")} - {ROOT / "docs/commands.md", ROOT / "docs/messages.md"})

_NO_COMMANDS = ("->", "wghsm audit checkpoint v1")
"""Drawings, and the text that a checkpoint signs."""


def _quoted(text: str) -> Iterator[str]:
    """What stands in code, on one line each: blocks, indented lines and spans that begin with the command."""
    for block in re.findall(r"^```[^\n]*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield from block.replace("\\\n", " ").splitlines()
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from re.findall(r"^ {4,}(\S.*)$", prose, re.MULTILINE)
    yield from (span.replace("\n", " ") for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose))


def _commands(line: str) -> Iterator[list[str]]:
    """The `wghsm` commands of a line of shell, without what comes after a pipe, a sign or a comment."""
    if any(each in line for each in _NO_COMMANDS):
        return
    for found in re.finditer(r"(?:^|[|;&] *|sudo |/)wghsm ((?:'[^']*'|\"[^\"]*\"|[^|;&#<>'\"])+)", line):
        yield re.sub(r"'[^']*'|\"[^\"]*\"", "QUOTED", found[1]).split()


def _wrong(words: list[str]) -> str:
    """What is no command or no option of it; empty if all is well."""
    command: click.Command = main
    context = click.Context(main, info_name="wghsm")
    for word in words:
        if word.startswith("-") and word != "-":
            known = {name for each in command.get_params(context) for name in (*each.opts, *each.secondary_opts)}
            option = word.partition("=")[0].rstrip(",.:)")
            if option not in known | {"-h", "--help"}:
                return f"{context.command_path} has no {option}"
        elif isinstance(command, click.Group) and re.fullmatch(r"[a-z][a-z-]*", word):
            below = command.get_command(context, word)
            if below is None:
                return "" if command.invoke_without_command else f"{context.command_path} has no {word}"
            command, context = below, click.Context(below, context, word)
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_command_is_one(page: Path) -> None:
    wrong = [(line, why) for line in _quoted(page.read_text()) for words in _commands(line) if (why := _wrong(words))]
    assert wrong == []


def test_what_is_wrong_is_found() -> None:
    lines = ["wghsm peer ad alice", "wg genpsk | wghsm psk put X --into Y", "wghsm key list --json"]
    assert [_wrong(words) for line in lines for words in _commands(line)] == [
        "wghsm peer has no ad",
        "wghsm psk put has no --into",
        "",
    ]
