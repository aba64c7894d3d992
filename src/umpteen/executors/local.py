"""Batches on this machine: one runner, a process of its own, streams through all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from umpteen.errors import SettingsError
from umpteen.executors.base import (
    Abilities,
    BatchState,
    Executor,
    Lack,
    OnProgress,
    SubmitRequest,
    TaskNeeds,
    ignore_progress,
)
from umpteen.executors.own_process import (
    OwnProcess,
    poll_handles,
    start_process,
    wake_handles,
)
from umpteen.executors.own_runs import OwnRuns
from umpteen.model.names import is_capability
from umpteen.runner.launch import build_leased_command
from umpteen.runner.lease import Lease
from umpteen.system.resources import in_mb, list_lacks, read_capacity

__all__ = ["LocalExecutor"]


class LocalExecutor(Executor):
    """Starts one runner, a process of its own, for all batches of a submission.

    The runner ends its tasks kindly when this process ends, unless `detach` is among the options.
    `capabilities` are what this machine has, by name, for tasks that need them.
    """

    name = "local"
    abilities = Abilities(
        dependencies=True, capabilities=False, reconnect=True, is_engine=False,
        batches_most=0, start_up_s=0.1,
    )  # fmt: skip

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        unknown = sorted(set(options) - {"detach", "capabilities"})
        if unknown:
            raise SettingsError(
                f"the executor 'local' has no option {unknown[0]!r}",
                "set slots beside it: slots: 8, or --slots 8",
            )
        self.is_attached = not options.get("detach")
        self.capabilities = _parse_capabilities(options.get("capabilities"))
        if "capabilities" in options:
            self.abilities = self.abilities._replace(capabilities=True)
        self.own_runs: OwnRuns = _NoRunner(is_attached=self.is_attached)

    def submit(
        self, request: SubmitRequest, on_progress: OnProgress = ignore_progress
    ) -> dict[str, str]:
        """Start the runner; its lease is held before it lives, so that no look is too early."""
        del on_progress  # nothing is waited for
        runner = self.own_runs = _start(request, is_attached=self.is_attached)
        return dict.fromkeys(request.batches, runner.handle)

    def poll(self, handles: Sequence[str]) -> dict[str, BatchState]:
        """By the leases of this machine; UNKNOWN for other machines."""
        return poll_handles(handles, self.own_runs)

    def wake(self, handles: Sequence[str]) -> None:
        """Have the runners of the handles look for the mark now, not within seconds."""
        wake_handles(handles)

    def lacks(self, tasks: Sequence[TaskNeeds], slots: int) -> Lack | None:
        """By what this machine has."""
        del slots
        if not any(map(any, tasks)):
            return None
        here = read_capacity()
        for number, needs in enumerate(tasks):
            for name in needs.capabilities:
                if name not in self.capabilities:
                    known = " and ".join(map(repr, self.capabilities)) or "none"
                    limit = f"this machine is said to have {known}"
                    return Lack(number, 0, name, limit, self.hint_capabilities([name]))
            lacks = list_lacks(needs.cpus, needs.gpus, needs.memory, here)
            for wanted, most, what in map(in_mb, lacks):
                hint = _hint_lack(what, most)
                return Lack(number, wanted, what, f"this machine has {most}", hint)
        return None

    def hint_capabilities(self, names: Sequence[str]) -> str:
        """It is told what this machine has."""
        all_names = ", ".join(sorted({*self.capabilities, *names}))
        return f"executor: {{local: {{capabilities: [{all_names}]}}}} says what this machine has"


class _NoRunner(OwnRuns):
    """Before the first submission."""

    def __init__(self, *, is_attached: bool) -> None:
        self.is_attached = is_attached


def _start(request: SubmitRequest, *, is_attached: bool) -> OwnProcess:
    """A new runner for these batches. Raises BackendError."""
    watched = ["--watch-fd=0"] if is_attached else []

    def build_command(lease: Lease) -> list[str]:
        return build_leased_command(lease, request.store, request.batches, request.slots, *watched)

    return start_process(
        request.store, request.slots, build_command, request.environment,
        has_stdin=is_attached, what="a runner",
    )  # fmt: skip


def _parse_capabilities(given: Any) -> Sequence[str]:
    """Those that the option names, one or a list. Raises SettingsError."""
    names = [given] if isinstance(given, str) else [] if given is None else given
    are_texts = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    if not are_texts or not all(map(is_capability, names)):
        raise SettingsError(
            f"'capabilities' of the executor 'local' must be a list of names: {given!r}",
            "write capabilities: [openfoam, gpu]",
        )
    return tuple(dict.fromkeys(names))


def _hint_lack(what: str, most: int) -> str:
    """What to do where a task needs more than there is. most: what there is."""
    if what == "gpus":
        return "UMPTEEN_GPUS says how many there are"
    if what == "cpus":
        return f"write fewer, or --cpus {most} for all tasks; slots are tasks at once, not cores"
    return f"write less, or --memory {most}M for all tasks"
