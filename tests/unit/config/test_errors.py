"""Every error: its line, its words, its remedy; all at once; and never a secret."""

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.config.samples import GOOD, KEY_A, KEY_B, KEY_C, broken
from wghsm.config import ConfigError, Problem, load, load_text
from wghsm.exits import ExitCode

URI = "pkcs11:token=gw?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/wghsm/pin"
LOW_ORDER = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="


def problems(text: str) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as caught:
        load_text(text, "gw.yaml")
    assert caught.value.exit_code is ExitCode.BAD_CONFIG
    assert caught.value.problems
    return caught.value.problems


# old, new, line, words of the message, words of the remedy
CASES: list[tuple[str, str, int, str, str]] = [
    # unknown and missing keys
    ("listen_port: 51820", "listenport: 51820", 9, "unknown key listenport under interface:", "write listen_port"),
    ("  mtu: 1420", "  MTU: 1420", 11, "unknown key MTU", "write mtu"),
    ("  mtu: 1420", "  frobnicate: 1", 11, "unknown key frobnicate", "known here: name, key, previous_key"),
    ("  mtu: 1420", "  sessions: 4", 11, "unknown key sessions", "move it: sessions belongs under token:"),
    ("  mtu: 1420", "  private_key: x", 11, "unknown key private_key", "keep the private key in the token"),
    ("    persistent_keepalive: 25", "    PersistentKeepalive: 25", 20, "in a peer", "write persistent_keepalive"),
    ("version: 1\n", "", 1, "version is missing", "write version: 1"),
    ("version: 1", "version: 2", 1, "not known here", "write version: 1"),
    ("version: 1", 'version: "1"', 1, "in quotes", "write version: 1"),
    ("  name: wg0\n", "", 6, "name is missing under interface:", "write name:"),
    (
        "    preshared_key: none\n",
        "",
        21,
        "preshared_key is missing in this peer",
        "derived, wrapped:FILE, object:LABEL or none",
    ),
    # shapes
    ("[SOFTHSM2_CONF]", "SOFTHSM2_CONF", 5, "environment is not a list", "a list"),
    ("      - 10.8.0.3/32", "      10.8.0.3/32", 24, "allowed_ips is not a list", "a list"),
    ("  - name: bob", "  - bob\n  - name: bob", 21, "a peer is not a group", "- name: NAME"),
    ("mtu: 1420", "mtu: [1420]", 11, "a single value belongs here", "bytes"),
    ("mtu: 1420", "mtu:", 11, "no value", "leave the key out"),
    ("preshared_key: none", "preshared_key:", 23, "no value", "derived"),
    # token
    (URI, "http://gw", 3, "does not begin with pkcs11:", "module-path"),
    (URI, "pkcs11:token=gw", 3, "names no module", "?module-path="),
    (URI, "pkcs11:token=gw?module-path=lib.so", 3, "not an absolute path", "/PATH/TO"),
    (URI, "pkcs11:token=a%zz?module-path=/m.so", 3, "two hexadecimal digits", "%25"),
    (URI, "pkcs11:token=a b?module-path=/m.so", 3, "a space", "%20"),
    (URI, "pkcs11:token=a;token=b?module-path=/m.so", 3, "token twice", "one"),
    (URI, "pkcs11:module-path=/m.so", 3, "unknown attribute before the ?", "token"),
    (URI, "pkcs11:token=gw?module-path=/m.so&pin-sorce=x", 3, "unknown attribute after the ?", "pin-source"),
    (URI, "pkcs11:token?module-path=/m.so", 3, "not attribute=value", "token=gw"),
    # several tokens
    (f'  uri: "{URI}"\n', "", 2, "uri is missing under token:", "uris: with several"),
    ("  environment: [SOFTHSM2_CONF]", f'  uris: ["{URI}"]', 5, "exclude each other", "keep uris:"),
    (f'  uri: "{URI}"', "  uris: []", 3, "uris is empty", "at least one"),
    (f'  uri: "{URI}"', f'  uris: ["{URI}", "{URI}"]', 3, "stands twice", "keep it once"),
    (f'  uri: "{URI}"', f'  uris:\n  - "{URI}"\n  - "gw"', 5, "does not begin with pkcs11:", "module-path"),
    (f'  uri: "{URI}"', f'  uris: ["{URI}", "{URI[:-19]}prompt"]', 3, "has to type", "pin-source=file"),
    (f'  uri: "{URI}"', f'  uris: ["{URI}", "pkcs11:token=b?module-path=/b.so"]', 3, "has to type", "pin-source=file"),
    ("  environment: [SOFTHSM2_CONF]", "  at_start: never", 5, "at_start", "wait or fail"),
    ("[SOFTHSM2_CONF]", "[A=b]", 5, "a variable with a value", "names only"),
    ("  environment: [SOFTHSM2_CONF]", "  sessions: 65", 5, "sessions 65 is out of range", "1 to 64"),
    ("  environment: [SOFTHSM2_CONF]", "  cache_static_static: yes", 5, "cannot be 'yes'", "true or false"),
    ("  psk_root: wghsm-psk-root\n", "", 16, "derived needs token.psk_root", "derive-root"),
    # interface
    ("name: wg0", "name: wg 0", 7, "refuse the interface name 'wg 0'", "1 to 15"),
    ("name: wg0", "name: wg/0", 7, "refuse the interface name", "1 to 15"),
    ("name: wg0", "name: sixteen-letters-", 7, "refuse the interface name", "1 to 15"),
    ("name: wg0", "name: ..", 7, "keeps the interface name ..", "wg0"),
    ("name: wg0", "name: all", 7, "keeps the interface name all", "wg0"),
    ("  mtu: 1420", "  previous_key: gateway", 11, "previous_key is key; it is for the key that", "wghsm key rotate"),
    ("  mtu: 1420", "  previous_key: ''", 11, "the gateway's key before this one is empty", "1 to 255"),
    ("  mtu: 1420", f"  previous_key: {KEY_A}", 11, "a key stands where the label", "keep keys in the token"),
    ("listen_port: 51820", "listen_port: 65536", 9, "listen_port 65536 is out of range", "up to 65535"),
    ("listen_port: 51820", "listen_port: -1", 9, "listen_port -1 is out of range", "up to 65535"),
    ("listen_port: 51820", 'listen_port: "51820"', 9, "in quotes", "without quotes"),
    ("listen_port: 51820", "listen_port: 5e4", 9, "not a whole number", "up to 65535"),
    ("mtu: 1420", "mtu: off", 11, "mtu is not a whole number", "or auto"),
    ("mtu: 1420", "mtu: 575", 11, "mtu 575 is out of range", "576 to 65455"),
    ("mtu: 1420", "mtu: 65456", 11, "mtu 65456 is out of range", "576 to 65455"),
    ("mtu: 1420", "mtu: 1279", 11, "too small for the IPv6 address fd08::1/64", "1280"),
    ("table: auto", "table: main", 12, "table is not a whole number: 'main'", "auto, off or"),
    ("table: auto", "table: 0", 12, "table 0 is out of range", "off"),
    ("authority: file", "authority: yaml", 13, "authority cannot be 'yaml'", "file or runtime"),
    ("  mtu: 1420", "  fwmark: 0x1ffffffff", 11, "fwmark", "0xca6c"),
    ("10.8.0.1/24", "10.8.0.1/33", 10, "'10.8.0.1/33' is not an address", "10.8.0.1/24"),
    ("10.8.0.1/24", "10.8.0.1/255.255.255.0", 10, "is not an address", "10.8.0.1/24"),
    ("10.8.0.1/24", "224.0.0.1/24", 10, "cannot have the address 224.0.0.1", "10.8.0.1/24"),
    ("10.8.0.1/24", "10.8.0.1/24, 10.8.0.1/32", 10, "10.8.0.1 stands twice", "once"),
    # peers
    ("name: bob", "name: alice", 21, "two peers with one name; the other is on line 15", "its own name"),
    ("name: bob", "name: a/b", 21, "cannot be named 'a/b'", "no slash"),
    (KEY_B, KEY_A, 22, "two peers with one public key; the other is on line 16", "key pair for each"),
    (KEY_B, KEY_B[:-1], 22, "has 43 characters, not 44", "wg pubkey"),
    (KEY_B, KEY_B + "A", 22, "has '=' at place 44", "wg pubkey"),
    (KEY_B, KEY_B[:9] + "-" + KEY_B[10:], 22, "has '-' at place 10", "wg pubkey"),
    (KEY_B, KEY_B[:42] + "B=", 22, "last characters", "lost or changed"),
    (KEY_B, LOW_ORDER, 22, "low order", "wg pubkey"),
    ("preshared_key: none", "preshared_key: yes", 23, "3 characters that are none of", "object:LABEL or none"),
    ("preshared_key: none", "preshared_key: derived:-1", 23, "epoch of a derived", "derived:1"),
    ("preshared_key: none", "preshared_key: derived:4294967296", 23, "epoch of a derived", "derived:1"),
    ("preshared_key: none", 'preshared_key: "derived:"', 23, "epoch of a derived", "derived:1"),
    ("preshared_key: none", "preshared_key: wrapped:../a", 23, "has ..", "wrapped:alice.psk"),
    ("preshared_key: none", "preshared_key: wrapped:a.psk", 23, "needs token.psk_wrap_key", "--make-key"),
    ("preshared_key: none", "preshared_key: none\n    migrate_from_none: true", 24, "preshared_key is none", "derived"),
    ("preshared_key: none", "preshared_key: derived\n    migrate_from_none: yes", 24, "cannot be 'yes'", "true or"),
    ("version: 1", "version: 1\npsk: required", 24, "psk: required, and this peer has none", "derived"),
    ("version: 1", "version: 1\npsk: always", 2, "psk cannot be 'always'", "optional or required"),
    ("  environment", "  psk_overlap: 14\n  environment", 5, "psk_overlap cannot be '14'", "14d"),
    ("  environment", "  psk_overlap: 3651d\n  environment", 5, "too long", "3650d"),
    ("preshared_key: none", 'preshared_key: "object:"', 23, "empty, too long", "1 to 255"),
    ("192.0.2.7:51820", "192.0.2.7", 18, "has no port", "192.0.2.7:51820"),
    ("192.0.2.7:51820", "192.0.2.7:0", 18, "port is '0'", "from 1 to 65535"),
    ("192.0.2.7:51820", "192.0.2.7:65536", 18, "port is '65536'", "from 1 to 65535"),
    ("192.0.2.7:51820", "192.0.2.777:51820", 18, "neither an IPv4 address nor a host name", ":PORT"),
    ("192.0.2.7:51820", "0.0.0.0:51820", 18, "no peer can be reached at 0.0.0.0", "own address"),
    ("192.0.2.7:51820", "2001:db8::7:51820", 18, "not in brackets", "[IPV6]:PORT"),
    ("192.0.2.7:51820", '"[192.0.2.7]:51820"', 18, "is no IPv6 address", "[IPV6]:PORT"),
    ("- 10.8.0.3/32", "- 10.8.0.2/32", 25, "10.8.0.2/32 is under two peers; the other is on line 19", "once"),
    (
        "- 10.8.0.3/32",
        "- 10.8.0.3/24\n      - 10.8.0.9/24",
        26,
        "10.8.0.0/24 (host bits cleared) is listed twice",
        "once",
    ),
    ("- 10.8.0.3/32", "- ten", 25, "'ten' is not an address", "10.8.0.2/32"),
    ("- 10.8.0.3/32", "- fe80::1%eth0/128", 25, "is not an address", "PREFIX/LENGTH"),
    ("persistent_keepalive: 25", "persistent_keepalive: 65536", 20, "out of range", "1 to 65535"),
    # the file's other keys
    ("version: 1", "version: 1\nstate_directory: var/lib", 2, "not an absolute path", "/var/lib/wghsm/wg0"),
    ("version: 1", "version: 1\nstate_directory: /a/../b", 2, "not an absolute path", "/var/lib/wghsm/wg0"),
    (
        "version: 1",
        "version: 1\nhooks: {up: [/bin/true]}",
        2,
        "a list of a program and its arguments",
        "[/usr/local/bin/",
    ),
    ("version: 1", "version: 1\nhooks: {up: [[]]}", 2, "a list of a program and its arguments", "[/usr/local/bin/"),
    ("version: 1", "version: 1\nhooks: {down: [[true]]}", 2, "'true' is not the absolute path", "[/usr/local/bin/"),
    ("version: 1", f"version: 1\nhooks: {{up: [[/bin/x, {KEY_A}]]}}", 2, "a key stands among", "[/usr/local/bin/"),
    ("version: 1", "version: 1\nlog_level: loud", 2, "log_level cannot be 'loud'", "debug, info, warning or error"),
    ("version: 1", "version: 1\nusers: {control: root}", 2, "cannot run as 'root'", "each room needs its own"),
    ("version: 1", "version: 1\ntunnel: {workers: 0}", 2, "workers 0 is out of range", "from 1 to 32"),
    ("version: 1", "version: 1\ntunnel: {workers: 33}", 2, "workers 33 is out of range", "from 1 to 32"),
    ("version: 1", "version: 1\nusers: {control: 0}", 2, "the uid 0 is out of range", "each room needs its own"),
    ("version: 1", "version: 1\nusers:\n  control: 61100", 3, "control would run as the same user as custodian", "own"),
    ("version: 1", "version: 1\nusers:\n  packets: 5", 3, "unknown key packets under users:", "custodian"),
    ("version: 1", "version: 1\naudit:\n  rotate_size: 10", 3, "rotate_size cannot be '10'", "such as 64M"),
    ("version: 1", "version: 1\naudit:\n  rotate_size: 10K", 3, "10K is out of range", "64K to 64G"),
    ("version: 1", "version: 1\naudit:\n  journald: maybe", 3, "journald cannot be 'maybe'", "path of its socket"),
    ("version: 1", "version: 1\naudit:\n  syslog_ca: /ca.pem", 3, "syslog_ca without syslog", "syslog: NAME:PORT"),
    (
        "version: 1",
        "version: 1\naudit:\n  syslog: logs:6514\n  syslog_key: /k",
        4,
        "syslog_key without syslog_certificate",
        "too, or neither",
    ),
    # YAML itself
    ("  key: gateway", "  key: gateway\n  key: other", 9, "the same key as on line 8", "keep one"),
    ("  key: gateway", "\tkey: gateway", 8, "a tab", "indent with spaces"),
    ("  key: gateway", "  key: [gateway", 8, "not YAML", "check the indentation"),
    ("key: gateway", "key: !!python/name:os.system gateway", 8, "a YAML tag (!) has no place", "remove it"),
    ("key: gateway", "key: *gateway", 8, "a YAML alias (*) has no place", "write the value out"),
    ("  key: gateway", "  ? [a, b]\n  : c\n  key: gateway", 8, "a key that is not a word", "key: value"),
    ("  key: gateway", '  key: "a\\U99999999"', 7, "not readable as YAML", "quotes"),
    ("  key: gateway", "  key: a\x01", 8, "a character that YAML does not allow", "remove it"),
    ("peers:", "---\npeers:", 14, "a second YAML document", "one gateway to a file"),
]


