"""One nftables table of the gateway's own: masquerade, client isolation, and limits by peer.

    Rules -> commands(rules, used) -> nft -j -f - : the table is replaced as a whole, or not touched
    Table                            puts it in, keeps what peers have used of their quotas, and takes it away

No other table is ever looked at. A packet that this table lets through is still the other tables' to judge: it only
drops. Called by the supervisor.
"""

from .model import PeerRules, Rules
from .ruleset import commands, table_name
from .table import FirewallError, Table

__all__ = ["FirewallError", "PeerRules", "Rules", "Table", "commands", "table_name"]
