"""A stock client from a configuration as wghsm writes it: what wg-quick would do with the file."""

import configparser

from tests.network.support.lab import Lab
from tests.network.support.netns import Namespace
from tests.network.support.wireguard_go import KeyPair, StockPeer

__all__ = ["client_from", "connect_client", "parsed"]


def parsed(text: str) -> configparser.ConfigParser:
    """The sections Interface and Peer."""
    read = configparser.ConfigParser()
    read.read_string(text)
    return read


def client_from(lab: Lab, namespace: Namespace, text: str, public_key: str) -> StockPeer:
    """Start wireguard-go in `namespace` with a configuration; its networks lie behind the tunnel."""
    own = parsed(text)["Interface"]
    addresses = own["Address"].split(", ")
    stock = lab.stock_peer(namespace, addresses, keys=KeyPair(own["PrivateKey"], public_key))
    connect_client(stock, text)
    return stock


def connect_client(stock: StockPeer, text: str) -> None:
    """Give it its peer, afresh: the next packet begins a handshake."""
    peer = parsed(text)["Peer"]
    stock.set_peer(peer["PublicKey"], peer["AllowedIPs"].split(", "), peer["Endpoint"], peer.get("PresharedKey"))
