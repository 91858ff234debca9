"""The coverage-guided fuzzer: libFuzzer, through atheris, holds the two implementations of the packet path together.

    python -m tests.fuzz seal|open FOLDER [libFuzzer's options]       (script/fuzz builds what this needs)
    python -m tests.fuzz seal|open FOLDER --again                     without libFuzzer: what is in FOLDER

It sees the edges that are taken in both: in the Python of wghsm.tunnel, and in the C if that was built with
coverage.h. New inputs are kept in FOLDER, which begins with the seeds.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path


def main() -> None:
    """Fuzz until libFuzzer's own options end it."""
    name, folder, options = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
    if options == ["--again"]:
        _again(name, folder)
        return
    import atheris
    import atheris.core_with_libfuzzer

    os.environ["WGHSM_FUZZER"] = atheris.core_with_libfuzzer.__file__
    with atheris.instrument_imports(include=["wghsm.tunnel"], enable_loader_override=False):
        from tests.fuzz.targets import SEEDS, TARGETS
    for seed in SEEDS[name]:
        (folder / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    atheris.Setup([sys.argv[0], str(folder), *options], TARGETS[name])
    atheris.Fuzz()


def _again(name: str, folder: Path) -> None:
    from tests.fuzz.targets import TARGETS

    inputs = [path.read_bytes() for path in sorted(folder.iterdir())]
    for data in inputs:
        TARGETS[name](data)
    print(f"{len(inputs)} inputs of {name} passed")


if __name__ == "__main__":
    main()
