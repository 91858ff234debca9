/* The steps of a handshake on libcrypto: what of each lies between two questions to the token.
 *
 *     responder  read_static -> read_timestamp -> write_response -> split
 *     initiator  write_initiation -> read_response -> split
 *
 * Called by _native.py; its twin in Python, _steps.py, says what each argument is and is held against it by tests.
 * The state is the chaining key C and the hash H, 32 bytes each. A step works on copies, and writes C and H only when
 * it has succeeded; if it has not, there is no secret in its results. A secret argument is wiped, and so is whatever a
 * step leaves on the stack.
 * Source: PROTOCOL.md sections 2 and 4. Without the GIL: nothing here is shared but the two fetched algorithms.
 */

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <stdint.h>
#include <string.h>

#define LEN 32
#define TAG 16
#define BLOCK 64
#define DEEP 8192 /* bytes of stack, more than libcrypto's functions take here */

enum { STEP_DONE, STEP_ZERO_DH, STEP_AUTHENTICATION, STEP_FAULT };

static EVP_MD *blake2s;
static EVP_CIPHER *chacha20_poly1305;

struct work {
    EVP_MD_CTX *md;
    uint8_t c[LEN], h[LEN], k[LEN];
    int result; /* the first failure stays, and what follows does nothing */
};

static int ready(void)
{
    blake2s = EVP_MD_fetch(NULL, "BLAKE2S-256", NULL);
    chacha20_poly1305 = EVP_CIPHER_fetch(NULL, "ChaCha20-Poly1305", NULL);
    return blake2s != NULL && chacha20_poly1305 != NULL;
}

static void fail(struct work *w, int result)
{
    if (w->result == STEP_DONE)
        w->result = result;
}

static void begin(struct work *w, const uint8_t *c, const uint8_t *h)
{
    w->result = STEP_DONE;
    w->md = EVP_MD_CTX_new();
    if (w->md == NULL)
        fail(w, STEP_FAULT);
    memcpy(w->c, c, LEN);
    memcpy(w->h, h, LEN);
}

/* libcrypto leaves the last value of each BLAKE2s on the stack below us. */
__attribute__((noinline)) static void clear_stack(void)
{
    uint8_t below[DEEP];
    OPENSSL_cleanse(below, sizeof below);
}

/* Hands C and H over if all went well; `c` is NULL where they stay as they were. The last call of each step. */
static int end(struct work *w, uint8_t *c, uint8_t *h)
{
    int result = w->result;
    EVP_MD_CTX_free(w->md);
    if (result != STEP_DONE) {
        ERR_clear_error();
    } else if (c != NULL) {
        memcpy(c, w->c, LEN);
        memcpy(h, w->h, LEN);
    }
    OPENSSL_cleanse(w, sizeof *w);
    clear_stack();
    return result;
}

/* HASH of three parts; `out` may be one of them. */
static void hash(struct work *w, const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len,
                 const uint8_t *c, size_t c_len, uint8_t out[LEN])
{
    if (w->result != STEP_DONE)
        return;
    if (!EVP_DigestInit_ex2(w->md, blake2s, NULL) || !EVP_DigestUpdate(w->md, a, a_len) ||
        !EVP_DigestUpdate(w->md, b, b_len) || !EVP_DigestUpdate(w->md, c, c_len) ||
        !EVP_DigestFinal_ex(w->md, out, NULL))
        fail(w, STEP_FAULT);
}

static void hmac(struct work *w, const uint8_t key[LEN], const uint8_t *a, size_t a_len, const uint8_t *b,
                 size_t b_len, uint8_t out[LEN])
{
    uint8_t pad[BLOCK], inner[LEN];
    for (int i = 0; i < BLOCK; i++)
        pad[i] = (i < LEN ? key[i] : 0) ^ 0x36;
    hash(w, pad, BLOCK, a, a_len, b, b_len, inner);
    for (int i = 0; i < BLOCK; i++)
        pad[i] ^= 0x36 ^ 0x5c;
    hash(w, pad, BLOCK, inner, LEN, NULL, 0, out);
    OPENSSL_cleanse(pad, sizeof pad);
    OPENSSL_cleanse(inner, sizeof inner);
}

