/* A token with one oddity: a PKCS#11 module that passes everything on to another module, but for what its settings
 * say. Built and set up by odd_token.py; the settings are the lines NAME=VALUE of the file MODULE.so.conf, read anew
 * at each call. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <p11-kit/pkcs11.h>

#define SEEN 4096

static CK_FUNCTION_LIST list;
static CK_FUNCTION_LIST *real;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* What each derived object is to read as: 0 as it is, 1 unreadable, 2 zeros, 3 one bit flipped. */
static unsigned char derived[SEEN];
static long sessions_open;

typedef struct {
    CK_ULONG kdf, shared_length;
    CK_BYTE_PTR shared;
    CK_ULONG public_length;
    CK_BYTE_PTR public;
} ecdh1_params;

static bool setting(const char *name, char *value, size_t size) {
    Dl_info about;
    char path[4096], line[4096];
    bool found = false;
    size_t length = strlen(name);
    if (!dladdr((void *)setting, &about)) return false;
    snprintf(path, sizeof path, "%s.conf", about.dli_fname);
    FILE *file = fopen(path, "re");
    if (!file) return false;
    while (!found && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        if (strncmp(line, name, length) == 0 && line[length] == '=') {
            snprintf(value, size, "%s", line + length + 1);
            found = true;
        }
    }
    fclose(file);
    return found;
}

static CK_RV number(const char *name) {
    char value[64];
    return setting(name, value, sizeof value) ? strtoul(value, NULL, 0) : 0;
}

/* CRASH=NAME, HANG=NAME and NAME=CKR for any of the functions below. */
static CK_RV before(const char *name) {
    char value[64];
    if (setting("crash", value, sizeof value) && strcmp(value, name) == 0) raise(SIGSEGV);
    if (setting("hang", value, sizeof value) && strcmp(value, name) == 0)
        for (;;) pause();
    return number(name);
}

static CK_RV get_token_info(CK_SLOT_ID slot, CK_TOKEN_INFO_PTR info) {
    CK_RV rv = real->C_GetTokenInfo(slot, info);
    if (rv == CKR_OK) info->flags |= number("flags");
    return rv;
}

static CK_RV open_session(CK_SLOT_ID slot, CK_FLAGS flags, void *data, CK_NOTIFY notify, CK_SESSION_HANDLE_PTR new) {
    CK_RV rv = before("C_OpenSession");
    long limit = (long)number("sessions");
    if (rv != CKR_OK) return rv;
    if (number("read-only") && (flags & CKF_RW_SESSION)) return CKR_TOKEN_WRITE_PROTECTED;
    pthread_mutex_lock(&lock);
    if (limit && sessions_open >= limit)
        rv = CKR_SESSION_COUNT;
    else if ((rv = real->C_OpenSession(slot, flags, data, notify, new)) == CKR_OK)
        sessions_open++;
    pthread_mutex_unlock(&lock);
    return rv;
}

static CK_RV close_session(CK_SESSION_HANDLE session) {
    CK_RV rv = real->C_CloseSession(session);
    pthread_mutex_lock(&lock);
    if (rv == CKR_OK) sessions_open--;
    pthread_mutex_unlock(&lock);
    return rv;
}

/* PINPAD=PIN is what somebody types there; without it nobody comes. PINPAD-WAIT=1: nobody has come yet. */
static CK_RV login(CK_SESSION_HANDLE session, CK_USER_TYPE user, CK_UTF8CHAR_PTR pin, CK_ULONG length) {
    char typed[64];
    CK_RV rv = before("C_Login");
    if (rv != CKR_OK) return rv;
    if (pin) return real->C_Login(session, user, pin, length);
    while (number("pinpad-wait")) usleep(20000);
    if (!setting("pinpad", typed, sizeof typed)) return CKR_FUNCTION_CANCELED;
    return real->C_Login(session, user, (CK_UTF8CHAR_PTR)typed, strlen(typed));
}

static CK_RV create_object(CK_SESSION_HANDLE session, CK_ATTRIBUTE_PTR t, CK_ULONG count, CK_OBJECT_HANDLE_PTR new) {
    CK_RV rv = before("C_CreateObject");
    return rv ? rv : real->C_CreateObject(session, t, count, new);
}

