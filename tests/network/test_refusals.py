"""Every refusal of a token as the operator meets it: one clear line of `wghsm run`, and the same of the doctor."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from tests.network.support.gateway import Gateway
from tests.network.support.gateway_token import FoundToken
from tests.token.odd_token import PIN_FINAL_TRY, PIN_LOCKED, OddToken, odd_gateway
from wghsm.exits import ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.network.support import Lab


class OddSiteToken(FoundToken):
    """The token with one oddity, as gateways know one."""

    def __init__(self, odd: OddToken, public_key: bytes) -> None:
        """Take over what there is."""
        super().__init__(odd.uri, odd.environment, odd.made.pin_file, odd.made.label, {"gateway": public_key})
        self.odd = odd


@pytest.fixture(scope="module")
def token() -> Iterator[OddSiteToken]:
    with odd_gateway() as (odd, made):
        yield OddSiteToken(odd, made.public_key)


@dataclass(frozen=True)
class Refusal:
    """What is odd, what `run` says in its line and with which code, what the doctor says and at which check."""

    oddity: dict[str, int | str]
    run: tuple[str, ...]
    code: ExitCode
    doctor: tuple[str, str]
    doctor_code: ExitCode | None = None
    uri: tuple[str, str] = ("", "")
    section: dict[str, object] = field(default_factory=dict)


PIN, TOKEN = ExitCode.PIN_REFUSED, ExitCode.TOKEN_UNUSABLE
REFUSALS = {
    "wrong PIN": Refusal(
        {"C_Login": 0xA0},
        ("'odd' refused the PIN (CKR_PIN_INCORRECT)", "sent once and is not sent again: correct it"),
        PIN,
        ("login", "refused the PIN (CKR_PIN_INCORRECT)"),
    ),
    "locked PIN": Refusal(
        {"flags": PIN_LOCKED},
        ("'odd': its PIN is locked", "the security officer must set a new one"),
        PIN,
        ("flags", "the PIN is locked (CKF_USER_PIN_LOCKED)"),
    ),
    "PIN locked by this try": Refusal(
        {"C_Login": 0xA4},
        ("'odd': no login is possible (CKR_PIN_LOCKED)", "the security officer must set a new PIN"),
        PIN,
        ("login", "no login is possible (CKR_PIN_LOCKED)"),
    ),
    "PIN expired": Refusal(
        {"C_Login": 0xA3},
        ("'odd': no login is possible (CKR_PIN_EXPIRED)",),
        PIN,
        ("login", "no login is possible (CKR_PIN_EXPIRED)"),
    ),
    "final try": Refusal(
        {"flags": PIN_FINAL_TRY, "C_Login": 0xA4},
        ("one more wrong PIN locks it (CKF_USER_PIN_FINAL_TRY), so no PIN was sent", "wghsm token doctor --yes"),
        PIN,
        ("flags", "one more wrong PIN locks the token (CKF_USER_PIN_FINAL_TRY), so none was sent"),
    ),
    "curve refused": Refusal(
        {"C_DeriveKey": 0x140},
        ("refuses X25519 with key 'gateway' (CKR_CURVE_NOT_SUPPORTED)", "FIPS mode", "take it out of that mode"),
        TOKEN,
        ("key", "refuses X25519 with key 'gateway' (CKR_CURVE_NOT_SUPPORTED)"),
    ),
    "KDF only": Refusal(
        {"kdf_only": 1},
        ("only through a key derivation function (CKD_NULL: CKR_MECHANISM_PARAM_INVALID)", "allow CKD_NULL"),
        TOKEN,
        ("key", "only through a key derivation function"),
    ),
    "unreadable secret": Refusal(
        {"unreadable": 1},
        ("does not give the shared secret out (CKR_ATTRIBUTE_SENSITIVE)", "allow readable derived secrets"),
        TOKEN,
        ("key", "does not give the shared secret out"),
    ),
    "no HMAC": Refusal(
        {"C_SignInit": 0x70},
        ("computes no HMAC-SHA256 with secret 'root' (CKR_MECHANISM_INVALID)", "derived PSKs need"),
        TOKEN,
        ("psk-derived", "computes no HMAC-SHA256 with secret 'root'"),
    ),
    "another curve's result": Refusal(
        {"wrong": 1},
        ("what the token computes is not X25519", "do not use this token"),
        TOKEN,
        ("agreement", "what the token computes is not X25519"),
    ),
    "no session left": Refusal(
        {"sessions": 2},
        ("worker session 2 of 4", "CKR_SESSION_COUNT", "ask for fewer worker sessions"),
        TOKEN,
        ("sessions", "gives 1 of 4 worker sessions (CKR_SESSION_COUNT)"),
    ),
    "no session at all": Refusal(
        {"C_OpenSession": 0xB1},
        ("opening the session that logs in", "CKR_SESSION_COUNT"),
        TOKEN,
        ("login", "CKR_SESSION_COUNT"),
    ),
    "module missing": Refusal(
        {},
        ("PKCS#11 module", "absent.so is not there", "install it or correct module-path"),
        TOKEN,
        ("module", "absent.so is not there"),
        uri=("odd-softhsm.so", "absent.so"),
    ),
    "no module": Refusal(
        {},
        ("PKCS#11 module", "odd-softhsm.so.conf cannot be loaded"),
        TOKEN,
        ("module", "cannot be loaded"),
        uri=("odd-softhsm.so", "odd-softhsm.so.conf"),
    ),
    "module crash": Refusal(
        {"crash": "C_DeriveKey"},
        ("custodian ended by SIGSEGV: the token's module has crashed", "wghsm token doctor -c"),
        ExitCode.FAILURE,
        ("key", "crashed (SIGSEGV) at the check 'key'"),
        doctor_code=TOKEN,
    ),
}


@pytest.fixture
def gateway(lab: Lab, token: OddSiteToken) -> Iterator[Gateway]:
    token.odd.set()
    yield lab.add(Gateway(lab.namespace("alone"), lab.scratch, token, psk_root="root"))
    token.odd.set()


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_is_one_line_of_run_and_of_the_doctor(gateway: Gateway, token: OddSiteToken, case: str) -> None:
    refusal = REFUSALS[case]
    gateway.token_section = {"uri": token.uri.replace(*refusal.uri) if refusal.uri[0] else token.uri}
    gateway.write()
    token.odd.set(**refusal.oddity)
    code, said = gateway.fails()
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("wghsm: ")]
    assert code == refusal.code
    for words in refusal.run:
        assert words in line
    assert token.odd.pin.decode() not in said
    assert gateway.leftovers() == []
    done = gateway.command("token", "doctor", "-c", gateway.file, "--json", check=False)
    report = json.loads(done.stdout)
    check, words = refusal.doctor
    reds = [one for one in report["tokens"][0]["findings"] if one["level"] == "red"]
    assert [one["check"] for one in reds] == [check]
    assert words in reds[0]["text"]
    assert reds[0]["remedy"]
    assert "\n" not in reds[0]["text"] + reds[0]["remedy"]
    assert done.returncode == report["exit_code"] == (refusal.doctor_code or refusal.code)
    # The refusals of the PIN are no reason to refuse the right one later.
    (gateway.state / "custodian" / "pin-refused").unlink(missing_ok=True)


def test_a_missing_mechanism_is_one_line(gateway: Gateway, token: OddSiteToken) -> None:
    conf = token.odd.made.conf
    before = conf.read_text()
    try:
        conf.write_text(before + "slots.mechanisms = CKM_EC_EDWARDS_KEY_PAIR_GEN,CKM_SHA256_HMAC\n")
        code, said = gateway.fails()
        (line,) = [line for line in said.splitlines() if line.startswith("wghsm: ")]
        assert code == ExitCode.TOKEN_UNUSABLE
        assert "does not offer CKM_ECDH1_DERIVE, which X25519 needs; use another token" in line
        doctor = json.loads(gateway.command("token", "doctor", "-c", gateway.file, "--json", check=False).stdout)
        reds = [one["check"] for one in doctor["tokens"][0]["findings"] if one["level"] == "red"]
        assert reds == ["mechanisms", "key"]
        assert doctor["exit_code"] == ExitCode.TOKEN_UNUSABLE
    finally:
        conf.write_text(before)


def test_up_says_the_same(gateway: Gateway, token: OddSiteToken) -> None:
    token.odd.set(kdf_only=1)
    done = gateway.command("up", gateway.file, check=False)
    assert done.returncode == ExitCode.TOKEN_UNUSABLE
    (line,) = done.stderr.splitlines()
    assert "only through a key derivation function" in line
