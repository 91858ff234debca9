"""What `_derive_build` compiles."""

from typing import Final, final

@final
class _Pointer:
    def __getitem__(self, place: int) -> int: ...

class _Ffi:
    NULL: _Pointer
    def cast(self, kind: str, address: int | None) -> _Pointer: ...
    def new(self, kind: str) -> _Pointer: ...

class _Lib:
    DERIVE_DONE: Final[int]
    DERIVE_KEY: Final[int]
    DERIVE_VALUE: Final[int]
    DERIVE_DESTROY: Final[int]

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

ffi: _Ffi
lib: _Lib
