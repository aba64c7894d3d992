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
from umpteen.executors.slurm.arrays import ArrayJob, Element, build_arrays
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
from umpteen.executors.slurm.script import (
    ScriptPlaces,
    build_job_name,
    build_sbatch_options,
    build_script,
)
from umpteen.executors.zipapp import build_zipapp
from umpteen.job.slurm_options import parse_options
from umpteen.model.variables import SBATCH_PARTITION
from umpteen.store.address import is_remote, open_store
from umpteen.store.layout import logs_folder, runner_key, script_key
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
        config = cluster.read_config()
        places = _find_places(request)
        packed = build_zipapp()
        open_store(request.address).create(runner_key(packed.digest), packed.content)
        arrays = build_arrays(request.orders, config.array_size)
        earlier = _find_living(cluster, request.earlier)
        jobs: list[int] = []
        try:
            for number, array in enumerate(arrays):
                on_progress(f"submitting array {number + 1} of {len(arrays)} to Slurm")
                after = [_name_element(element, jobs) for element in array.after]
                after += [earlier[name] for name in array.earlier if name in earlier]
                jobs.append(self._submit_array(cluster, request, places, array, number, after))
        except BaseException:
            cluster.cancel({job: range(len(arrays[n].batches)) for n, job in enumerate(jobs)})
            raise
        handles = {
            batch: Handle(cluster.read_name(), job, index, request.mark)
            for job, array in zip(jobs, arrays, strict=True)
            for index, batch in enumerate(array.batches)
        }
        self.own_runs = SlurmRuns(cluster, request.address, handles)
        return {batch: str(handles[batch]) for batch in request.batches}

    def _submit_array(
        self,
        cluster: Cluster,
        request: SubmitRequest,
        places: ScriptPlaces,
        array: ArrayJob,
        number: int,
        after: Sequence[str],
    ) -> int:
        options, script = self._describe_array(request, places, array, number, after)
        key = script_key(request.mark, number)
        open_store(request.address).replace(key, script.encode())
        return cluster.submit(options, script, request.environment)

    def _describe_array(
        self,
        request: SubmitRequest,
        places: ScriptPlaces,
        array: ArrayJob,
        number: int,
        after: Sequence[str],
    ) -> tuple[dict[str, str], str]:
        """sbatch's options and the script for an array. after: elements, as sbatch names them."""
        slots = max(1, request.slots)
        name = self.given.get("job-name") or os.path.basename(request.address)
        name = build_job_name(name, request.mark, number)
        options = build_sbatch_options(array, self.given, slots, name, after)
        return options, build_script(array, options, places, slots, self.own.setup)

    def preview(self, request: SubmitRequest) -> list[PreviewSection]:
        """The arrays with their scripts, the core-hours that they ask for, and what limits them."""
        cluster = self.cluster
        config = cluster.read_config()
        arrays = build_arrays(request.orders, config.array_size)
        names = [f"ARRAY{number}" for number in range(len(arrays))]  # numbers come with sbatch
        places, previews = _find_places(request), []
        for number, array in enumerate(arrays):
            after = [_name_element(element, names) for element in array.after]
            described = self._describe_array(request, places, array, number, after)
            previews.append(ArrayPreview(len(array.batches), *described))
        limits = Limits(config.array_size, config.job_count, cluster.read_submit_limit())
        return build_preview(previews, limits, os.environ.get("SBATCH_TIMELIMIT", ""))

    def poll(self, handles: Sequence[str]) -> dict[str, BatchState]:
        """What one squeue says of all; what it no longer knows has ended."""
        found = dict.fromkeys(handles, BatchState.UNKNOWN)
        for cluster, known in _group_by_cluster(handles):
            queue = _read_queue(cluster, known)
            for handle in known if queue else ():
                line = queue.find(handle) if queue else None
                found[str(handle)] = read_state(line.state) if line else BatchState.ENDED
        return found

    def wake(self, handles: Sequence[str]) -> None:
        """Send the runners of these the signal by which they look at the mark now."""
        for cluster, known in _group_by_cluster(handles):
            _signal(cluster, known)

    def cancel(self, handles: Sequence[str]) -> None:
        """Take out of the queue what waits, and have runners look at the mark now."""
        for cluster, known in _group_by_cluster(handles):
            queue = _read_queue(cluster, known)
            waiting = [h for h in known if _is_in(queue, h, BatchState.QUEUED)]
            cluster.cancel(_group_by_job(waiting), "--state=PENDING")
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

    def why_waiting(self, handles: Sequence[str]) -> str:
        """The scheduler's reason for what waits."""
        lines: list[QueueLine] = []
        for cluster, known in _group_by_cluster(handles):
            queue = _read_queue(cluster, known)
            if queue is None:
                return "Slurm does not answer"
            lines += [line for handle in known if (line := queue.find(handle))]
        reason = find_reason(lines)
        return f"waiting in Slurm's queue: {say_reason(reason)}" if reason else ""


def _find_places(request: SubmitRequest) -> ScriptPlaces:
    """Where nodes will find the runner, and a folder for what it says."""
    key = runner_key(build_zipapp().digest)
    folder = _find_folder(request.address)
    return ScriptPlaces(folder, request.store.id, f"{folder}/{key}", logs_folder(request.mark))


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


def _find_living(cluster: Cluster, earlier: Mapping[str, str]) -> dict[str, str]:
    """Batches of former submissions that have not ended, each as sbatch names its element."""
    handles = {batch: handle for batch, text in earlier.items() if (handle := parse_handle(text))}
    queue = _read_queue(cluster, list(handles.values())) if handles else None
    return {
        batch: f"{handle.job}_{handle.element}"
        for batch, handle in handles.items()
        if not _is_in(queue, handle, BatchState.ENDED)
    }


def _name_element(element: Element, jobs: Sequence[int | str]) -> str:
    job = jobs[element.array]
    return str(job) if element.position is None else f"{job}_{element.position}"


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
    return cluster.read_queue(frozenset(handle.job for handle in handles))


def _is_in(queue: QueueAnswer | None, handle: Handle, state: BatchState) -> bool:
    """Whether the queue answers, and says so of an element; it has ended where none is there."""
    if queue is None:
        return False
    line = queue.find(handle)
    return (read_state(line.state) if line else BatchState.ENDED) == state


def _group_by_job(handles: Sequence[Handle]) -> dict[int, list[int]]:
    jobs: dict[int, list[int]] = {}
    for handle in handles:
        jobs.setdefault(handle.job, []).append(handle.element)
    return jobs


def _signal(cluster: Cluster, handles: Sequence[Handle]) -> None:
    queue = _read_queue(cluster, handles)
    running = [handle for handle in handles if _is_in(queue, handle, BatchState.RUNNING)]
    cluster.cancel(_group_by_job(running), "--batch", "--signal=USR1", "--state=RUNNING")
