/* The compiled half of the packet path: what wghsm/tunnel/seal.py and open.py say in Python, for whole batches.
 *
 *   TUN read -> cut into packets -> pad -> encrypt in place -> datagrams back to back           wghsm_seal
 *   TUN -> more reads of single packets to the same address -> the same                         wghsm_seal_waiting
 *   UDP read -> decrypt -> replay window -> inner length -> ECN -> merge what fits together     wghsm_open
 *
 * Called by wghsm/tunnel/compiled.py without the interpreter's lock. Nothing is allocated for a packet. Everything
 * that is read here was written by a stranger or by the kernel: each length is checked before it is used.
 * Source: PROTOCOL.md sections 3, 9, 10 and 11; Linux's include/uapi/linux/virtio_net.h; RFC 1071; RFC 6479.
 */
#include "_batch.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    TRANSPORT = 4,
    HEADER = 16, /* of a transport message */
    TAG = 16,
    TAG_KEY = 32,
    OVERHEAD = HEADER + TAG,
    IPV4 = 20,
    IPV6 = 40,
    UDP = 8,
    TCP = 20,
    PROTOCOL_TCP = 6,
    PROTOCOL_UDP = 17,
    FIN = 0x01,
    PSH = 0x08,
    ACK = 0x10,
    CWR = 0x80,
    CE = 3,
    ECT_0 = 2,
    NEEDS_CSUM = 1,
    GSO_NONE = 0,
    GSO_TCPV4 = 1,
    GSO_TCPV6 = 4,
    GSO_UDP = 5,
    GSO_ECN = 0x80,
    WINDOW = 8128,
    LARGEST_PACKET = 65535,
    MERGED = WGHSM_ARENA / 2
};

static uint16_t get16(const uint8_t *from) { return (uint16_t)(from[0] << 8 | from[1]); }

static uint32_t get32(const uint8_t *from) { return (uint32_t)get16(from) << 16 | get16(from + 2); }

static void put16(uint8_t *to, uint32_t value) {
    to[0] = (uint8_t)(value >> 8);
    to[1] = (uint8_t)value;
}

static void put32(uint8_t *to, uint32_t value) {
    put16(to, value >> 16);
    put16(to + 2, value);
}

static uint64_t get_little(const uint8_t *from, int size) {
    uint64_t value = 0;
    while (size-- > 0)
        value = value << 8 | from[size];
    return value;
}

static void put_little(uint8_t *to, uint64_t value, int size) {
    for (int i = 0; i < size; i++, value >>= 8)
        to[i] = (uint8_t)value;
}

static uint16_t native16(const uint8_t *from) {
    uint16_t value;
    memcpy(&value, from, 2);
    return value;
}

/* The Internet checksum's sum in the machine's byte order: folded and stored as it is, it comes out right. */
static uint64_t sum(const uint8_t *from, size_t size, uint64_t start) {
    uint64_t total = start;
    uint32_t word;
    for (; size >= 4; size -= 4, from += 4) {
        memcpy(&word, from, 4);
        total += word;
    }
    if (size >= 2) {
        total += native16(from);
        from += 2;
        size -= 2;
    }
    if (size) {
        uint8_t last[2] = {*from, 0};
        total += native16(last);
    }
    return total;
}

static uint16_t fold(uint64_t total) {
    while (total >> 16)
        total = (total & 0xffff) + (total >> 16);
    return (uint16_t)total;
}

static uint16_t network16(size_t value) {
    uint8_t bytes[2] = {(uint8_t)(value >> 8), (uint8_t)value};
    return native16(bytes);
}

static void put_sum(uint8_t *to, uint16_t value) { memcpy(to, &value, 2); }

static uint64_t sum_pseudo(const uint8_t *packet, int version, uint8_t protocol, size_t size) {
    uint64_t start = (uint64_t)network16(protocol) + network16(size);
    return version == 4 ? sum(packet + 12, 8, start) : sum(packet + 8, 32, start);
}

static void finish_ipv4(uint8_t *packet, size_t header) {
    put16(packet + 10, 0);
    put_sum(packet + 10, (uint16_t)~fold(sum(packet, header, 0)));
}

/* Sessions. */