@pytest.mark.parametrize(("old", "new", "line", "message", "remedy"), CASES, ids=lambda v: str(v)[:40])
def test_one_error(old: str, new: str, line: int, message: str, remedy: str) -> None:
    found = problems(broken(old, new))
    assert [(problem.file, problem.line) for problem in found] == [("gw.yaml", line)], found
    assert message in found[0].message
    assert remedy in found[0].remedy
    assert str(found[0]) == f"gw.yaml:{line}: {found[0].message}; {found[0].remedy}"


def test_many_errors_at_once_sorted_by_line() -> None:
    text = (
        GOOD.replace("version: 1", "version: 3")
        .replace("name: wg0", "name: wg/0")
        .replace("mtu: 1420", "mtu: 12\n  mtu: 13")
        .replace("192.0.2.7:51820", "nowhere")
        .replace("name: bob", "name: alice")
        .replace("  psk_root: wghsm-psk-root\n", "")
        .replace("- 10.8.0.3/32", "- 10.8.0.2/32\n      - x")
        + "surprise: 1\n"
    )
    found = problems(text)
    assert [problem.line for problem in found] == [1, 6, 10, 11, 17, 18, 21, 25, 26, 27]
    with pytest.raises(ConfigError) as caught:
        load_text(text, "gw.yaml")
    assert str(caught.value).splitlines() == [str(problem) for problem in found]


