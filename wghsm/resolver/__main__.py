"""The resolver process: started by the supervisor, drops root, answers once, ends."""

import argparse

# Loaded now: after the drop the code may be unreadable, and getaddrinfo imports this codec on first use.
import encodings.idna  # noqa: F401
import socket
import sys

import msgspec

from wghsm.process import privileges
from wghsm.resolver import Addresses, Names

_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


def main() -> int:
    """Drop root, read the names, print what they resolve to."""
    arguments = argparse.ArgumentParser(description="Resolves endpoint names for a wghsm gateway; started by it.")
    for name in ("--uid", "--gid", "--parent"):
        arguments.add_argument(name, type=int, required=True)
    options = arguments.parse_args()
    privileges.ignore_terminal_signals()
    privileges.drop(options.uid, options.gid, options.parent)
    wanted = msgspec.json.decode(sys.stdin.buffer.read(), type=Names)
    found, errors = {}, {}
    for name in wanted.names:
        try:
            found[name] = _resolve(name, wanted.families)
        except (OSError, UnicodeError) as error:
            errors[name] = error.strerror or str(error) if isinstance(error, OSError) else "not a host name"
    sys.stdout.buffer.write(msgspec.json.encode(Addresses(found, errors)))
    return 0


def _resolve(name: str, families: list[int]) -> list[str]:
    family = _FAMILIES[families[0]] if len(families) == 1 else socket.AF_UNSPEC
    return [str(item[4][0]) for item in socket.getaddrinfo(name, None, family, socket.SOCK_DGRAM)]


if __name__ == "__main__":
    sys.exit(main())
