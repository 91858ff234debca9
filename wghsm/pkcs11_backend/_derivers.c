/* Threads that derive without the interpreter, and the sessions that they share with Python's threads.
 *
 *     derivers_put ---> jobs ---> a thread with a free session ---> `derive` ---> results + eventfd ---> derivers_take
 *     derivers_borrow, derivers_give_back: a session for a thread of Python's; it goes before the jobs that wait
 *
 * While jobs wait in a queue, results are gathered before the eventfd rings: after the token's time whoever takes them
 * finds the processor's caches cold, and pays for that once for all of them. None is to get older by more than a third.
 *
 * Called by _derivers.py through cffi; `_derive.c` goes before this file. All of it lies in pages of its own, which no
 * sweep looks through. They stay until the last thread has left them: one that is stuck in a module keeps them.
 */

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>

#define LONGEST_QUEUE 2048u
#define LONGEST_PREFIX 8
#define STACK (1u << 20)
#define SCRUBBED 16384 /* what a module's calls may have left secrets in, of a thread's stack */
#define MOST_GATHERED 32
#define LONGEST_HELD 500000000 /* nanoseconds that a result waits for others */
#define NO_SESSION 0x0B3ul /* CKR_SESSION_HANDLE_INVALID */

/* What a derive needs to know of a key: handle, mechanism, template, and what stands before the point. */
struct derive_key {
    unsigned long handle, mechanism;
    uintptr_t template;
    unsigned long count, prefix_length;
    uint8_t prefix[LONGEST_PREFIX];
    uint8_t own_public[SECRET];
    int sweeps;
};

struct derived {
    unsigned long number, ckr, length;
    int at;
    uint8_t secret[SECRET];
};

struct ec_params {
    ulong kdf, shared_length;
    void *shared;
    ulong public_length;
    void *public;
};

struct mechanism {
    ulong type;
    void *parameter;
    ulong length;
};

struct job {
    ulong number;
    uint64_t put; /* CLOCK_MONOTONIC, nanoseconds */
    const struct derive_key *key;
    uint8_t public[SECRET];
};

/* One for each session; its thread uses whichever session is free. */
struct place {
    ulong session;
    int open;
    uint64_t since; /* CLOCK_MONOTONIC, nanoseconds; 0 while the thread waits */
};

struct derivers {
    pthread_mutex_t lock;
    pthread_cond_t work, returned;
    uintptr_t derive_key, get_attribute_value, destroy_object;
    size_t mapped;
    ulong users; /* threads, and who made it */
    ulong sessions, idle, borrowers;
    unsigned first_job, jobs, first_result, results;
    unsigned known; /* jobs, what the threads have, and results */
    int event, rung, ending;
    uint64_t due; /* when the results that have not been rung for must be; CLOCK_MONOTONIC, nanoseconds */
    struct job job[LONGEST_QUEUE];
    struct derived result[LONGEST_QUEUE];
    ulong *free; /* stack of places */
    struct place place[];
};

static uint64_t monotonic(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* For `sessions` sessions, all of which are lent out. NULL where there is no memory. */
static struct derivers *derivers_new(unsigned long sessions, uintptr_t derive_key, uintptr_t get_attribute_value,
                                     uintptr_t destroy_object)
{
    size_t size = sizeof(struct derivers) + sessions * (sizeof(struct place) + sizeof(ulong));
    struct derivers *all = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pthread_condattr_t clock;

    if (all == MAP_FAILED)
        return NULL;
    madvise(all, size, MADV_DONTDUMP);
    pthread_mutex_init(&all->lock, NULL);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&all->work, NULL);
    pthread_cond_init(&all->returned, &clock);
    pthread_condattr_destroy(&clock);
    all->derive_key = derive_key;
    all->get_attribute_value = get_attribute_value;
    all->destroy_object = destroy_object;
    all->mapped = size;
    all->users = 1;
    all->sessions = sessions;
    all->free = (ulong *)&all->place[sessions];
    return all;
}

/* With the lock held, which is gone afterwards. */
static void leave(struct derivers *all)
{
    int last = --all->users == 0;

    pthread_mutex_unlock(&all->lock);
    if (last) {
        explicit_bzero(all, all->mapped);
        munmap(all, all->mapped);
    }
}

/* The threads end as soon as no job is left, and no more are taken. */
static void derivers_end(struct derivers *all)
{
    pthread_mutex_lock(&all->lock);
    all->ending = 1;
    pthread_cond_broadcast(&all->work);
    pthread_mutex_unlock(&all->lock);
}