@pytest.mark.parametrize("text", ["", "# nothing\n", "just words", "- a\n- b\n", "[]", "42", "~", "---\n...\n"])
def test_files_that_hold_no_settings(text: str) -> None:
    (problem,) = problems(text)
    assert "no settings" in problem.message
    assert "configs/" in problem.remedy


def test_an_empty_mapping_names_all_that_is_missing() -> None:
    assert [p.message.split()[0] for p in problems("{}")] == ["interface", "token", "version"]


@pytest.mark.parametrize("text", ["[" * 4000, "{a: " * 4000, "a: " + "[" * 50 + "]" * 50, "- " * 3000])
def test_deep_nesting_is_refused(text: str) -> None:
    assert problems(text)


SECRET = "cM0n5Yd7gyJYzXlJ1qA1P2yZtq8yT3kJkq9xW7u0mXo="  # noqa: S105  (made up)
PLACES = [
    ("preshared_key: none", f"preshared_key: {SECRET}"),
    ("preshared_key: none", f"preshared_key: object:{SECRET}"),
    ("preshared_key: none", f"preshared_key: {SECRET[:30]}"),
    ("preshared_key: none", f"preshared_key: [{SECRET}]"),
    ("preshared_key: none", f"preshared_key: !{SECRET} none"),
    ("preshared_key: none", f"preshared_key: '{SECRET}"),
    ("preshared_key: none", f"{SECRET}: none"),
    ("preshared_key: none", f"preshared_key: none\n    {SECRET}: 1\n    {SECRET}: 2"),
    ("preshared_key: none", f"preshared_key: *{SECRET}"),
    ("key: gateway", f"key: {SECRET}"),
    ("psk_root: wghsm-psk-root", f"psk_root: {SECRET}"),
    ("key: gateway", f"private_key: {SECRET}"),
    ("name: bob", f"name: {SECRET}"),
    ("name: wg0", f"name: {SECRET}"),
    ("mtu: 1420", f"mtu: {SECRET}"),
    ("192.0.2.7:51820", SECRET),
    ("192.0.2.7:51820", f"{SECRET}:51820"),
    ("10.8.0.3/32", SECRET),
    ("authority: file", f"authority: {SECRET}"),
    ("[SOFTHSM2_CONF]", f"[{SECRET}]"),
    (KEY_B, SECRET[:-1]),
    (KEY_B, SECRET + SECRET),
    ("&pin-source=file:/etc/wghsm/pin", f"&pin-value={SECRET}"),
    ("&pin-source=file:/etc/wghsm/pin", f"&PIN-VALUE={SECRET}"),
    ("&pin-source=file:/etc/wghsm/pin", f"&pin%2dvalue={SECRET}"),
    ("&pin-source=file:/etc/wghsm/pin", f"&pin-source=file:/x&{SECRET[:-1]}"),
    ("&pin-source=file:/etc/wghsm/pin", f"&pin-source=file:/x&{SECRET}"),
    ("token=gw?", f"token=gw;pin-value={SECRET}?"),
    ("version: 1", f"version: 1\nstate_directory: {SECRET}"),
]


