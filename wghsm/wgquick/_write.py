"""A site as wg-quick reads it, without a key in clear: where one belongs, a comment says where it is."""

from wghsm.wgquick._site import Site

__all__ = ["format_wg_quick"]


def format_wg_quick(site: Site, *, private_key: str, psks: dict[str, str]) -> str:
    """The text. `private_key`: where it is, in words; `psks`: the same for each peer that has one, by name."""
    said = ["[Interface]", f"# PrivateKey: {private_key}"]
    said += [f"Address = {', '.join(site.addresses)}"] if site.addresses else []
    said += [f"ListenPort = {site.listen_port}"] if site.listen_port else []
    said += [f"MTU = {site.mtu}"] if site.mtu else []
    said += [f"Table = {site.table}"] if site.table != "auto" else []
    said += [f"FwMark = {site.fwmark}"] if site.fwmark else []
    for peer in site.peers:
        said += ["", "[Peer]", f"# {peer.name}", f"PublicKey = {peer.public_key}"]
        said += [f"# PresharedKey: {psks[peer.name]}"] if peer.name in psks else []
        said += [f"AllowedIPs = {', '.join(peer.allowed_ips)}"] if peer.allowed_ips else []
        said += [f"Endpoint = {peer.endpoint}"] if peer.endpoint else []
        said += [f"PersistentKeepalive = {peer.keepalive}"] if peer.keepalive else []
    return "\n".join(said) + "\n"
