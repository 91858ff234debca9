"""How `_steps.c` becomes the module `_libcrypto`: read by setup.py when the package is built, by nothing else."""

from pathlib import Path

from cffi import FFI

ffi = FFI()
ffi.cdef(
    """
    enum { STEP_DONE, STEP_ZERO_DH, STEP_AUTHENTICATION, STEP_FAULT };

    static int ready(void);
    static int read_static(uint8_t *c, uint8_t *h, const uint8_t *ephemeral, uint8_t *shared, const uint8_t *sealed,
                           uint8_t *opened);
    static int read_timestamp(uint8_t *c, uint8_t *h, uint8_t *shared, const uint8_t *sealed, uint8_t *opened);
    static int write_response(uint8_t *c, uint8_t *h, uint8_t *private, const uint8_t *remote_ephemeral,
                              const uint8_t *remote_static, uint8_t *psk, uint8_t *ephemeral, uint8_t *sealed);
    static int write_initiation(uint8_t *c, uint8_t *h, const uint8_t *private, const uint8_t *remote_static,
                                const uint8_t *own_static, uint8_t *shared, const uint8_t *timestamp,
                                uint8_t *ephemeral, uint8_t *sealed_static, uint8_t *sealed_timestamp);
    static int read_response(uint8_t *c, uint8_t *h, const uint8_t *private, const uint8_t *ephemeral,
                             uint8_t *shared, uint8_t *psk, const uint8_t *sealed);
    static int split(const uint8_t *c, uint8_t *one, uint8_t *two);
    """
)
# Optional: without a compiler or libcrypto's headers the package is built all the same, and uses the twin in Python.
ffi.set_source(
    "wghsm.noise._libcrypto",
    Path(__file__).with_name("_steps.c").read_text("utf-8"),
    libraries=["crypto"],
    optional=True,
)