@pytest.mark.parametrize(("old", "new"), PLACES)
def test_a_secret_in_the_wrong_place_is_not_repeated(old: str, new: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(broken(old, new), "gw.yaml")
    error: BaseException | None = caught.value
    while error is not None:
        told = f"{error} {error!r} {error.args}"
        assert SECRET[:8] not in told
        assert SECRET[20:30] not in told
        error = error.__cause__ or error.__context__


def test_a_clear_psk_is_told_where_to_go() -> None:
    (problem,) = problems(broken("preshared_key: none", f"preshared_key: {SECRET}"))
    assert problem.line == 23
    assert "wghsm psk put LABEL" in problem.remedy


def test_several_tokens_and_psks_written_at_run_time() -> None:
    several = GOOD.replace(f'  uri: "{URI}"', f'  uris: ["{URI}", "{URI.replace("token=gw", "token=b")}"]')
    (problem,) = problems(several.replace("authority: file", "authority: runtime"))
    assert (problem.line, problem.remedy) == (3, "name one token with uri:, or write authority: file")


def test_a_pin_in_the_uri_is_told_where_to_go() -> None:
    (problem,) = problems(broken("pin-source=file:/etc/wghsm/pin", "pin-value=1234"))
    assert problem.line == 3
    assert "pin-source=file:PATH" in problem.remedy


def test_good_values_are_checked_against_each_other_while_others_are_bad() -> None:
    third = f"  - {{name: carol, public_key: {KEY_C}, preshared_key: oops, allowed_ips: [10.8.0.3]}}\n"
    assert [problem.line for problem in problems(GOOD + third)] == [26, 26]


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="wghsm-", dir="/tmp") as name:
        yield Path(name)


