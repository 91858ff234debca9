/* What no custodian can do without, and nothing else: `least DELAY DERIVES THREADS WINDOW SECONDS FILE`.
 *
 *     asker process  --- initiation ---> main --- job ---> a thread that sleeps as long as the token's calls take
 *            <--- two keys and the answer, three messages --- main <--- eventfd ---/
 *                                   main: the ephemeral key, two DH with it, hashes and seals; a record on the disk
 *
 * What lands is gathered before main is woken, as the custodian's threads do it (`_derivers.c`).
 *
 * DELAY is in milliseconds for each call of three a derive, WINDOW the initiations under way. Written to standard
 * output: CPU milliseconds for a handshake, by the process's own clock and without those of the sleep, which are the
 * token's. Compiled and run by least.py.
 */

#define _GNU_SOURCE
#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CALLS = 3, RECORD = 64, RECORDS = 1023, HASHES = 36, WAITING = 4096 };
enum { INITIATION = 190, KEY = 110, ANSWER = 90, ROOM = 256 };

static sem_t jobs;
static int landed;
static long delay;
static int derives, threads;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long put[WAITING], due; /* nanoseconds */
static unsigned long asked, begun, gathered;
static _Atomic long asleep; /* nanoseconds of CPU time of what stands for the token's calls: not to be counted */

static void check(int good, const char *what)
{
    if (!good) {
        perror(what);
        exit(1);
    }
}

static long nanoseconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * 1000000000 + now.tv_nsec;
}

static long counted(void)
{
    return nanoseconds(CLOCK_PROCESS_CPUTIME_ID) - asleep;
}

/* How many are to wake main now that the one ends that was put and begun then. */
static unsigned long woken(long was_put, long was_begun)
{
    long now = nanoseconds(CLOCK_MONOTONIC), held = (now - was_put) / 3;
    unsigned long together = 0;
    held = held < 500000000 ? held : 500000000;
    pthread_mutex_lock(&lock);
    if (++gathered == 1 || now + held < due)
        due = now + held;
    if (asked == begun || gathered >= 32 || now + (now - was_begun) / threads > due) {
        together = gathered;
        gathered = 0;
    }
    pthread_mutex_unlock(&lock);
    return together;
}

static void *token(void *unused)
{
    const struct timespec call = {delay / 1000, delay % 1000 * 1000000};
    (void)unused;
    for (;;) {
        while (sem_wait(&jobs) != 0)
            ;
        pthread_mutex_lock(&lock);
        long was_put = put[begun++ % WAITING], was_begun = nanoseconds(CLOCK_MONOTONIC);
        pthread_mutex_unlock(&lock);
        long before = nanoseconds(CLOCK_THREAD_CPUTIME_ID);
        for (int i = 0; delay > 0 && i < derives * CALLS; i++)
            nanosleep(&call, NULL);
        asleep += nanoseconds(CLOCK_THREAD_CPUTIME_ID) - before;
        unsigned long together = woken(was_put, was_begun);
        check(together == 0 || eventfd_write(landed, together) == 0, "eventfd");
    }
    return NULL;
}

/* As the handshake process, egress and ingress: a message for each answer, all others are thrown away. */
static void ask(const int ends[3], int window)
{
    char message[ROOM] = {0};
    int epoll = epoll_create1(0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (int i = 0; i < 3; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.fd = ends[i]};
        check(epoll_ctl(epoll, EPOLL_CTL_ADD, ends[i], &event) == 0, "epoll");
    }
    for (int i = 0; i < window; i++)
        check(send(ends[0], message, INITIATION, 0) > 0, "send");
    for (;;) {
        struct epoll_event ready[3];
        int count = epoll_wait(epoll, ready, 3, -1);
        for (int i = 0; i < count; i++) {
            if (recv(ready[i].data.fd, message, sizeof message, 0) <= 0)
                _exit(0);
            if (ready[i].data.fd == ends[0] && send(ends[0], message, INITIATION, MSG_NOSIGNAL) <= 0)
                _exit(0);
        }
    }
}

