"""The JSON Schema takes every good file, refuses what the model refuses of single values, and knows every key."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from ruamel.yaml import YAML

from tests.unit.config.samples import GOOD, broken
from tests.unit.config.test_properties import gateways
from wghsm.cli.schema import schema
from wghsm.config import (
    Audit,
    Clients,
    Firewall,
    Gateway,
    Hooks,
    Interface,
    Peer,
    Policy,
    Token,
    Tunnel,
    Users,
    json_schema,
    peers_schema,
)
from wghsm.config import _schema as tables

if TYPE_CHECKING:
    from pydantic import BaseModel

SCHEMA = json_schema()
CONFIGS = Path(__file__).parents[3] / "configs"
TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


def fits(schema: dict[str, Any], value: Any) -> bool:
    """Whether a value is good by the words of JSON Schema that are used here; any other word is an error."""
    kinds = schema.get("type")
    names = [kinds] if isinstance(kinds, str) else kinds
    if names and not any(
        isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool)) for name in names
    ):
        return False
    for word, said in schema.items():
        match word:
            case "enum" if value not in said:
                return False
            case "const" if value != said:
                return False
            case "pattern" if isinstance(value, str) and not re.search(said, value):
                return False
            case "maxLength" if isinstance(value, str) and len(value) > said:
                return False
            case "minimum" if isinstance(value, int) and value < said:
                return False
            case "maximum" if isinstance(value, int) and value > said:
                return False
            case "items" if isinstance(value, list) and not all(fits(said, each) for each in value):
                return False
            case "anyOf" if not any(fits(each, value) for each in said):
                return False
            case "oneOf" if sum(fits(each, value) for each in said) != 1:
                return False
            case "required" if not set(said) <= set(value):
                return False
            case "additionalProperties" if not said and not set(value) <= set(schema["properties"]):
                return False
            case "properties" if not all(fits(said[key], each) for key, each in value.items() if key in said):
                return False
            case _:
                known = {"type", "$schema", "title", "description", "default", "enum", "const", "pattern", "maxLength"}
                known |= {"minimum", "maximum", "items", "anyOf", "oneOf", "required", "additionalProperties"}
                assert word in known | {"properties"}, word
    return True


def read(text: str) -> Any:
    yaml = YAML(typ="safe", pure=True)
    # Editors keep to YAML 1.2's core schema, where a date is text.
    yaml.constructor.add_constructor("tag:yaml.org,2002:timestamp", lambda _constructor, node: node.value)
    return yaml.load(text)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(gateways())
def test_every_good_file_fits(raw: dict[str, Any]) -> None:
    assert fits(SCHEMA, raw)
    assert fits(peers_schema(), {"peers": raw["peers"]})


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda file: file.name)
def test_the_examples_fit(file: Path) -> None:
    assert fits(SCHEMA, read(file.read_text()))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("version: 1", "version: 2"),
        ("version: 1\n", ""),
        ("listen_port: 51820", "listen_port: 65536"),
        ("listen_port: 51820", "port: 51820"),
        ("mtu: 1420", "mtu: 100"),
        ("mtu: 1420", "mtu: off"),
        ("table: auto", "table: main"),
        ("authority: file", "authority: nobody"),
        ("preshared_key: derived", "preshared_key: deriv"),
        ("persistent_keepalive: 25", "persistent_keepalive: often"),
        ("  psk_root: wghsm-psk-root", "  uris: []"),
        ("environment: [SOFTHSM2_CONF]", "environment: SOFTHSM2_CONF"),
        ("endpoint: 192.0.2.7:51820", "endpoint: 192.0.2.7"),
    ],
)
def test_bad_values_do_not_fit(old: str, new: str) -> None:
    assert fits(SCHEMA, read(GOOD))
    assert not fits(SCHEMA, read(broken(old, new)))


def test_every_key_is_there_and_described() -> None:
    sections: dict[str, type[BaseModel]] = {
        "": Gateway,
        "token.": Token,
        "interface.": Interface,
        "peers.": Peer,
        "clients.": Clients,
        "firewall.": Firewall,
        "hooks.": Hooks,
        "policy.": Policy,
        "audit.": Audit,
        "tunnel.": Tunnel,
    }
    keys = {prefix + name for prefix, model in sections.items() for name in model.model_fields}
    assert set(tables._ABOUT) == keys
    assert set(tables._WRITTEN) <= keys
    assert set(SCHEMA["properties"]["users"]["properties"]) == set(Users.model_fields)
    assert SCHEMA["properties"]["interface"]["properties"]["mtu"]["default"] == "auto"
    assert SCHEMA["properties"]["peers"]["items"]["required"] == ["name", "public_key", "preshared_key", "allowed_ips"]


def test_the_command_prints_it() -> None:
    assert json.loads(CliRunner().invoke(schema).stdout) == SCHEMA
    assert json.loads(CliRunner().invoke(schema, ["--peers"]).stdout) == peers_schema()
