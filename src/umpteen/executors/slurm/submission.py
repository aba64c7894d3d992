"""Brings the arrays of a submission into the queue, itself or by a job there.

Where Slurm takes no more of them just now, a small job in the queue submits the rest as room
appears, so that nobody has to stay for that: see `runner/slurm/submitter.py`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from umpteen.errors import BackendError
from umpteen.executors.base import BatchState, OnProgress, SubmitRequest
from umpteen.executors.slurm.arrays import ArrayJob, Element
from umpteen.executors.slurm.cluster import Cluster, Handle, parse_handle
from umpteen.executors.slurm.preview import count_seconds
from umpteen.executors.slurm.script import (
    ScriptPlaces,
    build_job_name,
    build_prefix,
    build_sbatch_options,
    build_script,
    build_submitter,
    build_submitter_options,
)
from umpteen.executors.zipapp import build_compiled_zipapp
from umpteen.runner.slurm.plan import PlannedArray, Rest, encode_rest
from umpteen.store.address import open_store
from umpteen.store.layout import logs_folder, rest_key, runner_key, script_key, submitter_key

__all__ = ["Submission", "find_slurm_name", "name_element"]

_SUBMITTER_MINUTES, _ROUNDS = 15, 3  # its time limit, of which it takes a third
_PARTS = 4  # into which the room is divided, so that a part of it is soon free


class Submission:
    """One submission.

    given: the user's options of sbatch; setup: his lines for each script; folder: the results as
    nodes see them.
    """

    def __init__(
        self, request: SubmitRequest, given: Mapping[str, str], setup: Sequence[str], folder: str
    ) -> None:
        self._request, self._given, self._setup = request, given, setup
        self._store = open_store(request.address)
        # What the user calls the job, or its own name.
        self._named = given.get("job-name") or os.path.basename(request.address)
        self._packed = build_compiled_zipapp()
        self._places = ScriptPlaces(
            folder,
            request.store.id,
            f"{folder}/{runner_key(self._packed.digest)}",
            logs_folder(request.mark),
        )

    @property
    def prefix(self) -> str:
        """Of the name of each array."""
        return build_prefix(self._named, self._request.mark)

    def _name(self, number: int) -> str:
        """By which an array is known to be ours."""
        return build_job_name(self._named, self._request.mark, number)

    def describe(
        self, array: ArrayJob, number: int, after: Sequence[str] = ()
    ) -> tuple[dict[str, str], str]:
        """sbatch's options and the script for an array. after: elements, as sbatch names them."""
        slots = max(1, self._request.slots)
        options = build_sbatch_options(array, self._given, slots, self._name(number), after)
        limit_s = count_seconds(options.get("time", "")) or 0
        return options, build_script(array, options, self._places, slots, self._setup, limit_s)

    def submit(self, cluster: Cluster, arrays: Sequence[ArrayJob], on_progress: OnProgress) -> None:
        """Have them all in the queue, or none: in order, as later ones are after earlier ones."""
        self._store.create(runner_key(self._packed.digest), self._packed.content)
        config = cluster.read_config()
        earlier = self._list_earlier(cluster)
        living = {batch: where for batch, (_, where) in earlier.items()}
        is_known = all(living.values())
        wanted = sum(len(array.batches) for array in arrays)
        jobs: list[int] = []
        try:
            for number, array in enumerate(
                arrays if is_known and wanted <= config.job_count else []
            ):
                on_progress(f"submitting array {number + 1} of {len(arrays)} to Slurm")
                after = [name_element(element, jobs) for element in array.after]
                after += [living[name] for name in array.earlier if name in living]
                job = self._submit_array(cluster, array, number, after)
                if job is None:
                    break
                jobs.append(job)
            if len(jobs) < len(arrays):
                on_progress("Slurm takes no more jobs at once: one of them submits the rest")
                self._submit_rest(cluster, arrays, len(jobs), earlier, wanted)
        except BaseException:
            cluster.cancel(dict.fromkeys(jobs, ()))
            raise

    def _list_earlier(self, cluster: Cluster) -> dict[str, tuple[Handle, str]]:
        """The batches of former submissions that have not ended, each as sbatch names it.

        Empty for one that a job in the queue has still to submit.
        """
        handles = {b: h for b, text in self._request.earlier.items() if (h := parse_handle(text))}
        name = cluster.read_name()
        handles = {batch: handle for batch, handle in handles.items() if handle.cluster == name}
        queue = cluster.read_queue(handles.values()) if handles else None
        if queue is None:  # then the runners wait for one another
            return {}
        return {
            batch: (handle, f"{line.job}_{handle.element}" if (line := queue.find(handle)) else "")
            for batch, handle in handles.items()
            if queue.find_state(handle) != BatchState.ENDED
        }

    def _submit_array(
        self, cluster: Cluster, array: ArrayJob, number: int, after: Sequence[str]
    ) -> int | None:
        options, script = self.describe(array, number, after)
        self._store.replace(script_key(self._request.mark, number), script.encode())
        return cluster.submit(options, script, self._request.environment, self._name(number))

    def _submit_rest(
        self,
        cluster: Cluster,
        arrays: Sequence[ArrayJob],
        first: int,
        earlier: Mapping[str, tuple[Handle, str]],
        wanted: int,
    ) -> None:
        """Have a job submit the arrays from `first` on. wanted: elements of all."""
        mark, planned = self._request.mark, []
        names = [self._name(number) for number in range(len(arrays))]
        for number, array in enumerate(arrays[first:], first):
            options, script = self.describe(array, number)
            self._store.replace(script_key(mark, number), script.encode())
            after = [name_element(element, names) for element in array.after]
            after_names = [
                find_slurm_name(arrays[element.array]) or names[element.array]
                for element in array.after
            ]
            before = [earlier[batch][0] for batch in array.earlier if batch in earlier]
            after += [f"{handle.name}_{handle.element}" for handle in before]
            after_names += [handle.slurm_name for handle in before]
            if cluster.host is None:  # there it is sbatch's own, of which the submitter's is one
                options = {"chdir": os.getcwd(), **options}
            newest = max(map(int, array.batches))
            planned.append(
                PlannedArray(
                    number, len(array.batches), newest, names[number], options, after,
                    list(dict.fromkeys(after_names)),
                )
            )  # fmt: skip
        limits = [cluster.read_config().job_count, cluster.read_submit_limit() or wanted]
        largest = max(array.size for array in planned)
        most = max(1, (min([*limits, largest]) - 1) // _PARTS)  # the submitter takes room, too
        said_s = count_seconds(self._given.get("time", ""))  # a partition may give no more
        minutes = max(1, min(_SUBMITTER_MINUTES, (said_s or _SUBMITTER_MINUTES * 60) // 60))
        rest = Rest(mark, most, minutes * 60 // _ROUNDS, {}, planned)
        own = build_submitter_options(self._given, rest.name, minutes)
        self._store.replace(rest_key(mark), encode_rest(rest._replace(own=own)))
        script = build_submitter(own, self._places, mark)
        self._store.replace(submitter_key(mark), script.encode())
        if cluster.submit(own, script, self._request.environment, rest.name) is None:
            raise BackendError(
                "Slurm takes no more jobs of yours now, not even one that submits the others",
                "run the same command again when some of them have ended",
                transient=True,
            )


def find_slurm_name(array: ArrayJob) -> str:
    """What its tasks say that Slurm is to call it; empty where they do not."""
    return dict(array.needs.options).get("job-name", "")


def name_element(element: Element, jobs: Sequence[int | str]) -> str:
    """An element, or all of an array, by what each of these is called."""
    job = jobs[element.array]
    return str(job) if element.position is None else f"{job}_{element.position}"