/* Contexts for the key stream and for the tags; false if libcrypto makes none. */
static int make_contexts(const uint8_t *key, void **stream, void **mac) {
    EVP_MAC *poly1305 = EVP_MAC_fetch(NULL, "POLY1305", NULL);
    *stream = EVP_CIPHER_CTX_new();
    *mac = poly1305 ? EVP_MAC_CTX_new(poly1305) : NULL;
    EVP_MAC_free(poly1305);
    return *stream && *mac && EVP_EncryptInit_ex(*stream, EVP_chacha20(), NULL, key, NULL) == 1;
}

wghsm_sender *wghsm_sender_new(const uint8_t *key, uint32_t index, uint64_t limit) {
    wghsm_sender *sender = calloc(1, sizeof *sender);
    if (!sender)
        return NULL;
    sender->index = index;
    sender->limit = limit;
    if (make_contexts(key, &sender->stream, &sender->mac))
        return sender;
    wghsm_sender_free(sender);
    return NULL;
}

void wghsm_sender_free(wghsm_sender *sender) {
    EVP_CIPHER_CTX_free(sender->stream);
    EVP_MAC_CTX_free(sender->mac);
    free(sender);
}

wghsm_receiver *wghsm_receiver_new(const uint8_t *key, uint64_t limit) {
    wghsm_receiver *receiver = calloc(1, sizeof *receiver);
    if (!receiver)
        return NULL;
    receiver->limit = limit;
    if (make_contexts(key, &receiver->stream, &receiver->mac))
        return receiver;
    wghsm_receiver_free(receiver);
    return NULL;
}

void wghsm_receiver_free(wghsm_receiver *receiver) {
    EVP_CIPHER_CTX_free(receiver->stream);
    EVP_MAC_CTX_free(receiver->mac);
    free(receiver);
}

int wghsm_accept(wghsm_receiver *receiver, uint64_t counter) {
    uint64_t block = counter >> 6, bit = 1ULL << (counter & 63);
    if (counter >= receiver->limit)
        return 0;
    if (counter > receiver->greatest) {
        uint64_t passed = block - (receiver->greatest >> 6);
        if (passed > WGHSM_WINDOW_BLOCKS)
            passed = WGHSM_WINDOW_BLOCKS;
        for (uint64_t i = 0; i < passed; i++)
            receiver->ring[(block - i) % WGHSM_WINDOW_BLOCKS] = 0;
        receiver->greatest = counter;
    } else if (receiver->greatest - counter > WINDOW) {
        return 0;
    }
    uint64_t *seen = &receiver->ring[block % WGHSM_WINDOW_BLOCKS];
    if (*seen & bit)
        return 0;
    *seen |= bit;
    return 1;
}

/* ChaCha20-Poly1305 (RFC 8439) with no additional data, of libcrypto's two halves. Its own AEAD computes the block of
 * the key stream that holds the tag's key by itself, which costs as much as some 400 bytes: here it is one run. */

/* Encrypt or decrypt `size` bytes at `text` in place. The block before them is worked in, and left as it was. `tag_key`
 * is for make_tag, or wiped if this fails. */
static int apply_stream(EVP_CIPHER_CTX *stream, uint64_t counter, uint8_t *text, size_t size, uint8_t *tag_key) {
    uint8_t *block = text - WGHSM_ROOM, kept[WGHSM_ROOM], start[16] = {0};
    int done, ok;
    put_little(start + 8, counter, 8);
    memcpy(kept, block, sizeof kept);
    memset(block, 0, sizeof kept);
    ok = EVP_EncryptInit_ex(stream, NULL, NULL, NULL, start) == 1 &&
         EVP_EncryptUpdate(stream, block, &done, block, (int)(WGHSM_ROOM + size)) == 1;
    memcpy(tag_key, block, TAG_KEY);
    memcpy(block, kept, sizeof kept);
    if (!ok)
        OPENSSL_cleanse(tag_key, TAG_KEY);
    return ok;
}