/* KDF1 to KDF3 of the chaining key, as many as there are outputs that are not NULL; `one` may be the chaining key. */
static void kdf(struct work *w, const uint8_t *data, size_t length, uint8_t *one, uint8_t *two, uint8_t *three)
{
    static const uint8_t number[] = {1, 2, 3};
    uint8_t secret[LEN];
    hmac(w, w->c, data, length, NULL, 0, secret);
    hmac(w, secret, &number[0], 1, NULL, 0, one);
    if (two != NULL)
        hmac(w, secret, one, LEN, &number[1], 1, two);
    if (three != NULL)
        hmac(w, secret, two, LEN, &number[2], 1, three);
    OPENSSL_cleanse(secret, sizeof secret);
}

static void mix_hash(struct work *w, const uint8_t *data, size_t length)
{
    hash(w, w->h, LEN, data, length, NULL, 0, w->h);
}

static void mix_ephemeral(struct work *w, const uint8_t public[LEN])
{
    kdf(w, public, LEN, w->c, NULL, NULL);
    mix_hash(w, public, LEN);
}

static void mix_dh(struct work *w, const uint8_t shared[LEN])
{
    static const uint8_t zeros[LEN];
    if (CRYPTO_memcmp(shared, zeros, LEN) == 0)
        fail(w, STEP_ZERO_DH);
    kdf(w, shared, LEN, w->c, w->k, NULL);
}

static void mix_psk(struct work *w, const uint8_t psk[LEN])
{
    uint8_t tau[LEN];
    kdf(w, psk, LEN, w->c, tau, w->k);
    mix_hash(w, tau, LEN);
    OPENSSL_cleanse(tau, sizeof tau);
}

/* Each key seals one message only, so the counter in the nonce is always 0. */
static void seal(struct work *w, const uint8_t *plain, int length, uint8_t *sealed)
{
    static const uint8_t nonce[12];
    int done;
    EVP_CIPHER_CTX *aead;
    if (w->result != STEP_DONE)
        return;
    aead = EVP_CIPHER_CTX_new();
    if (aead == NULL || !EVP_EncryptInit_ex2(aead, chacha20_poly1305, w->k, nonce, NULL) ||
        !EVP_EncryptUpdate(aead, NULL, &done, w->h, LEN) ||
        (length > 0 && !EVP_EncryptUpdate(aead, sealed, &done, plain, length)) ||
        !EVP_EncryptFinal_ex(aead, sealed + length, &done) ||
        !EVP_CIPHER_CTX_ctrl(aead, EVP_CTRL_AEAD_GET_TAG, TAG, sealed + length))
        fail(w, STEP_FAULT);
    EVP_CIPHER_CTX_free(aead);
    mix_hash(w, sealed, (size_t)length + TAG);
}

static void open_sealed(struct work *w, const uint8_t *sealed, int length, uint8_t *plain)
{
    static const uint8_t nonce[12];
    int done;
    EVP_CIPHER_CTX *aead;
    if (w->result != STEP_DONE)
        return;
    aead = EVP_CIPHER_CTX_new();
    if (aead == NULL || !EVP_DecryptInit_ex2(aead, chacha20_poly1305, w->k, nonce, NULL) ||
        !EVP_DecryptUpdate(aead, NULL, &done, w->h, LEN) ||
        (length > 0 && !EVP_DecryptUpdate(aead, plain, &done, sealed, length)) ||
        !EVP_CIPHER_CTX_ctrl(aead, EVP_CTRL_AEAD_SET_TAG, TAG, (void *)(sealed + length)))
        fail(w, STEP_FAULT);
    else if (!EVP_DecryptFinal_ex(aead, plain + length, &done))
        fail(w, STEP_AUTHENTICATION);
    EVP_CIPHER_CTX_free(aead);
    mix_hash(w, sealed, (size_t)length + TAG);
    /* libcrypto decrypts before it looks at the tag. */
    if (w->result != STEP_DONE)
        OPENSSL_cleanse(plain, (size_t)length);
}

/* The ephemeral key, ready to be exchanged, and its public part; NULL if that failed. */
static EVP_PKEY_CTX *load(struct work *w, const uint8_t private[LEN], uint8_t public[LEN])
{
    size_t length = LEN;
    EVP_PKEY *key;
    EVP_PKEY_CTX *own = NULL;
    if (w->result != STEP_DONE)
        return NULL;
    key = EVP_PKEY_new_raw_private_key_ex(NULL, "X25519", NULL, private, LEN);
    if (key == NULL || !EVP_PKEY_get_raw_public_key(key, public, &length) ||
        (own = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL)) == NULL || EVP_PKEY_derive_init(own) <= 0)
        fail(w, STEP_FAULT);
    EVP_PKEY_free(key); /* `own` holds it */
    return own;
}

