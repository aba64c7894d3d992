"""Which options of an executor a store may keep: whoever may read the job reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from umpteen.job.secrets import KeptOptions, split_secrets
from umpteen.store.address import is_remote
from umpteen.store.base import Store

__all__ = ["leave_out_secrets"]


def leave_out_secrets(store: Store, options: Mapping[str, Any]) -> KeptOptions:
    """The options that may be put into a store, and the names of those that are secret.

    In a folder the file is its owner's alone, so that all of them may.
    """
    return split_secrets(options) if is_remote(store.address) else KeptOptions(dict(options), [])
