"""Looks for secrets where none may stand: in the memory of a process, in the files of a folder.

    {"psk": bytes, ...}  ->  forms (raw, hexadecimal, base64)  ->  search with overlap  ->  hits

Memory means every readable mapping of /proc/PID/maps that the process can write or that has no file behind it;
shared ones (memfd, socket buffers mapped by nobody are not among them) included. Hits never hold the secret itself.
Needs root. Called by the secrets tests.
"""

import base64
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

CHUNK = 4 << 20


@dataclass(frozen=True)
class MemoryHit:
    """One find: the secret's name, its form, the mapping's name and the offset within it in bytes."""

    name: str
    form: str
    mapping: str
    offset: int


@dataclass(frozen=True)
class FileHit:
    """One find: the secret's name, its form, the file and the offset in bytes."""

    name: str
    form: str
    path: Path
    offset: int


@dataclass(frozen=True)
class MemoryScan:
    """The hits in a process, and how much was read, so that a test can tell a clean scan from none."""

    hits: tuple[MemoryHit, ...]
    scanned: int
    unreadable: tuple[str, ...]

    def names(self) -> set[str]:
        """Give the names of the secrets that were found."""
        return {hit.name for hit in self.hits}


def pss_of(pid: int) -> int:
    """Give the memory of a process in bytes, each shared page divided among its users."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) * 1024


def scan_memory(pid: int, secrets: Mapping[str, bytes], encoded: bool = True) -> MemoryScan:
    """Search the memory of `pid` for secrets of 4 bytes or more; with `encoded` also in hexadecimal and base64.

    Raises ProcessLookupError when there is no such process, PermissionError when its memory cannot be opened.
    """
    needles = _needles(secrets, encoded)
    hits: list[MemoryHit] = []
    scanned = 0
    unreadable = []
    try:
        memory = Path(f"/proc/{pid}/mem").open("rb", buffering=0)  # noqa: SIM115
    except FileNotFoundError:
        raise ProcessLookupError(f"no process {pid}") from None
    with memory:
        for start, end, label in _mappings(pid):
            try:
                for name, form, offset in _search(memory, start, end - start, needles):
                    hits.append(MemoryHit(name, form, label, offset))
                scanned += end - start
            except OSError:
                # memfd_secret, or unmapped since the list was read.
                unreadable.append(label)
    if scanned == 0:
        raise ProcessLookupError(f"nothing of process {pid} could be read")
    return MemoryScan(tuple(hits), scanned, tuple(unreadable))


def scan_files(folders: Iterable[Path], secrets: Mapping[str, bytes], encoded: bool = True) -> list[FileHit]:
    """Search every regular file under `folders` (files among them are read themselves); links are not followed."""
    needles = _needles(secrets, encoded)
    hits = []
    for path in _files(folders):
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            for name, form, offset in _search(file, 0, size, needles):
                hits.append(FileHit(name, form, path, offset))
    return hits


def _needles(secrets: Mapping[str, bytes], encoded: bool) -> list[tuple[str, str, bytes]]:
    needles = []
    for name, value in secrets.items():
        if len(value) < 4:
            raise ValueError(f"{name} has {len(value)} bytes: too short to be searched for")
        needles.append((name, "raw", bytes(value)))
        if encoded:
            needles.append((name, "hex", value.hex().encode()))
            needles.append((name, "HEX", value.hex().upper().encode()))
            # The last character before the padding depends on the bits that follow: leave both out.
            needles.append((name, "base64", base64.b64encode(value).rstrip(b"=")[: len(value) * 8 // 6]))
    return needles


def _mappings(pid: int) -> Iterator[tuple[int, int, str]]:
    for line in Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines():
        span, permissions, _, _, inode, *label = line.split(maxsplit=5)
        name = label[0] if label else "[anonymous]"
        if permissions[0] != "r" or name in ("[vvar]", "[vvar_vclock]", "[vsyscall]", "[vdso]"):
            continue
        if permissions[1] != "w" and inode != "0":
            continue
        start, end = (int(edge, 16) for edge in span.split("-"))
        yield start, end, name


def _search(
    file: BinaryIO, start: int, length: int, needles: list[tuple[str, str, bytes]]
) -> Iterator[tuple[str, str, int]]:
    overlap = max((len(needle) for _, _, needle in needles), default=1) - 1
    kept = b""
    position = 0
    file.seek(start)
    while position < length:
        block = file.read(min(CHUNK, length - position))
        if not block:
            break
        window = kept + block
        base = position - len(kept)
        for name, form, needle in needles:
            found = window.find(needle)
            while found >= 0:
                # A find that lies wholly in the kept part was told with the block before.
                if found + len(needle) > len(kept):
                    yield name, form, base + found
                found = window.find(needle, found + 1)
        position += len(block)
        kept = window[-overlap:] if overlap else b""


def _files(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in folders:
        candidates = [folder] if not folder.is_dir() else sorted(folder.rglob("*"))
        for path in candidates:
            try:
                mode = path.lstat().st_mode
            except FileNotFoundError:
                continue
            if stat.S_ISREG(mode):
                yield path
