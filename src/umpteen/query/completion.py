"""Names of tasks, for the completion of words in a shell."""

from __future__ import annotations

import msgspec

from umpteen.history.files import TaskLine
from umpteen.query.registry import find_address
from umpteen.store.address import is_remote, open_store
from umpteen.store.layout import tasks_key

__all__ = ["list_first_tasks"]

_TASKS_MOST, _BYTES_MOST = 1000, 1 << 20


def list_first_tasks(job: str) -> list[str]:
    """Names of the tasks that were submitted first. Raises InputError and StoreError."""
    address = find_address(job)
    if is_remote(address):  # who types does not wait for a network
        return []
    content = open_store(address).read(tasks_key(1), size=_BYTES_MOST) or b""
    lines = content[: content.rfind(b"\n") + 1].splitlines()[:_TASKS_MOST]
    tasks = [msgspec.json.decode(line, type=TaskLine) for line in lines]
    return [task.name or str(index) for index, task in enumerate(tasks)]