static void mix_own_dh(struct work *w, EVP_PKEY_CTX *own, const uint8_t public[LEN])
{
    uint8_t shared[LEN];
    size_t length = LEN;
    EVP_PKEY *theirs;
    if (w->result != STEP_DONE)
        return;
    theirs = EVP_PKEY_new_raw_public_key_ex(NULL, "X25519", NULL, public, LEN);
    /* Not validated: the one thing that can be wrong with a point shows in the result. */
    if (theirs == NULL || EVP_PKEY_derive_set_peer_ex(own, theirs, 0) <= 0)
        fail(w, STEP_FAULT);
    else if (EVP_PKEY_derive(own, shared, &length) <= 0)
        fail(w, STEP_ZERO_DH);
    else
        mix_dh(w, shared);
    OPENSSL_cleanse(shared, sizeof shared);
    EVP_PKEY_free(theirs);
}

static int read_static(uint8_t *c, uint8_t *h, const uint8_t *ephemeral, uint8_t *shared, const uint8_t *sealed,
                       uint8_t *opened)
{
    struct work w;
    begin(&w, c, h);
    mix_ephemeral(&w, ephemeral);
    mix_dh(&w, shared);
    open_sealed(&w, sealed, LEN, opened);
    OPENSSL_cleanse(shared, LEN);
    return end(&w, c, h);
}

static int read_timestamp(uint8_t *c, uint8_t *h, uint8_t *shared, const uint8_t *sealed, uint8_t *opened)
{
    struct work w;
    begin(&w, c, h);
    mix_dh(&w, shared);
    open_sealed(&w, sealed, 12, opened);
    OPENSSL_cleanse(shared, LEN);
    return end(&w, c, h);
}

static int write_response(uint8_t *c, uint8_t *h, uint8_t *private, const uint8_t *remote_ephemeral,
                          const uint8_t *remote_static, uint8_t *psk, uint8_t *ephemeral, uint8_t *sealed)
{
    struct work w;
    EVP_PKEY_CTX *own;
    begin(&w, c, h);
    own = load(&w, private, ephemeral);
    mix_ephemeral(&w, ephemeral);
    mix_own_dh(&w, own, remote_ephemeral);
    mix_own_dh(&w, own, remote_static);
    mix_psk(&w, psk);
    seal(&w, NULL, 0, sealed);
    EVP_PKEY_CTX_free(own);
    OPENSSL_cleanse(private, LEN);
    OPENSSL_cleanse(psk, LEN);
    return end(&w, c, h);
}

static int write_initiation(uint8_t *c, uint8_t *h, const uint8_t *private, const uint8_t *remote_static,
                            const uint8_t *own_static, uint8_t *shared, const uint8_t *timestamp, uint8_t *ephemeral,
                            uint8_t *sealed_static, uint8_t *sealed_timestamp)
{
    struct work w;
    EVP_PKEY_CTX *own;
    begin(&w, c, h);
    own = load(&w, private, ephemeral);
    mix_ephemeral(&w, ephemeral);
    mix_own_dh(&w, own, remote_static);
    seal(&w, own_static, LEN, sealed_static);
    mix_dh(&w, shared);
    seal(&w, timestamp, 12, sealed_timestamp);
    EVP_PKEY_CTX_free(own);
    OPENSSL_cleanse(shared, LEN);
    return end(&w, c, h);
}

static int read_response(uint8_t *c, uint8_t *h, const uint8_t *private, const uint8_t *ephemeral, uint8_t *shared,
                         uint8_t *psk, const uint8_t *sealed)
{
    struct work w;
    uint8_t unused[LEN];
    EVP_PKEY_CTX *own;
    begin(&w, c, h);
    own = load(&w, private, unused);
    mix_ephemeral(&w, ephemeral);
    mix_own_dh(&w, own, ephemeral);
    mix_dh(&w, shared);
    mix_psk(&w, psk);
    open_sealed(&w, sealed, 0, unused);
    EVP_PKEY_CTX_free(own);
    OPENSSL_cleanse(shared, LEN);
    OPENSSL_cleanse(psk, LEN);
    return end(&w, c, h);
}

static int split(const uint8_t *c, uint8_t *one, uint8_t *two)
{
    struct work w;
    begin(&w, c, c);
    kdf(&w, NULL, 0, one, two, NULL);
    if (w.result != STEP_DONE) {
        OPENSSL_cleanse(one, LEN);
        OPENSSL_cleanse(two, LEN);
    }
    return end(&w, NULL, NULL);
}
