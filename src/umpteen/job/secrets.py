"""Which options may be kept where others can read them: all but those that are secret."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["KeptOptions", "split_secrets"]

_VARIABLES = "env_vars"  # of Ray's runtime_env
_SECRET = re.compile(
    r"secret|token|pass_?w|pass_?phrase|^pwd$|credential|^creds?$|^auth|^cookie|^headers$|^sas"
    r"|conn(?:ection)?_?str|customer_?key|key_content|^p?key$"
    r"|(?:access|account|api|auth|encryption|master|private|shared)_?keys?",
    re.IGNORECASE,
)
# http://user:password@host, https://token@host, ?sig=…, a key itself.
_SECRET_VALUE = re.compile(
    r"//[^/@\s]*:[^/@\s]*@|https?://[^/@\s]+@|[?&](?:sig|x-amz-signature)=|PRIVATE KEY",
    re.IGNORECASE,
)
_PASSWORD = re.compile(r"pass_?w|^secret$", re.IGNORECASE)


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
        elif _is_secret(value):
            left_out.append(name)
        else:
            kept[key] = value
    if "username" in kept and any(map(_PASSWORD.search, options)):
        del kept["username"]  # half a pair would be taken for all of it
        left_out.append(f"{prefix}username")
    return KeptOptions(kept, left_out)


def _is_secret(value: object) -> bool:
    """Whether a value says by itself that it is secret, or has in it what is."""
    if isinstance(value, Mapping):
        return bool(split_secrets(value).left_out)
    if isinstance(value, list):
        return any(map(_is_secret, value))
    return bool(_SECRET_VALUE.search(str(value)))
