"""The walls of the house: which room may import which, and no room another's private modules.

The table is that of docs/architecture.md, "Rooms".
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import wghsm

HOUSE = Path(wghsm.__file__).parent
COMMON = {"exits", "wipe"}
KNOWS = {
    "audit": set(),
    "noise": set(),
    "pkcs11_backend": set(),
    "softhsm_setup": {"pkcs11_backend"},
    "ceremony": set(),
    "config": set(),
    "inventory": {"audit", "config"},
    "wgquick": set(),
    "ipc": set(),
    "process": {"ipc"},
    "custodian": {"noise", "pkcs11_backend", "ipc", "process", "audit"},
    "handshake": {"noise", "ipc", "process"},
    "tunnel": {"noise", "ipc", "process"},
    "control": {"ipc", "process"},
    "auditor": {"audit", "ipc", "process"},
    "resolver": {"process"},
    "firewall": {"config"},
    "supervisor": {"config", "firewall", "ipc", "process", "resolver"},
    "cli": {
        "interrupt",
        "audit",
        "auditor",
        "ceremony",
        "config",
        "wgquick",
        "inventory",
        "ipc",
        "pkcs11_backend",
        "softhsm_setup",
        "supervisor",
    },
}


def imports(room: str) -> Iterator[tuple[Path, list[str]]]:
    """Each module of `room` with what it imports of wghsm, as dotted parts after `wghsm`; relative ones resolved."""
    for path in sorted((HOUSE / room).rglob("*.py")):
        place = path.relative_to(HOUSE).with_suffix("").parts
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name.split(".") for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = node.module.split(".") if node.module else []
                if node.level:
                    package = place if path.name == "__init__.py" else place[:-1]
                    package = package[:-1] if path.name == "__init__.py" else package
                    base = ["wghsm", *package[: len(package) - node.level + 1], *base]
                names = [[*base, alias.name] for alias in node.names]
            else:
                continue
            for name in names:
                if name[0] == "wghsm" and len(name) > 1:
                    yield path, name[1:]


def test_every_room_is_in_the_table() -> None:
    rooms = {path.name for path in HOUSE.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert rooms == set(KNOWS)


def test_arrows_run_downwards_only() -> None:
    wrong = [
        f"{path.relative_to(HOUSE)} imports {'.'.join(name)}"
        for room, knows in KNOWS.items()
        for path, name in imports(room)
        if name[0] not in {room, "__version__"} | knows | COMMON
    ]
    assert wrong == []


def test_no_room_reaches_into_anothers_private_modules() -> None:
    wrong = [
        f"{path.relative_to(HOUSE)} imports {'.'.join(name)}"
        for room in KNOWS
        for path, name in imports(room)
        if name[0] != room and any(part.startswith("_") and not part.startswith("__") for part in name)
    ]
    assert wrong == []
