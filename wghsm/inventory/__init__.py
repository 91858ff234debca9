"""The inventory: every key and pre-shared key of the configured tokens, its age, its use, and what is due.

    gateway files + what each token says + what gateways have noted -> build -> Inventory -> JSON, table, metrics

Called by `wghsm inventory`, which does the asking (docs/inventory.md).
"""

from wghsm.inventory.build import Asked, Known, build
from wghsm.inventory.metrics import write_metrics
from wghsm.inventory.model import Inventory, Item, TokenSeen, json_schema
from wghsm.inventory.notes import Notes, Seen, notes_of_exports, notes_of_log, notes_of_state

__all__ = [
    "Asked",
    "Inventory",
    "Item",
    "Known",
    "Notes",
    "Seen",
    "TokenSeen",
    "build",
    "json_schema",
    "notes_of_exports",
    "notes_of_log",
    "notes_of_state",
    "write_metrics",
]