static CK_RV sign_init(CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE key) {
    CK_RV rv = before("C_SignInit");
    return rv ? rv : real->C_SignInit(session, mechanism, key);
}

static bool low_order(const ecdh1_params *params) {
    for (CK_ULONG i = 0; i < params->public_length; i++)
        if (params->public[i] != 0) return false;
    return true;
}

static CK_RV derive_key(CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism, CK_OBJECT_HANDLE key,
                        CK_ATTRIBUTE_PTR template, CK_ULONG count, CK_OBJECT_HANDLE_PTR new) {
    ecdh1_params params = *(ecdh1_params *)mechanism->pParameter;
    CK_MECHANISM asked = {mechanism->mechanism, &params, sizeof params};
    CK_BYTE base[32] = {9};
    char value[64];
    unsigned char reads = 0;
    CK_RV rv = before("C_DeriveKey");
    if (rv != CKR_OK) return rv;
    if (number("kdf-only")) {
        if (params.kdf == CKD_NULL) return CKR_MECHANISM_PARAM_INVALID;
        params.kdf = CKD_NULL;
    }
    if (low_order(&params) && setting("low-order", value, sizeof value)) {
        params.public = base;
        reads = strcmp(value, "zeros") == 0 ? 2 : 0;
    } else if (number("unreadable"))
        reads = 1;
    else if (number("wrong") && memcmp(params.public, base, 32) != 0)
        reads = 3;
    rv = real->C_DeriveKey(session, &asked, key, template, count, new);
    if (rv == CKR_OK && *new < SEEN) derived[*new] = reads;
    return rv;
}

static CK_RV get_attribute_value(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_PTR attributes,
                                 CK_ULONG count) {
    unsigned char reads = object < SEEN ? derived[object] : 0;
    CK_RV rv = before("C_GetAttributeValue");
    if (rv != CKR_OK) return rv;
    if (attributes->type == CKA_VALUE && reads == 1) {
        attributes->ulValueLen = CK_UNAVAILABLE_INFORMATION;
        return CKR_ATTRIBUTE_SENSITIVE;
    }
    rv = real->C_GetAttributeValue(session, object, attributes, count);
    if (attributes->type == CKA_VALUE && rv == CKR_ATTRIBUTE_SENSITIVE && number("value-readable")) {
        attributes->ulValueLen = 32;
        return CKR_OK;
    }
    if (attributes->type == CKA_VALUE && rv == CKR_OK && attributes->pValue) {
        if (reads == 2) memset(attributes->pValue, 0, attributes->ulValueLen);
        if (reads == 3) *(CK_BYTE *)attributes->pValue ^= 1;
    }
    return rv;
}

static CK_RV destroy_object(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object) {
    if (object < SEEN) derived[object] = 0;
    return real->C_DestroyObject(session, object);
}

CK_RV C_GetFunctionList(CK_FUNCTION_LIST_PTR_PTR out) {
    char path[4096];
    if (!real) {
        CK_RV (*get)(CK_FUNCTION_LIST_PTR_PTR);
        void *module;
        if (!setting("module", path, sizeof path) || !(module = dlopen(path, RTLD_NOW | RTLD_LOCAL)))
            return CKR_GENERAL_ERROR;
        get = (CK_RV(*)(CK_FUNCTION_LIST_PTR_PTR))dlsym(module, "C_GetFunctionList");
        if (!get || get(&real) != CKR_OK) return CKR_GENERAL_ERROR;
        list = *real;
        list.C_GetFunctionList = C_GetFunctionList;
        list.C_GetTokenInfo = get_token_info;
        list.C_OpenSession = open_session;
        list.C_CloseSession = close_session;
        list.C_Login = login;
        list.C_CreateObject = create_object;
        list.C_SignInit = sign_init;
        list.C_DeriveKey = derive_key;
        list.C_GetAttributeValue = get_attribute_value;
        list.C_DestroyObject = destroy_object;
    }
    *out = &list;
    return CKR_OK;
}
