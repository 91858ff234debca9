"""Short ways to gateways, peers and changes for the tests of the supervisor."""

from ipaddress import ip_network

from wghsm import config
from wghsm.ipc import messages as m
from wghsm.supervisor.model import Model, initial

KEYS = [bytes([number]) * 32 for number in range(1, 40)]


def gateway(
    *peers: config.Peer,
    table: str = "auto",
    users: config.Users | None = None,
    environment: tuple[str, ...] = (),
) -> config.Gateway:
    """Make a gateway file's content."""
    return config.Gateway(
        version=1,
        token=config.Token(uri="pkcs11:token=t?module-path=/m.so&pin-source=file:/p", environment=environment),
        interface=config.Interface.model_validate({"name": "wgt0", "key": "gateway", "table": table}),
        peers=peers,
        users=users or config.Users(),
    )


def peer(number: int, *prefixes: str, endpoint: config.Endpoint | None = None) -> config.Peer:
    """Make a peer of a gateway file, with KEYS[number]."""
    return config.Peer(
        name=f"peer{number}",
        public_key=KEYS[number],
        preshared_key=config.PskDerived(),
        allowed_ips=tuple(ip_network(prefix) for prefix in prefixes),
        endpoint=endpoint,
        persistent_keepalive=25,
    )


def two_peers() -> Model:
    """Make a model of two peers with a prefix each."""
    return initial(gateway(peer(0, "10.0.0.0/24"), peer(1, "10.1.0.0/24", "fd01::/64")))


def change(*peers: m.PeerChange, replace_peers: bool = False) -> m.DeviceChange:
    """Make a change of peers."""
    return m.DeviceChange(replace_peers=replace_peers, peers=list(peers))
