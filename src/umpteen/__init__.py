"""Run umpteen shell commands anywhere, and keep every output.

The names below are loaded when they are asked for: machines that run tasks have the standard
library alone.
"""

from __future__ import annotations

import importlib

from umpteen._version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from umpteen import errors as errors
    from umpteen.api import Job, OpenJob, Task, TaskResult, collect, open_job, run, submit

__all__ = [
    "Job",
    "OpenJob",
    "Task",
    "TaskResult",
    "__version__",
    "collect",
    "open_job",
    "run",
    "submit",
]


def __getattr__(name: str) -> object:
    if name in __all__:
        from umpteen import api

        return getattr(api, name)
    if name == "errors":
        return importlib.import_module("umpteen.errors")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({"errors", *__all__, *(name for name in globals() if name.startswith("__"))})
