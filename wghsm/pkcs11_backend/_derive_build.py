"""How `_sweep.c`, `_derive.c` and `_derivers.c` become the module `_fast`: read by setup.py alone."""

from pathlib import Path

from cffi import FFI

ffi = FFI()
ffi.cdef(
    """
    enum { DERIVE_DONE, DERIVE_KEY, DERIVE_VALUE, DERIVE_DESTROY, DERIVE_SESSION };

    static unsigned long derive(uintptr_t derive_key, uintptr_t get_attribute_value, uintptr_t destroy_object,
                                unsigned long session, uintptr_t mechanism, unsigned long key, uintptr_t template,
                                unsigned long count, uint8_t *secret, unsigned long *length, int *at,
                                const uint8_t *keep);

    #define LONGEST_PREFIX 8

    struct derive_key {
        unsigned long handle, mechanism;
        uintptr_t template;
        unsigned long count, prefix_length;
        uint8_t prefix[8];
        uint8_t own_public[32];
        int sweeps;
    };

    struct derived {
        unsigned long number, ckr, length;
        int at;
        uint8_t secret[32];
    };

    struct derivers;

    static struct derivers *derivers_new(unsigned long sessions, uintptr_t derive_key, uintptr_t get_attribute_value,
                                         uintptr_t destroy_object);
    static void derivers_end(struct derivers *all);
    static void derivers_drop(struct derivers *all);
    static void derivers_set(struct derivers *all, unsigned long place, unsigned long session, int open);
    static void derivers_give_back(struct derivers *all, unsigned long place);
    static long derivers_borrow(struct derivers *all, uint64_t nanoseconds);
    static int derivers_start(struct derivers *all, int event);
    static int derivers_put(struct derivers *all, unsigned long number, const struct derive_key *key,
                            const uint8_t *public);
    static int derivers_take(struct derivers *all, struct derived *into);
    static uint64_t derivers_longest(struct derivers *all);
    """
)
# Optional: without a compiler the package is built all the same, and makes the three calls through ctypes.
_PARTS = ("_sweep.c", "_derive.c", "_derivers.c")
_SOURCE = "".join(Path(__file__).with_name(name).read_text("utf-8") for name in _PARTS)
ffi.set_source("wghsm.pkcs11_backend._fast", _SOURCE, optional=True)
