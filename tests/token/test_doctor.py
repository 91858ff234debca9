"""`wghsm token doctor` as an operator runs it: good tokens of every module, and each trouble by its name."""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.json_output import check_json
from tests.token.conftest import TokenUnderTest
from tests.token.odd_token import PIN_COUNT_LOW, PIN_FINAL_TRY, PIN_LOCKED, PINPAD, OddToken, odd_gateway
from wghsm.exits import ExitCode
from wghsm.pkcs11_backend import TokenPool
from wghsm.pkcs11_backend._doctor_latency import levels, measure
from wghsm.pkcs11_backend.doctor import Finding, Level, TokenReport, compare, exit_code, verdict
from wghsm.softhsm_setup import SoftHsmToken, make_token, softhsm_token

_CHECKS = [
    *("module", "token", "flags", "mechanisms", "login", "key", "dialect", "attributes", "value", "agreement"),
    *("low-order", "psk-derived", "psk-wrapped", "psk-object", "sessions", "latency"),
]


def _run(environment: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [sys.executable, "-m", "wghsm", "token", "doctor", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert "Traceback" not in done.stderr, done.stderr
    check_json(["token", "doctor", *arguments], done.stdout)
    return done


def _json(environment: dict[str, str], *arguments: str) -> dict[str, Any]:
    done = _run(environment, "--json", *arguments)
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["exit_code"] == done.returncode
    for token in report["tokens"]:
        assert all(finding["remedy"] for finding in token["findings"] if finding["level"] != "green")
    return report


def _found(report: dict[str, Any], check: str, token: int = 0) -> dict[str, str]:
    (finding,) = [each for each in report["tokens"][token]["findings"] if each["check"] == check]
    return dict(finding)


def _reds(report: dict[str, Any]) -> list[str]:
    return [
        finding["check"] for token in report["tokens"] for finding in token["findings"] if finding["level"] == "red"
    ]


# Every module.


def test_each_module_is_examined_whole(token: TokenUnderTest, label: str) -> None:
    with TokenPool.open(token.uri, bytearray(token.pin), 1, read_write=True) as pool:
        key = token.key(pool, label)
    with tempfile.NamedTemporaryFile() as pin:
        pin.write(token.pin)
        pin.flush()
        head, _, rest = token.uri.partition("&pin-source=")
        rest = rest.partition("&")[2]
        uri = f"{head}&pin-source=file:{pin.name}" + (f"&{rest}" if rest else "")
        report = _json(token.environment, "--token", uri, "--key", key.label, "--sessions", "3", "--write")
    one = report["tokens"][0]
    assert [finding["check"] for finding in one["findings"]] == _CHECKS
    lacking = {"psk-derived": "roots", "psk-object": "psk objects"}
    for finding in one["findings"]:
        expected = "green" if lacking.get(finding["check"]) not in token.lacks else "yellow"
        if finding["check"] != "psk-wrapped":
            assert finding["level"] == expected, finding
    assert report["exit_code"] == ExitCode.OK
    # Seven points, each also with the top bit that X25519 ignores.
    assert _found(report, "low-order")["text"].startswith("14 known points are refused before the token sees them")
    assert one["dialect"] == key.dialect.name
    assert len(one["public_key"]) == 44
    assert one["sessions"] == {"wanted": 3, "opened": 3}
    assert [level["sessions"] for level in one["latency"]] == [1, 2, 3]
    assert all(0 < level["p50_ms"] <= level["p99_ms"] for level in one["latency"])
    assert token.pin.decode() not in json.dumps(report)


# Troubles, by name.


@pytest.fixture(scope="module")
def made() -> Iterator[OddToken]:
    with odd_gateway() as (odd, _):
        yield odd


@pytest.fixture
def odd(made: OddToken) -> OddToken:
    made.set()
    return made


def _examine(odd: OddToken, *arguments: str) -> dict[str, Any]:
    return _json(odd.environment, "--token", odd.uri, "--psk-root", "root", *arguments)


@pytest.mark.parametrize(
    ("oddity", "check", "said"),
    [
        (
            {"C_DeriveKey": 0x140},
            "key",
            "refuses X25519 with key 'gateway' (CKR_CURVE_NOT_SUPPORTED), as tokens in FIPS",
        ),
        ({"kdf_only": 1}, "key", "only through a key derivation function (CKD_NULL: CKR_MECHANISM_PARAM_INVALID)"),
        ({"unreadable": 1}, "key", "derives but does not give the shared secret out (CKR_ATTRIBUTE_SENSITIVE)"),
        ({"wrong": 1}, "agreement", "a software peer derives another secret"),
        ({"low_order": "garbage"}, "low-order", "the token answers one with something else than zeros"),
        ({"value_readable": 1}, "value", "would give the value of key 'gateway' to whoever has the PIN"),
        ({"C_SignInit": 0x70}, "psk-derived", "computes no HMAC-SHA256 with secret 'root' (CKR_MECHANISM_INVALID)"),
        ({"sessions": 1}, "sessions", "no worker session is left beside the one that logs in (CKR_SESSION_COUNT)"),
        ({"flags": 0x1000000}, "flags", "error state"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_trouble_of_the_token_is_red(odd: OddToken, oddity: dict[str, Any], check: str, said: str) -> None:
    odd.set(**oddity)
    report = _examine(odd)
    assert _reds(report) == [check]
    assert said in _found(report, check)["text"]
    assert "\n" not in _found(report, check)["text"]
    assert report["verdict"] == "red"
    assert report["exit_code"] == ExitCode.TOKEN_UNUSABLE


@pytest.mark.parametrize(
    ("oddity", "check", "said"),
    [
        ({"sessions": 3}, "sessions", "gives 2 of 4 worker sessions (CKR_SESSION_COUNT)"),
        ({"C_CreateObject": 0x54}, "psk-object", "refuses object PSKs (CKR_FUNCTION_NOT_SUPPORTED)"),
        ({"flags": PIN_COUNT_LOW}, "flags", "a wrong PIN was sent since the last right one"),
        ({"flags": 0x80000}, "flags", "the PIN has to be changed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_gateway_can_live_with_is_yellow(odd: OddToken, oddity: dict[str, int], check: str, said: str) -> None:
    odd.set(**oddity)
    report = _examine(odd)
    assert report["verdict"] == "yellow"
    assert report["exit_code"] == ExitCode.OK
    assert _found(report, check)["level"] == "yellow"
    assert said in _found(report, check)["text"]


@pytest.mark.parametrize(
    ("settings", "check", "said"),
    [
        ({"flags": PIN_FINAL_TRY}, "flags", "one more wrong PIN locks the token (CKF_USER_PIN_FINAL_TRY)"),
        ({"flags": PIN_LOCKED}, "flags", "the PIN is locked (CKF_USER_PIN_LOCKED)"),
        ({"C_Login": 0xA0}, "login", "refused the PIN (CKR_PIN_INCORRECT)"),
        ({"C_Login": 0xA4}, "login", "no login is possible (CKR_PIN_LOCKED)"),
        ({"C_Login": 0xA3}, "login", "no login is possible (CKR_PIN_EXPIRED)"),
    ],
    ids=["final", "locked", "wrong", "locked now", "expired"],
)
def test_trouble_with_the_pin_has_its_own_status(
    odd: OddToken, settings: dict[str, int], check: str, said: str
) -> None:
    # Where a flag forbids the login, one that is tried all the same would be seen.
    odd.set(**{"C_Login": 0xA1, **settings} if "flags" in settings else settings)
    report = _examine(odd)
    assert _reds(report) == [check]
    assert said in _found(report, check)["text"]
    assert report["exit_code"] == ExitCode.PIN_REFUSED


def test_the_final_try_is_spent_only_when_told(odd: OddToken) -> None:
    odd.set(flags=PIN_FINAL_TRY)
    assert _reds(_examine(odd)) == ["flags"]
    report = _examine(odd, "--yes")
    assert _found(report, "login")["level"] == "green"
    assert _found(report, "flags")["level"] == "yellow"
    assert report["exit_code"] == ExitCode.OK


def test_a_token_that_gives_zeros_for_a_low_order_point_is_caught_by_the_check(odd: OddToken) -> None:
    odd.set(low_order="zeros")
    finding = _found(_examine(odd), "low-order")
    assert finding["level"] == "green"
    assert "gives zeros for one, which the check of each result catches" in finding["text"]


@pytest.mark.parametrize("function", ["C_DeriveKey", "C_Login", "C_SignInit"])
def test_a_module_that_crashes_takes_nothing_with_it(odd: OddToken, function: str) -> None:
    odd.set(crash=function)
    report = _examine(odd)
    check = {"C_DeriveKey": "key", "C_Login": "login", "C_SignInit": "psk-derived"}[function]
    assert _reds(report) == [check]
    assert _found(report, check)["text"] == f"the module {odd.module} crashed (SIGSEGV) at the check '{check}'"
    assert report["exit_code"] == ExitCode.TOKEN_UNUSABLE


def test_a_module_that_never_answers_is_left(odd: OddToken) -> None:
    odd.set(hang="C_DeriveKey")
    report = _examine(odd, "--timeout", "2")
    assert _found(report, "key")["text"] == f"the module {odd.module} has not answered for 2 s at the check 'key'"


def test_no_module_no_token_no_key_no_pin(odd: OddToken) -> None:
    for uri, key, check, said in (
        (odd.uri.replace("odd-softhsm.so", "none.so"), None, "module", "is not there"),
        (odd.uri.replace(str(odd.module), str(odd.made.pin_file)), None, "module", "cannot be loaded"),
        (odd.uri.replace("token=odd", "token=none"), None, "token", "token 'none' is not there"),
        (odd.uri, "none", "key", "no private key with the label 'none'; there is: 'gateway'"),
    ):
        report = _json(odd.environment, "--token", uri, *(["--key", key] if key else []))
        assert _reds(report) == [check]
        assert said in _found(report, check)["text"]
        assert report["exit_code"] == ExitCode.TOKEN_UNUSABLE
    report = _json(odd.environment, "--token", odd.uri.replace("odd.pin", "none.pin"))
    assert "No such file" in _found(report, "pin")["text"]
    assert report["exit_code"] == ExitCode.BAD_CONFIG


def test_mechanisms_that_are_missing(odd: OddToken) -> None:
    before = odd.made.conf.read_text()
    try:
        odd.made.conf.write_text(before + "slots.mechanisms = CKM_EC_EDWARDS_KEY_PAIR_GEN,CKM_SHA256_HMAC\n")
        report = _json(odd.environment, "--token", odd.uri)
        assert _reds(report) == ["mechanisms", "key"]
        assert "CKM_ECDH1_DERIVE, which X25519 needs" in _found(report, "mechanisms")["text"]
        odd.made.conf.write_text(before + "slots.mechanisms = CKM_EC_EDWARDS_KEY_PAIR_GEN,CKM_ECDH1_DERIVE\n")
        report = _json(odd.environment, "--token", odd.uri)
        assert report["verdict"] == "yellow"
        for check, name in (("psk-derived", "CKM_SHA256_HMAC"), ("psk-wrapped", "CKM_AES_GCM")):
            assert f"does not list {name}" in _found(report, check)["text"]
    finally:
        odd.made.conf.write_text(before)


def test_a_pinpad(odd: OddToken) -> None:
    uri = odd.uri.partition("&pin-source")[0] + "&pin-source=protected"
    odd.set(flags=PINPAD, pinpad=odd.pin.decode())
    done = _run(odd.environment, "--token", uri)
    assert done.returncode == ExitCode.OK
    assert "logged in, read-only, at the pinpad" in done.stdout
    assert done.stderr == "type the PIN of token 'odd' at its pinpad when it asks\n"
    odd.set()
    report = _json(odd.environment, "--token", uri)
    assert "has no pinpad" in _found(report, "login")["text"]
    assert report["exit_code"] == ExitCode.BAD_CONFIG


def test_after_a_wrong_pin_the_flags_are_told(odd: OddToken) -> None:
    wrong = odd.made.directory / "wrong.pin"
    wrong.write_bytes(b"wrong-4711\n")
    wrong.chmod(0o600)
    report = _json(odd.environment, "--token", odd.uri.replace("odd.pin", "wrong.pin"))
    last, flags = report["tokens"][0]["findings"][-2:]
    assert "refused the PIN (CKR_PIN_INCORRECT)" in last["text"]
    assert "CKF_USER_PIN_COUNT_LOW" in flags["text"]
    assert report["exit_code"] == ExitCode.PIN_REFUSED
    assert "wrong-4711" not in json.dumps(report)
    # The right one clears it.
    assert _found(_examine(odd), "flags")["level"] == "yellow"
    assert _found(_examine(odd), "flags")["level"] == "green"


def test_a_wrapping_key(odd: OddToken) -> None:
    subprocess.run(
        [sys.executable, "-c", _MAKE_WRAP_KEY, odd.uri, "wrap"], env={**os.environ, **odd.environment}, check=True
    )
    finding = _found(_examine(odd, "--wrap-key", "wrap"), "psk-wrapped")
    assert finding["text"] == "wrapping key 'wrap' opens what it seals, and nothing else"
    finding = _found(_examine(odd, "--wrap-key", "absent"), "psk-wrapped")
    assert finding["level"] == "red"
    assert "no secret with the label 'absent'" in finding["text"]


_MAKE_WRAP_KEY = """
import os, sys
from wghsm.pkcs11_backend import TokenPool, TokenUri, open_pin
from wghsm.pkcs11_backend.wrapping import make_wrap_key
uri = TokenUri.parse(sys.argv[1])
pin = open_pin(uri.pin_source).read()
os.setgroups([]); os.setresgid(61100, 61100, 61100); os.setresuid(61100, 61100, 61100)
with TokenPool.open(uri, pin, 1, read_write=True) as pool:
    make_wrap_key(pool, sys.argv[2])
"""


def test_it_writes_nothing_unless_told(odd: OddToken) -> None:
    odd.set(read_only=1)
    assert _examine(odd)["verdict"] == "green"
    assert _reds(_examine(odd, "--write")) == ["login"]


def test_lines_for_people(odd: OddToken) -> None:
    odd.set(sessions=3)
    done = _run(odd.environment, "--token", odd.uri, "--psk-root", "root")
    lines = done.stdout.splitlines()
    assert lines[0] == odd.uri
    assert any(line.split() == ["green", "login:", "logged", "in,", "read-only"] for line in lines)
    warned = next(place for place, line in enumerate(lines) if line.lstrip().startswith("yellow"))
    assert lines[warned + 1].strip() == "-> write sessions: 2 under token:, or end what else uses the token"
    assert lines[-1] == "verdict: yellow (15 green, 1 yellow, 0 red): a gateway serves with it; read the yellow lines"
    assert done.stderr == ""


# Gateway files and twins.


def _gateway(odd: OddToken, psk: str, uris: list[str]) -> Path:
    path = odd.made.directory / "gateway.yaml"
    _write_gateway(path, psk, uris)
    return path


def _write_gateway(path: Path, psk: str, uris: list[str]) -> None:
    path.write_text(
        "version: 1\ntoken:\n  uris:\n"
        + "".join(f'    - "{uri}"\n' for uri in uris)
        + "  psk_root: root\n  sessions: 3\ninterface:\n  name: wg0\n  key: gateway\npeers:\n"
        "  - name: alice\n    public_key: xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\n"
        f"    preshared_key: {psk}\n    allowed_ips: [10.8.0.2/32]\n"
    )


def test_a_gateway_file_says_what_is_needed(odd: OddToken) -> None:
    path = _gateway(odd, "derived", [odd.uri])
    report = _json(odd.environment, "-c", str(path))
    assert report["verdict"] == "green"
    assert report["tokens"][0]["sessions"] == {"wanted": 3, "opened": 3}
    assert len(report["tokens"][0]["psk_check_value"]) == 16
    assert report["twins"] == []
    # With these sessions the gateway would not start.
    odd.set(sessions=3)
    assert _reds(_json(odd.environment, "-c", str(path))) == ["sessions"]
    odd.set()
    report = _json(odd.environment, "-c", str(_gateway(odd, "object:alice-psk", [odd.uri])))
    assert _reds(report) == ["psk-object"]
    assert "no secret with the label 'alice-psk'" in _found(report, "psk-object")["text"]


def test_the_wrapped_psks_of_peers_are_opened() -> None:
    with softhsm_token(label="one") as one:
        path = one.directory / "gateway.yaml"
        _write_gateway(path, "wrapped:alice.psk", [one.uri])
        path.write_text(path.read_text().replace("  psk_root: root", "  psk_root: root\n  psk_wrap_key: wrap"))
        _fill(one, b"k" * 32, b"r" * 32, b"b" * 32, b"w" * 32)
        finding = _found(_json(one.environment, "-c", str(path)), "psk-wrapped")
        assert finding["level"] == "red"
        assert "a wrapped PSK of alice does not open with 'wrap': its file is not there" in finding["text"]
        words = [sys.executable, "-m", "wghsm", "psk", "wrap", "alice", "--generate", "-c", str(path)]
        for _ in range(2):
            subprocess.run(words, env={**os.environ, **one.environment}, check=True, capture_output=True, timeout=60)
        finding = _found(_json(one.environment, "-c", str(path)), "psk-wrapped")
        assert finding["level"] == "green"
        assert finding["text"].endswith("so does every wrapped PSK of the peers (2)")
        # Another key of the gateway, beside which the one before it serves, and then does not.
        text = path.read_text().replace("key: gateway", "key: before\n  previous_key: gateway")
        path.write_text(text)
        assert _reds(_json(one.environment, "-c", str(path))) == []
        path.write_text(text.replace("\n  previous_key: gateway", ""))
        assert _reds(_json(one.environment, "-c", str(path))) == ["psk-wrapped"]


_FILL = """
import sys
from wghsm.pkcs11_backend import TokenPool, TokenUri, open_pin
from wghsm.pkcs11_backend._objects import CKA
from wghsm.pkcs11_backend.key_import import import_key
uri = TokenUri.parse(sys.argv[1])
with TokenPool.open(uri, open_pin(uri.pin_source).read(), 1, read_write=True) as pool:
    with pool.control() as calls:
        for handle in calls.find(()):
            calls.destroy(handle)
    import_key(pool, "gateway", bytearray.fromhex(sys.argv[2]))
    template = [(CKA["CLASS"], 4), (CKA["KEY_TYPE"], 0x10), (CKA["LABEL"], b"root"), (CKA["EXTRACTABLE"], False)]
    template += [(CKA[name], True) for name in ("TOKEN", "PRIVATE", "SENSITIVE", "SIGN")]
    with pool.control() as calls:
        calls.create([*template, (CKA["VALUE"], bytearray.fromhex(sys.argv[3]))])
    if len(sys.argv) > 4:
        import_key(pool, "before", bytearray.fromhex(sys.argv[4]))
        template = [(CKA["CLASS"], 4), (CKA["KEY_TYPE"], 0x1F), (CKA["LABEL"], b"wrap"), (CKA["EXTRACTABLE"], False)]
        template += [(CKA[name], True) for name in ("TOKEN", "PRIVATE", "SENSITIVE", "ENCRYPT", "DECRYPT")]
        with pool.control() as calls:
            calls.create([*template, (CKA["VALUE"], bytearray.fromhex(sys.argv[5]))])
"""


def _fill(made: SoftHsmToken, private: bytes, root: bytes, *more: bytes) -> None:
    """Leave in the token a key and a root, and where there is `more` the key before and a wrapping key."""
    argv = [sys.executable, "-c", _FILL, made.uri, *(value.hex() for value in (private, root, *more))]
    subprocess.run(argv, env={**os.environ, **made.environment}, check=True)


def test_twins_are_compared_by_their_check_values() -> None:
    private, root, other = b"k" * 32, b"r" * 32, b"o" * 32
    with softhsm_token(label="one") as one:
        two = make_token(one.directory, label="two")
        path = one.directory / "gateway.yaml"
        _write_gateway(path, "none", [one.uri, two.uri])
        _fill(one, private, root)
        for key_of_two, root_of_two, reds in (
            (private, root, []),
            (other, root, ["key-of-twins"]),
            (private, other, ["psk-root-of-twins"]),
            (other, other, ["key-of-twins", "psk-root-of-twins"]),
        ):
            _fill(two, key_of_two, root_of_two)
            report = _json(one.environment, "-c", str(path))
            assert _reds(report) == []
            assert [finding["check"] for finding in report["twins"] if finding["level"] == "red"] == reds
            assert report["exit_code"] == (ExitCode.TOKEN_UNUSABLE if reds else ExitCode.OK)
        done = _run(one.environment, "-c", str(path))
        assert "token 2 of 2: pkcs11:token=two" in done.stdout
        assert "the PSK root of token 'two'" in done.stdout
        report = _json(one.environment, "--token", one.uri, "--token", one.uri)
        assert [finding["level"] for finding in report["twins"]] == ["green", "yellow"]
        assert "(one: imported)" in report["twins"][0]["text"]


def test_twins_of_a_gateway_with_two_keys_and_wrapped_psks() -> None:
    private, root, before, wrap, other = b"k" * 32, b"r" * 32, b"b" * 32, b"w" * 32, b"o" * 32
    with softhsm_token(label="one") as one:
        two = make_token(one.directory, label="two")
        path = one.directory / "gateway.yaml"
        _write_gateway(path, "none", [one.uri, two.uri])
        text = path.read_text().replace("key: gateway", "key: gateway\n  previous_key: before")
        path.write_text(text.replace("  uris:", "  psk_wrap_key: wrap\n  uris:"))
        _fill(one, private, root, before, wrap)
        for before_of_two, wrap_of_two, reds in (
            (before, wrap, []),
            (other, wrap, ["previous-key-of-twins"]),
            (before, other, ["wrap-key-of-twins"]),
        ):
            _fill(two, private, root, before_of_two, wrap_of_two)
            report = _json(one.environment, "-c", str(path))
            assert _reds(report) == []
            assert [finding["check"] for finding in report["twins"] if finding["level"] == "red"] == reds
        assert "wrap_sample" not in json.dumps(report)
        _fill(two, private, root)
        report = _json(one.environment, "-c", str(path))
        assert _reds(report) == ["previous-key", "psk-wrapped"]


def test_the_audit_key_of_a_gateway() -> None:
    with softhsm_token(label="one") as one:
        path = one.directory / "gateway.yaml"
        _write_gateway(path, "none", [one.uri])
        path.write_text(
            path.read_text() + f"audit: {{key: audit, directory: {path.parent / 'audit'}, journald: false}}\n"
        )
        _fill(one, b"k" * 32, b"r" * 32)
        finding = _found(_json(one.environment, "-c", str(path)), "audit-key")
        assert (finding["level"], "records stay unsealed" in finding["text"]) == ("yellow", True)
        assert "wghsm audit key generate audit" in finding["remedy"]
        words = [sys.executable, "-m", "wghsm", "audit", "key", "generate", "-c", str(path)]
        subprocess.run(words, env={**os.environ, **one.environment}, check=True, capture_output=True, timeout=60)
        assert _found(_json(one.environment, "-c", str(path)), "audit-key")["level"] == "green"


def _report(name: str, **facts: object) -> TokenReport:
    token = {"label": name, "serial": name, "slot_id": 1}
    return TokenReport(f"pkcs11:token={name}", [], {"token": token, **facts})


def test_comparing() -> None:
    assert compare([_report("a", public_key="A")]) == []
    good = compare(
        [
            _report("a", public_key="A", psk_check_value="1", attributes={"LOCAL": True}),
            _report("b", public_key="A", psk_check_value="1", attributes={"LOCAL": False}),
        ]
    )
    assert verdict(good) is Level.GREEN
    assert "a: made in it or cloned, b: imported" in good[0].text
    other = compare([_report("a", public_key="A"), _report("b", public_key="B"), _report("c", public_key="A")])
    assert other[0].level is Level.RED
    assert other[0].text == "the key of token 'b' (serial b) is not the one of token 'a' (serial a)"
    roots = compare(
        [_report("a", public_key="A", psk_check_value="1"), _report("b", public_key="A", psk_check_value="2")]
    )
    assert [finding.check for finding in roots if finding.level is Level.RED] == ["psk-root-of-twins"]
    unknown = compare([_report("a", public_key="A", psk_check_value="1"), _report("b", public_key="A")])
    assert "is not known, so it was not compared" in next(f.text for f in unknown if f.level is Level.RED)
    assert compare([_report("a"), _report("b")])[0].level is Level.RED
    same = compare([_report("a", public_key="A"), _report("a", public_key="A")])
    assert verdict(same) is Level.YELLOW
    assert "URI 2 leads to the same token as URI 1" in same[-1].text


def test_the_worst_finding_decides() -> None:
    token, pin = Finding("a", Level.RED, ""), Finding("b", Level.RED, "", "", ExitCode.PIN_REFUSED)
    config = Finding("c", Level.RED, "", "", ExitCode.BAD_CONFIG)
    yellow = Finding("d", Level.YELLOW, "")
    assert exit_code([yellow]) is ExitCode.OK
    assert exit_code([config]) is ExitCode.BAD_CONFIG
    assert exit_code([yellow, config, token]) is ExitCode.TOKEN_UNUSABLE
    assert exit_code([config, token, pin]) is ExitCode.PIN_REFUSED
    assert (verdict([]), verdict([yellow]), verdict([yellow, pin])) == (Level.GREEN, Level.YELLOW, Level.RED)


def test_bad_requests(odd: OddToken) -> None:
    for arguments in (
        ("--token", odd.uri, "-c", "/nowhere.yaml"),
        ("--token", "pkcs11:token=gw?pin-value=1234"),
        ("--token", odd.uri, "--sessions", "0"),
        ("--token", odd.uri, "--sessions", "65"),
    ):
        done = _run(odd.environment, *arguments)
        assert done.returncode == ExitCode.BAD_CONFIG
        assert "1234" not in done.stderr


@pytest.mark.parametrize(
    ("most", "steps"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (8, [1, 2, 4, 8]), (9, [1, 2, 4, 8, 9])]
)
def test_the_steps_of_the_measure(most: int, steps: list[int]) -> None:
    assert levels(most) == steps


def test_a_slow_token_is_measured_three_times_on_each_session() -> None:
    asked: list[int] = []
    slow = threading.Event()

    def derive(_calls: object) -> bytearray:
        asked.append(1)
        slow.wait(0.2)
        return bytearray(32)

    taken = measure([None, None], derive)  # type: ignore[list-item]
    assert len(asked) == 6
    assert taken.sessions == 2
    assert taken.p50_ms >= 200