/* The tag of `size` bytes of ciphertext; `tag_key` is wiped. */
static int make_tag(EVP_MAC_CTX *mac, uint8_t *tag_key, const uint8_t *sealed, size_t size, uint8_t *tag) {
    uint8_t end[15 + 16] = {0};
    size_t padding = -size & 15, done;
    int ok;
    put_little(end + padding + 8, size, 8);
    ok = EVP_MAC_init(mac, tag_key, TAG_KEY, NULL) == 1 && EVP_MAC_update(mac, sealed, size) == 1 &&
         EVP_MAC_update(mac, end, padding + 16) == 1 && EVP_MAC_final(mac, tag, &done, TAG) == 1;
    OPENSSL_cleanse(tag_key, TAG_KEY);
    /* Finishing a tag takes the key out of the context. Without that, zeros take its place. */
    if (!ok)
        EVP_MAC_init(mac, tag_key, TAG_KEY, NULL);
    return ok;
}

/* Turn `size` bytes of plaintext at `text` into ciphertext, and put the tag behind them. */
static int encrypt(wghsm_sender *sender, uint64_t counter, uint8_t *text, size_t size) {
    uint8_t tag_key[TAG_KEY];
    return apply_stream(sender->stream, counter, text, size, tag_key) &&
           make_tag(sender->mac, tag_key, text, size, text + size);
}

/* Plaintext of the `size` bytes and the tag behind them; false if the tag is not theirs. */
static int decrypt(wghsm_receiver *receiver, uint64_t counter, const uint8_t *sealed, size_t size, uint8_t *text) {
    uint8_t tag_key[TAG_KEY], tag[TAG];
    memcpy(text, sealed, size);
    return apply_stream(receiver->stream, counter, text, size, tag_key) &&
           make_tag(receiver->mac, tag_key, sealed, size, tag) && !CRYPTO_memcmp(tag, sealed + size, TAG);
}

/* Cutting a TUN read. */

typedef struct {
    const uint8_t *packet;
    size_t size;
    int version;
    int partial;        /* the checksum is */
    uint8_t protocol;   /* of a super-packet; 0: one packet */
    size_t transport;   /* where the transport header, or what a partial checksum is of, begins */
    size_t check;       /* where in it the checksum is */
    size_t header;      /* of all headers together */
    size_t step;        /* payload of each packet but the last */
    uint32_t packets;
    uint64_t addresses; /* sum of the pseudo-header without the length */
} cutting;

static int ip_version(const uint8_t *packet, size_t size) {
    if (size >= IPV4 && packet[0] >> 4 == 4)
        return 4;
    return size >= IPV6 && packet[0] >> 4 == 6 ? 6 : 0;
}

/* Where the transport header of a super-packet begins; 0 if that cannot be. As segment._transport. */
static size_t find_transport(const cutting *cut, size_t start, uint8_t protocol) {
    const uint8_t *packet = cut->packet;
    size_t header;
    if (cut->version == 4) {
        header = (size_t)(packet[0] & 15) * 4;
        if (header < IPV4 || packet[9] != protocol || get16(packet + 6) & 0x3fff)
            return 0;
        return !start || start == header ? header : 0;
    }
    if (packet[6] == protocol)
        return !start || start == IPV6 ? IPV6 : 0;
    /* Extension headers are not walked: with some, the kernel has to say where they end. */
    return start > IPV6 ? start : 0;
}

/* Read the virtio_net_hdr, which is in the machine's byte order; 0 if it does not fit the packet. */
static int start_cutting(cutting *cut, const uint8_t *read, size_t size) {
    uint8_t type, protocol;
    size_t start, check, smallest;
    memset(cut, 0, sizeof *cut);
    if (size < WGHSM_VNET)
        return 0;
    cut->packet = read + WGHSM_VNET;
    cut->size = size - WGHSM_VNET;
    cut->version = ip_version(cut->packet, cut->size);
    if (!cut->version || cut->size > LARGEST_PACKET)
        return 0;
    cut->partial = read[0] & NEEDS_CSUM;
    type = read[1] & (uint8_t)~GSO_ECN;
    cut->step = native16(read + 4);
    start = cut->partial ? native16(read + 6) : 0;
    check = native16(read + 8);
    cut->packets = 1;
    if (type == GSO_NONE) {
        cut->transport = start;
        cut->check = check;
        smallest = cut->version == 4 ? IPV4 : IPV6;
        return !cut->partial || (start >= smallest && start + check + 2 <= cut->size);
    }
    if (type == GSO_UDP) {
        protocol = PROTOCOL_UDP;
        smallest = UDP;
        cut->check = 6;
    } else if (type == (cut->version == 4 ? GSO_TCPV4 : GSO_TCPV6)) {
        protocol = PROTOCOL_TCP;
        smallest = TCP;
        cut->check = 16;
    } else {
        return 0;
    }
    cut->protocol = protocol;
    cut->transport = find_transport(cut, start, protocol);
    if (!cut->transport || !cut->step || cut->size < cut->transport + smallest || (cut->partial && check != cut->check))
        return 0;
    cut->header = cut->transport + smallest;
    if (protocol == PROTOCOL_TCP)
        cut->header = cut->transport + (size_t)(cut->packet[cut->transport + 12] >> 4) * 4;
    if (cut->header < cut->transport + smallest || cut->header > cut->size)
        return 0;
    if (cut->size > cut->header)
        cut->packets = (uint32_t)((cut->size - cut->header + cut->step - 1) / cut->step);
    /* The field holds the pseudo-header's sum for the whole length: what is left without it is the addresses'. */
    cut->addresses = cut->partial ? native16(cut->packet + cut->transport + cut->check) +
                                        (uint64_t)(uint16_t)~network16(cut->size - cut->transport)
                                  : sum_pseudo(cut->packet, cut->version, protocol, 0);
    return 1;
}

