"""`wghsm man`: the manual, from the same words as --help."""

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import click

from wghsm import __version__
from wghsm.cli import _completing
from wghsm.cli._output import named

__all__ = ["man"]


@click.command(
    epilog="Examples: `wghsm man peer add`, `wghsm man --out /usr/local/share/man/man1` and then `man wghsm-peer-add`."
)
@click.argument("command", nargs=-1, shell_complete=_completing.commands)
@click.option("--out", metavar="FOLDER", type=click.Path(path_type=Path), help="Write all pages into a folder.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print all commands as one Markdown page.")
def man(command: tuple[str, ...], out: Path | None, as_markdown: bool) -> None:
    """Show the manual page of COMMAND, or write the pages of all commands.

    At a terminal the page is shown by man(1) where that is installed; elsewhere its source is printed.
    """
    from wghsm.cli import main
    from wghsm.cli._manual import markdown, pages, roff

    made = {page.name: page for page in pages(main, "wghsm")}
    if as_markdown:
        click.echo(markdown(made.values()), nl=False)
        return
    if out is not None:
        _write(out, {page.file: roff(page, __version__) for page in made.values()})
        click.echo(f"{len(made)} pages are in {out}")
        return
    name = " ".join(("wghsm", *command))
    if name not in made:
        raise click.UsageError(f"there is no command {name!r}", click.get_current_context().find_root())
    source = roff(made[name], __version__)
    program = shutil.which("man")
    if program is None or not sys.stdout.isatty():
        click.echo(source, nl=False)
        return
    subprocess.run([program, "-l", "-"], input=source, text=True, check=False)  # noqa: S603  (no shell)


def _write(folder: Path, pages: Mapping[str, str]) -> None:
    """All pages or, as on a full disk, none. Raises OSError."""
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".wghsm-", dir=folder) as apart:
            for name, text in pages.items():
                with named(folder / name):
                    Path(apart, name).write_text(text)
            for name in pages:
                Path(apart, name).rename(folder / name)
    except BaseException:
        if is_new:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
