"""The part of Cryptoki's C interface that wghsm calls itself, as ctypes sees it (PKCS#11 2.40 on Linux).

Used by `module` (C_Initialize with locking) and `_calls` (objects, derive, sign). Functions come from the list
that C_GetFunctionList gives: NSS exports no C_Initialize symbol.
"""

import ctypes
from collections.abc import Callable
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_ubyte, c_ulong, c_void_p

__all__ = [
    "CKF_OS_LOCKING_OK",
    "UNAVAILABLE",
    "Attribute",
    "Ecdh1Params",
    "FunctionList",
    "InitializeArgs",
    "Mechanism",
    "TokenInfo",
    "load_functions",
]

CKF_OS_LOCKING_OK = 0x2
UNAVAILABLE = c_ulong(-1).value
"""CK_UNAVAILABLE_INFORMATION as a length: the token will not give the attribute."""


class Attribute(Structure):
    """CK_ATTRIBUTE."""

    _fields_ = [("type", c_ulong), ("value", c_void_p), ("length", c_ulong)]


class Mechanism(Structure):
    """CK_MECHANISM."""

    _fields_ = [("mechanism", c_ulong), ("parameter", c_void_p), ("length", c_ulong)]


class Ecdh1Params(Structure):
    """CK_ECDH1_DERIVE_PARAMS."""

    _fields_ = [
        ("kdf", c_ulong),
        ("shared_length", c_ulong),
        ("shared", c_void_p),
        ("public_length", c_ulong),
        ("public", c_void_p),
    ]


class InitializeArgs(Structure):
    """CK_C_INITIALIZE_ARGS; `reserved` carries the module's init string."""

    _fields_ = [
        ("create_mutex", c_void_p),
        ("destroy_mutex", c_void_p),
        ("lock_mutex", c_void_p),
        ("unlock_mutex", c_void_p),
        ("flags", c_ulong),
        ("reserved", c_char_p),
    ]


class TokenInfo(Structure):
    """CK_TOKEN_INFO; versions are major and minor."""

    _fields_ = [
        ("label", c_ubyte * 32),
        ("manufacturer", c_ubyte * 32),
        ("model", c_ubyte * 16),
        ("serial", c_ubyte * 16),
        ("flags", c_ulong),
        ("session_counts", c_ulong * 4),
        ("max_pin_length", c_ulong),
        ("min_pin_length", c_ulong),
        ("memory", c_ulong * 4),
        ("hardware", c_ubyte * 2),
        ("firmware", c_ubyte * 2),
        ("utc_time", c_ubyte * 16),
    ]


# The order of CK_FUNCTION_LIST.
_NAMES = (
    "C_Initialize C_Finalize C_GetInfo C_GetFunctionList C_GetSlotList C_GetSlotInfo C_GetTokenInfo "
    "C_GetMechanismList C_GetMechanismInfo C_InitToken C_InitPIN C_SetPIN C_OpenSession C_CloseSession "
    "C_CloseAllSessions C_GetSessionInfo C_GetOperationState C_SetOperationState C_Login C_Logout C_CreateObject "
    "C_CopyObject C_DestroyObject C_GetObjectSize C_GetAttributeValue C_SetAttributeValue C_FindObjectsInit "
    "C_FindObjects C_FindObjectsFinal C_EncryptInit C_Encrypt C_EncryptUpdate C_EncryptFinal C_DecryptInit C_Decrypt "
    "C_DecryptUpdate C_DecryptFinal C_DigestInit C_Digest C_DigestUpdate C_DigestKey C_DigestFinal C_SignInit C_Sign "
    "C_SignUpdate C_SignFinal C_SignRecoverInit C_SignRecover C_VerifyInit C_Verify C_VerifyUpdate C_VerifyFinal "
    "C_VerifyRecoverInit C_VerifyRecover C_DigestEncryptUpdate C_DecryptDigestUpdate C_SignEncryptUpdate "
    "C_DecryptVerifyUpdate C_GenerateKey C_GenerateKeyPair C_WrapKey C_UnwrapKey C_DeriveKey"
)
_ORDER = _NAMES.split()