static size_t cut_size(const cutting *cut, uint32_t number) {
    size_t left;
    if (!cut->protocol)
        return cut->size;
    left = cut->size - cut->header - number * cut->step;
    return cut->header + (left < cut->step ? left : cut->step);
}

/* Write packet `number` of `size` bytes, with all its checksums, as a network would have carried it. */
static void cut_packet(const cutting *cut, uint32_t number, uint8_t *to, size_t size) {
    uint8_t *transport = to + cut->transport;
    uint16_t check;
    if (!cut->protocol) {
        memcpy(to, cut->packet, size);
        if (cut->partial) {
            check = (uint16_t)~fold(sum(transport, size - cut->transport, 0));
            put_sum(transport + cut->check, check ? check : 0xffff);
        }
        return;
    }
    memcpy(to, cut->packet, cut->header);
    memcpy(to + cut->header, cut->packet + cut->header + number * cut->step, size - cut->header);
    if (cut->version == 4) {
        put16(to + 2, (uint32_t)size);
        put16(to + 4, get16(to + 4) + number);
        finish_ipv4(to, cut->transport);
    } else {
        put16(to + 4, (uint32_t)size - IPV6);
    }
    if (cut->protocol == PROTOCOL_UDP) {
        put16(transport + 4, (uint32_t)(size - cut->transport));
    } else {
        put32(transport + 4, get32(transport + 4) + number * (uint32_t)cut->step);
        if (number + 1 < cut->packets)
            transport[13] &= (uint8_t) ~(FIN | PSH);
        if (number)
            transport[13] &= (uint8_t)~CWR;
    }
    put16(transport + cut->check, 0);
    size -= cut->transport;
    check = (uint16_t)~fold(sum(transport, size, cut->addresses + network16(size)));
    put_sum(transport + cut->check, check || cut->protocol == PROTOCOL_TCP ? check : 0xffff);
}

static uint32_t outer_ecn(const cutting *cut) {
    uint32_t inner = cut->version == 4 ? cut->packet[1] & 3 : cut->packet[1] >> 4 & 3;
    return inner == CE ? ECT_0 : inner;
}

static size_t padded(size_t size, uint32_t mtu) {
    size_t last = mtu && size > mtu ? size % mtu : size, full = (last + 15) & ~(size_t)15;
    return size - last + (mtu && full > mtu ? mtu : full);
}

