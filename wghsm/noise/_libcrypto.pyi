"""What `_steps_build` compiles: one function for each step, on buffers of exact lengths."""

from typing import Final, final

@final
class _Buffer: ...

class _Ffi:
    def from_buffer(self, data: bytearray) -> _Buffer: ...

class _Lib:
    STEP_DONE: Final[int]
    STEP_ZERO_DH: Final[int]
    STEP_AUTHENTICATION: Final[int]
    STEP_FAULT: Final[int]

    def ready(self) -> int: ...
    def read_static(
        self, c: _Buffer, h: _Buffer, ephemeral: bytes, shared: _Buffer, sealed: bytes, opened: _Buffer
    ) -> int: ...
    def read_timestamp(self, c: _Buffer, h: _Buffer, shared: _Buffer, sealed: bytes, opened: _Buffer) -> int: ...
    def write_response(
        self,
        c: _Buffer,
        h: _Buffer,
        private: _Buffer,
        remote_ephemeral: bytes,
        remote_static: bytes,
        psk: _Buffer,
        ephemeral: _Buffer,
        sealed: _Buffer,
    ) -> int: ...
    def write_initiation(
        self,
        c: _Buffer,
        h: _Buffer,
        private: _Buffer,
        remote_static: bytes,
        own_static: bytes,
        shared: _Buffer,
        timestamp: bytes,
        ephemeral: _Buffer,
        sealed_static: _Buffer,
        sealed_timestamp: _Buffer,
    ) -> int: ...
    def read_response(
        self,
        c: _Buffer,
        h: _Buffer,
        private: _Buffer,
        ephemeral: bytes,
        shared: _Buffer,
        psk: _Buffer,
        sealed: bytes,
    ) -> int: ...
    def split(self, c: _Buffer, one: _Buffer, two: _Buffer) -> int: ...

ffi: _Ffi
lib: _Lib
