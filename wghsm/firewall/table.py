"""The table in the kernel, by Debian's `nft`: put in, changed and taken away as a whole.

Quotas outlive a change: what a peer has used is read before the table is replaced. Between the two a few packets may go
uncounted. Called by the supervisor, which has CAP_NET_ADMIN.
"""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
from typing import TYPE_CHECKING

from .model import Rules
from .ruleset import FAMILY, commands, removal, table_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .ruleset import Json

__all__ = ["FirewallError", "Table"]

_log = logging.getLogger(__name__)

_LIMIT = 60.0
_SEARCHED = "/usr/sbin:/sbin:/usr/bin:/bin"


class FirewallError(Exception):
    """The table could not be put in; one line says why. What was in force before still is."""


class Table:
    """The table of one gateway. Nothing is done, and no program needed, as long as there are no rules."""

    def __init__(self, interface: str) -> None:
        self._interface = interface
        self._rules = Rules(interface)

    @property
    def rules(self) -> Rules:
        """What is in force."""
        return self._rules

    def put(self, rules: Rules) -> None:
        """Bring rules into force in place of the others. FirewallError, with nothing changed."""
        if rules == self._rules:
            return
        if not (rules.empty and self._rules.empty):
            used = {} if self._rules.empty else self._used()
            _nft(commands(rules, used))
        self._rules = rules

    def clear_stale(self) -> None:
        """Take away what a gateway of this name has left that could not end in good order; errors do not matter."""
        if shutil.which("nft", path=_SEARCHED):
            try:
                _nft(removal(self._interface))
            except FirewallError as error:
                _log.debug("%s", error)

    def remove(self) -> None:
        """Take the table away; what the kernel refuses is logged."""
        try:
            self.put(Rules(self._interface))
        except FirewallError as error:
            _log.warning("%s", error)

    def _used(self) -> dict[str, int]:
        """Bytes used by each quota's name; none where they cannot be read."""
        try:
            table = {"family": FAMILY, "name": table_name(self._interface)}
            found = json.loads(_nft([{"list": {"quotas": {"table": table}}}]) or "{}")
        except FirewallError as error:
            _log.warning("what peers have used of their quotas is lost: %s", error)
            return {}
        quotas = [entry["quota"] for entry in found.get("nftables", []) if "quota" in entry]
        # Kernels list the quotas of all tables where one is asked for.
        return {quota["name"]: int(quota["used"]) for quota in quotas if quota["table"] == table["name"]}


def _nft(made: Sequence[Json]) -> str:
    """Run commands as one transaction, and give what they print. FirewallError with nft's own words."""
    program = shutil.which("nft", path=_SEARCHED)
    if program is None:
        raise FirewallError("the firewall section needs nft, which is not there; install the package nftables")
    try:
        done = subprocess.run(  # noqa: S603  (a program of the system, no shell)
            [program, "-j", "-f", "-"],
            input=json.dumps({"nftables": made}),
            capture_output=True,
            text=True,
            timeout=_LIMIT,
            check=False,
            env={"PATH": _SEARCHED, "LC_ALL": "C.UTF-8"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FirewallError(f"nft cannot be run: {error}") from None
    if done.returncode:
        said = " ".join(done.stderr.split())
        raise FirewallError(f"the firewall's table is refused by the kernel: {said[:300]}")
    return done.stdout
