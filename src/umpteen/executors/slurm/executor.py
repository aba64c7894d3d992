"""Batches in Slurm's queue: arrays of sbatch, one element for each batch.

What is asked and answered is worked out in `options`, `arrays`, `script` and `answers`. The
runner, as one zip file, and the scripts are put into the results folder, which nodes must see.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from umpteen.errors import BackendError, SettingsError
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
from umpteen.executors.slurm.answers import NodeKind, find_reason, read_state, say_reason
from umpteen.executors.slurm.arrays import ArrayJob, Element, build_arrays
from umpteen.executors.slurm.cluster import Cluster, Handle, QueueAnswer, find_cluster, parse_handle
from umpteen.executors.slurm.runs import SlurmRuns
from umpteen.executors.slurm.script import (
    ScriptPlaces,
    build_job_name,
    build_sbatch_options,
    build_script,
)
from umpteen.executors.zipapp import build_zipapp
from umpteen.job.slurm_options import parse_options
from umpteen.store.address import is_remote, open_store
from umpteen.store.layout import logs_folder, runner_key, script_key

__all__ = ["SlurmExecutor"]


class SlurmExecutor(Executor):
    """Submits batches with the sbatch of this machine; options are any of sbatch's."""

    name = "slurm"
    abilities = Abilities(
        dependencies=True, capabilities=False, reconnect=True, is_engine=True,
        batches_most=10_000, start_up_s=1.0,
    )  # fmt: skip

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self.given = parse_options(options)

    def submit(
        self, request: SubmitRequest, on_progress: OnProgress = ignore_progress
    ) -> dict[str, str]:
        """One call of sbatch for each array; where one is refused, none of the others runs."""
        if is_remote(request.address):
            raise SettingsError(
                "the executor 'slurm' needs its results in a folder that all nodes see",
                "write --results /shared/{name}",
            )
        cluster = find_cluster()
        config = cluster.read_config()
        places = _put_runner(request)
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
            batch: Handle(config.cluster, job, index, request.mark)
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
        slots = max(1, request.slots)
        name = self.given.get("job-name") or os.path.basename(request.address)
        name = build_job_name(name, request.mark, number)
        options = build_sbatch_options(array, self.given, slots, name, after)
        script = build_script(array, options, places, slots)
        key = script_key(request.mark, number)
        open_store(request.address).replace(key, script.encode())
        return cluster.submit(options, script, request.environment)

    def poll(self, handles: Sequence[str]) -> dict[str, BatchState]:
        """What one squeue says of all; what it no longer knows has ended."""
        found = dict.fromkeys(handles, BatchState.UNKNOWN)
        known, queue = _look(handles)
        if queue is not None:
            for handle in known:
                line = queue.find(handle)
                found[str(handle)] = read_state(line.state) if line else BatchState.ENDED
        return found

    def wake(self, handles: Sequence[str]) -> None:
        """Send the runners of these the signal by which they look at the mark now."""
        _signal(find_cluster(), handles)

    def cancel(self, handles: Sequence[str]) -> None:
        """Take out of the queue what waits, and have runners look at the mark now."""
        cluster = find_cluster()
        known, queue = _look(handles)
        waiting = [h for h in known if _is_in(queue, h, BatchState.QUEUED)]
        cluster.cancel(_group_by_job(waiting), "--state=PENDING")
        _signal(cluster, handles)

    def count_workers(self, slots: int, cpus: int = 1) -> int:
        """How many batches the nodes of its partition have room for."""
        wanted = max(1, slots) * max(1, cpus)
        return sum(kind.number * (kind.cpus // wanted) for kind in self._list_nodes())

    def _list_nodes(self) -> list[NodeKind]:
        said = os.environ.get("SBATCH_PARTITION", "")  # which sbatch itself would take
        return find_cluster().list_nodes(self.given.get("partition", said))

    def lacks(self, tasks: Sequence[TaskNeeds], slots: int) -> Lack | None:
        """By the largest nodes of its partition, as all slots of a batch are on one."""
        slots = max(1, slots)
        if max((needs.cpus for needs in tasks), default=0) <= 1 and slots == 1:
            tasks = [needs._replace(cpus=0) for needs in tasks]
        nodes = self._list_nodes() if any(map(any, tasks)) else []
        if not nodes:
            return None
        most_cpus, most_memory = (
            max(getattr(n, what) for n in nodes) for what in ("cpus", "memory")
        )
        for number, needs in enumerate(tasks):
            cpus, memory = slots * needs.cpus, slots * needs.memory
            if cpus > most_cpus:
                limit = f"a node of slurm has at most {most_cpus}"
                return Lack(number, cpus, "cpus", limit, _hint_lack("--cpus", most_cpus // slots))
            if memory > most_memory:
                limit = f"a node of slurm has at most {most_memory >> 20}"
                hint = _hint_lack("--memory", (most_memory >> 20) // slots, "M")
                return Lack(number, -(-memory >> 20), "MB of memory", limit, hint)
        return None

    def why_waiting(self, handles: Sequence[str]) -> str:
        """The scheduler's reason for what waits."""
        known, queue = _look(handles)
        if not handles:
            return ""
        if queue is None:
            return "Slurm does not answer"
        reason = find_reason(line for handle in known if (line := queue.find(handle)))
        return f"waiting in Slurm's queue: {say_reason(reason)}" if reason else ""


def _hint_lack(flag: str, most: int, unit: str = "") -> str:
    return f"name a partition with larger nodes, or write {flag} {most}{unit} or fewer slots"


def _put_runner(request: SubmitRequest) -> ScriptPlaces:
    """Have the runner, and the folder for what it says, in the results folder."""
    packed = build_zipapp()
    store = open_store(request.address)
    key = runner_key(packed.digest)
    store.create(key, packed.content)
    return ScriptPlaces(
        request.address, request.store.id, store.path(key), logs_folder(request.mark)
    )


def _find_living(cluster: Cluster, earlier: Mapping[str, str]) -> dict[str, str]:
    """Batches of former submissions that have not ended, each as sbatch names its element."""
    handles = {batch: handle for batch, text in earlier.items() if (handle := parse_handle(text))}
    queue = cluster.read_queue(frozenset(h.job for h in handles.values())) if handles else None
    return {
        batch: f"{handle.job}_{handle.element}"
        for batch, handle in handles.items()
        if not _is_in(queue, handle, BatchState.ENDED)
    }


def _name_element(element: Element, jobs: Sequence[int]) -> str:
    job = jobs[element.array]
    return str(job) if element.position is None else f"{job}_{element.position}"


def _look(handles: Sequence[str]) -> tuple[list[Handle], QueueAnswer | None]:
    """Those that are of this cluster, and what its queue says; None: it does not answer."""
    cluster = find_cluster()
    parsed = [handle for text in handles if (handle := parse_handle(text))]
    try:
        name = cluster.read_config(is_patient=False).cluster if parsed else ""
    except BackendError:
        return [], None
    known = [handle for handle in parsed if handle.cluster == name]
    if not known:
        return [], None
    return known, cluster.read_queue(frozenset(handle.job for handle in known))


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


def _signal(cluster: Cluster, handles: Sequence[str]) -> None:
    known, queue = _look(handles)
    running = [handle for handle in known if _is_in(queue, handle, BatchState.RUNNING)]
    cluster.cancel(_group_by_job(running), "--batch", "--signal=USR1", "--state=RUNNING")
