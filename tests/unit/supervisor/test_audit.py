"""What the supervisor tells the auditor: changes with who asked, faults with their ends, and nothing without a log."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.unit.supervisor.test_requests import World
from wghsm.config import load_text
from wghsm.exits import ExitCode
from wghsm.ipc import Role
from wghsm.ipc import messages as m
from wghsm.supervisor._audit import Audit
from wghsm.supervisor._state import audit_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

WHO = m.Asker(1000, 1000, 4711)
KEY, OTHER = b"\x05" * 32, b"\x06" * 32


@pytest.fixture
def told() -> list[m.AuditEvent]:
    return []


@pytest.fixture
def audit(told: list[m.AuditEvent]) -> Audit:
    return Audit(partial(_take, told), wanted=True)


def _take(told: list[m.AuditEvent], event: m.AuditEvent) -> bool:
    told.append(event)
    return True


def said(told: list[m.AuditEvent]) -> list[tuple[str, str, str]]:
    return [(event.kind, event.operation, event.result) for event in told]


def test_a_token_that_goes_and_comes(audit: Audit, told: list[m.AuditEvent]) -> None:
    ready, other = m.TokenStatus("ready", 1, token="a"), m.TokenStatus("ready", 2, token="b")  # noqa: S106
    away = m.TokenStatus("away", 3, "CKR_DEVICE_ERROR")
    for before, now in ((None, ready), (ready, ready), (ready, away), (away, away), (away, ready), (ready, other)):
        audit.token(before, now)
    assert said(told) == [
        ("fault", "token", "away"),
        ("recovery", "token", "ok"),
        ("recovery", "token_switched", "ok"),
    ]
    assert told[0].detail == {"text": "CKR_DEVICE_ERROR"}


def test_a_process_that_died_and_serves_again(audit: Audit, told: list[m.AuditEvent]) -> None:
    audit.child_serves(Role.EGRESS)
    audit.child_left(Role.EGRESS, "egress ended by SIGKILL")
    audit.child_serves(Role.EGRESS)
    audit.child_serves(Role.EGRESS)
    assert said(told) == [("fault", "process", "ended"), ("recovery", "process", "ok")]


def test_a_refused_pin_is_told_before_the_end(audit: Audit, told: list[m.AuditEvent]) -> None:
    audit.stopped(ExitCode.PIN_REFUSED, "the token has refused its PIN", None)
    assert said(told) == [("pin.login", "login", "refused"), ("stop", "gateway", "failed")]
    audit.stopped(ExitCode.OK, "", WHO)
    assert (told[-1].result, told[-1].who) == ("ok", WHO)


def test_without_a_log_nothing_is_told(told: list[m.AuditEvent]) -> None:
    silent = Audit(partial(_take, told), wanted=False)
    silent.started("gw.yaml", 1)
    silent.stopped(ExitCode.OK, "", None)
    assert told == []


@pytest.fixture
def world() -> Iterator[World]:
    made = World(
        load_text(
            "version: 1\ntoken: {uri: 'pkcs11:token=gw?module-path=/m.so'}\ninterface: {name: wg0, key: gateway}\n"
            "audit: {key: audit, syslog: 'logs:6514', journald: /run/j, on_failure: stop-new-handshakes}\n"
        )
    )
    yield made
    made.close()


def test_a_change_names_each_peer_and_who_asked(world: World) -> None:
    change = m.DeviceChange(
        fwmark=7,
        peers=[
            m.PeerChange(KEY, add_allowed_ips=["10.1.0.0/24"]),
            m.PeerChange(OTHER, add_allowed_ips=[f"10.2.{number}.0/24" for number in range(20)]),
        ],
    )
    world.requests.handle(m.DeviceSet(1, change, who=WHO))
    world.obey()
    assert said(world.audited) == [
        ("config.change", "fwmark", "ok"),
        ("peer.change", "add", "ok"),
        ("peer.change", "add", "ok"),
    ]
    assert {event.who for event in world.audited} == {WHO}
    first, second = world.audited[1:]
    assert first.peer == KEY
    assert first.detail == {"by": "control", "psk": "none", "allowed_ips": "10.1.0.0/24"}
    assert second.detail["prefixes"] == 20
    world.audited.clear()

    changed = m.DeviceChange(peers=[m.PeerChange(KEY, persistent_keepalive=25), m.PeerChange(OTHER, remove=True)])
    world.requests.handle(m.DeviceSet(2, changed, who=WHO))
    world.obey()
    assert [(event.operation, event.peer) for event in world.audited] == [("remove", OTHER), ("change", KEY)]
    world.audited.clear()

    world.requests.handle(m.DeviceSet(3, m.DeviceChange(peers=[m.PeerChange(b"short")]), who=WHO))
    world.obey()
    assert said(world.audited) == [("control.refused", "set", "refused")]
    world.audited.clear()
    # A name that was resolved is nobody's decision.
    world.requests.set_endpoints({KEY: m.Endpoint("192.0.2.1", 1)})
    world.obey()
    assert world.audited == []
    world.requests.handle(m.StopRequest(4, WHO))
    assert world.stopped_by == WHO


def test_the_settings_of_the_log(world: World) -> None:
    settings = audit_settings(world.state.gateway.audit)
    assert (settings.directory, settings.signed, settings.retention) == ("/var/log/wghsm/wg0", True, 400 * 86_400)
    assert settings.syslog == m.SyslogServer("logs", 6514)
    assert (settings.journald, settings.journald_required) == ("/run/j", True)
    ((stats, _), (told, fds), *_) = world.state.feed(Role.AUDITOR)
    assert (type(stats), told, list(fds)) == (m.StatsTable, settings, [])
    token = next(message for message, _ in world.state.feed(Role.CUSTODIAN) if isinstance(message, m.TokenSettings))
    assert (token.audited, token.audit_key, token.audit_required) == (True, "audit", True)
