"""Several tokens behind one gateway file (`token.uris`): what a command does in every one, and what in the first only.

in_every_token   what comes out the same in each: import, restore, put, destroy
first_only       what is made in a token cannot be made again in another: say how the others come by it
"""

from collections.abc import Callable

import click

from wghsm.cli._output import CommandError
from wghsm.cli._owner import Answer, on_token
from wghsm.cli._target import Target
from wghsm.pkcs11_backend import TokenError, TokenPool

__all__ = ["first_only", "in_every_token", "names_of"]


def in_every_token(target: Target, work: Callable[[TokenPool], Answer], *, read_write: bool = False) -> list[Answer]:
    """Do `work` in each of the target's tokens, in order. Raises TokenError and CommandError.

    The error of a later token says in which it was done, and what is left to do.
    """
    answers: list[Answer] = []
    for place, uri in enumerate(target.uris):
        try:
            answers.append(on_token(uri, work, read_write=read_write))
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