/* The three X25519 that are not the token's, and about as many hashes and seals as the steps take. */
static void respond(const EVP_MD *blake2s, const EVP_CIPHER *aead)
{
    static const uint8_t points[2][32] = {{9}, {11}};
    uint8_t private[32], public[32], shared[32], block[96] = {0};
    size_t length = 32;
    int done;
    EVP_PKEY *key;
    EVP_PKEY_CTX *own;
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    EVP_CIPHER_CTX *seal = EVP_CIPHER_CTX_new();
    check(RAND_bytes(private, 32) == 1, "random bytes");
    key = EVP_PKEY_new_raw_private_key_ex(NULL, "X25519", NULL, private, 32);
    check(key != NULL && EVP_PKEY_get_raw_public_key(key, public, &length) == 1, "the ephemeral key");
    own = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
    check(own != NULL && EVP_PKEY_derive_init(own) == 1, "the ephemeral key");
    for (int i = 0; i < 2; i++) {
        EVP_PKEY *theirs = EVP_PKEY_new_raw_public_key_ex(NULL, "X25519", NULL, points[i], 32);
        length = 32;
        check(EVP_PKEY_derive_set_peer_ex(own, theirs, 0) == 1 && EVP_PKEY_derive(own, shared, &length) == 1, "DH");
        EVP_PKEY_free(theirs);
    }
    for (int i = 0; i < HASHES; i++)
        check(EVP_DigestInit_ex2(hash, blake2s, NULL) && EVP_DigestUpdate(hash, block, sizeof block) &&
                  EVP_DigestFinal_ex(hash, block, NULL), "hash");
    for (int i = 0; i < 3; i++)
        check(EVP_EncryptInit_ex2(seal, aead, block, block, NULL) && EVP_EncryptUpdate(seal, block, &done, block, 32) &&
                  EVP_EncryptFinal_ex(seal, block, &done), "seal");
    EVP_CIPHER_CTX_free(seal);
    EVP_MD_CTX_free(hash);
    EVP_PKEY_CTX_free(own);
    EVP_PKEY_free(key);
}

int main(int count, char **arguments)
{
    char message[ROOM] = {0};
    static char records[RECORD * RECORDS];
    int pairs[3][2], ours[3], theirs[3], window, file, epoll, at = 0;
    long done = 0, began, used;
    double seconds;
    EVP_MD *blake2s = EVP_MD_fetch(NULL, "BLAKE2S-256", NULL);
    EVP_CIPHER *aead = EVP_CIPHER_fetch(NULL, "ChaCha20-Poly1305", NULL);

    check(count == 7, "usage: least DELAY DERIVES THREADS WINDOW SECONDS FILE");
    delay = atol(arguments[1]), derives = atoi(arguments[2]), threads = atoi(arguments[3]);
    window = atoi(arguments[4]), seconds = atof(arguments[5]);
    for (int i = 0; i < 3; i++) {
        check(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pairs[i]) == 0, "socketpair");
        ours[i] = pairs[i][0], theirs[i] = pairs[i][1];
    }
    if (fork() == 0)
        ask(theirs, window);
    file = open(arguments[6], O_RDWR | O_CREAT | O_DSYNC, 0600);
    check(file >= 0 && pwrite(file, records, sizeof records, 0) == sizeof records && fsync(file) == 0, "the file");
    landed = eventfd(0, EFD_NONBLOCK);
    check(sem_init(&jobs, 0, 0) == 0, "semaphore");
    for (int i = 0; i < threads; i++) {
        pthread_t thread;
        check(pthread_create(&thread, NULL, token, NULL) == 0, "thread");
    }
    epoll = epoll_create1(0);
    for (int i = 0; i < 2; i++) {
        int fd = i == 0 ? ours[0] : landed;
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        check(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0, "epoll");
    }
    respond(blake2s, aead);
    began = nanoseconds(CLOCK_MONOTONIC), used = counted();
    while ((double)(nanoseconds(CLOCK_MONOTONIC) - began) < seconds * 1e9) {
        struct epoll_event ready[2];
        int events = epoll_wait(epoll, ready, 2, -1);
        for (int i = 0; i < events; i++) {
            eventfd_t together;
            if (ready[i].data.fd == ours[0]) {
                check(recv(ours[0], message, sizeof message, 0) > 0, "an initiation");
                pthread_mutex_lock(&lock);
                put[asked++ % WAITING] = nanoseconds(CLOCK_MONOTONIC);
                pthread_mutex_unlock(&lock);
                check(sem_post(&jobs) == 0, "a job");
                continue;
            }
            check(eventfd_read(landed, &together) == 0, "eventfd");
            for (eventfd_t one = 0; one < together; one++)
                respond(blake2s, aead);
            at = at + (int)together > RECORDS ? 0 : at;
            check(pwrite(file, records, RECORD * together, RECORD * at) > 0, "the file");
            at += (int)together;
            for (eventfd_t one = 0; one < together; one++, done++)
                check(send(ours[1], message, KEY, 0) > 0 && send(ours[2], message, KEY, 0) > 0 &&
                          send(ours[0], message, ANSWER, 0) > 0, "send");
        }
    }
    used = counted() - used;
    check(done > 0, "no handshake");
    printf("%.6f\n", (double)used / 1e6 / (double)done);
    return 0;
}