/* The last call of who made them: their keys go, and nobody takes results any more. */
static void derivers_drop(struct derivers *all)
{
    pthread_mutex_lock(&all->lock);
    all->ending = 1;
    all->jobs = 0;
    pthread_cond_broadcast(&all->work);
    leave(all);
}

/* Says which session a place has, or that it has none; only while the place is lent out. */
static void derivers_set(struct derivers *all, unsigned long place, unsigned long session, int open)
{
    pthread_mutex_lock(&all->lock);
    all->place[place].session = session;
    all->place[place].open = open;
    pthread_mutex_unlock(&all->lock);
}

/* Whether a thread may take a job: who borrows goes first. */
static int may_derive(const struct derivers *all)
{
    return all->jobs > 0 && all->idle > all->borrowers;
}

static void give_back(struct derivers *all, ulong place)
{
    all->free[all->idle++] = place;
    if (all->borrowers > 0)
        pthread_cond_signal(&all->returned);
    if (may_derive(all))
        pthread_cond_signal(&all->work);
}

static void derivers_give_back(struct derivers *all, unsigned long place)
{
    pthread_mutex_lock(&all->lock);
    give_back(all, place);
    pthread_mutex_unlock(&all->lock);
}

/* The place of a session that is free within so many nanoseconds, or -1. */
static long derivers_borrow(struct derivers *all, uint64_t nanoseconds)
{
    uint64_t until = monotonic() + nanoseconds;
    struct timespec deadline = {(time_t)(until / 1000000000u), (long)(until % 1000000000u)};
    long place = -1;
    int late = 0;

    pthread_mutex_lock(&all->lock);
    all->borrowers++;
    while (all->idle == 0 && late == 0)
        late = nanoseconds == 0 ? ETIMEDOUT : pthread_cond_timedwait(&all->returned, &all->lock, &deadline);
    if (all->idle > 0)
        place = (long)all->free[--all->idle];
    all->borrowers--;
    if (may_derive(all))
        pthread_cond_signal(&all->work);
    pthread_mutex_unlock(&all->lock);
    return place;
}

/* What a module has left on the stack below its caller's frame. */
static void __attribute__((noinline)) scrub_stack(void)
{
    uint8_t below[SCRUBBED];

    explicit_bzero(below, sizeof below);
}

static void run(const struct derivers *all, const struct job *job, const struct place *with, struct derived *done)
{
    const struct derive_key *key = job->key;
    uint8_t point[LONGEST_PREFIX + SECRET];
    struct ec_params params = {1, 0, NULL, key->prefix_length + SECRET, point}; /* CKD_NULL */
    struct mechanism mechanism = {key->mechanism, &params, sizeof params};

    done->number = job->number;
    if (!with->open) {
        done->at = DERIVE_SESSION;
        done->ckr = NO_SESSION;
        return;
    }
    memcpy(point, key->prefix, key->prefix_length);
    memcpy(point + key->prefix_length, job->public, SECRET);
    done->ckr = derive(all->derive_key, all->get_attribute_value, all->destroy_object, with->session,
                       (uintptr_t)&mechanism, key->handle, key->template, key->count, done->secret, &done->length,
                       &done->at, key->sweeps ? key->own_public : NULL);
    scrub_stack();
}

/* When the next result is likely to be there, `now` that one was that took so many nanoseconds and whose thread goes on
 * with another. One that has taken twice as long may be stuck. */
static uint64_t next_result(const struct derivers *all, uint64_t now, uint64_t took)
{
    uint64_t next = now + took;

    for (ulong place = 0; place < all->sessions; place++) {
        uint64_t since = all->place[place].since;
        if (since != 0 && now < since + 2 * took && since + took < next)
            next = since + took;
    }
    return next;
}

/* Whether the result of `job`, which is the newest and was begun at `began`, waits for others: only while this thread
 * goes on with another job at once, and the next result is in time. */
static int is_held(struct derivers *all, const struct job *job, uint64_t began)
{
    uint64_t now = monotonic(), held = (now - job->put) / 3;

    if (held > LONGEST_HELD)
        held = LONGEST_HELD;
    if (all->results == 1 || now + held < all->due)
        all->due = now + held;
    return may_derive(all) && all->results < MOST_GATHERED && next_result(all, now, now - began) <= all->due;
}

struct start {
    struct derivers *all;
    ulong place;
};

