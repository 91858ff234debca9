"""Several tokens behind one gateway file (`token.uris`): what a command does in every one, and what in the first only.

in_every_token   what comes out the same in each: import, restore, put, destroy
each_token       what is only looked at: list, show, public; a token that does not answer hides none of the others
first_only       what is made in a token cannot be made again in another: say how the others come by it
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import click
import msgspec

from wghsm.cli._output import CommandError
from wghsm.cli._owner import Answer, on_token
from wghsm.cli._target import Target
from wghsm.exits import ExitCode
from wghsm.pkcs11_backend import TokenError, TokenPool, TokenUri

__all__ = ["Looked", "each_token", "first_only", "in_every_token", "names_of"]

_Seen = TypeVar("_Seen", bound=msgspec.Struct)


class _OnToken(Protocol):
    def __call__(self, uri: TokenUri, work: Callable[[TokenPool], Answer], *, read_write: bool = False) -> Answer: ...


def in_every_token(
    target: Target, work: Callable[[TokenPool], Answer], *, read_write: bool = False, do: _OnToken = on_token
) -> list[Answer]:
    """Do `work` in each of the target's tokens, in order, `do` being `on_token` or that of a `Recording`.

    Raises TokenError and CommandError. The error of a later token says in which it was done, and what is left to do.
    """
    answers: list[Answer] = []
    for place, uri in enumerate(target.uris):
        try:
            answers.append(do(uri, work, read_write=read_write))
        except (TokenError, CommandError) as error:
            if place == 0:
                raise
            done = ", ".join(each.describe_token() for each in target.uris[:place])
            left = " and ".join(f"--token '{each}'" for each in target.uris[place:])
            raise CommandError(
                f"{error}. It is done in {done}; when that is mended, give the command for the rest: {left}",
                error.exit_code,
            ) from None
    return answers


@dataclass(frozen=True)
class Looked:
    """What was found in each token that answered, with its name, in order; and the errors of the others."""

    found: list[tuple[str, object]]
    faults: list[TokenError | CommandError]

    def reports(self, shape: type[_Seen]) -> list[_Seen]:
        """The reports of all tokens, where each gave a list of them, each with its `token`."""
        return [
            msgspec.convert({**report, "token": name}, shape)
            for name, reports in self.found
            for report in (reports if isinstance(reports, list) else [])
        ]

    def tell_faults(self) -> None:
        """Raise CommandError if a token gave none; to be called when what the others gave is told."""
        if self.faults:
            told = "; ".join(str(fault) for fault in self.faults)
            raise CommandError(
                f"{told}; this is about {' and '.join(name for name, _ in self.found)} only", self.faults[0].exit_code
            )

    def expect_same(self, label: str, values: Sequence[object]) -> None:
        """Raise CommandError where the tokens differ in the public keys `values`, one for each that has answered."""
        if any(value != values[0] for value in values):
            shown = ", ".join(f"{name}: {value}" for (name, _), value in zip(self.found, values, strict=True))
            raise CommandError(f"the tokens hold different keys {label!r}: {shown}", ExitCode.TOKEN_UNUSABLE)


def each_token(target: Target, work: Callable[[TokenPool], Answer]) -> Looked:
    """Do `work`, which changes nothing, in each of the target's tokens.

    Raises TokenError and CommandError where none of them answers.
    """
    looked = Looked([], [])
    for uri in target.uris:
        try:
            looked.found.append((uri.describe_token(), on_token(uri, work).data))
        except (TokenError, CommandError) as error:
            looked.faults.append(error)
    if not looked.found:
        raise looked.faults[0]
    return looked


def first_only(target: Target, what: str, how: str) -> None:
    """Tell the operator of several tokens, on standard error, that `what` is in the first, and how it gets further."""
    if len(target.uris) > 1:
        others = ", ".join(uri.describe_token() for uri in target.uris[1:])
        click.echo(
            f"{what} is in {target.uri.describe_token()} only, and {others} must have the same: {how}; "
            "wghsm token doctor -c compares them",
            err=True,
        )


def names_of(target: Target) -> str:
    """The tokens in words."""
    return " and ".join(uri.describe_token() for uri in target.uris)
