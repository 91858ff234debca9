"""Good gateway files become the right values."""

import base64
from ipaddress import ip_interface, ip_network
from pathlib import Path

import pytest

from tests.unit.config.samples import GOOD, KEY_A, broken
from wghsm.config import Endpoint, Gateway, Peer, PskDerived, PskNone, PskObject, load, load_text

CONFIGS = Path(__file__).parents[3] / "configs"
HEAD = "version: 1\ntoken: {uri: 'pkcs11:?module-path=/m.so'}\ninterface: {name: wg0, key: k}\n"


def test_every_value_of_the_sample() -> None:
    gateway = load_text(GOOD)
    assert gateway.version == 1
    assert gateway.token.uri.startswith("pkcs11:token=gw?module-path=")
    assert gateway.token.psk_root == "wghsm-psk-root"
    assert gateway.token.environment == ("SOFTHSM2_CONF",)
    interface = gateway.interface
    assert (interface.name, interface.key, interface.listen_port, interface.mtu) == ("wg0", "gateway", 51820, 1420)
    assert interface.addresses == (ip_interface("10.8.0.1/24"), ip_interface("fd08::1/64"))
    assert (interface.table, interface.authority, interface.fwmark) == ("auto", "file", 0)
    alice, bob = gateway.peers
    assert alice == Peer(
        name="alice",
        public_key=base64.b64decode(KEY_A),
        preshared_key=PskDerived(epoch=0),
        endpoint=Endpoint("192.0.2.7", 51820),
        allowed_ips=(ip_network("10.8.0.2/32"), ip_network("fd08::2/128")),
        persistent_keepalive=25,
    )
    assert (bob.preshared_key, bob.endpoint, bob.persistent_keepalive) == (PskNone(), None, 0)


def test_defaults() -> None:
    gateway = load_text(HEAD)
    assert gateway.peers == ()
    assert gateway.interface.addresses == ()
    assert (gateway.interface.listen_port, gateway.interface.mtu, gateway.interface.table) == (0, "auto", "auto")
    assert (gateway.token.sessions, gateway.token.cache_static_static, gateway.token.psk_root) == (4, True, None)
    assert gateway.state_directory == Path("/var/lib/wghsm/wg0")
    assert gateway.log_level == "info"
    assert list(gateway.users.model_dump().values()) == [61100, 61101, 61102, 61103, 61104, 61105, 61106]


def test_a_key_that_is_being_retired() -> None:
    interface = load_text(HEAD.replace("key: k", "key: k, previous_key: j")).interface
    assert (interface.key, interface.previous_key) == ("k", "j")
    assert load_text(HEAD).interface.previous_key is None


def test_equal_files_are_equal_and_hash_alike() -> None:
    first, second = load_text(GOOD), load_text("# other comments\n" + GOOD)
    assert first == second
    assert hash(first) == hash(second)
    assert first != load_text(broken("mtu: 1420", "mtu: 1400"))
    assert first.peers[1] == load_text(broken("mtu: 1420", "mtu: 1400")).peers[1]


def test_a_default_written_out_is_the_same_gateway() -> None:
    assert load_text(HEAD) == load_text(HEAD + "state_directory: /var/lib/wghsm/wg0\nlog_level: info\npeers:\n")


def test_models_are_frozen() -> None:
    gateway = load_text(GOOD)
    with pytest.raises(ValueError, match="frozen"):
        gateway.interface.mtu = 1  # type: ignore[misc]


def _interface(extra: str) -> Gateway:
    return load_text(broken("  key: gateway\n", f"  key: gateway\n  {extra}\n"))


@pytest.mark.parametrize(("text", "mark"), [("off", 0), ("0", 0), ("51820", 51820), ("0xca6c", 51820)])
def test_fwmark(text: str, mark: int) -> None:
    assert _interface(f"fwmark: {text}").interface.fwmark == mark


@pytest.mark.parametrize(("text", "table"), [("off", "off"), ('"off"', "off"), ("auto", "auto"), ("254", 254)])
def test_table(text: str, table: str | int) -> None:
    assert load_text(broken("table: auto", f"table: {text}")).interface.table == table


@pytest.mark.parametrize("header", ["", "%YAML 1.1\n---\n", "%YAML 1.2\n---\n"])
def test_off_is_off_in_every_yaml(header: str) -> None:
    assert load_text(header + broken("table: auto", "table: off")).interface.table == "off"


def test_words_that_yaml_would_turn_into_numbers_stay_words() -> None:
    gateway = load_text(broken("name: bob", "name: 0123").replace("key: gateway", "key: 1e3"))
    assert (gateway.peers[1].name, gateway.interface.key) == ("0123", "1e3")


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("192.0.2.7:1", Endpoint("192.0.2.7", 1)),
        ('"[2001:DB8:0::7]:51820"', Endpoint("2001:db8::7", 51820)),
        ('"[fe80::1%eth0]:51820"', Endpoint("fe80::1%eth0", 51820)),
        ("Gw.Example.org:65535", Endpoint("gw.example.org", 65535)),
    ],
)
def test_endpoint(text: str, endpoint: Endpoint) -> None:
    found = load_text(broken("192.0.2.7:51820", text)).peers[0].endpoint
    assert found == endpoint
    assert load_text(broken("192.0.2.7:51820", f'"{endpoint}"')).peers[0].endpoint == endpoint


