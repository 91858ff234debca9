/* libcrypto with one call that says that it has failed, though it has done its work: whatever it leaves is there. */
#include <openssl/evp.h>
#include <stddef.h>

static int left;

/* The call with this number from now on fails; 0: none does. */
void fail_at(int number) { left = number; }

static int fails(void) { return left > 0 && !--left; }

static int but_fails(int said) { return fails() ? 0 : said; }

#define EVP_MAC_fetch(...) (fails() ? NULL : EVP_MAC_fetch(__VA_ARGS__))
#define EVP_CIPHER_CTX_new() (fails() ? NULL : EVP_CIPHER_CTX_new())
#define EVP_MAC_CTX_new(...) (fails() ? NULL : EVP_MAC_CTX_new(__VA_ARGS__))
#define EVP_MD_CTX_new() (fails() ? NULL : EVP_MD_CTX_new())
#define EVP_MAC_init(...) but_fails(EVP_MAC_init(__VA_ARGS__))
#define EVP_MAC_update(...) but_fails(EVP_MAC_update(__VA_ARGS__))
#define EVP_MAC_final(...) but_fails(EVP_MAC_final(__VA_ARGS__))
#define EVP_EncryptInit_ex(...) but_fails(EVP_EncryptInit_ex(__VA_ARGS__))
#define EVP_EncryptInit_ex2(...) but_fails(EVP_EncryptInit_ex2(__VA_ARGS__))
#define EVP_EncryptUpdate(...) but_fails(EVP_EncryptUpdate(__VA_ARGS__))
#define EVP_EncryptFinal_ex(...) but_fails(EVP_EncryptFinal_ex(__VA_ARGS__))
#define EVP_DecryptInit_ex2(...) but_fails(EVP_DecryptInit_ex2(__VA_ARGS__))
#define EVP_DecryptUpdate(...) but_fails(EVP_DecryptUpdate(__VA_ARGS__))
#define EVP_DecryptFinal_ex(...) but_fails(EVP_DecryptFinal_ex(__VA_ARGS__))
#define EVP_CIPHER_CTX_ctrl(...) but_fails(EVP_CIPHER_CTX_ctrl(__VA_ARGS__))
#define EVP_DigestInit_ex2(...) but_fails(EVP_DigestInit_ex2(__VA_ARGS__))
#define EVP_DigestUpdate(...) but_fails(EVP_DigestUpdate(__VA_ARGS__))
#define EVP_DigestFinal_ex(...) but_fails(EVP_DigestFinal_ex(__VA_ARGS__))
#define EVP_PKEY_get_raw_public_key(...) but_fails(EVP_PKEY_get_raw_public_key(__VA_ARGS__))
#define EVP_PKEY_derive_init(...) but_fails(EVP_PKEY_derive_init(__VA_ARGS__))
#define EVP_PKEY_derive_set_peer_ex(...) but_fails(EVP_PKEY_derive_set_peer_ex(__VA_ARGS__))
#define EVP_PKEY_derive(...) but_fails(EVP_PKEY_derive(__VA_ARGS__))
