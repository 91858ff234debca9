"""Values of the firewall's settings: where a peer may go, how fast, how much, and the interfaces to masquerade at.

Readers as in `_values`: text to a typed value, or a fault with its remedy. Called by `_model`.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from wghsm.config import _values as v
from wghsm.config._scalar import fault, shown, text_of

__all__ = ["Allow", "allow", "limit_text", "out_interface", "quota", "rate"]

_PROTOCOLS = ("tcp", "udp", "icmp")
_RATES = {"k": 10**3, "M": 10**6, "G": 10**9}
_AMOUNTS = {"M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True, slots=True)
class Allow:
    """Where a peer may go: `10.1.0.0/16 tcp/8000-8010`.

    `prefix` None: anywhere. `protocol`: tcp, udp, icmp, or empty for any. `ports`: first and last, None for all.
    """

    prefix: IPv4Network | IPv6Network | None = None
    protocol: str = ""
    ports: tuple[int, int] | None = None

    def __str__(self) -> str:
        """As a gateway file has it."""
        first, last = self.ports or (0, 0)
        ports = "" if self.ports is None else f"/{first}" if first == last else f"/{first}-{last}"
        return " ".join(filter(None, (str(self.prefix or "any"), self.protocol + ports)))


def allow(value: object) -> Allow:
    """A prefix or `any`, and after a space a protocol, for tcp and udp with a port or a range of them."""
    if isinstance(value, Allow):
        return value
    remedy = "write a prefix or any, and if wanted a protocol and ports, such as 10.1.0.0/16 tcp/443"
    text = text_of(value, remedy)
    found = re.fullmatch(r"(\S+)(?: +([a-z]+)(?:/([0-9]{1,5})(?:-([0-9]{1,5}))?)?)?", text, re.ASCII)
    if not found or (found[2] and found[2] not in _PROTOCOLS) or (found[2] == "icmp" and found[3]):
        fault(f"{shown(text)} is not a place where a peer may go", remedy)
    prefix = None if found[1] == "any" else v.allowed_ip(found[1])
    if found[3] is None:
        return Allow(prefix, found[2] or "")
    first, last = int(found[3]), int(found[4] or found[3])
    if not 1 <= first <= last <= 65535:
        fault(f"{shown(text)} has no ports", "write a port from 1 to 65535, or two in order, such as tcp/8000-8010")
    return Allow(prefix, found[2], (first, last))


def rate(value: object) -> int:
    """Bytes a second, from bits: `500kbit`, `20Mbit`, `1Gbit`; 64kbit to 1000Gbit."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    remedy = "write a number and kbit, Mbit or Gbit, such as 20Mbit"
    text = text_of(value, remedy)
    if not re.fullmatch(r"[0-9]{1,6}[kMG]bit", text, re.ASCII):
        fault(f"rate_limit cannot be {shown(text)}", remedy)
    found = int(text[:-4]) * _RATES[text[-4]] // 8
    if not 8000 <= found <= 125 * 10**9:
        fault(f"rate_limit {text} is out of range", "write 64kbit to 1000Gbit")
    return found


def quota(value: object) -> int:
    """Bytes, from mebi-, gibi- or tebibytes: `500M`, `100G`, `2T`; at least 1M."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    remedy = "write a number and M, G or T, such as 100G"
    text = text_of(value, remedy)
    if not re.fullmatch(r"[0-9]{1,6}[MGT]", text, re.ASCII) or not int(text[:-1]):
        fault(f"quota cannot be {shown(text)}", remedy)
    return int(text[:-1]) * _AMOUNTS[text[-1]]


def limit_text(field: str, value: int) -> str:
    """A `rate_limit` or `quota` as the file has it: `20Mbit`, `100G`."""
    amount, units, ending = (value * 8, _RATES, "bit") if field == "rate_limit" else (value, _AMOUNTS, "")
    # The largest unit that leaves no fraction.
    unit = next((each for each in reversed(units) if amount % units[each] == 0), next(iter(units)))
    return f"{amount // units[unit]}{unit}{ending}"


def out_interface(value: object) -> str:
    """The name of an interface, or `*` for all but the tunnel's own."""
    text = text_of(value, 'write an interface\'s name such as eth0, or "*" for all')
    return text if text == "*" else v.interface_name(value)
