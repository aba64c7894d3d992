"""fsspec's files in memory, for tests that use them from several threads."""

from __future__ import annotations

import io
import threading
from typing import Any

from fsspec import register_implementation
from fsspec.implementations.memory import MemoryFileSystem

__all__ = ["register_memory"]

_LOCK = threading.RLock()


class WholeMemoryFileSystem(MemoryFileSystem):  # type: ignore[misc]
    """Files are put whole, and a reader has a copy: fsspec's own share one position."""

    def _open(self, path: str, mode: str = "rb", **more: Any) -> Any:
        with _LOCK:
            opened = super()._open(path, mode, **more)
            return io.BytesIO(opened.getvalue()) if mode == "rb" else opened

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        with _LOCK:
            super().pipe_file(path, value, mode=mode)

    def put_file(self, lpath: str, rpath: str, mode: str = "overwrite", **_: Any) -> None:
        with open(lpath, "rb") as file:
            self.pipe_file(rpath, file.read(), mode)

    def cat_file(self, path: str, *arguments: Any, **more: Any) -> Any:
        with _LOCK:
            return super().cat_file(path, *arguments, **more)

    def find(self, path: str, *arguments: Any, **more: Any) -> Any:
        with _LOCK:
            return super().find(path, *arguments, **more)

    def ls(self, path: str, detail: bool = True, **more: Any) -> Any:
        with _LOCK:
            return super().ls(path, detail=detail, **more)

    def rm_file(self, path: str) -> None:
        with _LOCK:
            super().rm_file(path)


def register_memory() -> None:
    """Have `memory://` be of this class."""
    register_implementation("memory", WholeMemoryFileSystem, clobber=True)