int wghsm_seal(wghsm_sender *sender, const uint8_t *read, size_t size, uint32_t first, uint32_t mtu,
               wghsm_outgoing *out) {
    cutting cut = {.packets = 1};
    uint32_t ecn = 0;
    if (size) {
        if (!start_cutting(&cut, read, size) || padded(cut_size(&cut, 0), mtu) + OVERHEAD > WGHSM_LARGEST)
            return WGHSM_MALFORMED;
        ecn = outer_ecn(&cut);
    }
    out->packets = cut.packets;
    for (out->next = first; out->next < cut.packets; out->next++) {
        size_t inner = size ? cut_size(&cut, out->next) : 0, text = size ? padded(inner, mtu) : 0;
        size_t whole = text + OVERHEAD;
        uint8_t *to = out->data + out->used;
        if (out->count && (out->closed || out->ecn != ecn || whole > out->segment || out->count == WGHSM_SEGMENTS ||
                           out->used + whole > WGHSM_LARGEST))
            return WGHSM_FULL;
        if (sender->counter >= sender->limit)
            return WGHSM_LIMIT;
        if (size)
            cut_packet(&cut, out->next, to + HEADER, inner);
        memset(to + HEADER + inner, 0, text - inner);
        put_little(to, TRANSPORT, 4);
        put_little(to + 4, sender->index, 4);
        put_little(to + 8, sender->counter, 8);
        /* The counter goes first: whatever happens now, no nonce is used twice. */
        if (!encrypt(sender, sender->counter++, to + HEADER, text))
            return WGHSM_FAILED;
        if (!out->count) {
            out->segment = (uint32_t)whole;
            out->ecn = ecn;
        }
        out->closed = whole < out->segment;
        out->used += (uint32_t)whole;
        out->count++;
    }
    return WGHSM_DONE;
}

static int same_destination(const uint8_t *one, size_t size, const uint8_t *two, size_t other_size) {
    int version = ip_version(one, size);
    if (!version || version != ip_version(two, other_size))
        return 0;
    return version == 4 ? !memcmp(one + 16, two + 16, 4) : !memcmp(one + 24, two + 24, 16);
}

uint32_t wghsm_seal_waiting(wghsm_sender *sender, int fd, const uint8_t *last, size_t size, uint32_t mtu, uint32_t most,
                            wghsm_outgoing *out, wghsm_read *next) {
    uint32_t sealed = 0;
    next->size = 0;
    if (size < WGHSM_VNET)
        return 0;
    for (; sealed < most; sealed++) {
        ssize_t got = read(fd, next->data, sizeof next->data);
        /* Nothing waits; an error is met again by whoever reads next. */
        if (got <= 0)
            break;
        if (got < WGHSM_VNET || next->data[1] != GSO_NONE ||
            !same_destination(last + WGHSM_VNET, size - WGHSM_VNET, next->data + WGHSM_VNET, (size_t)got - WGHSM_VNET) ||
            wghsm_seal(sender, next->data, (size_t)got, 0, mtu, out) != WGHSM_DONE) {
            next->size = (uint32_t)got;
            break;
        }
    }
    return sealed;
}

/* Merging opened packets. */

typedef struct {
    uint8_t *packet;
    size_t size;
    size_t header;
    size_t transport;
    uint8_t protocol; /* 0: neither TCP nor UDP */
    int version;
    int fits;      /* may be merged at all */
    int follower;  /* it is behind another one */
    int next;      /* the packet behind this one, or -1 */
    int last;      /* of the packets behind this one, or itself */
    int open;      /* more may follow */
    size_t total;  /* bytes of all of them merged */
    uint32_t packets;
    uint32_t wire;
} opened_packet;

/* What may be merged: a whole TCP segment with data and no flags but ACK and PSH, or a UDP datagram with data and a
 * checksum; checksums right. Where the flow cannot be told, `protocol` stays 0. As coalesce.Coalescer. */
static void look_at(opened_packet *one, int merge_udp) {
    const uint8_t *packet = one->packet;
    uint8_t protocol;
    one->version = packet[0] >> 4;
    one->transport = one->version == 4 ? IPV4 : IPV6;
    if (one->size < one->transport + UDP ||
        (one->version == 4 && (packet[0] != 0x45 || get16(packet + 6) & 0xbfff)))
        return;
    protocol = packet[one->version == 4 ? 9 : 6];
    if (protocol != PROTOCOL_TCP && protocol != PROTOCOL_UDP)
        return;
    one->protocol = protocol;
    packet += one->transport;
    if (protocol == PROTOCOL_TCP) {
        if (one->size < one->transport + TCP)
            return;
        one->header = one->transport + (size_t)(packet[12] >> 4) * 4;
        if (one->header < one->transport + TCP || (packet[13] | PSH) != (ACK | PSH))
            return;
    } else {
        one->header = one->transport + UDP;
        if (!merge_udp || get16(packet + 4) != one->size - one->transport || !get16(packet + 6))
            return;
    }
    if (one->size <= one->header || (one->version == 4 && fold(sum(one->packet, IPV4, 0)) != 0xffff) ||
        fold(sum(packet, one->size - one->transport,
                 sum_pseudo(one->packet, one->version, protocol, one->size - one->transport))) != 0xffff)
        return;
    one->fits = 1;
    one->open = !(protocol == PROTOCOL_TCP && packet[13] & PSH);
}