def test_host_bits_are_cleared_and_bare_addresses_are_hosts() -> None:
    gateway = load_text(broken("      - 10.8.0.3/32\n", "      - 10.9.1.2/16\n      - 10.7.0.1\n      - fd09::1\n"))
    assert [str(prefix) for prefix in gateway.peers[1].allowed_ips] == ["10.9.0.0/16", "10.7.0.1/32", "fd09::1/128"]


def test_nested_prefixes_may_have_two_owners() -> None:
    gateway = load_text(broken("- 10.8.0.3/32", "- 10.8.0.0/24"))
    assert str(gateway.peers[1].allowed_ips[0]) == "10.8.0.0/24"


def test_psk_object() -> None:
    assert load_text(broken("preshared_key: none", "preshared_key: object:bob psk")).peers[1].preshared_key == (
        PskObject("bob psk")
    )


def test_a_long_label_is_no_key() -> None:
    label = "the-key-of-the-gateway-at-the-far-end-of-the-long-road"
    assert load_text(broken("key: gateway", f"key: {label}")).interface.key == label


def test_users_and_state_directory() -> None:
    gateway = load_text(GOOD + "users: {custodian: wghsm-custodian, control: 700}\nstate_directory: /srv/wghsm\n")
    assert (gateway.users.custodian, gateway.users.control, gateway.users.egress) == ("wghsm-custodian", 700, 61102)
    assert gateway.state_directory == Path("/srv/wghsm")


def test_an_audit_log_is_kept_where_its_section_is_written() -> None:
    without = load_text(GOOD).audit
    assert (without.enabled, without.directory) == (False, Path("/var/log/wghsm/wg0"))
    plain = load_text(GOOD + "audit: {}\n").audit
    assert (plain.enabled, plain.key, plain.journald, plain.retention) == (True, None, True, 400 * 86_400)
    full = load_text(
        GOOD + "audit: {key: audit, directory: /srv/a, retention: 30d, rotate_size: 512K, rotate_age: 36h, "
        "journald: /run/j, syslog: logs.example.com:6514, syslog_ca: /ca.pem, syslog_certificate: /c.pem, "
        "syslog_key: /c.key, on_failure: stop-new-handshakes}\n"
    ).audit
    assert (full.key, full.directory, full.rotate_size, full.rotate_age) == ("audit", Path("/srv/a"), 2**19, 36 * 3600)
    assert (str(full.syslog), full.journald, full.on_failure) == (
        "logs.example.com:6514",
        "/run/j",
        "stop-new-handshakes",
    )
    assert load_text(GOOD + "audit: {enabled: false}\n").audit.enabled is False


def test_a_module_may_be_given_an_init_string() -> None:
    text = GOOD.replace("&pin-source=", "&x-init-args=configdir='sql:/etc/nss'%20flags=&pin-source=", 1)
    assert "x-init-args=configdir" in load_text(text).token.uri


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_examples_load(path: Path) -> None:
    assert load(path).version == 1


def test_examples_are_there_and_show_what_they_say() -> None:
    loaded = {path.stem: load(path) for path in CONFIGS.glob("*.yaml")}
    assert set(loaded) >= {"minimal", "roadwarrior", "site-to-site", "runtime"}
    assert loaded["runtime"].interface.authority == "runtime"
    assert len(loaded["roadwarrior"].peers) == 2
    side_by_side = [loaded["roadwarrior"], loaded["runtime"]]
    assert len({gateway.interface.name for gateway in side_by_side}) == 2
    assert len({gateway.interface.listen_port for gateway in side_by_side}) == 2
    # The store of their one SoftHSM token belongs to one user; all other processes are kept apart.
    assert {gateway.users.custodian for gateway in side_by_side} == {61100}
    assert len({user for gateway in side_by_side for user in gateway.users.model_dump().values()}) == 13


def test_unit_does_not_restart_after_final_exit_codes() -> None:
    unit = (CONFIGS / "systemd" / "wghsm@.service").read_text()
    assert "\nRestartPreventExitStatus=2 3 4\n" in unit


def test_several_tokens_in_order() -> None:
    uris = [f"pkcs11:token={name}?module-path=/m.so&pin-source=file:/{name}.pin" for name in "ab"]
    token = load_text(GOOD.replace(next(line for line in GOOD.splitlines() if "uri:" in line), f"  uris: {uris}")).token
    assert (token.uri, token.in_order, token.at_start) == (uris[0], tuple(uris), "fail")
    one = load_text(GOOD).token
    assert one.in_order == (one.uri,)
    # One token whose PIN is typed may stand in a list of one.
    typed = "pkcs11:token=a?module-path=/m.so&pin-source=prompt"
    assert load_text(
        GOOD.replace(next(line for line in GOOD.splitlines() if "uri:" in line), f'  uris: ["{typed}"]')
    ).token.in_order == (typed,)


def test_a_gateway_shares_the_peers_that_have_not_changed() -> None:
    before = load_text(GOOD)
    other = load_text(GOOD.replace("name: bob", "name: bobby"))
    shared = other.sharing(before)
    assert shared == other
    assert shared.peers[0] is before.peers[0]
    assert shared.peers[1] is other.peers[1]
    assert shared.peers[1] != before.peers[1]
