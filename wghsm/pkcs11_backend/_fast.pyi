"""What `_derive_build` compiles."""

from collections.abc import Callable
from typing import Final, Literal, final, overload

@final
class _Pointer:
    def __getitem__(self, place: int) -> int: ...

@final
class _Array: ...

@final
class DeriveKey:
    handle: int
    mechanism: int
    template: int
    count: int
    prefix_length: int
    prefix: _Array
    own_public: _Array
    sweeps: int

@final
class _Derived:
    number: int
    ckr: int
    length: int
    at: int
    secret: _Array

@final
class _All: ...

class _Ffi:
    NULL: _Pointer
    def buffer(self, data: _Array) -> bytearray: ...
    def cast(self, kind: str, address: int | None) -> _Pointer: ...
    def gc(self, data: _All | _Pointer, destructor: Callable[[_All], None]) -> _All: ...
    def memmove(self, to: _Array, data: bytes, length: int) -> None: ...
    @overload
    def new(self, kind: Literal["struct derive_key *"]) -> DeriveKey: ...
    @overload
    def new(self, kind: Literal["struct derived *"]) -> _Derived: ...
    @overload
    def new(self, kind: Literal["unsigned long *", "int *"]) -> _Pointer: ...

class _Lib:
    DERIVE_DONE: Final[int]
    DERIVE_KEY: Final[int]
    DERIVE_VALUE: Final[int]
    DERIVE_DESTROY: Final[int]
    DERIVE_SESSION: Final[int]

    def derive(
        self,
        derive_key: int,
        get_attribute_value: int,
        destroy_object: int,
        session: int,
        mechanism: int,
        key: int,
        template: int,
        count: int,
        secret: _Pointer,
        length: _Pointer,
        at: _Pointer,
        keep: bytes | _Pointer,
    ) -> int: ...
    def derivers_new(
        self, sessions: int, derive_key: int, get_attribute_value: int, destroy_object: int
    ) -> _All | _Pointer: ...
    def derivers_end(self, derivers: _All) -> None: ...
    def derivers_drop(self, derivers: _All) -> None: ...
    def derivers_set(self, derivers: _All, place: int, session: int, is_open: bool) -> None: ...
    def derivers_give_back(self, derivers: _All, place: int) -> None: ...
    def derivers_borrow(self, derivers: _All, nanoseconds: int) -> int: ...
    def derivers_start(self, derivers: _All, event: int) -> int: ...
    def derivers_put(self, derivers: _All, number: int, key: DeriveKey, public: bytes) -> int: ...
    def derivers_take(self, derivers: _All, into: _Derived) -> int: ...
    def derivers_longest(self, derivers: _All) -> int: ...

ffi: _Ffi
lib: _Lib
