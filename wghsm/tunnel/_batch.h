/* The two functions of the packet path, for one batch of one session; see _batch.c.
 *
 * Sizes are bytes. Counters, indices and times are the protocol's (PROTOCOL.md sections 3, 9 and 10); nothing here
 * knows a clock, a socket or a peer. An object is used by one thread at a time.
 */
#ifndef WGHSM_BATCH_H
#define WGHSM_BATCH_H

#include <stddef.h>
#include <stdint.h>

enum {
    WGHSM_VNET = 10,         /* a virtio_net_hdr */
    WGHSM_LARGEST = 65507,   /* one UDP payload, and so one send with UDP_SEGMENT */
    WGHSM_READ = 65546,      /* one TUN read: more than any IP packet with its virtio_net_hdr has */
    WGHSM_SEGMENTS = 64,     /* datagrams of one such send that every kernel takes */
    WGHSM_RUN = 128,         /* datagrams that are opened in one call */
    WGHSM_ROOM = 64,         /* before what is encrypted or decrypted: a block of the key stream */
    WGHSM_ARENA = 2 * 70000, /* opened packets, and merged ones, with their virtio_net_hdrs */
    WGHSM_WINDOW_BLOCKS = 128
};

/* What seal and open say. */
enum {
    WGHSM_DONE = 0,
    WGHSM_FULL = 1,       /* send the batch, then go on with packet `next` */
    WGHSM_LIMIT = 2,      /* the counter is at its limit; packet `next` and those after it are not sealed */
    WGHSM_MALFORMED = -1, /* nothing is sealed */
    WGHSM_FAILED = -2     /* libcrypto */
};

/* A session's send side: the key is in libcrypto's contexts, which wipe it when they go. */
typedef struct {
    void *stream;
    void *mac;
    uint64_t counter; /* of the next datagram */
    uint64_t limit;
    uint32_t index; /* the receiver's */
} wghsm_sender;

/* Datagrams back to back, all of `segment` bytes but the last, which may be shorter. */
typedef struct {
    uint32_t used;
    uint32_t segment;
    uint32_t count;
    uint32_t closed; /* the last one is shorter */
    uint32_t ecn;    /* outer ECN bits of all of them */
    uint32_t next;   /* first packet of the read that is not sealed yet */
    uint32_t packets; /* of the read */
    uint8_t room[WGHSM_ROOM];
    uint8_t data[WGHSM_LARGEST + 1];
} wghsm_outgoing;

/* One TUN read. */
typedef struct {
    uint32_t size;
    uint8_t data[WGHSM_READ];
} wghsm_read;

/* A session's receive side: contexts as above, and the replay window. */
typedef struct {
    void *stream;
    void *mac;
    uint64_t limit;
    uint64_t greatest;
    uint64_t ring[WGHSM_WINDOW_BLOCKS];
} wghsm_receiver;

/* One TUN write in the arena, virtio_net_hdr first: `packets` were merged, that came as `wire` bytes. */
typedef struct {
    uint32_t at;
    uint32_t size;
    uint32_t packets;
    uint32_t wire;
} wghsm_write;

/* What became of a run of datagrams. */
typedef struct {
    uint32_t end; /* where the first datagram begins that is not of this run */
    uint32_t authenticated;
    uint32_t data; /* of these, not keepalives */
    uint32_t expired;
    uint32_t forged;
    uint32_t replayed;
    uint32_t malformed;
    uint32_t writes;
    wghsm_write write[WGHSM_RUN];
    uint8_t arena[WGHSM_ARENA];
} wghsm_opened;

wghsm_sender *wghsm_sender_new(const uint8_t *key, uint32_t index, uint64_t limit);
void wghsm_sender_free(wghsm_sender *sender);
wghsm_receiver *wghsm_receiver_new(const uint8_t *key, uint64_t limit);
void wghsm_receiver_free(wghsm_receiver *receiver);

/* Whether `counter` is new; it is then remembered. As wghsm.noise.ReplayWindow. */
int wghsm_accept(wghsm_receiver *receiver, uint64_t counter);

/* Seal one TUN read (virtio_net_hdr and packet; size 0: a keepalive) from packet `first` on behind what `out` has. */
int wghsm_seal(wghsm_sender *sender, const uint8_t *read, size_t size, uint32_t first, uint32_t mtu,
               wghsm_outgoing *out);

/* Read on from the TUN `fd` and seal, `most` reads at most, as long as one is a single packet that goes where the one in
 * `last` goes, and fits into `out`. The first read that is not stays in `next`, unsealed; size 0: there was none.
 * Gives how many were sealed. */
uint32_t wghsm_seal_waiting(wghsm_sender *sender, int fd, const uint8_t *last, size_t size, uint32_t mtu, uint32_t most,
                            wghsm_outgoing *out, wghsm_read *next);

/* Open the run of datagrams at `at` that are for `index`; `ce`: their outer header says Congestion Experienced.
 * `merge`: 0 nothing, 1 TCP, 2 TCP and UDP. */
int wghsm_open(wghsm_receiver *receiver, const uint8_t *read, size_t size, size_t at, size_t segment, uint32_t index,
               int ce, int merge, wghsm_opened *out);

#endif
