"""The gateway's firewall: what file and running model want of it, and the moments at which it changes.

    start             the table, before the gateway serves; a stale one of the same name goes first
    reload prepared   the rules of tomorrow, and those of peers that are to go: nobody is ever without theirs
    change in force   the rules of the model as it is, whoever changed it
    end               no table

Called by `_run`, `_reload` and `_supervisor`.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from wghsm.config import Allow
from wghsm.exits import ExitCode
from wghsm.firewall import FirewallError, PeerRules, Rules, Table

from ._fault import GatewayFault
from ._policy import ways

if TYPE_CHECKING:
    from wghsm.config import Gateway

    from .model import Model

__all__ = ["PacketFilter"]

_log = logging.getLogger(__name__)

_ANYWHERE = (Allow(),)


class PacketFilter:
    """The firewall of one gateway."""

    def __init__(self, gateway: Gateway, model: Model, port: int) -> None:
        """Bring it into force. GatewayFault if it cannot be. `port`: where the outer packets come in."""
        self._table = Table(gateway.interface.name)
        self._may_mark = True
        self._table.clear_stale()
        self._put(wanted(gateway, model, port))

    def prepare(self, gateway: Gateway, model: Model, port: int) -> Rules:
        """Add what is to come; gives the rules before, for `restore`. GatewayFault with nothing changed."""
        before, coming = self._table.rules, wanted(gateway, model, port)
        staying = {peer.key for peer in coming.peers}
        going = tuple(peer for peer in before.peers if peer.key not in staying)
        taken = {prefix for peer in going for prefix in peer.prefixes}
        # A prefix that moves from a peer to another has one owner here: the one that has it still.
        kept = tuple(
            PeerRules(peer.key, tuple(set(peer.prefixes) - taken), peer.allow, peer.rate, peer.quota)
            for peer in coming.peers
        )
        isolate = before.isolate_clients or coming.isolate_clients
        ports = tuple(sorted({*before.ports, *coming.ports}))
        mark = coming.mark or before.mark
        self._put(Rules(coming.interface, coming.masquerade, isolate, kept + going, mark, ports))
        return before

    def restore(self, rules: Rules) -> None:
        """Back to what was in force; what the kernel refuses is logged."""
        try:
            self._put(rules)
        except GatewayFault as fault:
            _log.error("%s", fault)

    def follow(self, gateway: Gateway, model: Model, port: int) -> None:
        """Another model is in force; what the kernel refuses is logged."""
        self.restore(wanted(gateway, model, port))

    def remove(self) -> None:
        """Take it away."""
        self._table.remove()

    def _put(self, rules: Rules) -> None:
        if not self._may_mark:
            rules = replace(rules, mark=0, ports=())
        try:
            self._table.put(rules)
        except FirewallError as error:
            if not rules.mark:
                raise GatewayFault(ExitCode.SYSTEM, str(error)) from None
            # Most machines do well without it; those of a file's firewall section nobody may miss.
            self._may_mark = False
            self._put(rules)
            _log.warning(
                "outer packets that come in are not marked (%s): "
                "where net.ipv4.conf.*.rp_filter is 1, set it to 2, or peers beyond a default route are not heard",
                error,
            )


def wanted(gateway: Gateway, model: Model, port: int) -> Rules:
    """The rules of a gateway file for the peers and prefixes of a running model. Pure."""
    settings = {peer.public_key: peer for peer in gateway.peers}
    limited = any(
        (peer.allow != _ANYWHERE or peer.rate_limit or peer.quota) and peer.public_key in model.peers
        for peer in gateway.peers
    )
    peers = []
    # Those without limits matter where they lie inside others' prefixes, or are masqueraded.
    for key, prefixes in sorted(model.allowed_ips().items()) if limited or gateway.firewall.masquerade else ():
        peer = settings.get(key)
        named = PeerRules(key.hex(), tuple(prefixes))
        if peer is not None:
            allow = None if peer.allow == _ANYWHERE else peer.allow
            named = PeerRules(named.key, named.prefixes, allow, peer.rate_limit or 0, peer.quota or 0)
        peers.append(named)
    firewall = gateway.firewall
    mark = next((way.mark for way in ways(gateway.interface, model)), 0)
    return Rules(
        gateway.interface.name,
        firewall.masquerade,
        firewall.isolate_clients,
        tuple(peers),
        mark,
        (port,) if mark else (),
    )
