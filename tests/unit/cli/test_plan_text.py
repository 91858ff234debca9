"""`wghsm plan` says settings as the gateway file does: with their units, and what is not there in words."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.unit.cli.fake_gateway import answering
from wghsm import config
from wghsm.cli import main
from wghsm.exits import ExitCode
from wghsm.ipc import admin

_BEFORE = """\
version: 1
token: {uri: "pkcs11:token=gw?module-path=/m.so&pin-source=file:/p", psk_root: root}
interface: {name: wg0, key: gateway}
peers:
  - name: alice
    public_key: xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=
    preshared_key: derived
    allowed_ips: [10.8.0.2/32]
    quota: 2T
"""
_CHANGES = (
    ("quota: 2T", "quota: 1500M\n    rate_limit: 20Mbit", "~ quota: 2T -> 1500M"),
    ("quota: 2T", "rate_limit: 500kbit", "~ rate_limit: none -> 500kbit"),
    ("peers:", "firewall: {masquerade: [eth0]}\npeers:", "~ firewall.masquerade: none -> eth0"),
    ("peers:", "hooks: {up: [[/bin/true, a], [/bin/false]]}\npeers:", "~ hooks.up: none -> /bin/true a, /bin/false"),
)


@pytest.mark.parametrize(("old", "new", "line"), _CHANGES)
def test_a_plan_says_settings_as_the_file_does(tmp_path: Path, old: str, new: str, line: str) -> None:
    file = tmp_path / "wg0.yaml"
    file.write_text(_BEFORE)
    document = config.to_document(config.load(file))
    runs = admin.Config(file=str(file), loaded=document, running=document, wrapped={})
    file.write_text(_BEFORE.replace(old, new))
    with answering("wg0", lambda _: admin.AdminReply(config=runs)):
        shown = CliRunner().invoke(main, ["plan", str(file)])
    assert shown.exit_code == ExitCode.WOULD_CHANGE, shown.output
    assert line in shown.output
