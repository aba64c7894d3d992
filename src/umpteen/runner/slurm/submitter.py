"""Submits what is left of a submission, as room for it appears. Runs as a job of its own.

    python3 -m umpteen.runner.slurm.submitter RESULTS MARK

Arrays come in their order, and each in parts of its elements, which all have its name: so what
is in the queue is known by names, and nothing is submitted twice. Where there is no room for
long, it submits itself for later, and ends: it is not to keep a core from others.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from umpteen.errors import EXIT_SUCCEEDED, EXIT_UNREACHABLE, BackendError, StoreError, UmpteenError
from umpteen.model.forms import FormError
from umpteen.runner.slurm.commands import (
    ELEMENT_FIELDS,
    QueuedElement,
    SlurmCommands,
    build_sbatch,
    is_full,
    is_transient,
    parse_elements,
    parse_job_id,
)
from umpteen.runner.slurm.plan import (
    PlannedArray,
    Rest,
    encode_progress,
    find_mark,
    name_submitter,
    parse_progress,
    parse_rest,
)
from umpteen.store.address import open_store
from umpteen.store.base import Store
from umpteen.store.job_files import read_cancel_mark
from umpteen.store.layout import (
    rest_key,
    script_key,
    submitted_key,
    submitter_key,
)
from umpteen.system.commands import TIMED_OUT, Answer

__all__ = ["Submitter", "main"]

_PAUSES_S = (1.0, 1.0, 2.0, 2.0, 4.0, 4.0, 8.0, 8.0, 16.0, 16.0)  # between two looks for room
_LATER_S = 120  # after which the next one looks, where there was no room for long
_TRIES = 8  # of a command that is not answered

_Value = TypeVar("_Value")


class Submitter:
    """Of one submission."""

    def __init__(self, store: Store, mark: str) -> None:
        self.store, self.mark = store, mark
        self.rest: Rest = _read(store, rest_key(mark), parse_rest)
        self.commands = SlurmCommands()
        self.part = self.rest.most
        self.is_fitting = False  # whether a part of that size was ever taken
        self.done = {array.number: 0 for array in self.rest.arrays}  # elements from 0 on
        self.done.update(_read(store, submitted_key(mark), parse_progress, b"{}"))

    def run(self) -> None:
        """Until all is submitted, or another one is to go on."""
        began_s = time.monotonic()
        self._find_unwritten()
        left = [array for array in self.rest.arrays if self.done[array.number] < array.size]
        pauses = list(_PAUSES_S)
        while left:
            array = left[0]
            if read_cancel_mark(self.store).upto >= array.newest:
                left.pop(0)
            elif self._submit_part(array):
                pauses = list(_PAUSES_S)
                if self.done[array.number] == array.size:
                    left.pop(0)
            elif time.monotonic() - began_s > self.rest.round_s or not pauses:
                if self._hand_over():
                    return
                pauses = [_PAUSES_S[-1]]
            else:
                time.sleep(pauses.pop(0))

    def _find_unwritten(self) -> None:
        """What one before us submitted and did not write down."""
        numbers = {array.name: array.number for array in self.rest.arrays}
        for element in self._look([array.slurm_name for array in self.rest.arrays]):
            if (number := numbers.get(element.name)) is not None:
                self.done[number] = max(self.done[number], element.number + 1)

    def _submit_part(self, array: PlannedArray) -> bool:
        """Submit the next elements of an array; whether there was room."""
        first = self.done[array.number]
        end = min(array.size, first + self.part)
        waits = self._list_dependencies(array)
        if waits is None:
            return False
        options = {
            **array.options,
            "array": f"{first}-{end - 1}" if end - 1 > first else f"{first}",
        }
        if waits:
            given = [options["dependency"]] if "dependency" in options else []
            options["dependency"] = ",".join([*given, f"afterany:{':'.join(waits)}"])
        script = self.store.read(script_key(self.mark, array.number)) or b""
        job = self._submit(options, script.decode(), array.name, first)
        if job is None:
            self._make_part_smaller()
            return False
        self.done[array.number], self.is_fitting = end, True
        self.store.replace(submitted_key(self.mark), encode_progress(self.done))
        return True

    def _make_part_smaller(self) -> None:
        """Where nothing of ours is in the queue, and a part has no room all the same."""
        if self.is_fitting:
            return
        names = {array.name for array in self.rest.arrays}
        found = self._look([array.slurm_name for array in self.rest.arrays])
        if not any(element.is_living for element in found if element.name in names):
            self.part = max(1, self.part // 4)

    def _list_dependencies(self, array: PlannedArray) -> list[str] | None:
        """What of that which it is after has not ended, as sbatch names it.

        None where it cannot be said yet, as a submitter of others has still to submit it.
        """
        wanted = [split_element(word) for word in array.after]
        names = [name for name, _ in wanted]
        submitters = {name_submitter(find_mark(name)) for name in names} - {self.rest.name}
        found_there = self._look([*array.after_names, *sorted(submitters)])
        living = [element for element in found_there if element.is_living]
        known = {element.name for element in living}
        found: dict[str, None] = {}
        for name, number in wanted:
            if name not in known and name_submitter(find_mark(name)) in known & submitters:
                return None
            for element in living:
                if element.name == name and number in ("", str(element.number)):
                    found[f"{element.job}_{number}" if number else str(element.job)] = None
        return list(found)

    def _submit(self, options: dict[str, str], script: str, name: str, first: int) -> int | None:
        """The number of the job that it became; None where there is no room.

        One that is not answered is looked for by its name, as it may be there.
        """
        command = build_sbatch(options)
        for tried in range(_TRIES):
            answer = self.commands.run(command, script)
            job = parse_job_id(answer.out) if answer.code == 0 else None
            if job is not None:
                return job
            is_refused = answer.code not in (0, TIMED_OUT)
            if is_refused and is_full(answer.said):
                return None
            if is_refused and not is_transient(answer.said):
                raise _refuse(answer)
            for element in self._look([options["job-name"]]):
                if (element.name, element.number) == (name, first):
                    return element.job
            if is_full(answer.said):
                return None
            time.sleep(_PAUSES_S[min(tried, len(_PAUSES_S) - 1)])
        raise _refuse(answer)

    def _hand_over(self) -> bool:
        """Have a submitter begin later; whether there was room for it."""
        script = self.store.read(submitter_key(self.mark)) or b""
        options = {**self.rest.own, "begin": f"now+{_LATER_S}"}
        answer = self.commands.run(build_sbatch(options), script.decode())
        return answer.code == 0

    def _look(self, names: Sequence[str]) -> list[QueuedElement]:
        """What the queue has of jobs of these names. Raises BackendError.

        An answer without our own job, which runs, is none.
        """
        if not names:
            return []
        asked = f"--name={','.join([*dict.fromkeys(names), self.rest.name])}"
        command = ["squeue", "-hr", "--states=all", asked, "-o", ELEMENT_FIELDS]
        for tried in range(_TRIES):
            answer = self.commands.run(command)
            found = parse_elements(answer.out) if answer.code == 0 else None
            if found and any(e.name == self.rest.name and e.is_living for e in found):
                return found
            time.sleep(_PAUSES_S[min(tried, len(_PAUSES_S) - 1)])
        raise BackendError(f"squeue does not answer: {answer.said.strip() or 'our job is missing'}")


def split_element(word: str) -> tuple[str, str]:
    """`NAME-MARK-0_3` is element 3 of that array, `NAME-MARK-0` all of it."""
    found = re.fullmatch(r"(.*-\d+)(?:_(\d+))?", word, re.DOTALL)
    return (found[1], found[2] or "") if found else (word, "")


def _read(store: Store, key: str, parse: Callable[[bytes], _Value], absent: bytes = b"") -> _Value:
    """What a file says. absent: what one says that is not there."""
    content = store.read(key)
    try:
        return parse(absent if content is None else content)
    except FormError as error:
        path = store.path(key)
        raise StoreError(f"{path} is damaged: {error}", path=path, damaged=True) from error


def _refuse(answer: Answer) -> BackendError:
    return BackendError(f"sbatch: {answer.said.strip() or f'exit code {answer.code}'}")


def main() -> int:
    """Submit the rest of a submission; the exit code."""
    address, mark = sys.argv[1:]
    try:
        Submitter(open_store(address), mark).run()
    except UmpteenError as error:
        sys.stderr.write(f"error: {error}\n")
        return EXIT_UNREACHABLE
    return EXIT_SUCCEEDED