def _problem_of(path: Path) -> Problem:
    with pytest.raises(ConfigError) as caught:
        load(path)
    (problem,) = caught.value.problems
    assert problem.file == str(path)
    return problem


def test_a_missing_file(folder: Path) -> None:
    problem = _problem_of(folder / "no.yaml")
    assert str(problem).startswith(f"{folder}/no.yaml: there is no such file; ")


def test_a_folder_and_a_pipe_are_no_files(folder: Path) -> None:
    assert "regular file" in _problem_of(folder).message
    os.mkfifo(folder / "pipe")
    assert "regular file" in _problem_of(folder / "pipe").message


def test_a_path_through_a_file(folder: Path) -> None:
    (folder / "file").touch()
    assert "cannot be read" in _problem_of(folder / "file" / "gw.yaml").message


def test_bytes_that_are_not_utf8(folder: Path) -> None:
    path = folder / "gw.yaml"
    path.write_bytes(b"version: 1\n# caf\xe9\n")
    problem = _problem_of(path)
    assert (problem.line, problem.message) == (2, "bytes that are not UTF-8")


def test_a_byte_order_mark_and_windows_lines_do_no_harm(folder: Path) -> None:
    path = folder / "gw.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert load(path) == load_text(GOOD)


def test_a_file_that_anybody_may_write_is_a_warning(folder: Path) -> None:
    path = folder / "gw.yaml"
    path.write_text(GOOD)
    path.chmod(0o644)
    warnings: list[Problem] = []
    load(path, warn=warnings.append)
    assert warnings == []
    path.chmod(path.stat().st_mode | stat.S_IWOTH)
    load(path, warn=warnings.append)
    assert [(w.line, w.remedy) for w in warnings] == [(0, "take the right away with chmod o-w")]


def test_the_warning_is_logged_by_default(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = folder / "gw.yaml"
    path.write_text(GOOD)
    path.chmod(0o666)
    load(path)
    assert "anybody may write" in caplog.text


def test_an_unreadable_file(folder: Path) -> None:
    folder.chmod(0o711)
    path = folder / "gw.yaml"
    path.write_text(GOOD)
    path.chmod(0o600)
    if os.geteuid() == 0:
        os.seteuid(61105)
        try:
            problem = _problem_of(path)
        finally:
            os.seteuid(0)
    else:
        path.chmod(0)
        problem = _problem_of(path)
    assert "may not be read" in problem.message
