/* The steps of a handshake over a libcrypto that fails; `parts` are these, `ready` first. */
#include "failing.h"

#include "_steps.c"

void *const parts[] = {ready, read_static, read_timestamp, write_response, write_initiation, read_response, split};
