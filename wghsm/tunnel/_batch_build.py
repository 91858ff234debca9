"""How `_batch.c` becomes the module `_batch`: read by setup.py when the package is built, by nothing else.

The declarations are those of `_batch.h`, without the lines of the preprocessor.
"""

import re
from pathlib import Path

from cffi import FFI

_HERE = Path(__file__).parent

ffi = FFI()
ffi.cdef(re.sub(r"^#.*\n", "", (_HERE / "_batch.h").read_text("utf-8"), flags=re.MULTILINE))
# Optional: without a compiler or libcrypto's headers the package is built all the same, and uses the twin in Python.
ffi.set_source(
    "wghsm.tunnel._batch",
    (_HERE / "_batch.c").read_text("utf-8"),
    include_dirs=[str(_HERE)],
    libraries=["crypto"],
    extra_compile_args=["-O3"],
    optional=True,
)
