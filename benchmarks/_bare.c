/* The token by itself: derives one after the other through the three calls of a derive, and nothing else.
 *
 * Called by _bare_token.py through ctypes, on a thread for each session, which needs the interpreter only at its end.
 */

#include <stdint.h>
#include <string.h>

typedef unsigned long ulong;

struct attribute {
    ulong type;
    void *value;
    ulong length;
};

/* Counts in `*done` until `*end`; `points` are `count` times 32 bytes, which go to `point`, where the mechanism finds
 * them. Returns what a call said that failed, else 0. */
ulong derive_until(const volatile int *end, volatile ulong *done, void *derive_key, void *get_attribute_value,
                   void *destroy_object, ulong session, ulong key, void *mechanism, void *template, ulong attributes,
                   uint8_t *point, const uint8_t *points, ulong count)
{
    uint8_t secret[32];
    struct attribute value = {0x011, secret, sizeof secret};
    ulong handle = 0, ckr = 0;

    for (ulong at = 0; !*end && ckr == 0; at = (at + 1) % count) {
        memcpy(point, points + 32 * at, 32);
        ckr = ((ulong(*)(ulong, void *, ulong, void *, ulong, ulong *))derive_key)(
            session, mechanism, key, template, attributes, &handle);
        if (ckr == 0)
            ckr = ((ulong(*)(ulong, ulong, void *, ulong))get_attribute_value)(session, handle, &value, 1);
        if (ckr == 0)
            ckr = ((ulong(*)(ulong, ulong))destroy_object)(session, handle);
        explicit_bzero(secret, sizeof secret);
        (*done)++;
    }
    return ckr;
}
