/* Tells libFuzzer which edges of a module were taken that gcc has built with -fsanitize-coverage=trace-pc.
 *
 * Included before everything else (-include). clang would do this by itself. libFuzzer is the module of atheris that
 * WGHSM_FUZZER names; it counts in a table for each module, and wants beside it as many program counters, which may
 * be zero.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>

enum { WGHSM_EDGES = 1 << 14 };

static uint8_t wghsm_edges[WGHSM_EDGES];
static uintptr_t wghsm_counters[2 * WGHSM_EDGES];

__attribute__((visibility("hidden"), no_sanitize_coverage)) void __sanitizer_cov_trace_pc(void) {
    uintptr_t from = (uintptr_t)__builtin_return_address(0);
    wghsm_edges[(from ^ from >> 14) % WGHSM_EDGES]++;
}

__attribute__((constructor, no_sanitize_coverage)) static void wghsm_tell_libfuzzer(void) {
    const char *name = getenv("WGHSM_FUZZER");
    void *fuzzer = name ? dlopen(name, RTLD_NOW | RTLD_NOLOAD) : NULL;
    void (*counters)(uint8_t *, uint8_t *);
    void (*places)(uintptr_t *, uintptr_t *);
    if (!fuzzer)
        return;
    *(void **)&counters = dlsym(fuzzer, "__sanitizer_cov_8bit_counters_init");
    *(void **)&places = dlsym(fuzzer, "__sanitizer_cov_pcs_init");
    if (!counters || !places)
        return;
    counters(wghsm_edges, wghsm_edges + WGHSM_EDGES);
    places(wghsm_counters, wghsm_counters + 2 * WGHSM_EDGES);
}
