"""Host names of endpoints to addresses, in a short-lived process without privileges.

    names (JSON) on standard input -> `python -I -m wghsm.resolver --uid N --gid N --parent PID`
                                   -> addresses (JSON) on standard output

The resolver's libraries parse what strangers on the network send, so no process of a gateway calls them. Started by
the supervisor, which gives it a time limit and believes nothing but literal addresses. Public here: the two messages.
"""

import msgspec

__all__ = ["Addresses", "Names"]


class Names(msgspec.Struct, frozen=True):
    """What to resolve, and which families the gateway has sockets for: 4, 6."""

    names: list[str]
    families: list[int]


class Addresses(msgspec.Struct, frozen=True):
    """For each name that could be resolved its addresses, best first (RFC 6724); for the others why not."""

    addresses: dict[str, list[str]]
    errors: dict[str, str]
