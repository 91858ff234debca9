"""The table in the kernel is the whole of the rules or the whole of those before; nft's refusals are one line."""

import json
from ipaddress import ip_network
from pathlib import Path

import pytest

from wghsm.config import Allow
from wghsm.firewall import FirewallError, PeerRules, Rules, Table, commands, table_name
from wghsm.firewall import table as module

RULES = Rules("wg0", isolate_clients=True, peers=(PeerRules("aa", (ip_network("10.8.0.2/32"),), quota=1000),))


class _Nft:
    """A program in place of nft: keeps what it is given, answers what it is told to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.answer(0)

    def answer(self, code: int, out: str = "", err: str = "") -> None:
        (self.folder / "out").write_text(out)
        (self.folder / "err").write_text(err)
        program = self.folder / "nft"
        program.write_text(
            f"#!/bin/sh\ncd {self.folder}\n/bin/cat >>said\necho >>said\n/bin/cat out\n/bin/cat err >&2\nexit {code}\n"
        )
        program.chmod(0o755)

    def said(self) -> list[object]:
        said = self.folder / "said"
        lines = said.read_text().splitlines() if said.exists() else []
        said.unlink(missing_ok=True)
        return [json.loads(line)["nftables"] for line in lines]


@pytest.fixture
def nft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Nft:
    monkeypatch.setattr(module, "_SEARCHED", str(tmp_path))
    return _Nft(tmp_path)


def test_without_rules_nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SEARCHED", str(tmp_path))
    table = Table("wg0")
    table.clear_stale()
    table.put(Rules("wg0", peers=(PeerRules("aa", (), None),)))
    table.remove()


def test_rules_need_nft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SEARCHED", str(tmp_path))
    with pytest.raises(FirewallError, match="install the package nftables"):
        Table("wg0").put(RULES)


def test_a_refusal_is_one_line_and_changes_nothing(nft: _Nft) -> None:
    table = Table("wg0")
    table.put(RULES)
    nft.answer(1, err="Error: Could not process rule\n  here\n")
    with pytest.raises(FirewallError, match="refused by the kernel: Error: Could not process rule here"):
        table.put(Rules("wg0", masquerade=("eth0",)))
    assert table.rules == RULES


def test_what_was_used_of_a_quota_goes_on(nft: _Nft) -> None:
    table = Table("wg0")
    table.put(RULES)
    assert nft.said() == [list(commands(RULES, {}))]
    quotas = [{"quota": {"table": name, "name": "aa", "used": 7}} for name in ("other", table_name("wg0"))]
    quotas[0]["quota"]["used"] = 9
    nft.answer(0, out=json.dumps({"nftables": [{"metainfo": {}}, *quotas]}))
    table.put(Rules("wg0", peers=RULES.peers))
    made = nft.said()[-1]
    assert {
        each["add"]["quota"]["name"]: each["add"]["quota"]["used"]
        for each in made  # type: ignore[attr-defined]
        if "quota" in each.get("add", {})
    } == {"aa": 7}
    table.remove()
    assert nft.said()[-1] == [{verb: {"table": {"family": "inet", "name": "wghsm-wg0"}}} for verb in ("add", "delete")]


def test_names_of_interfaces_make_different_tables() -> None:
    assert len({table_name(name) for name in ("wg.0", "wg-0", "wg_0", "wg0", "wg_2e0")}) == 5


def test_an_allow_list_that_is_empty_lets_nothing_out() -> None:
    made = json.dumps(commands(Rules("wg0", peers=(PeerRules("aa", (), ()),)), {}))
    assert made.count('"drop"') == 1
    made = json.dumps(commands(Rules("wg0", peers=(PeerRules("aa", (), (Allow(),)),)), {}))
    assert made.count('"return"') == 2
