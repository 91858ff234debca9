/* A derive as one piece: C_DeriveKey -> C_GetAttributeValue(CKA_VALUE) -> C_DestroyObject.
 *
 * Called by _derivers.c, and by _calls.py through cffi, which lets the other threads run until all three calls are
 * through: three separate ones would wait three times for their turn in the interpreter. The functions are the
 * module's own, by their addresses in its CK_FUNCTION_LIST; mechanism and template point to what the caller keeps.
 * `_sweep.c` goes before this file.
 */

#include <pthread.h>
#include <stdint.h>

enum { DERIVE_DONE, DERIVE_KEY, DERIVE_VALUE, DERIVE_DESTROY, DERIVE_SESSION };

typedef unsigned long ulong;

struct attribute {
    ulong type;
    void *value;
    ulong length;
};

static unsigned long derive_unlocked(uintptr_t derive_key, uintptr_t get_attribute_value, uintptr_t destroy_object,
                                     unsigned long session, uintptr_t mechanism, unsigned long key,
                                     uintptr_t template, unsigned long count, uint8_t *secret, unsigned long *length,
                                     int *at, const uint8_t *keep)
{
    struct attribute value = {0x011, secret, 32};
    ulong handle = 0, ckr, destroyed;

    *at = DERIVE_KEY;
    ckr = ((ulong(*)(ulong, void *, ulong, void *, ulong, ulong *))derive_key)(
        session, (void *)mechanism, key, (void *)template, count, &handle);
    if (ckr != 0)
        return ckr;
    *at = DERIVE_VALUE;
    ckr = ((ulong(*)(ulong, ulong, void *, ulong))get_attribute_value)(session, handle, &value, 1);
    *length = value.length;
    destroyed = ((ulong(*)(ulong, ulong))destroy_object)(session, handle);
    if (ckr != 0)
        return ckr;
    if (keep != NULL && value.length == SECRET && memcmp(secret, keep, SECRET) != 0)
        sweep(secret);
    *at = destroyed == 0 ? DERIVE_DONE : DERIVE_DESTROY;
    return destroyed;
}

/* CK_RV of the call that failed first, named by `*at`; `*length` is what CKA_VALUE really had. The object is destroyed
 * whatever CKA_VALUE gave. The caller wipes the 32 bytes of `secret` unless all went well. With `keep`, 32 bytes, what
 * the module leaves of the secret is swept out, unless the secret is that: the key's own public key, which is what
 * anybody gets derived with the base point, and which the module needs. Such derives come one after the other: a sweep
 * would take the same secret from under one that is not through. */
static unsigned long derive(uintptr_t derive_key, uintptr_t get_attribute_value, uintptr_t destroy_object,
                            unsigned long session, uintptr_t mechanism, unsigned long key, uintptr_t template,
                            unsigned long count, uint8_t *secret, unsigned long *length, int *at,
                            const uint8_t *keep)
{
    static pthread_mutex_t one_by_one = PTHREAD_MUTEX_INITIALIZER;
    ulong ckr;

    if (keep != NULL)
        pthread_mutex_lock(&one_by_one);
    ckr = derive_unlocked(derive_key, get_attribute_value, destroy_object, session, mechanism, key, template, count,
                          secret, length, at, keep);
    if (keep != NULL)
        pthread_mutex_unlock(&one_by_one);
    return ckr;
}
