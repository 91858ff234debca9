"""Any valid file comes back as it was meant; any text at all gives a gateway or a ConfigError."""

import base64
import json
from datetime import UTC, datetime
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.config.samples import GOOD, key
from wghsm.config import ConfigError, Gateway, Policy, PskDerived, PskNone, PskObject, PskWrapped, load_text

SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
LABELS = st.text(st.characters(codec="utf-8", categories=["L", "N"]), min_size=1, max_size=30)
HOSTS = st.from_regex(r"[a-z]([a-z0-9-]{0,10}[a-z0-9])?(\.[a-z]{2,5})?", fullmatch=True)
V4 = st.ip_addresses(v=4).filter(lambda a: not (a.is_unspecified or a.is_multicast))
V6 = st.ip_addresses(v=6).filter(lambda a: not (a.is_unspecified or a.is_multicast))
PREFIXES = st.one_of(
    st.builds(lambda a, n: str(IPv4Network((a, n), strict=False)), st.ip_addresses(v=4), st.integers(0, 32)),
    st.builds(lambda a, n: str(IPv6Network((a, n), strict=False)), st.ip_addresses(v=6), st.integers(0, 128)),
)
ENDPOINTS = st.builds("{}:{}".format, st.one_of(HOSTS, V4.map(str), V6.map("[{}]".format)), st.integers(1, 65535))
ADDRESSES = st.one_of(
    st.builds("{}/{}".format, V4, st.integers(0, 32)), st.builds("{}/{}".format, V6, st.integers(0, 128))
)
UIDS = st.lists(st.integers(1, 2**32 - 3), min_size=7, max_size=7, unique=True)


MOMENTS = st.integers(0, 10**10).map(lambda unix: f"{datetime.fromtimestamp(unix, UTC):%Y-%m-%dT%H:%M:%SZ}")
PLACES = st.sampled_from(
    ["any", "10.1.0.0/16", "fd00::/8 udp", "any icmp", "10.1.2.3/32 tcp/443", "::/0 udp/1-65535", "any tcp/80-81"]
)
PROGRAMS = st.lists(
    st.tuples(st.sampled_from(["/bin/true", "/usr/sbin/ip"]), LABELS).map(list), max_size=2, unique_by=tuple
)
TOKENS = st.one_of(
    st.just({"uri": "pkcs11:token=gw?module-path=/m.so"}),
    st.lists(st.from_regex(r"[a-z]{1,5}", fullmatch=True), min_size=1, max_size=3, unique=True).map(
        lambda names: {"uris": [f"pkcs11:token={n}?module-path=/m.so&pin-source=file:/{n}.pin" for n in names]}
    ),
)


