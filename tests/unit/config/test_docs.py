"""docs/configuration.md has an entry for each key of the model, and says of each what it must."""

import re
from pathlib import Path

from pydantic import BaseModel

from wghsm.config import (
    Allow,
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
    load_text,
)

TEXT = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text()
SECTIONS: dict[str, type[BaseModel]] = {
    "token": Token,
    "interface": Interface,
    "peers": Peer,
    "clients": Clients,
    "firewall": Firewall,
    "hooks": Hooks,
    "policy": Policy,
    "audit": Audit,
    "tunnel": Tunnel,
    "users": Users,
}
DURATIONS: dict[object, str | None] = {14 * 86_400: "14d", 400 * 86_400: "400d", 7 * 86_400: "7d", 64 * 2**20: "64M"}
ENTRIES = dict(re.findall(r"^### `([^`]+)`\n(.*?)(?=^##|\Z)", TEXT, re.MULTILINE | re.DOTALL))


def model_keys() -> dict[str, bool]:
    """Every key of the file as the page names it, and whether it is required."""
    keys = {name: field.is_required() for name, field in Gateway.model_fields.items() if name not in SECTIONS}
    for section, model in SECTIONS.items():
        dotted = "peers[]" if section == "peers" else section
        keys |= {f"{dotted}.{name}": field.is_required() for name, field in model.model_fields.items()}
    return keys


def test_the_page_has_exactly_the_keys_of_the_model() -> None:
    assert sorted(ENTRIES) == sorted(model_keys())
    assert set(Gateway.model_fields) >= set(SECTIONS)


def test_each_entry_says_whether_it_may_be_left_out() -> None:
    for key, required in model_keys().items():
        assert ("Required" in ENTRIES[key]) == required, key
        assert ("Default:" in ENTRIES[key]) == (not required), key


def test_each_entry_has_an_example_and_an_error() -> None:
    for key, entry in ENTRIES.items():
        assert "Error:" in entry, key
        example = re.search(r"Example: `([^`]+)`", entry)
        assert example, key
        assert example[1].startswith(key.rpartition(".")[2] + ":"), key


def test_the_defaults_are_the_models() -> None:
    everything: dict[str, type[BaseModel]] = {"": Gateway, **SECTIONS}
    for section, model in everything.items():
        for name, field in model.model_fields.items():
            key = f"{section}.{name}".strip(".").replace("peers.", "peers[].")
            if key not in ENTRIES or isinstance(field.default, Path) or field.is_required():
                continue
            shown = re.search(r"Default: (?:`([^`]*)`|none)", ENTRIES[key])
            assert shown, key
            written: dict[object, str | None] = {
                (): "[]",
                (Allow(),): "[any]",
                True: "true",
                False: "false",
                None: None,
                "": None,
                **DURATIONS,
            }
            default = written.get(field.default, str(field.default)) if field.default != 0 else "0"
            default = "false" if field.default is False else default
            default = "1" if type(field.default) is int and field.default == 1 else default
            assert shown[1] == default, key


def test_the_examples_of_the_page_load() -> None:
    sections: dict[str, list[str]] = {
        "": [],
        "token": [],
        "interface": [],
        "peers[]": [],
        "clients": [],
        "firewall": [],
        "hooks": [],
        "policy": [],
        "audit": [],
        "tunnel": [],
        "users": [],
    }
    for key, entry in ENTRIES.items():
        example = re.search(r"Example: `([^`]+)`", entry)
        assert example
        sections[key.rpartition(".")[0]].append(example[1])
    # One of the two is written.
    sections["token"] = [text for text in sections["token"] if not text.startswith("uris:")]
    lines = list(sections.pop(""))
    for section, examples in sections.items():
        lines.append(section.removesuffix("[]") + ":")
        dash = "  - " if section == "peers[]" else "  "
        lines += [(dash if number == 0 else " " * len(dash)) + text for number, text in enumerate(examples)]
    assert load_text("\n".join(lines)).peers[0].name == "alice"
