"""What a ceremony writes down of the machine's software: versions and SHA-256 hashes.

A single file has its own hash. Of a tree it is that of the list of hashes, so that it can be had by hand:

    find . -type f -not -path '*/__pycache__/*' | LC_ALL=C sort | xargs -d '\\n' sha256sum | sha256sum
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import socket
from pathlib import Path

import wghsm
from wghsm.ceremony import Software

__all__ = ["file_hash", "machine", "software", "tree_hash"]

_LIBRARIES = {"python-pkcs11": "pkcs11", "cryptography": "cryptography", "cffi": "cffi", "msgspec": "msgspec"}
"""What a key or a PIN passes through, or its transcript, by the package that it comes in."""


def software() -> list[Software]:
    """wghsm, the interpreter, and the libraries that are near a key. Raises OSError."""
    home = Path(wghsm.__file__).parent
    found = [Software(name="wghsm", version=wghsm.__version__, path=str(home), sha256=tree_hash(home))]
    program = Path("/proc/self/exe").resolve()
    found.append(
        Software(name="python", version=platform.python_version(), path=str(program), sha256=file_hash(program))
    )
    for name, package in _LIBRARIES.items():
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            folder = Path(spec.origin).parent
            version = importlib.metadata.version(name)
            found.append(Software(name=name, version=version, path=str(folder), sha256=tree_hash(folder)))
    return found


def machine() -> str:
    """The machine in one line: its name, kernel and distribution."""
    try:
        system = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        system = "Linux"
    return f"{socket.gethostname()}, {platform.system()} {platform.release()}, {system}"


def file_hash(path: Path) -> str:
    """SHA-256 of a file in hex. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_hash(folder: Path) -> str:
    """SHA-256 in hex over all files below `folder`, but for compiled Python. Raises OSError."""
    names = [
        f"./{path.relative_to(folder)}"
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and "__pycache__" not in path.parts
    ]
    whole = hashlib.sha256()
    for name in sorted(names, key=os.fsencode):
        whole.update(f"{file_hash(folder / name)}  {name}\n".encode())
    return whole.hexdigest()
