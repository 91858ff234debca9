"""What the gateway file means for users, environments, limits and routes."""

import pytest

from tests.unit.supervisor.support import gateway
from wghsm import config
from wghsm.exits import ExitCode
from wghsm.ipc import ChannelKind, Role
from wghsm.supervisor import GatewayFault, wants_pinpad, wants_prompt
from wghsm.supervisor._startup import deadline, environment, users
from wghsm.supervisor._supervisor import pairs


def test_numbers_are_uid_and_gid() -> None:
    found = users(gateway())
    assert found["custodian"] == (61100, 61100)
    assert found["resolver"] == (61105, 61105)
    assert len(found) == 7


def test_names_are_looked_up() -> None:
    found = users(gateway(users=config.Users(control="daemon", egress="bin")))
    assert found["control"] == (1, 1)
    assert found["egress"] == (2, 2)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (config.Users(control="no-such-user"), "no-such-user"),
        (config.Users(control="daemon", egress=1), "uid of its own"),
    ],
)
def test_unknown_and_shared_users_are_refused(wrong: config.Users, says: str) -> None:
    with pytest.raises(GatewayFault, match=says) as caught:
        users(gateway(users=wrong))
    assert caught.value.exit_code == ExitCode.BAD_CONFIG


def test_the_module_s_variables_go_to_the_custodian_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTHSM2_CONF", "/conf")
    monkeypatch.setenv("VENDOR_CONF", "/vendor")
    monkeypatch.setenv("PYTHONPATH", "/evil")
    monkeypatch.setenv("LD_PRELOAD", "/evil.so")
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    file = gateway(environment=("VENDOR_CONF", "NOT_SET"))
    assert set(environment(file, Role.EGRESS)) == {"PATH", "LANG"}
    found = environment(file, Role.CUSTODIAN)
    assert set(found) == {"PATH", "LANG", "SOFTHSM2_CONF", "VENDOR_CONF"}
    assert found["SOFTHSM2_CONF"] == "/conf"


def test_deadlines() -> None:
    second = 10**9
    assert deadline(Role.EGRESS, prompt=True) == 60 * second
    assert deadline(Role.CUSTODIAN, prompt=False) == 120 * second
    assert deadline(Role.CUSTODIAN, prompt=True) is None


@pytest.mark.parametrize(
    ("uri", "asks"),
    [
        ("pkcs11:token=t?module-path=/m.so&pin-source=prompt", True),
        ("pkcs11:token=t?pin-source=%70rompt", True),
        ("pkcs11:token=t?module-path=/m.so&pin-source=file:/prompt", False),
        ("pkcs11:token=pin-source=prompt?module-path=/m.so", False),
    ],
)
def test_who_asks_for_a_pin(uri: str, asks: bool) -> None:
    assert wants_prompt(uri) is asks


@pytest.mark.parametrize(
    ("uri", "asks"),
    [
        ("pkcs11:token=t?module-path=/m.so", True),
        ("pkcs11:token=t?module-path=/m.so&pin-source=protected", True),
        ("pkcs11:token=t?pin-source=%70rotected&module-path=/m.so", True),
        ("pkcs11:token=t?module-path=/m.so&pin-source=prompt", False),
        ("pkcs11:token=t?module-path=/m.so&pin-source=command:/protected", False),
    ],
)
def test_who_asks_at_a_pinpad(uri: str, asks: bool) -> None:
    assert wants_pinpad(uri) is asks


def test_control_speaks_to_the_custodian_only_where_psks_may_come_in() -> None:
    assert ChannelKind.CONTROL_CUSTODIAN not in pairs(runtime_psks=False)
    assert pairs(runtime_psks=True) - pairs(runtime_psks=False) == {ChannelKind.CONTROL_CUSTODIAN}
    assert not any(kind.startswith("supervisor") for kind in pairs(runtime_psks=True))
    assert len(pairs(runtime_psks=False)) == 6
