"""Which options may be kept where others can read them: all but those that are secret."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["KeptOptions", "split_secrets"]

_VARIABLES = "env_vars"  # of Ray's runtime_env
_SECRET = re.compile(
    r"secret|token|passw|passphrase|credential|connection_string|customerkey"
    r"|(?:access|account|api|auth|private|client)_?keys?|^key$",
    re.IGNORECASE,
)
_WITH_LOGIN = re.compile(r"//[^/@\s]*:[^/@\s]*@")  # http://user:password@host


class KeptOptions(NamedTuple):
    """Options without those that are secret."""

    kept: dict[str, Any]
    left_out: list[str]  # the names of the others


def split_secrets(options: Mapping[str, Any], prefix: str = "") -> KeptOptions:
    """The options that may be kept, and the names of those that are secret, as `table.key`."""
    kept: dict[str, Any] = {}
    left_out: list[str] = []
    for key, value in options.items():
        name = f"{prefix}{key}"
        if key == _VARIABLES or _SECRET.search(str(key)):
            left_out.append(name)
        elif isinstance(value, Mapping):
            kept[key], below = split_secrets(value, f"{name}.")
            left_out += below
        elif _WITH_LOGIN.search(str(value)):
            left_out.append(name)
        else:
            kept[key] = value
    return KeptOptions(kept, left_out)
