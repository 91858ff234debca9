/* The compiled half of wghsm/tunnel/sieve.py: what it says in Python, and reading that never leaves C for a flood.
 *
 *   UDP read -> length, type, index, mac1, room -> dropped and counted here, or kept for Python    wghsm_sweep
 *
 * Called by wghsm/tunnel/compiled_sieve.py without the interpreter's lock. Everything that is read here was written by
 * a stranger: each length is checked before it is used. The keys here open nothing: mac1's is made from a public key,
 * and who knows the secret of the cookies can claim an address, no more.
 * Source: PROTOCOL.md sections 3 and 7; RFC 7693.
 */
#include "_sieve.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum {
    INITIATION = 1,
    RESPONSE = 2,
    COOKIE_REPLY = 3,
    TRANSPORT = 4,
    SMALLEST = 32,
    MAC = 16,
    BLOCK = 64,
    GRO = 104 /* UDP_GRO, which older headers do not have */
};

/* BLAKE2s (RFC 7693). libcrypto's costs more to set up than one message does. */

static const uint32_t start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                  0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

static const uint8_t order[10][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4}, {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13}, {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11}, {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5}, {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0}};

static uint32_t get_little(const uint8_t *from) {
    return (uint32_t)from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 | (uint32_t)from[3] << 24;
}

static uint32_t turned(uint32_t word, int by) { return word >> by | word << (32 - by); }

static void mix(uint32_t *v, int a, int b, int c, int d, uint32_t x, uint32_t y) {
    v[a] += v[b] + x;
    v[d] = turned(v[d] ^ v[a], 16);
    v[c] += v[d];
    v[b] = turned(v[b] ^ v[c], 12);
    v[a] += v[b] + y;
    v[d] = turned(v[d] ^ v[a], 8);
    v[c] += v[d];
    v[b] = turned(v[b] ^ v[c], 7);
}

static void compress(uint32_t *state, const uint8_t *block, uint32_t done, int last) {
    uint32_t v[16], word[16];
    for (int i = 0; i < 16; i++)
        word[i] = get_little(block + 4 * i);
    memcpy(v, state, 32);
    memcpy(v + 8, start, 32);
    v[12] ^= done;
    if (last)
        v[14] = ~v[14];
    for (int round = 0; round < 10; round++) {
        const uint8_t *at = order[round];
        mix(v, 0, 4, 8, 12, word[at[0]], word[at[1]]);
        mix(v, 1, 5, 9, 13, word[at[2]], word[at[3]]);
        mix(v, 2, 6, 10, 14, word[at[4]], word[at[5]]);
        mix(v, 3, 7, 11, 15, word[at[6]], word[at[7]]);
        mix(v, 0, 5, 10, 15, word[at[8]], word[at[9]]);
        mix(v, 1, 6, 11, 12, word[at[10]], word[at[11]]);
        mix(v, 2, 7, 8, 13, word[at[12]], word[at[13]]);
        mix(v, 3, 4, 9, 14, word[at[14]], word[at[15]]);
    }
    for (int i = 0; i < 8; i++)
        state[i] ^= v[i] ^ v[i + 8];
}

void wghsm_mac(const uint8_t *key, size_t key_size, const uint8_t *data, size_t size, uint8_t *digest) {
    uint32_t state[8];
    uint8_t block[BLOCK] = {0};
    uint32_t done = BLOCK;
    memcpy(state, start, sizeof state);
    state[0] ^= 0x01010000 ^ (uint32_t)key_size << 8 ^ MAC;
    memcpy(block, key, key_size);
    compress(state, block, done, !size);
    while (size > 0) {
        size_t part = size < BLOCK ? size : BLOCK;
        memset(block, 0, BLOCK);
        memcpy(block, data, part);
        done += (uint32_t)part;
        data += part;
        size -= part;
        compress(state, block, done, !size);
    }
    for (int i = 0; i < MAC; i++)
        digest[i] = (uint8_t)(state[i / 4] >> 8 * (i % 4));
}

