/* A sweep for what a module leaves of a secret in its heap: OpenSC never frees, nor clears, a secret it has derived.
 *
 * Called by _derive.c where `keep` says that a module does so, after the object was destroyed. Looked through is all
 * memory that malloc serves small objects from, at the places where it puts them; Python's own small objects, ours
 * among them, are elsewhere. The kernel copies (process_vm_readv), so that memory which another thread gives back
 * meanwhile is an error and no crash.
 *
 *     /proc/self/maps -> [heap], and the part that malloc has reserved for each thread -> pieces -> copies
 */

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define SECRET 32
#define ALIGNED 16                 /* malloc's */
#define ARENA ((uintptr_t)1 << 26) /* a thread's part begins at a multiple of its size */
#define PIECE 65536

/* Overwrites every copy of the 32 bytes of `secret` but itself between two addresses; how many there were. */
static int sweep_between(uintptr_t start, uintptr_t end, const uint8_t *secret)
{
    static const uint8_t zeros[SECRET];
    uint8_t piece[PIECE];
    uint64_t wanted, there_is;
    pid_t self = getpid();
    int found = 0;

    memcpy(&wanted, secret, sizeof wanted);
    for (uintptr_t at = start; at + SECRET <= end; at += PIECE - ALIGNED) {
        size_t length = end - at < PIECE ? end - at : PIECE;
        struct iovec here = {piece, length}, there = {(void *)at, length};
        ssize_t got = process_vm_readv(self, &here, 1, &there, 1, 0);
        for (ssize_t place = 0; place + SECRET <= got; place += ALIGNED) {
            struct iovec nothing = {(void *)zeros, SECRET}, copy = {(void *)(at + (uintptr_t)place), SECRET};
            memcpy(&there_is, piece + place, sizeof there_is);
            if (there_is == wanted && memcmp(piece + place, secret, SECRET) == 0 && copy.iov_base != (const void *)secret)
                found += process_vm_writev(self, &nothing, 1, &copy, 1, 0) == SECRET;
        }
    }
    explicit_bzero(piece, sizeof piece);
    explicit_bzero(&wanted, sizeof wanted);
    explicit_bzero(&there_is, sizeof there_is);
    return found;
}

/* A thread's part is a mapping that can be written, with the rest of its 64 MiB reserved behind it. */
static int sweep(const uint8_t *secret)
{
    static const uint8_t zeros[SECRET];
    char line[512], rights[5];
    uintptr_t first, last, before = 0, written = 0;
    unsigned long from, to;
    int found = 0;
    FILE *maps;

    /* Zeros are no secret, and everywhere. */
    if (memcmp(secret, zeros, SECRET) == 0 || (maps = fopen("/proc/self/maps", "re")) == NULL)
        return 0;
    while (fgets(line, sizeof line, maps) != NULL) {
        if (sscanf(line, "%lx-%lx %4s", &from, &to, rights) != 3)
            continue;
        first = from;
        last = to;
        if (strcmp(rights, "---p") == 0 && first == written && written != 0) {
            uintptr_t arena = (written - 1) & ~(ARENA - 1);
            if (before <= arena && arena + ARENA <= last)
                found += sweep_between(arena, written, secret);
        }
        written = 0;
        if (strcmp(rights, "rw-p") == 0) {
            before = first;
            written = last;
            if (strstr(line, "[heap]") != NULL)
                found += sweep_between(first, last, secret);
        }
    }
    fclose(maps);
    return found;
}