static int same_flow(const opened_packet *one, const opened_packet *two) {
    const uint8_t *a = one->packet, *b = two->packet;
    return one->protocol == two->protocol && one->version == two->version &&
           !memcmp(a + one->transport, b + one->transport, 4) &&
           (one->version == 4 ? !memcmp(a + 12, b + 12, 8) : !memcmp(a + 8, b + 8, 32));
}

/* Whether `two`, of the same flow, is the packet that cutting would make next behind `one` and those merged with it. */
static int follows(const opened_packet *one, const opened_packet *two) {
    const uint8_t *a = one->packet, *b = two->packet;
    size_t payload = one->size - one->header;
    if (!one->fits || !one->open || one->header != two->header || two->size > one->size ||
        one->total + two->size - two->header > LARGEST_PACKET)
        return 0;
    if (one->version == 4) {
        /* TOS, DF, TTL. The ID counts on, as it does when the kernel cuts, or means nothing. */
        if (a[1] != b[1] || a[6] != b[6] || a[8] != b[8] ||
            (!(a[6] & 0x40) && get16(b + 4) != (uint16_t)(get16(a + 4) + one->packets)))
            return 0;
    } else if (memcmp(a, b, 4) || a[7] != b[7]) {
        return 0;
    }
    if (one->protocol == PROTOCOL_UDP)
        return one->packets < WGHSM_SEGMENTS;
    a += one->transport;
    b += two->transport;
    /* Acknowledgement, window, urgent pointer, options; the sequence number goes on. */
    return get32(b + 4) == (uint32_t)(get32(a + 4) + one->packets * payload) && !memcmp(a + 8, b + 8, 5) &&
           !memcmp(a + 14, b + 14, 2) && !memcmp(a + 18, b + 18, one->header - one->transport - 18);
}

static void append(opened_packet *packets, opened_packet *one, int number) {
    opened_packet *two = packets + number;
    packets[one->last].next = number;
    one->last = number;
    one->total += two->size - two->header;
    one->packets++;
    one->wire += two->wire;
    one->open = two->open && two->size == one->size;
    two->follower = 1;
}

/* Put `one` and those behind it together at `to`, with a virtio_net_hdr that lets the kernel cut them again. */
static void put_merged(const opened_packet *packets, const opened_packet *one, uint8_t *to) {
    uint8_t *packet = to + WGHSM_VNET, *transport = packet + one->transport, *end = packet + one->header;
    int number = (int)(one - packets);
    uint16_t size = (uint16_t)(one->size - one->header), header = (uint16_t)one->header;
    uint16_t start = (uint16_t)one->transport, check = one->protocol == PROTOCOL_TCP ? 16 : 6;
    memcpy(packet, one->packet, one->header);
    for (; number >= 0; number = packets[number].next) {
        memcpy(end, packets[number].packet + one->header, packets[number].size - one->header);
        end += packets[number].size - one->header;
    }
    if (one->version == 4) {
        put16(packet + 2, (uint32_t)one->total);
        finish_ipv4(packet, one->transport);
    } else {
        put16(packet + 4, (uint32_t)one->total - IPV6);
    }
    if (one->protocol == PROTOCOL_TCP)
        transport[13] |= packets[one->last].packet[one->transport + 13] & PSH;
    else
        put16(transport + 4, (uint32_t)(one->total - one->transport));
    put_sum(transport + check, fold(sum_pseudo(packet, one->version, one->protocol, one->total - one->transport)));
    to[0] = NEEDS_CSUM;
    to[1] = one->protocol == PROTOCOL_UDP ? GSO_UDP : one->version == 4 ? GSO_TCPV4 : GSO_TCPV6;
    memcpy(to + 2, &header, 2);
    memcpy(to + 4, &size, 2);
    memcpy(to + 6, &start, 2);
    memcpy(to + 8, &check, 2);
}

