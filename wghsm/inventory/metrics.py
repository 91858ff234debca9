"""The inventory as a file for the textfile collector of Prometheus' node_exporter: replaced whole, at its end."""

from datetime import UTC, datetime
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

from wghsm.inventory.model import Inventory

__all__ = ["write_metrics"]

_LABELS = ("token", "kind", "label", "peer")


def write_metrics(inventory: Inventory, path: Path) -> None:
    """Write the metrics of docs/inventory.md to `path`. Raises OSError."""
    registry = CollectorRegistry()

    def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
        return Gauge(f"wghsm_inventory_{name}", text, labels, registry=registry)

    age = gauge("age_seconds", "Age of a key or pre-shared key; absent where it is unknown.", _LABELS)
    limit = gauge("max_age_seconds", "Greatest age by the policy; absent without one.", _LABELS)
    due = gauge("rotation_due", "Whether it has reached its greatest age.", _LABELS)
    for item in inventory.items:
        peer = item.peers[0] if item.kind == "psk" and item.peers else ""
        labels = (item.token, item.kind, item.label, peer)
        if item.age is not None:
            age.labels(*labels).set(item.age)
        if item.max_age is not None:
            limit.labels(*labels).set(item.max_age)
        due.labels(*labels).set(item.rotation == "due")
    gauge("due", "Items that have reached their greatest age.").set(inventory.due)
    gauge("age_unknown", "Items with a greatest age whose age is unknown.").set(inventory.age_unknown)
    gauge("missing", "Items that a gateway file names and its token does not have.").set(inventory.missing)
    gauge("token_errors", "Tokens that could not be asked.").set(sum(bool(token.error) for token in inventory.tokens))
    made = datetime.strptime(inventory.time, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    gauge("timestamp_seconds", "When the inventory was made.").set(made.timestamp())
    write_to_textfile(str(path), registry)
