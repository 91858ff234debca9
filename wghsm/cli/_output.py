"""What every command shares: JSON on standard output, one line on standard error, exit codes, streams, colours.

A fault that knows its exit status carries it as `.exit_code` (TokenError, the configuration's errors); the
handler prints its text and ends with that status, so no command needs a try of its own.
"""

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click
import msgspec

from wghsm.exits import ExitCode

__all__ = [
    "CommandError",
    "colours",
    "confirm",
    "json_option",
    "named",
    "print_bytes",
    "print_json",
    "print_schema",
    "run_command",
]


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
    try:
        agreed = click.confirm(question, err=True)
    except click.Abort:
        # The cursor stands behind the question.
        click.echo(err=True)
        raise
    if not agreed:
        raise CommandError(refused)


def print_json(value: msgspec.Struct | Sequence[msgspec.Struct]) -> None:
    """Print a shape (wghsm/cli/shapes), or a list of them, as one JSON document on standard output."""
    _print_document(msgspec.to_builtins(value))


def print_schema(schema: Mapping[str, Any]) -> None:
    """Print a JSON Schema on standard output."""
    _print_document(schema)


def _print_document(value: object) -> None:
    # JSON is UTF-8; in another character set its own escapes stand for what is not ASCII.
    click.echo(json.dumps(value, indent=2, ensure_ascii=sys.stdout.encoding.lower() != "utf-8"))


def colours() -> bool | None:
    """False where the environment wants none, None to leave it to click: on terminals only."""
    return False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None


@contextlib.contextmanager
def named(where: Path | str) -> Iterator[None]:
    """Have an OSError say where, for the operator: a full disk and a temporary file do not."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as fault:
        raise OSError(fault.errno, fault.strerror, str(where)) from None


def print_bytes(data: bytes | bytearray) -> None:
    """Write to standard output what the caller can wipe. Raises OSError."""
    with named("standard output"):
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def run_command(command: Callable[[], Any]) -> NoReturn:
    """Run a click command in non-standalone mode and end the process with the right exit status.

    Ctrl-C ends with 130; a reader that went away (`| head`) ends quietly with FAILURE.
    """
    _prepare_streams()
    code = _outcome(command)
    try:
        sys.stdout.flush()
    except OSError as fault:
        if code == ExitCode.OK and not isinstance(fault, BrokenPipeError):
            _say(_os_text(fault))
        # Python flushes standard output again at its end, and would complain a second time.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = code or ExitCode.FAILURE
    sys.exit(code)


def _outcome(command: Callable[[], Any]) -> int:
    """The exit status of a command; what has gone wrong is said."""
    try:
        result = command()
    except click.exceptions.Exit as request:
        return request.exit_code
    except click.exceptions.NoArgsIsHelpError as fault:
        fault.show()
        return fault.exit_code
    except click.ClickException as fault:
        _say(_usage_text(fault))
        return fault.exit_code
    except (click.Abort, KeyboardInterrupt):
        _say("interrupted")
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        return ExitCode.FAILURE
    except PermissionError as fault:
        _say(_os_text(fault))
        return ExitCode.NO_PRIVILEGE
    except OSError as fault:
        _say(_os_text(fault))
        return ExitCode.FAILURE
    except Exception as fault:
        code = getattr(fault, "exit_code", None)
        if not isinstance(code, ExitCode):
            raise
        # A gateway file's problems are a line each and begin with file and line, as a compiler's do.
        if hasattr(fault, "problems"):
            click.echo(str(fault), err=True)
        else:
            _say(str(fault))
        return code
    return result if isinstance(result, int) else ExitCode.OK


def _prepare_streams() -> None:
    """Have 0, 1 and 2 open, so that no file gets their number, and names shown that the character set does not have."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    if sys.stdout is sys.__stdout__ and isinstance(sys.stdout, io.TextIOWrapper):
        encoding = sys.stdout.encoding
        sys.stdout = _Output(sys.stdout.detach(), encoding, "backslashreplace")


class _Output(io.TextIOWrapper):
    """Standard output, whose faults have its name."""

    def write(self, text: str) -> int:
        with named("standard output"):
            return super().write(text)

    def flush(self) -> None:
        with named("standard output"):
            super().flush()


def _say(message: str) -> None:
    click.echo(f"wghsm: {message}", err=True)


def _usage_text(fault: click.ClickException) -> str:
    """What is wrong with the command line, and where its help is, in click's words on one line."""
    text = ", ".join(line.strip(" \t,") for line in fault.format_message().rstrip(".").splitlines())
    text = text[:1].lower() + text[1:].replace(". Choose from:,", "; choose from:")
    context = fault.ctx if isinstance(fault, click.UsageError) else None
    if context is None:
        return text
    return f"{text}{' See' if text.endswith(('?', '?)')) else '; see'}: {context.command_path} --help"


def _os_text(fault: OSError) -> str:
    where = f"{fault.filename}: " if fault.filename is not None else ""
    return f"{where}{fault.strerror or fault}"