static void merge_all(opened_packet *packets, int count, int merge, wghsm_opened *out) {
    int heads[WGHSM_RUN], found = 0;
    size_t used = MERGED;
    for (int number = 0; merge && number < count; number++) {
        opened_packet *two = packets + number;
        int before = 0;
        look_at(two, merge > 1);
        if (!two->protocol) {
            /* It may belong to any flow: nothing overtakes it. */
            found = 0;
            continue;
        }
        while (before < found && !same_flow(packets + heads[before], two))
            before++;
        if (before < found && two->fits && follows(packets + heads[before], two)) {
            append(packets, packets + heads[before], number);
            continue;
        }
        heads[before] = number;
        if (before == found)
            found++;
    }
    for (int number = 0; number < count; number++) {
        opened_packet *one = packets + number;
        wghsm_write *write = out->write + out->writes;
        if (one->follower)
            continue;
        write->packets = one->packets;
        write->wire = one->wire;
        write->size = (uint32_t)(WGHSM_VNET + one->total);
        if (one->packets == 1) {
            write->at = (uint32_t)(one->packet - out->arena) - WGHSM_VNET;
            memset(out->arena + write->at, 0, WGHSM_VNET);
        } else {
            write->at = (uint32_t)used;
            put_merged(packets, one, out->arena + used);
            used += write->size;
        }
        out->writes++;
    }
}

/* Length of the inner packet by its own header; 0 if that is not one, or more than there is. */
static size_t inner_size(const uint8_t *packet, size_t size) {
    int version = ip_version(packet, size);
    size_t total = version == 4 ? get16(packet + 2) : version == 6 ? (size_t)get16(packet + 4) + IPV6 : 0;
    return total > size || total < IPV4 ? 0 : total;
}

/* The outer header says CE: so does the inner one from now on, if it can (RFC 6040). */
static void set_ce(uint8_t *packet) {
    if (packet[0] >> 4 == 6) {
        if (packet[1] & 0x30)
            packet[1] |= 0x30;
    } else if (packet[1] & 3 && (packet[1] & 3) != CE) {
        /* RFC 1624: the new checksum from the old one. */
        uint64_t total = (uint16_t)~native16(packet + 10) + (uint64_t)(uint16_t)~native16(packet);
        packet[1] |= CE;
        put_sum(packet + 10, (uint16_t)~fold(total + native16(packet)));
    }
}

int wghsm_open(wghsm_receiver *receiver, const uint8_t *read, size_t size, size_t at, size_t segment, uint32_t index,
               int ce, int merge, wghsm_opened *out) {
    opened_packet packets[WGHSM_RUN];
    int count = 0;
    size_t used = WGHSM_ROOM;
    memset(out, 0, offsetof(wghsm_opened, write));
    if (size > LARGEST_PACKET || !segment)
        return WGHSM_MALFORMED;
    for (int number = 0; number < WGHSM_RUN && at < size; number++) {
        size_t whole = size - at < segment ? size - at : segment, text = whole - OVERHEAD, inner;
        const uint8_t *datagram = read + at;
        uint8_t *to = out->arena + used + WGHSM_VNET;
        uint64_t counter;
        if (whole < OVERHEAD || get_little(datagram, 4) != TRANSPORT || get_little(datagram + 4, 4) != index)
            break;
        at += whole;
        counter = get_little(datagram + 8, 8);
        if (counter >= receiver->limit) {
            out->expired++;
        } else if (!decrypt(receiver, counter, datagram + HEADER, text, to)) {
            out->forged++;
        } else if (!wghsm_accept(receiver, counter)) {
            out->replayed++;
        } else {
            out->authenticated++;
            if (!text)
                continue;
            out->data++;
            inner = inner_size(to, text);
            if (!inner) {
                out->malformed++;
                continue;
            }
            if (ce)
                set_ce(to);
            packets[count] = (opened_packet){.packet = to, .size = inner, .next = -1, .last = count, .total = inner,
                                             .packets = 1, .wire = (uint32_t)whole};
            count++;
            used += WGHSM_VNET + text;
        }
    }
    out->end = (uint32_t)at;
    merge_all(packets, count, merge, out);
    return WGHSM_DONE;
}
