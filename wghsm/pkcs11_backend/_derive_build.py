"""How `_sweep.c` and `_derive.c` become the module `_fast`: read by setup.py alone, when the package is built."""

from pathlib import Path

from cffi import FFI

ffi = FFI()
ffi.cdef(
    """
    enum { DERIVE_DONE, DERIVE_KEY, DERIVE_VALUE, DERIVE_DESTROY };

    static unsigned long derive(uintptr_t derive_key, uintptr_t get_attribute_value, uintptr_t destroy_object,
                                unsigned long session, uintptr_t mechanism, unsigned long key, uintptr_t template,
                                unsigned long count, uint8_t *secret, unsigned long *length, int *at,
                                const uint8_t *keep);
    """
)
# Optional: without a compiler the package is built all the same, and makes the three calls through ctypes.
_SOURCE = "".join(Path(__file__).with_name(name).read_text("utf-8") for name in ("_sweep.c", "_derive.c"))
ffi.set_source("wghsm.pkcs11_backend._fast", _SOURCE, optional=True)
