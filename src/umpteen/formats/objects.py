"""The keys of a job file as a program holds them: plain values, which nobody wrote to a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from umpteen.formats.documents import Path, Source, SourcePosition

__all__ = ["ObjectDocument"]


class ObjectDocument:
    """A job in memory, read as a file is; errors tell the key, and no place."""

    is_text = False

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.source = Source("", b"", folder="")
        self._values = {key: value for key, value in content.items() if value is not None}

    def list_keys(self) -> list[str]:
        """The top-level keys that have a value."""
        return list(self._values)

    def value(self, key: str) -> Any:
        """The plain value."""
        return self._values[key]

    def free(self, key: str) -> Any:
        """The plain value."""
        return self._values[key]

    def convert(self, key: str, kind: Any) -> Any:
        """The value as that type; lets msgspec.ValidationError through."""
        return msgspec.convert(self._values[key], kind)

    def convert_values(self, values: Mapping[str, Any], kind: Any) -> Any:
        """Values of this document as that type; lets msgspec.ValidationError through."""
        return msgspec.convert(values, kind)

    def find(self, path: Path) -> SourcePosition | None:
        """The value at `path`, in no line; None where there is none."""
        found: Any = self._values
        for step in path:
            is_there = (
                step in found
                if isinstance(found, Mapping)
                else isinstance(found, Sequence) and isinstance(step, int) and step < len(found)
            )
            if not is_there:
                return None
            found = found[step]
        return SourcePosition(0, found)