static void *serve(void *start)
{
    struct derivers *all = ((struct start *)start)->all;
    ulong mine = ((struct start *)start)->place;

    free(start);
    pthread_mutex_lock(&all->lock);
    for (;;) {
        struct derived done = {0};
        struct job job;
        ulong place;
        uint64_t began;
        int ring;

        while (!may_derive(all) && !(all->ending && all->jobs == 0))
            pthread_cond_wait(&all->work, &all->lock);
        if (all->jobs == 0)
            break;
        job = all->job[all->first_job++ % LONGEST_QUEUE];
        all->jobs--;
        place = all->free[--all->idle];
        all->place[mine].since = began = monotonic();
        pthread_mutex_unlock(&all->lock);

        run(all, &job, &all->place[place], &done);

        pthread_mutex_lock(&all->lock);
        all->place[mine].since = 0;
        give_back(all, place);
        all->result[(all->first_result + all->results++) % LONGEST_QUEUE] = done;
        ring = (!is_held(all, &job, began) || done.ckr != 0) && !all->rung;
        explicit_bzero(&done, sizeof done);
        if (ring) {
            all->rung = 1;
            pthread_mutex_unlock(&all->lock);
            eventfd_write(all->event, 1);
            pthread_mutex_lock(&all->lock);
        }
    }
    leave(all);
    return NULL;
}

/* Starts a thread for each session; results ring `event`, an eventfd that stays open. Returns 0 or an errno. */
static int derivers_start(struct derivers *all, int event)
{
    sigset_t every, before;
    pthread_attr_t attributes;
    pthread_t thread;
    int error = 0;

    all->event = event;
    sigfillset(&every);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, STACK);
    /* Signals are for the interpreter's threads. */
    pthread_sigmask(SIG_SETMASK, &every, &before);
    for (ulong place = 0; place < all->sessions && error == 0; place++) {
        struct start *start = malloc(sizeof *start);
        if (start == NULL) {
            error = ENOMEM;
            break;
        }
        start->all = all;
        start->place = place;
        pthread_mutex_lock(&all->lock);
        all->users++;
        pthread_mutex_unlock(&all->lock);
        error = pthread_create(&thread, &attributes, serve, start);
        if (error != 0) {
            free(start);
            pthread_mutex_lock(&all->lock);
            all->users--;
            pthread_mutex_unlock(&all->lock);
        }
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return error;
}

/* Has a thread derive with 32 bytes `public`; `key` stays where it is. 0, or EAGAIN: too many, ESHUTDOWN: at its end. */
static int derivers_put(struct derivers *all, unsigned long number, const struct derive_key *key,
                        const uint8_t *public)
{
    int error;

    pthread_mutex_lock(&all->lock);
    error = all->ending ? ESHUTDOWN : all->known == LONGEST_QUEUE ? EAGAIN : 0;
    if (error == 0) {
        struct job *job = &all->job[(all->first_job + all->jobs++) % LONGEST_QUEUE];
        all->known++;
        job->number = number;
        job->put = monotonic();
        job->key = key;
        memcpy(job->public, public, SECRET);
        if (may_derive(all))
            pthread_cond_signal(&all->work);
    }
    pthread_mutex_unlock(&all->lock);
    return error;
}

/* The next result, whose secret is the caller's to wipe; 0 when there is none. Read `event` before the first. */
static int derivers_take(struct derivers *all, struct derived *into)
{
    int taken;

    pthread_mutex_lock(&all->lock);
    taken = all->results > 0;
    if (taken) {
        struct derived *next = &all->result[all->first_result++ % LONGEST_QUEUE];
        *into = *next;
        explicit_bzero(next, sizeof *next);
        all->results--;
        all->known--;
    } else
        all->rung = 0;
    pthread_mutex_unlock(&all->lock);
    return taken;
}

/* For how many nanoseconds the slowest derive has been running. Rings for results that it has kept waiting. */
static uint64_t derivers_longest(struct derivers *all)
{
    uint64_t first = UINT64_MAX, now = monotonic();
    int ring;

    pthread_mutex_lock(&all->lock);
    for (ulong place = 0; place < all->sessions; place++)
        if (all->place[place].since != 0 && all->place[place].since < first)
            first = all->place[place].since;
    ring = all->results > 0 && !all->rung && now > all->due;
    all->rung |= ring;
    pthread_mutex_unlock(&all->lock);
    if (ring)
        eventfd_write(all->event, 1);
    return first < now ? now - first : 0;
}