class _RawList(Structure):
    _fields_ = [("major", c_ubyte), ("minor", c_ubyte), ("functions", c_void_p * len(_ORDER))]


_H = c_ulong
_HP = POINTER(c_ulong)
_AP = POINTER(Attribute)
_MP = POINTER(Mechanism)
_V = c_void_p


class FunctionList:
    """The C functions that wghsm calls, by their Cryptoki names; each returns a CKR value and releases the GIL."""

    def __init__(self, raw: _RawList) -> None:
        def function(name: str, *arguments: type) -> Callable[..., int]:
            return CFUNCTYPE(c_ulong, *arguments)(address(name))

        def address(name: str) -> int:
            return raw.functions[_ORDER.index(name)] or 0

        self.initialize = function("C_Initialize", _V)
        self.finalize = function("C_Finalize", _V)
        self.get_token_info = function("C_GetTokenInfo", _H, _V)
        self.init_token = function("C_InitToken", _H, _V, _H, _V)
        self.init_pin = function("C_InitPIN", _H, _V, _H)
        self.open_session = function("C_OpenSession", _H, _H, _V, _V, _HP)
        self.close_session = function("C_CloseSession", _H)
        self.close_all_sessions = function("C_CloseAllSessions", _H)
        self.login = function("C_Login", _H, _H, _V, _H)
        self.logout = function("C_Logout", _H)
        self.create_object = function("C_CreateObject", _H, _AP, _H, _HP)
        self.copy_object = function("C_CopyObject", _H, _H, _AP, _H, _HP)
        self.destroy_object = function("C_DestroyObject", _H, _H)
        self.get_attribute_value = function("C_GetAttributeValue", _H, _H, _AP, _H)
        self.set_attribute_value = function("C_SetAttributeValue", _H, _H, _AP, _H)
        self.find_objects_init = function("C_FindObjectsInit", _H, _AP, _H)
        self.find_objects = function("C_FindObjects", _H, _HP, _H, _HP)
        self.find_objects_final = function("C_FindObjectsFinal", _H)
        self.encrypt_init = function("C_EncryptInit", _H, _MP, _H)
        self.encrypt = function("C_Encrypt", _H, _V, _H, _V, _HP)
        self.decrypt_init = function("C_DecryptInit", _H, _MP, _H)
        self.decrypt = function("C_Decrypt", _H, _V, _H, _V, _HP)
        self.sign_init = function("C_SignInit", _H, _MP, _H)
        self.sign = function("C_Sign", _H, _V, _H, _V, _HP)
        self.generate_key = function("C_GenerateKey", _H, _MP, _AP, _H, _HP)
        self.generate_key_pair = function("C_GenerateKeyPair", _H, _MP, _AP, _H, _AP, _H, _HP, _HP)
        self.wrap_key = function("C_WrapKey", _H, _MP, _H, _H, _V, _HP)
        self.unwrap_key = function("C_UnwrapKey", _H, _MP, _H, _V, _H, _AP, _H, _HP)
        self.derive_key = function("C_DeriveKey", _H, _MP, _H, _AP, _H, _HP)
        self.derive_addresses = (address("C_DeriveKey"), address("C_GetAttributeValue"), address("C_DestroyObject"))
        """Where the three functions of a derive are, for `_derive.c`."""


def load_functions(path: str) -> FunctionList:
    """Map the module at `path` (a second dlopen gives the same instance) and return its functions.

    Raises OSError when the file cannot be mapped or has no C_GetFunctionList, and when that call fails.
    """
    library = ctypes.CDLL(path)
    try:
        get_function_list = library.C_GetFunctionList
    except AttributeError:
        raise OSError(f"{path} has no C_GetFunctionList: it is no PKCS#11 module") from None
    get_function_list.restype = c_ulong
    pointer = POINTER(_RawList)()
    ckr = get_function_list(ctypes.byref(pointer))
    if ckr != 0 or not pointer:
        raise OSError(f"{path}: C_GetFunctionList failed ({ckr:#x})")
    return FunctionList(pointer.contents)
