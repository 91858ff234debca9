"""What every command shares: JSON on standard output, one line on standard error, the exit codes.

A fault that knows its exit status carries it as `.exit_code` (TokenError, the configuration's errors); the
handler prints its text and ends with that status, so no command needs a try of its own.
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import click

from wghsm.exits import ExitCode

__all__ = ["CommandError", "confirm", "json_option", "print_json", "run_command"]


class CommandError(Exception):
    """A command cannot go on: one line for the operator and an exit status."""

    def __init__(self, message: str, exit_code: ExitCode = ExitCode.FAILURE) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --json to a click command; the function gets `as_json: bool`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)


def confirm(question: str, *, yes: bool, refused: str) -> None:
    """Ask at the terminal unless `yes`; raises CommandError with `refused` on no, and without a terminal."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise CommandError(f"{refused}: standard input is no terminal to ask at; add --yes", ExitCode.BAD_CONFIG)
    if not click.confirm(question, err=True):
        raise CommandError(refused)


def print_json(value: object) -> None:
    """Print `value` as one JSON document on standard output."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def run_command(command: Callable[[], Any]) -> NoReturn:
    """Run a click command in non-standalone mode and end the process with the right exit status.

    Ctrl-C ends with 130; a reader that went away (`| head`) ends quietly with FAILURE.
    """
    try:
        result = command()
        sys.stdout.flush()
    except click.exceptions.Exit as request:
        sys.exit(request.exit_code)
    except click.ClickException as fault:
        fault.show()
        sys.exit(fault.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _say("interrupted")
        sys.exit(ExitCode.INTERRUPTED)
    except BrokenPipeError:
        # Python flushes standard output again at exit and would complain a second time.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(ExitCode.FAILURE)
    except PermissionError as fault:
        _say(_os_text(fault))
        sys.exit(ExitCode.NO_PRIVILEGE)
    except OSError as fault:
        _say(_os_text(fault))
        sys.exit(ExitCode.FAILURE)
    except Exception as fault:
        code = getattr(fault, "exit_code", None)
        if not isinstance(code, ExitCode):
            raise
        # A gateway file's problems are a line each and begin with file and line, as a compiler's do.
        if hasattr(fault, "problems"):
            click.echo(str(fault), err=True)
        else:
            _say(str(fault))
        sys.exit(code)
    sys.exit(result if isinstance(result, int) else ExitCode.OK)


def _say(message: str) -> None:
    click.echo(f"wghsm: {message}", err=True)


def _os_text(fault: OSError) -> str:
    where = f"{fault.filename}: " if fault.filename is not None else ""
    return f"{where}{fault.strerror or fault}"
