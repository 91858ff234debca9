"""Forgetting a peer's greatest timestamp while no gateway runs: `python -m wghsm.custodian.forgetting FOLDER KEY...`.

FOLDER is the custodian's own; the work is done as its owner, so that no file in it becomes root's. A running custodian
holds the state file, and this fails with one line. Started by `wghsm peer reset-timestamp`.
"""

import binascii
import os
import sys
from pathlib import Path

from wghsm.exits import ExitCode

from .state import State, StateFault

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """The exit status; one line on standard error if it is not 0."""
    folder, *written = sys.argv[1:] if arguments is None else arguments
    try:
        _forget(Path(folder), [binascii.a2b_base64(key.encode(), strict_mode=True) for key in written])
    except binascii.Error:
        sys.stderr.write("a public key is 44 characters of base64\n")
        return int(ExitCode.BAD_CONFIG)
    except FileNotFoundError:
        sys.stderr.write(f"there is no state in {folder}, so nothing to forget\n")
        return int(ExitCode.FAILURE)
    except OSError as fault:
        sys.stderr.write(f"{folder}: {fault.strerror}\n")
        return int(ExitCode.SYSTEM)
    except StateFault as fault:
        sys.stderr.write(f"{fault}\n")
        return int(ExitCode.SYSTEM)
    return int(ExitCode.OK)


def _forget(folder: Path, keys: list[bytes]) -> None:
    about = (folder / "state.sqlite").stat()
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(about.st_gid, about.st_gid, about.st_gid)
        os.setresuid(about.st_uid, about.st_uid, about.st_uid)
    state = State(folder)
    try:
        state.forget(keys)
    finally:
        state.close()


if __name__ == "__main__":
    sys.exit(main())