/* Whether the mac behind `size` bytes is the one that the key makes, in constant time. */
static int is_mac(const uint8_t *key, size_t key_size, const uint8_t *data, size_t size) {
    uint8_t expected[MAC], other = 0;
    wghsm_mac(key, key_size, data, size, expected);
    for (int i = 0; i < MAC; i++)
        other |= expected[i] ^ data[size + i];
    return !other;
}

/* What becomes of a datagram. */

static int has_room(const wghsm_bucket *bucket, uint64_t now) {
    uint64_t at = bucket->at;
    if (at + bucket->depth < now)
        at = now - bucket->depth;
    return at + bucket->cost <= now;
}

static void use(wghsm_bucket *bucket, uint64_t now) {
    if (bucket->at + bucket->depth < now)
        bucket->at = now - bucket->depth;
    bucket->at += bucket->cost;
}

static int shows_cookie(const wghsm_gate *gate, const uint8_t *data, size_t size, const uint8_t *address,
                        size_t address_size, uint32_t port, uint64_t now) {
    static const uint8_t none[MAC];
    uint8_t source[18], cookie[MAC];
    if (now >= gate->until || !memcmp(data + size - MAC, none, MAC))
        return 0;
    memcpy(source, address, address_size);
    source[address_size] = (uint8_t)(port >> 8);
    source[address_size + 1] = (uint8_t)port;
    wghsm_mac(gate->secret, sizeof gate->secret, source, address_size + 2, cookie);
    return is_mac(cookie, MAC, data, size - MAC);
}

static uint64_t *find_source(wghsm_sieve *sieve, const uint8_t *address, size_t address_size) {
    uint8_t digest[MAC];
    wghsm_mac(sieve->salt, sizeof sieve->salt, address, address_size == 4 ? 4 : 8, digest);
    return &sieve->source[(digest[0] | digest[1] << 8) % WGHSM_SOURCES];
}

int wghsm_judge(wghsm_sieve *sieve, const uint8_t *data, size_t size, const uint8_t *address, size_t address_size,
                uint32_t port, uint64_t now, int take) {
    static const size_t sizes[] = {0, 148, 92, 64};
    const wghsm_gate *gate = NULL;
    uint64_t *next;
    uint32_t type;
    int shut, proven = 0;
    if (size < SMALLEST)
        return WGHSM_MALFORMED;
    type = get_little(data);
    if (type == TRANSPORT)
        return sieve->index[get_little(data + 4) % WGHSM_INDICES] ? WGHSM_PASS : WGHSM_UNKNOWN_INDEX;
    if (type < INITIATION || type > COOKIE_REPLY)
        return WGHSM_UNKNOWN_TYPE;
    if (size != sizes[type])
        return WGHSM_MALFORMED;
    if (type != COOKIE_REPLY && sieve->gates) {
        for (uint32_t i = 0; i < sieve->gates && !gate; i++)
            if (is_mac(sieve->gate[i].mac1_key, 32, data, size - 2 * MAC))
                gate = &sieve->gate[i];
        if (!gate)
            return WGHSM_BAD_MAC1;
    }
    shut = now < sieve->shut_until && type == INITIATION;
    if (!shut && has_room(&sieve->open, now)) {
        if (take)
            use(&sieve->open, now);
        return WGHSM_PASS;
    }
    proven = gate && shows_cookie(gate, data, size, address, address_size, port, now);
    if (proven && has_room(&sieve->proven, now)) {
        if (take)
            use(&sieve->proven, now);
        return WGHSM_CROWDED;
    }
    if (proven || shut || !has_room(&sieve->fair, now))
        return WGHSM_NO_ROOM;
    next = find_source(sieve, address, address_size);
    if (now < *next)
        return WGHSM_NO_ROOM;
    if (take) {
        use(&sieve->fair, now);
        *next = now + sieve->spacing;
    }
    return WGHSM_CROWDED;
}

