/* The packet path over a libcrypto that fails; `parts` are its functions for a packet's two halves. */
#include "failing.h"

#include "_batch.c"

void *const parts[] = {apply_stream, make_tag};

/* The second half of the key that `mac` has, if nothing was added to its tag: that is the tag then. */
int half_of_key(EVP_MAC_CTX *mac, uint8_t *half) {
    size_t size;
    return (EVP_MAC_final)(mac, half, &size, TAG);
}
