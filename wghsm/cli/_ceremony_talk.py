"""A ceremony at the terminal: headings, questions, and PINs that nobody sees.

new_pin    two halves by two people, or a whole by one of them; each typed twice; refused where it is weak
login_pin  the same without a second time: the token knows whether it is right
"""

import hmac
from collections.abc import Sequence

import click

from wghsm.ceremony import Participant, complaint, join_halves
from wghsm.cli._table import show_beside
from wghsm.pkcs11_backend import PinUnavailable, open_pin
from wghsm.wipe import wipe

__all__ = ["ask_number", "ask_text", "heading", "login_pin", "new_pin", "tell"]

_LIMIT = 64


def heading(text: str) -> None:
    """Begin something new."""
    click.echo()
    click.secho(text, bold=True)
    click.echo("-" * len(text))


def tell(*lines: str) -> None:
    """Say it."""
    for line in lines:
        show_beside("  ", line)


def ask_text(question: str, *, empty: bool = False) -> str:
    """One printable line of up to 64 characters; empty only where that is an answer."""
    while True:
        answer = str(click.prompt(question, default="" if empty else None, show_default=False)).strip()
        if answer.isprintable() and len(answer) <= _LIMIT and (answer or empty):
            return answer
        tell(f"(up to {_LIMIT} printable characters, please)")


def ask_number(question: str, people: Sequence[Participant], default: int) -> int:
    """One of the people, by the number that they are shown with; gives the place in the list."""
    while True:
        answer = str(click.prompt(question, default=str(default + 1))).strip()
        if answer in map(str, range(1, len(people) + 1)):
            return int(answer) - 1
        tell(f"(write a number from 1 to {len(people)}, please)")


def new_pin(
    what: str, holders: Sequence[str], lengths: tuple[int, int] | None, other: bytearray | None = None
) -> bytearray:
    """A new PIN from its holders, one or two, for the caller to wipe. `other` is one that it must differ from."""
    while True:
        parts: list[bytearray] = []
        try:
            for place, holder in enumerate(holders):
                parts.append(_new_part(_named(what, place, len(holders)), holder, lengths, half=len(holders) > 1))
            pin = join_halves(parts[0], parts[1] if len(parts) > 1 else bytearray())
        finally:
            for part in parts:
                wipe(part)
        refused = complaint(pin, lengths, other=other)
        if refused is None:
            return pin
        wipe(pin)
        tell(f"The {what} is refused: {refused}. Once more from the beginning.")


def login_pin(what: str, holders: Sequence[str]) -> bytearray:
    """A PIN that the token knows already, from its holders; the caller wipes it."""
    parts: list[bytearray] = []
    try:
        for place, holder in enumerate(holders):
            parts.append(_read(f"{_named(what, place, len(holders))}, {holder}: "))
        return join_halves(parts[0], parts[1] if len(parts) > 1 else bytearray())
    finally:
        for part in parts:
            wipe(part)


def _named(what: str, place: int, of: int) -> str:
    return what if of == 1 else f"{('first', 'second')[place]} half of the {what}"


def _new_part(what: str, holder: str, lengths: tuple[int, int] | None, *, half: bool) -> bytearray:
    tell(f"{holder} types the {what} now; everybody else looks away.")
    while True:
        typed = _read(f"New {what}, {holder}: ")
        refused = complaint(typed, lengths, half=half)
        if refused is None:
            again = _read("The same once more: ")
            same = hmac.compare_digest(typed, again)
            wipe(again)
            if same:
                return typed
            refused = "the two are not the same"
        wipe(typed)
        tell(f"Refused: {refused}.")


def _read(prompt: str, tries: int = 3) -> bytearray:
    """What is typed unseen; an empty line is asked for again, but a terminal that has gone not for ever."""
    try:
        with open_pin("prompt") as source:
            return source.read(prompt)
    except PinUnavailable as fault:
        if tries == 1:
            raise
        tell(f"Refused: {fault}.")
    return _read(prompt, tries - 1)
