"""How `_derive.c` becomes the module `_fast`: read by setup.py when the package is built, by nothing else."""

from pathlib import Path

from cffi import FFI

ffi = FFI()
ffi.cdef(
    """
    enum { DERIVE_DONE, DERIVE_KEY, DERIVE_VALUE, DERIVE_DESTROY };

    static unsigned long derive(uintptr_t derive_key, uintptr_t get_attribute_value, uintptr_t destroy_object,
                                unsigned long session, uintptr_t mechanism, unsigned long key, uintptr_t template,
                                unsigned long count, uint8_t *secret, unsigned long *length, int *at);
    """
)
# Optional: without a compiler the package is built all the same, and makes the three calls through ctypes.
ffi.set_source("wghsm.pkcs11_backend._fast", Path(__file__).with_name("_derive.c").read_text("utf-8"), optional=True)