@st.composite
def gateways(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(LABELS, max_size=5, unique=True))
    prefixes = iter(draw(st.lists(PREFIXES, max_size=12, unique=True)))
    peers = []
    for number, name in enumerate(names):
        epochs = st.integers(1, 2**32 - 1).map("derived:{}".format)
        # No two peers share a label or a file.
        psk = draw(st.one_of(st.sampled_from(["derived", "none", f"object:{name}", f"wrapped:{number}.psk"]), epochs))
        count = draw(st.integers(0, 4))
        peer: dict[str, Any] = {"name": name, "public_key": key(number), "preshared_key": psk}
        peer["allowed_ips"] = [prefix for _, prefix in zip(range(count), prefixes, strict=False)]
        if draw(st.booleans()):
            peer["endpoint"] = draw(ENDPOINTS)
        if draw(st.booleans()):
            peer["persistent_keepalive"] = draw(st.integers(0, 65535))
        if psk != "none" and draw(st.booleans()):
            peer["migrate_from_none"] = True
        if draw(st.booleans()):
            peer["disabled"] = draw(st.booleans())
        if draw(st.booleans()):
            peer["expires"] = draw(MOMENTS)
        if draw(st.booleans()):
            peer["note"] = draw(LABELS)
        if draw(st.booleans()):
            peer["allow"] = draw(st.lists(PLACES, max_size=3))
        if draw(st.booleans()):
            peer["rate_limit"] = f"{draw(st.integers(64, 10**6 - 1))}kbit"
        if draw(st.booleans()):
            peer["quota"] = f"{draw(st.integers(1, 10**6 - 1))}M"
        peer["tags"] = draw(st.lists(st.from_regex(r"[a-z]{1,8}", fullmatch=True), max_size=3, unique=True))
        peers.append(peer)
    tokens = draw(TOKENS)
    # PSKs that are set at run time go into one token.
    authorities = ["file"] if len(tokens.get("uris", ())) > 1 else ["file", "runtime"]
    label, *previous = draw(st.lists(LABELS, min_size=1, max_size=2, unique=True))
    rooms = ("custodian", "handshake", "egress", "ingress", "control", "resolver", "auditor")
    syslog = draw(st.none() | ENDPOINTS)
    return {
        "version": 1,
        "token": {
            **tokens,
            "at_start": draw(st.sampled_from(["wait", "fail"])),
            "psk_root": draw(LABELS),
            "psk_wrap_key": draw(LABELS),
            "psk_overlap": f"{draw(st.integers(0, 10**4))}h",
            "environment": draw(st.lists(st.from_regex(r"[A-Z_][A-Z0-9_]{0,9}", fullmatch=True), unique=True)),
            "sessions": draw(st.integers(1, 64)),
            "cache_static_static": draw(st.booleans()),
        },
        "audit": {
            "enabled": draw(st.booleans()),
            "key": draw(LABELS),
            "retention": f"{draw(st.integers(0, 3650))}d",
            "rotate_size": f"{draw(st.integers(1, 64))}M",
            "journald": draw(st.booleans() | st.just("/run/journal/socket")),
            "on_failure": draw(st.sampled_from(["continue", "stop-new-handshakes"])),
            **({"syslog": syslog, "syslog_ca": "/etc/ca.pem"} if syslog else {}),
        },
        "interface": {
            "name": draw(
                st.from_regex(r"[a-zA-Z0-9_=+-][a-zA-Z0-9_=+.-]{3,14}", fullmatch=True).filter(
                    lambda name: name != "default"
                )
            ),
            "key": label,
            **({"previous_key": previous[0]} if previous else {}),
            "listen_port": draw(st.integers(0, 65535)),
            "addresses": draw(st.lists(ADDRESSES, max_size=4, unique_by=lambda a: a.partition("/")[0])),
            "mtu": draw(st.integers(1280, 65455)),
            "table": draw(st.one_of(st.sampled_from(["auto", "off"]), st.integers(1, 2**32 - 1))),
            "authority": draw(st.sampled_from(authorities)),
            "fwmark": draw(st.integers(0, 2**32 - 1)),
        },
        "firewall": {
            "masquerade": draw(st.lists(st.sampled_from(["eth0", "*", "br-lan"]), max_size=2, unique=True)),
            "isolate_clients": draw(st.booleans()),
        },
        "hooks": {"up": draw(PROGRAMS), "down": draw(PROGRAMS)},
        "peers": peers,
        "psk": "optional",
        "policy": draw(
            st.fixed_dictionaries(
                {}, optional={name: st.integers(0, 3650).map(lambda n: f"{n}d") for name in Policy.model_fields}
            )
        ),
        "clients": draw(
            st.fixed_dictionaries(
                {
                    "allowed_ips": st.lists(PREFIXES, max_size=3, unique=True),
                    "dns": st.lists(st.one_of(V4.map(str), V6.map(str)), max_size=3, unique=True),
                    "persistent_keepalive": st.integers(0, 65535),
                },
                optional={
                    "endpoint": ENDPOINTS,
                    "preshared_key": st.sampled_from(["derived", "wrapped", "object", "none"]),
                },
            )
        ),
        "tunnel": {"workers": draw(st.integers(1, 32))},
        "users": dict(zip(rooms, draw(UIDS), strict=True)),
        "state_directory": "/srv/" + draw(st.from_regex(r"[a-z]{1,9}", fullmatch=True)),
        "log_level": draw(st.sampled_from(["debug", "info", "warning", "error"])),
    }


def _written_psk(psk: PskNone | PskDerived | PskObject | PskWrapped) -> str:
    match psk:
        case PskDerived(epoch):
            return f"derived:{epoch}" if epoch else "derived"
        case PskObject(label):
            return f"object:{label}"
        case PskWrapped(file):
            return f"wrapped:{file}"
        case _:
            return "none"


