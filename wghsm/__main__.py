"""Where the programs `wghsm`, which is also `python -m wghsm`, and `wghsm-quick` begin.

Everything else is imported once Ctrl-C cannot show a trace any more.
"""

from wghsm import interrupt

__all__ = ["main", "quick"]


def main() -> None:
    """The `wghsm` command."""
    interrupt.begin()
    from wghsm.cli import main as command

    try:
        command(prog_name="wghsm")
    finally:
        # Python takes a moment to end, too.
        interrupt.end_at_once()


def quick() -> None:
    """The `wghsm-quick` command."""
    interrupt.begin()
    from wghsm.cli.quick import main as command

    try:
        command()
    finally:
        interrupt.end_at_once()


if __name__ == "__main__":
    main()
