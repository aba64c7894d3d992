"""Batches in Slurm's queue: arrays of sbatch, one element for each batch.

What is asked and answered is worked out in `options`, `arrays`, `script` and `answers`. The
runner, as one zip file, and the scripts are put into the results folder, which nodes must see.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from umpteen.errors import BackendError, SettingsError
from umpteen.executors.base import (
    NO_NEEDS,
    Abilities,
    BatchState,
    Executor,
    Lack,
    OnProgress,
    PreviewSection,
    Site,
    SubmitRequest,
    TaskNeeds,
    ignore_progress,
)
from umpteen.executors.slurm.answers import QueueLine, find_reason, read_state, say_reason
from umpteen.executors.slurm.arrays import build_arrays
from umpteen.executors.slurm.cluster import Cluster, Handle, QueueAnswer, find_cluster, parse_handle
from umpteen.executors.slurm.nodes import (
    ANY_NODE,
    Amounts,
    count_room,
    count_wanted,
    find_lack,
    find_most,
)
from umpteen.executors.slurm.own_options import OWN_OPTIONS, parse_own
from umpteen.executors.slurm.preview import ArrayPreview, Limits, build_preview
from umpteen.executors.slurm.runs import SlurmRuns
from umpteen.executors.slurm.submission import Submission, find_slurm_name, name_element
from umpteen.job.slurm_options import parse_options
from umpteen.model.variables import SBATCH_PARTITION, SBATCH_TIMELIMIT
from umpteen.store.address import is_remote
from umpteen.system.openssh import HostError, connect, parse_destination

__all__ = ["SlurmExecutor"]

_BEHIND_SSH = "ssh://"


class SlurmExecutor(Executor):
    """Submits batches with the sbatch of this machine; options are any of sbatch's."""

    name = "slurm"
    abilities = Abilities(
        dependencies=True, capabilities=False, reconnect=True, is_engine=True,
        batches_most=10_000, start_up_s=1.0, asks_by_batch=True, previews=True,
    )  # fmt: skip

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self.own = parse_own(options)
        self.given = parse_options({k: v for k, v in options.items() if k not in OWN_OPTIONS})

    @property
    def cluster(self) -> Cluster:
        """That of the commands of its host."""
        return find_cluster(self.own.host)

    def complete(self, address: str) -> Mapping[str, Any]:
        """Slurm's commands are where the results are, unless the options say otherwise."""
        if is_remote(address) and not address.startswith(_BEHIND_SSH):
            raise SettingsError(
                "the executor 'slurm' needs its results in a folder that all nodes see",
                "write --results /shared/{name}, or --results ssh://HOST/shared/{name}",
            )
        host = address.removeprefix(_BEHIND_SSH).partition("/")[0]
        if host == address.partition("/")[0] or self.own.host:
            return self.options
        return {**self.options, "host": host}

    def find_site(self, address: str) -> Site:
        """On nodes the results are a folder."""
        return Site(_find_folder(address), is_here=self.own.host is None)

    def submit(
        self, request: SubmitRequest, on_progress: OnProgress = ignore_progress
    ) -> dict[str, str]:
        """One call of sbatch for each array; where one is refused, none of the others runs."""
        cluster = self.cluster
        submission = self._prepare(request)
        arrays = build_arrays(request.orders, cluster.read_config().array_size)
        submission.submit(cluster, arrays, on_progress)
        handles = {
            batch: Handle(
                cluster.read_name(), submission.prefix, number, index, find_slurm_name(array)
            )
            for number, array in enumerate(arrays)
            for index, batch in enumerate(array.batches)
        }
        self.own_runs = SlurmRuns(cluster, request.address, handles)
        return {batch: str(handles[batch]) for batch in request.batches}

    def _prepare(self, request: SubmitRequest) -> Submission:
        return Submission(request, self.given, self.own.setup, _find_folder(request.address))

    def preview(self, request: SubmitRequest) -> list[PreviewSection]:
        """The arrays with their scripts, the core-hours that they ask for, and what limits them."""
        cluster = self.cluster
        config = cluster.read_config()
        arrays = build_arrays(request.orders, config.array_size)
        names = [f"ARRAY{number}" for number in range(len(arrays))]  # numbers come with sbatch
        submission, previews = self._prepare(request), []
        for number, array in enumerate(arrays):
            after = [name_element(element, names) for element in array.after]
            described = submission.describe(array, number, after)
            previews.append(ArrayPreview(len(array.batches), *described))
        limits = Limits(config.array_size, config.job_count, cluster.read_submit_limit())
        return build_preview(previews, limits, os.environ.get(SBATCH_TIMELIMIT, ""))

    def poll(self, handles: Sequence[str]) -> dict[str, BatchState]:
        """What one squeue says of all; what it no longer knows has ended."""
        found = dict.fromkeys(handles, BatchState.UNKNOWN)
        for cluster, known in _group_by_cluster(handles):
            queue = _read_queue(cluster, known)
            if queue is not None:
                found.update((str(handle), queue.find_state(handle)) for handle in known)
        return found

    def wake(self, handles: Sequence[str]) -> None:
        """Send the runners of these the signal by which they look at the mark now."""
        for cluster, known in _group_by_cluster(handles):
            _signal(cluster, known)

    def cancel(self, handles: Sequence[str]) -> None:
        """Take out of the queue what waits, and have runners look at the mark now."""
        for cluster, known in _group_by_cluster(handles):
            queue = _read_queue(cluster, known)
            if queue is not None:
                cluster.cancel(dict.fromkeys(queue.list_submitters(known), ()))
                waiting = _group_by_job(queue, known, BatchState.QUEUED)
                cluster.cancel(waiting, "--state=PENDING")
            _signal(cluster, known)

    def count_workers(self, slots: int, needs: TaskNeeds = NO_NEEDS) -> int:
        """How many batches the nodes of its partition have room for."""
        wanted = count_wanted(needs, self.given, max(1, slots))
        nodes = self.cluster.list_nodes(self._find_partition(needs))
        return sum(kind.number * count_room(kind, wanted) for kind in nodes)

    def _find_partition(self, needs: TaskNeeds) -> str:
        said = os.environ.get(SBATCH_PARTITION, "")  # which sbatch itself would take
        return needs.options.get("partition") or self.given.get("partition", said)

    def lacks(self, tasks: Sequence[TaskNeeds], slots: int) -> Lack | None:
        """By the largest nodes of each one's partition, as all slots of a batch are on one."""
        slots = max(1, slots)
        most: dict[str, Amounts | None] = {}
        for number, needs in enumerate(tasks):
            wanted = count_wanted(needs, self.given, slots)
            if wanted == ANY_NODE:
                continue
            partition = self._find_partition(needs)
            if partition not in most:
                most[partition] = find_most(self.cluster.list_nodes(partition))
            has = most[partition]
            if has and (lack := find_lack(number, wanted, has, slots)):
                return lack
        return None

    def hint_capabilities(self, names: Sequence[str]) -> str:
        """Nodes have features, which administrators name."""
        return f"write slurm: {{constraint: {'&'.join(names)}}} in its place, by features of nodes"

    def why_waiting(self, handles: Sequence[str]) -> str:
        """The scheduler's reason for what waits."""
        lines: list[QueueLine] = []
        are_left = False  # some that are still to be submitted
        for cluster, known in _group_by_cluster(handles):
            queue = _read_queue(cluster, known)
            if queue is None:
                return "Slurm does not answer"
            lines += [line for handle in known if (line := queue.find(handle))]
            are_left |= bool(queue.list_submitters(known))
        if reason := find_reason(lines):
            return f"waiting in Slurm's queue: {say_reason(reason)}"
        if are_left and not any(read_state(line.state) == BatchState.RUNNING for line in lines):
            return "waiting for room in Slurm's queue: a job there submits the rest as it appears"
        return ""