def written(gateway: Gateway) -> dict[str, Any]:
    """The gateway as the file would write it: the other direction, for tests only."""
    raw: dict[str, Any] = gateway.model_dump(
        exclude=dict.fromkeys(("peers", "state_directory", "include", "clients", "policy"), True)
        | {"audit": {"syslog"}}
    )
    written_as = "uris" if gateway.token.uris else "uri"
    raw["token"].pop("uri" if gateway.token.uris else "uris")
    raw["token"][written_as] = list(gateway.token.uris) or gateway.token.uri
    raw["token"]["psk_overlap"] = f"{gateway.token.psk_overlap // 3600}h"
    raw["token"]["environment"] = list(gateway.token.environment)
    audit = raw["audit"]
    audit["retention"] = f"{gateway.audit.retention // 86_400}d"
    audit["rotate_size"] = f"{gateway.audit.rotate_size >> 20}M"
    # Neither is drawn.
    del audit["directory"], audit["rotate_age"]
    if gateway.audit.syslog is not None:
        audit["syslog"], audit["syslog_ca"] = str(gateway.audit.syslog), str(gateway.audit.syslog_ca)
    raw["audit"] = {name: value for name, value in audit.items() if value is not None}
    raw["interface"]["addresses"] = [str(address) for address in gateway.interface.addresses]
    if gateway.interface.previous_key is None:
        del raw["interface"]["previous_key"]
    raw["state_directory"] = str(gateway.state_directory)
    raw["policy"] = {
        name: f"{days // 86_400}d" for name, days in gateway.policy.model_dump().items() if days is not None
    }
    firewall = gateway.firewall
    raw["firewall"] = {"masquerade": list(firewall.masquerade), "isolate_clients": firewall.isolate_clients}
    raw["hooks"] = {name: [list(each) for each in programs] for name, programs in gateway.hooks.model_dump().items()}
    clients = gateway.clients
    raw["clients"] = {
        "allowed_ips": [str(prefix) for prefix in clients.allowed_ips],
        "dns": list(clients.dns),
        "persistent_keepalive": clients.persistent_keepalive,
    }
    if clients.endpoint is not None:
        raw["clients"]["endpoint"] = str(clients.endpoint)
    if clients.preshared_key is not None:
        raw["clients"]["preshared_key"] = clients.preshared_key
    raw["peers"] = []
    for peer in gateway.peers:
        psk = peer.preshared_key
        entry: dict[str, Any] = {
            "name": peer.name,
            "public_key": base64.b64encode(peer.public_key).decode(),
            "preshared_key": _written_psk(psk),
            "allowed_ips": [str(prefix) for prefix in peer.allowed_ips],
            "persistent_keepalive": peer.persistent_keepalive,
        }
        if peer.endpoint is not None:
            entry["endpoint"] = str(peer.endpoint)
        if peer.migrate_from_none:
            entry["migrate_from_none"] = True
        entry |= {"disabled": peer.disabled, "note": peer.note, "tags": list(peer.tags)}
        entry["allow"] = [str(each) for each in peer.allow]
        if peer.rate_limit:
            entry["rate_limit"] = f"{peer.rate_limit * 8 // 1000}kbit"
        if peer.quota:
            entry["quota"] = f"{peer.quota >> 20}M"
        if peer.expires is not None:
            entry["expires"] = f"{peer.expires:%Y-%m-%dT%H:%M:%SZ}"
        raw["peers"].append(entry)
    return raw


@SLOW
@given(gateways())
def test_a_valid_file_round_trips(raw: dict[str, Any]) -> None:
    # JSON is YAML; ensure_ascii would write surrogate pairs, which YAML does not read.
    gateway = load_text(json.dumps(raw, ensure_ascii=False))
    for peer in raw["peers"]:
        peer.setdefault("persistent_keepalive", 0)
        peer.setdefault("disabled", False)
        peer.setdefault("note", "")
        peer.setdefault("allow", ["any"])
    assert written(gateway) == raw
    again = load_text(json.dumps(written(gateway), ensure_ascii=False))
    assert again == gateway
    assert hash(again) == hash(gateway)


def _try(text: str) -> None:
    try:
        load_text(text, "f")
    except ConfigError as error:
        assert error.problems
        assert [problem.line for problem in error.problems] == sorted(problem.line for problem in error.problems)
        for problem in error.problems:
            assert 1 <= problem.line <= 1 + sum(text.count(end) for end in "\n\r\x85\u2028\u2029")
            assert problem.message
            assert problem.remedy
            assert "\n" not in str(problem)


EDITS = st.lists(
    st.tuples(
        st.integers(0, len(GOOD)), st.integers(0, 12), st.text("abz019:-[]{}#&*!|>'\"%@`\t\n \\\x00é/,.?=~", max_size=6)
    ),
    min_size=1,
    max_size=6,
)


@settings(SLOW, max_examples=300)
@given(EDITS)
def test_a_mutated_file_raises_nothing_but_config_errors(edits: list[tuple[int, int, str]]) -> None:
    text = GOOD
    for start, length, new in edits:
        text = text[:start] + new + text[start + length :]
    _try(text)


@SLOW
@given(st.text(max_size=200))
def test_any_text_raises_nothing_but_config_errors(text: str) -> None:
    _try(text)


JSONISH = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.text(max_size=20), st.sampled_from(["derived", "10.0.0.0/8"])
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ["token", "interface", "peers", "tunnel", "users", "name", "uri", "allowed_ips", "addresses", "<<"]
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=20,
)


@SLOW
@given(st.dictionaries(st.sampled_from(["version", "token", "interface", "peers", "tunnel", "users"]), JSONISH))
def test_any_shape_raises_nothing_but_config_errors(raw: dict[str, Any]) -> None:
    _try(json.dumps(raw))
