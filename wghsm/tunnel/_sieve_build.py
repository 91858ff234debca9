"""How `_sieve.c` becomes the module `_sieve`: read by setup.py when the package is built, by nothing else.

The declarations are those of `_sieve.h`, without the lines of the preprocessor.
"""

import re
from pathlib import Path

from cffi import FFI

_HERE = Path(__file__).parent

ffi = FFI()
ffi.cdef(re.sub(r"^#.*\n", "", (_HERE / "_sieve.h").read_text("utf-8"), flags=re.MULTILINE))
# Optional: without a compiler the package is built all the same, and uses the twin in Python.
ffi.set_source(
    "wghsm.tunnel._sieve",
    (_HERE / "_sieve.c").read_text("utf-8"),
    include_dirs=[str(_HERE)],
    extra_compile_args=["-O3"],
    optional=True,
)
