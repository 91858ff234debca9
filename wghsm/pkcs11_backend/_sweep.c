/* A sweep for what a module leaves of a secret in its heap: OpenSC never frees, nor clears, a secret it has derived.
 *
 * Called by _derive.c where `module` says that a module does so, after the object was destroyed. Looked through is
 * the part of malloc's memory that the calling thread allocates from, at the places where malloc puts objects;
 * Python's own small objects, ours among them, are elsewhere. The kernel copies (process_vm_readv), so that memory
 * which another thread gives back meanwhile is an error and no crash.
 */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define SECRET 32
#define ALIGNED 16                 /* malloc's */
#define ARENA ((uintptr_t)1 << 26) /* a thread's part of malloc's memory begins at a multiple of this */
#define PROBE 4096                 /* bytes: too many for the thread's cache, which mixes the parts */
#define PIECE 16384

/* The mapping that malloc serves this thread from, without what the kernel may have joined to it; 0 if unknown. */
static int own_heap(uintptr_t *start, uintptr_t *end)
{
    char line[512];
    unsigned long first, last;
    int found = 0;
    void *probe = malloc(PROBE);
    uintptr_t at = (uintptr_t)probe;
    FILE *maps = fopen("/proc/self/maps", "re");

    if (probe != NULL && maps != NULL)
        while (!found && fgets(line, sizeof line, maps) != NULL)
            if (sscanf(line, "%lx-%lx rw", &first, &last) == 2 && first <= at && at < last) {
                found = 1;
                *start = first;
                *end = last;
                if (strstr(line, "[heap]") == NULL && *start < (at & ~(ARENA - 1)))
                    *start = at & ~(ARENA - 1);
            }
    if (maps != NULL)
        fclose(maps);
    free(probe);
    return found;
}

/* Overwrites every copy of the 32 bytes of `secret` but itself; how many there were. */
static int sweep(const uint8_t *secret)
{
    static const uint8_t zeros[SECRET];
    uint8_t piece[PIECE];
    uintptr_t at, end;
    pid_t self = getpid();
    int found = 0;

    /* Zeros are no secret, and everywhere. */
    if (memcmp(secret, zeros, SECRET) == 0 || !own_heap(&at, &end))
        return 0;
    for (at = (at + ALIGNED - 1) & ~(uintptr_t)(ALIGNED - 1); at + SECRET <= end; at += PIECE - ALIGNED) {
        size_t length = end - at < PIECE ? end - at : PIECE;
        struct iovec here = {piece, length}, there = {(void *)at, length};
        ssize_t got = process_vm_readv(self, &here, 1, &there, 1, 0);
        if (got < SECRET)
            continue;
        for (ssize_t place = 0; place + SECRET <= got; place += ALIGNED) {
            struct iovec nothing = {(void *)zeros, SECRET}, copy = {(void *)(at + (uintptr_t)place), SECRET};
            if (memcmp(piece + place, secret, SECRET) == 0 && copy.iov_base != (const void *)secret)
                found += process_vm_writev(self, &nothing, 1, &copy, 1, 0) == SECRET;
        }
    }
    explicit_bzero(piece, sizeof piece);
    return found;
}
