"""`wghsm run`, `wghsm up`, `wghsm down`: a gateway's life from the command line.

run FILE|NAME   load the file -> supervisor.run, in the foreground
up FILE|NAME    start `run` in a session of its own, its log in a file; wait for one line on a pipe:
                it serves, or the one reason why it does not
down NAME       SIGTERM to the supervisor whose pid stands in the lock file; wait until it is gone
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from wghsm.cli import _completing
from wghsm.config import ConfigError, Gateway, load
from wghsm.exits import ExitCode

from ._gateway_files import gateway_file, names_a_file
from ._output import CommandError, json_option, print_json
from .shapes.gateways import Started

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["down", "load_gateway", "run", "start_in_background", "up"]

_END_LIMIT = 30.0


class _Outcome(msgspec.Struct, frozen=True):
    """What a starting gateway tells the `up` that waits for it."""

    exit_code: int
    text: str


@click.command(
    epilog="Examples: `wghsm run wg0`, `wghsm run /etc/wghsm/wg0.yaml`. Exit codes 2, 3 and 4 are final: starting "
    "again without a change cannot help."
)
@click.argument("target", metavar="FILE|NAME", shell_complete=_completing.files)
@click.option("--ready-fd", type=int, hidden=True, help="Where to say how the start went.")
@click.option("--tty-fd", type=int, hidden=True, help="A terminal for the PIN, until the gateway serves.")
def run(target: str, ready_fd: int | None, tty_fd: int | None) -> int:
    """Run the gateway of FILE in the foreground, until SIGTERM or Ctrl-C.

    NAME stands for /etc/wghsm/NAME.yaml.
    """
    file, gateway = _load_target(target)
    # pyroute2 and the gateway's rooms are imported by these commands only.
    from wghsm import supervisor

    def notify(exit_code: ExitCode, text: str) -> None:
        if ready_fd is not None:
            with contextlib.suppress(OSError):
                os.write(ready_fd, msgspec.json.encode(_Outcome(exit_code, text)))
            os.close(ready_fd)

    with contextlib.ExitStack() as stack:
        tty = tty_fd
        for fd in (ready_fd, tty_fd):
            if fd is not None:
                os.set_inheritable(fd, False)
        if tty is None and supervisor.wants_prompt(gateway.token.uri):
            tty = stack.enter_context(_terminal())
        return int(
            supervisor.run(
                gateway,
                # Links stay: they may lead elsewhere when the file is read again.
                file=str(Path(file).absolute()),
                notify=notify,
                tty=tty,
                keep_tty=tty_fd is None,
            )
        )


@click.command(
    epilog="Examples: `wghsm up wg0`, `wghsm up /etc/wghsm/wg0.yaml`. Under systemd, `systemctl start wghsm@wg0` is "
    "better."
)
@click.argument("target", metavar="FILE|NAME", shell_complete=_completing.files)
@click.option("--log", type=click.Path(dir_okay=False), help="Log file; /run/wghsm/NAME/log if not given.")
@json_option
def up(target: str, log: str | None, as_json: bool) -> int:
    """Start the gateway of FILE in the background; done once its interface serves.

    NAME stands for /etc/wghsm/NAME.yaml.
    """
    file, gateway = _load_target(target)
    log_path = start_in_background(file, gateway, log)
    if as_json:
        print_json(Started(gateway=gateway.interface.name, log=str(log_path)))
    else:
        click.echo(f"{gateway.interface.name} is up; log in {log_path}")
    return int(ExitCode.OK)


@click.command(epilog="Example: `wghsm down wg0`. Exit code 6: no such gateway runs.")
@click.argument("name", shell_complete=_completing.gateways)
def down(name: str) -> int:
    """End the gateway NAME; done once its interface is gone."""
    from wghsm import supervisor

    deadline = time.monotonic() + _END_LIMIT
    while (pid := supervisor.running_pid(name)) == 0 and time.monotonic() < deadline:
        time.sleep(0.02)
    if not pid:
        raise CommandError(f"no gateway {name!r} is running", ExitCode.NOT_RUNNING)
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return int(ExitCode.OK)
    with contextlib.closing(os.fdopen(pidfd, "rb", buffering=0)) as process:
        # The pid could be another process's since it was read: look again, now that it is pinned.
        if supervisor.running_pid(name) != pid:
            return int(ExitCode.OK)
        with contextlib.suppress(ProcessLookupError):
            try:
                signal.pidfd_send_signal(process.fileno(), signal.SIGTERM)
            except PermissionError:
                raise CommandError(f"only root may end gateway {name!r}", ExitCode.NO_PRIVILEGE) from None
        if not select.select([process], [], [], _END_LIMIT)[0]:
            raise CommandError(f"the gateway {name} (pid {pid}) did not end within {_END_LIMIT:.0f} s")
    return int(ExitCode.OK)


def _load_target(target: str) -> tuple[str, Gateway]:
    """The file that FILE|NAME means, and what is in it. Raises CommandError, and as `load_gateway`."""
    file = str(gateway_file(target))
    gateway = load_gateway(file)
    name = gateway.interface.name
    if name != target and not names_a_file(target):
        raise CommandError(
            f"{file} is for the interface {name}, not {target}; write interface.name: {target}, or give the path "
            f"{file} in place of the name",
            ExitCode.BAD_CONFIG,
        )
    return file, gateway


def load_gateway(file: str) -> Gateway:
    """Load a gateway file; click's Exit with BAD_CONFIG after a line for each of its faults."""
    try:
        return load(file, warn=lambda problem: click.echo(f"warning: {problem}", err=True))
    except ConfigError as error:
        for problem in error.problems:
            click.echo(str(problem), err=True)
        raise click.exceptions.Exit(int(ExitCode.BAD_CONFIG)) from None


