/* Which datagrams are worth a turn of the interpreter; see _sieve.c.
 *
 * Sizes are bytes, times CLOCK_BOOTTIME in nanoseconds. The numbers are those of wghsm/tunnel/sieve.py.
 */
#ifndef WGHSM_SIEVE_H
#define WGHSM_SIEVE_H

#include <stddef.h>
#include <stdint.h>

enum {
    WGHSM_GATES = 2,       /* identities that are served at once */
    WGHSM_SOURCES = 4096,  /* buckets that sources fall into */
    WGHSM_INDICES = 65536, /* buckets that receiver indices fall into */
    WGHSM_READ = 65536     /* more than any UDP payload has */
};

/* What becomes of a datagram. */
enum {
    WGHSM_PASS = 0,
    WGHSM_MALFORMED = 1,
    WGHSM_UNKNOWN_TYPE = 2,
    WGHSM_UNKNOWN_INDEX = 3,
    WGHSM_BAD_MAC1 = 4,
    WGHSM_NO_ROOM = 5,
    WGHSM_CROWDED = 6, /* passes, into a room that is not for all */
    WGHSM_VERDICTS = 7
};

/* What wghsm_sweep says. */
enum { WGHSM_EMPTY = 0, WGHSM_KEPT = 1, WGHSM_ENOUGH = 2 };

/* An identity: its mac1 key, and the secret of its cookies, which holds until `until` (0: there is none). */
typedef struct {
    uint8_t mac1_key[32];
    uint8_t secret[32];
    uint64_t until;
} wghsm_gate;

/* Each message moves `at` on by `cost`; it may not come after now, and is never more than `depth` behind. */
typedef struct {
    uint64_t cost;
    uint64_t depth;
    uint64_t at;
} wghsm_bucket;

typedef struct {
    uint32_t gates;
    wghsm_gate gate[WGHSM_GATES];
    uint64_t shut_until;
    uint64_t spacing;
    wghsm_bucket open;
    wghsm_bucket proven;
    wghsm_bucket fair;
    uint8_t salt[32];
    uint64_t source[WGHSM_SOURCES]; /* when the next message of each is let in */
    uint16_t index[WGHSM_INDICES];  /* how many sessions there are */
} wghsm_sieve;

/* A read that is kept, and how many datagrams were dropped before it. */
typedef struct {
    uint32_t counts[WGHSM_VERDICTS];
    uint32_t size;
    uint32_t segment; /* bytes of each datagram but the last; 0: there is one */
    uint32_t ecn;
    uint32_t family; /* 4 or 6 */
    uint32_t port;
    uint32_t flow;
    uint32_t scope;
    uint32_t info_size;
    uint8_t address[16];
    uint8_t info[20]; /* the data of the packet info */
    uint8_t data[WGHSM_READ];
} wghsm_arrival;

/* BLAKE2s with a key of 1 to 32 bytes and a digest of 16. */
void wghsm_mac(const uint8_t *key, size_t key_size, const uint8_t *data, size_t size, uint8_t *digest);

/* What becomes of a datagram from a packed address of 4 or 16 bytes; `take`: and one that passes uses up its share. */
int wghsm_judge(wghsm_sieve *sieve, const uint8_t *data, size_t size, const uint8_t *address, size_t address_size,
                uint32_t port, uint64_t now, int take);

/* Read until something passes, nothing is left, or `limit` reads have been dropped. */
int wghsm_sweep(wghsm_sieve *sieve, int fd, uint64_t now, uint32_t limit, wghsm_arrival *out);

#endif