/* Reading. */

static void read_control(struct msghdr *message, wghsm_arrival *out) {
    struct cmsghdr *one;
    int value;
    out->segment = out->ecn = out->info_size = 0;
    for (one = CMSG_FIRSTHDR(message); one; one = CMSG_NXTHDR(message, one)) {
        size_t size = one->cmsg_len - CMSG_LEN(0);
        const uint8_t *data = CMSG_DATA(one);
        if ((one->cmsg_level == IPPROTO_IP && one->cmsg_type == IP_PKTINFO) ||
            (one->cmsg_level == IPPROTO_IPV6 && one->cmsg_type == IPV6_PKTINFO)) {
            if (size <= sizeof out->info) {
                memcpy(out->info, data, size);
                out->info_size = (uint32_t)size;
            }
        } else if (one->cmsg_level == IPPROTO_IP && one->cmsg_type == IP_TOS && size >= 1) {
            out->ecn = data[0] & 3;
        } else if (size >= sizeof value) {
            memcpy(&value, data, sizeof value);
            if (one->cmsg_level == IPPROTO_UDP && one->cmsg_type == GRO)
                out->segment = (uint32_t)value;
            else if (one->cmsg_level == IPPROTO_IPV6 && one->cmsg_type == IPV6_TCLASS)
                out->ecn = (uint32_t)value & 3;
        }
    }
}

static void read_address(const struct sockaddr_storage *from, wghsm_arrival *out) {
    if (from->ss_family == AF_INET) {
        const struct sockaddr_in *four = (const struct sockaddr_in *)from;
        out->family = 4;
        out->port = ntohs(four->sin_port);
        memcpy(out->address, &four->sin_addr, 4);
    } else {
        const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)from;
        out->family = 6;
        out->port = ntohs(six->sin6_port);
        out->flow = ntohl(six->sin6_flowinfo);
        out->scope = six->sin6_scope_id;
        memcpy(out->address, &six->sin6_addr, 16);
    }
}

/* Count the datagrams of a read if all are to be dropped; else it is kept, and Python looks at each. */
static int drop_all(wghsm_sieve *sieve, wghsm_arrival *out, uint64_t now) {
    uint32_t counts[WGHSM_VERDICTS] = {0};
    size_t segment = out->segment ? out->segment : out->size, at = 0;
    do {
        size_t left = out->size - at < segment ? out->size - at : segment;
        int verdict = wghsm_judge(sieve, out->data + at, left, out->address, out->family == 4 ? 4 : 16, out->port,
                                  now, 0);
        if (verdict == WGHSM_PASS || verdict == WGHSM_CROWDED)
            return 0;
        counts[verdict]++;
        at += left;
    } while (at < out->size);
    for (int i = 0; i < WGHSM_VERDICTS; i++)
        out->counts[i] += counts[i];
    return 1;
}

int wghsm_sweep(wghsm_sieve *sieve, int fd, uint64_t now, uint32_t limit, wghsm_arrival *out) {
    /* Aligned as the kernel's cmsghdr. */
    union {
        struct cmsghdr first;
        uint8_t bytes[256];
    } control;
    memset(out->counts, 0, sizeof out->counts);
    for (uint32_t done = 0; done < limit; done++) {
        struct sockaddr_storage from = {0};
        struct iovec where = {out->data, sizeof out->data};
        struct msghdr message = {&from, sizeof from, &where, 1, &control, sizeof control, 0};
        ssize_t size = recvmsg(fd, &message, MSG_DONTWAIT);
        if (size < 0) {
            if (errno == EAGAIN || errno == EWOULDBLOCK)
                return WGHSM_EMPTY;
            /* An ICMP error of something that was sent before; reading it clears it. */
            continue;
        }
        out->size = (uint32_t)size;
        read_control(&message, out);
        read_address(&from, out);
        if (!drop_all(sieve, out, now))
            return WGHSM_KEPT;
    }
    return WGHSM_ENOUGH;
}