def start_in_background(file: str, gateway: Gateway, log: str | None = None) -> Path:
    """Start `wghsm run FILE` in a session of its own, wait until it serves, give its log. Raises CommandError."""
    if os.geteuid() != 0:
        raise CommandError("a gateway needs root to make its interface; run as root", ExitCode.NO_PRIVILEGE)
    from wghsm import supervisor

    name = gateway.interface.name
    pid = supervisor.running_pid(name)
    if pid is not None:
        raise CommandError(
            f"a gateway named {name} is running (pid {pid}); end it with: wghsm down {name}", ExitCode.ALREADY_RUNNING
        )
    log_path = Path(log) if log is not None else supervisor.runtime_directory(name) / "log"
    with contextlib.ExitStack() as stack:
        if log is None:
            log_path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        log_fd = os.open(log_path, flags, 0o600)
        stack.callback(os.close, log_fd)
        tty = stack.enter_context(_terminal()) if supervisor.wants_prompt(gateway.token.uri) else None
        if supervisor.wants_pinpad(gateway.token.uri):
            click.echo("type the token's PIN at its pinpad", err=True)
        outcome = _start(file, log_fd, tty)
    if outcome is None:
        raise CommandError(f"the gateway {name} ended without saying why; see {log_path}")
    if outcome.exit_code != ExitCode.OK:
        raise CommandError(outcome.text or f"see {log_path}", ExitCode(outcome.exit_code))
    return log_path


@contextlib.contextmanager
def _terminal() -> Iterator[int | None]:
    """The controlling terminal, None if there is none."""
    try:
        fd = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


def _start(file: str, log_fd: int, tty: int | None) -> _Outcome | None:
    """Start `run` in the background and wait for its word; None if it ended without one."""
    reader, writer = os.pipe()
    argv = [sys.executable, "-I", "-m", "wghsm", "run", "--ready-fd", str(writer)]
    if tty is not None:
        argv += ["--tty-fd", str(tty)]
    pass_fds = [writer] if tty is None else [writer, tty]
    try:
        process = subprocess.Popen(  # noqa: S603
            [*argv, "--", file],
            stdin=subprocess.DEVNULL,
            stdout=log_fd,
            stderr=log_fd,
            start_new_session=True,
            pass_fds=pass_fds,
        )
    finally:
        os.close(writer)
    try:
        with os.fdopen(reader, "rb") as pipe:
            word = pipe.read()
    except BaseException:
        # Ctrl-C at the prompt or while it starts: nothing stays behind.
        process.terminate()
        process.wait()
        raise
    if not word:
        code = process.wait()
        known = code if code in set(ExitCode) and code != ExitCode.OK else ExitCode.FAILURE
        return _Outcome(known, "") if known != ExitCode.FAILURE else None
    outcome = msgspec.json.decode(word, type=_Outcome)
    if outcome.exit_code != ExitCode.OK:
        process.wait()
    else:
        # It lives on; nobody here waits for it.
        process.returncode = 0
    return outcome
