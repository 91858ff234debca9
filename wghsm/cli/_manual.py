"""The commands as pages, made from the same words as their --help: man pages, and docs/commands.md. Pure.

    click's command tree -> Page, one for each command -> roff(page) for man(1), markdown(pages) for the docs

Called by `wghsm man`; a test holds docs/commands.md to it.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from wghsm.exits import ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["Page", "markdown", "pages", "roff"]


@dataclass(frozen=True)
class Page:
    """One command. `text`: paragraphs, those that are laid out by hand with their line ends."""

    name: str
    summary: str
    usage: str
    text: tuple[str, ...]
    options: tuple[tuple[str, str], ...]
    commands: tuple[tuple[str, str], ...]
    end: tuple[str, ...]

    @property
    def file(self) -> str:
        """The name of its man page."""
        return self.name.replace(" ", "-") + ".1"


def pages(command: click.Command, name: str, parent: click.Context | None = None) -> Iterator[Page]:
    """The page of a command and those of all below it."""
    context = click.Context(
        command,
        parent,
        name,
        terminal_width=10_000,
        max_content_width=10_000,
        **command.context_settings,
    )
    below: list[tuple[str, click.Command]] = []
    if isinstance(command, click.Group):
        found = ((each, command.get_command(context, each)) for each in command.list_commands(context))
        below = [(each, known) for each, known in found if known is not None and not known.hidden]
    records = (each.get_help_record(context) for each in command.get_params(context) if isinstance(each, click.Option))
    yield Page(
        name=context.command_path,
        summary=_words(command.get_short_help_str(10_000)).rstrip("."),
        usage=" ".join([context.command_path, *command.collect_usage_pieces(context)]),
        text=_paragraphs(command.help or ""),
        options=tuple(record for record in records if record),
        commands=tuple((each, _words(known.get_short_help_str(10_000))) for each, known in below),
        end=_paragraphs(command.epilog or ""),
    )
    for each, known in below:
        yield from pages(known, each, context)


def roff(page: Page, version: str) -> str:
    """The page for man(1)."""
    title = page.name.replace(" ", "-").upper()
    # Names of options and keys are to be copied: no word is broken, and no line is stretched.
    lines = [f'.TH {title} 1 "" "wghsm {version}" "wghsm"', ".nh", ".ad l", ".SH NAME"]
    lines.append(f"{_escaped(page.name.replace(' ', '-'))} \\- {_escaped(page.summary)}")
    lines += [".SH SYNOPSIS", f"\\fB{_escaped(page.name)}\\fR{_escaped(page.usage[len(page.name) :])}"]
    lines += [".SH DESCRIPTION", *_roff_text(page.text)]
    if page.options:
        lines.append(".SH OPTIONS")
        for said, about in page.options:
            lines += [".TP", f"\\fB{_escaped(said)}\\fR", _escaped(about)]
    if page.commands:
        lines.append(".SH COMMANDS")
        for said, about in page.commands:
            lines += [".TP", f"\\fB{_escaped(f'{page.name}-{said}'.replace(' ', '-'))}\\fR(1)", _escaped(about)]
    if page.end:
        lines += [".SH NOTES", *_roff_text(page.end)]
    lines.append(".SH EXIT STATUS")
    for code, about in _exit_codes():
        lines += [".TP", str(code), _escaped(about)]
    return "\n".join(lines) + "\n"


def markdown(made: Iterable[Page]) -> str:
    """All pages as one document."""
    lines = [
        "# Commands",
        "",
        "Every command with its options, as `--help` and the man pages (`wghsm man`) say it. This page is made from",
        "the code: `wghsm man --markdown > docs/commands.md`.",
        "",
        "## Exit codes",
        "",
        "| code | |",
        "|---|---|",
        *(f"| {code} | {about} |" for code, about in _exit_codes()),
    ]
    for page in made:
        lines += ["", f"## `{page.name}`", "", "```", page.usage, "```", ""]
        lines += _markdown_text(page.text)
        for rows in (page.commands, page.options):
            if rows:
                lines += ["", "| | |", "|---|---|", *(f"| `{_cell(said)}` | {_cell(about)} |" for said, about in rows)]
        if page.end:
            lines += ["", *_markdown_text(page.end)]
    lines += ["", "Next: what the commands say when something is wrong, in [messages.md](messages.md)."]
    return "\n".join(lines) + "\n"


def _exit_codes() -> Iterator[tuple[int, str]]:
    for code in ExitCode:
        yield int(code), code.meaning


def _paragraphs(text: str) -> tuple[str, ...]:
    r"""Paragraphs; those that click is told to leave as they are, by \b, begin with that sign."""
    cleaned = re.sub(r"\f.*", "", text, flags=re.DOTALL)
    lines = [line.strip() if "\b" in line else line.rstrip() for line in cleaned.strip().splitlines()]
    joined = "\n".join(lines)
    return tuple(each.strip("\n") for each in re.split(r"\n\n+", joined) if each.strip())


def _is_laid_out(paragraph: str) -> bool:
    return paragraph.startswith("\b")


def _roff_text(paragraphs: Sequence[str]) -> Iterator[str]:
    for paragraph in paragraphs:
        yield ".PP"
        if _is_laid_out(paragraph):
            yield ".nf"
            yield from map(_escaped, _laid_out(paragraph))
            yield ".fi"
        else:
            yield _escaped(_words(paragraph))


def _markdown_text(paragraphs: Sequence[str]) -> list[str]:
    lines: list[str] = []
    for paragraph in paragraphs:
        if _is_laid_out(paragraph):
            lines += ["```", *_laid_out(paragraph), "```", ""]
        else:
            lines += [_words(paragraph), ""]
    return lines[:-1]


def _laid_out(paragraph: str) -> list[str]:
    return textwrap.dedent(paragraph.removeprefix("\b").strip("\n")).splitlines()


def _words(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _escaped(text: str) -> str:
    """Text that roff takes as it is."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + escaped if escaped[:1] in (".", "'") else escaped
