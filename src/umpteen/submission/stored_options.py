"""Which options of an executor a store may keep: whoever may read the job reads them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from umpteen.store.address import is_remote
from umpteen.store.base import Store

__all__ = ["leave_out_secrets"]

_VARIABLES = "env_vars"  # of Ray's runtime_env
_SECRET = re.compile(
    r"secret|token|passw|credential|(?:access|api|auth|private)_?key", re.IGNORECASE
)


def leave_out_secrets(store: Store, options: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The options that may be put into a store, and the names of those that are secret.

    In a folder the file is its owner's alone, so that all of them may.
    """
    kept = dict(options)
    if not is_remote(store.address):
        return kept, []
    left_out = []
    for name, table in options.items():
        if not isinstance(table, Mapping):
            continue
        secret = [key for key in table if key == _VARIABLES or _SECRET.search(key)]
        kept[name] = {key: value for key, value in table.items() if key not in secret}
        left_out += [f"{name}.{key}" for key in secret]
    return kept, left_out