def _find_folder(address: str) -> str:
    """The results as nodes see them. Raises BackendError."""
    if not address.startswith(_BEHIND_SSH):
        return address
    host, _, path = address.removeprefix(_BEHIND_SSH).partition("/")
    destination = parse_destination(host)
    if not path.startswith("~/") or destination is None:
        return f"/{path}"
    try:
        return f"{connect(destination).home}/{path[2:]}"
    except HostError as error:
        raise BackendError(error.reason, error.hint, transient=error.is_transient) from error


def _group_by_cluster(handles: Sequence[str]) -> Iterator[tuple[Cluster, list[Handle]]]:
    """Those that are handles, with the cluster that knows them."""
    hosts: dict[str, list[Handle]] = {}
    for text in handles:
        if handle := parse_handle(text):
            hosts.setdefault(handle.cluster.partition("@")[2], []).append(handle)
    for host, found in hosts.items():
        yield find_cluster(parse_destination(host)), found


def _read_queue(cluster: Cluster, handles: Sequence[Handle]) -> QueueAnswer | None:
    """What the queue says of these; None where it does not answer, or is another cluster's."""
    try:
        name = cluster.read_name(is_patient=False)
    except BackendError:
        return None
    if any(handle.cluster != name for handle in handles):
        return None
    return cluster.read_queue(handles)


def _group_by_job(
    queue: QueueAnswer, handles: Sequence[Handle], state: BatchState
) -> dict[int, list[int]]:
    """Those that the queue has, and that are so far: the indices of each job."""
    jobs: dict[int, list[int]] = {}
    for handle in handles:
        line = queue.find(handle)
        if line and read_state(line.state) == state:
            jobs.setdefault(line.job, []).append(handle.element)
    return jobs


def _signal(cluster: Cluster, handles: Sequence[Handle]) -> None:
    queue = _read_queue(cluster, handles)
    if queue is not None:
        running = _group_by_job(queue, handles, BatchState.RUNNING)
        cluster.cancel(running, "--batch", "--signal=USR1", "--state=RUNNING")
