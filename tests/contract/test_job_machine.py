"""Any order of runs, kills, changes of the job file, retries and cancels, beside a simple model.

The plan, the hand-in, starts, records and history are the real ones, on a real store; only the
commands are not run: what a runner would record is recorded here. A task may be after tasks whose
names come before its own. The model has a clock, which the plan has not: of what is left alone,
all that a task waited for came to its end before it did.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Sequence
from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from umpteen.executors.base import (
    Abilities,
    BatchState,
    Executor,
    OnProgress,
    SubmitRequest,
    ignore_progress,
)
from umpteen.history.history import History
from umpteen.job.settings import Setting, merge_settings
from umpteen.job.spec import Job, Task, TaskOptions
from umpteen.model.states import NUMBER_OF, STATES
from umpteen.planning.batch_files import Past
from umpteen.planning.known import read_known
from umpteen.planning.plan import build_plan
from umpteen.runner.active_batch import ActiveBatch
from umpteen.runner.batch_start import Opener
from umpteen.runner.lease import Lease
from umpteen.store.directory import DirectoryStore
from umpteen.store.identity import identify
from umpteen.store.layout import CANCEL
from umpteen.store.submission_lock import submission_lock
from umpteen.submission.job_folder import create_job
from umpteen.submission.write import submit_plan
from umpteen.system.host import read_machine

NAMES = st.sampled_from(["a", "b", "c", "d"])
_RUNS = {
    "default": {"new", "waiting", "failed", "cancelled", "skipped", "changed"},
    "all": {"new", "waiting", "failed", "cancelled", "skipped", "changed", "succeeded"},
    "failed": {"failed", "cancelled", "skipped"},
    "changed": {"changed"},
}
_OPEN = {"new", "waiting", "changed"}


class QueueExecutor(Executor):
    """Takes batches and leaves them; `start` below is what would run them."""

    name = "local"
    abilities = Abilities(
        dependencies=True, capabilities=False, reconnect=True, is_engine=False,
        batches_most=0, start_up_s=0.0,
    )  # fmt: skip

    def submit(
        self, request: SubmitRequest, on_progress: OnProgress = ignore_progress
    ) -> dict[str, str]:
        """Handles that say nothing."""
        del on_progress
        return dict.fromkeys(request.batches, "m/b/none")

    def poll(self, handles: Sequence[str]) -> dict[str, BatchState]:
        """Not asked here."""
        raise NotImplementedError(handles)

    def wake(self, handles: Sequence[str]) -> None:
        """Not asked here."""
        raise NotImplementedError(handles)


class Known:
    """What the model knows of one task: what it is, what counts of it, and who has it."""

    def __init__(self) -> None:
        self.version = 0  # as the job file has it
        self.handed = 0  # as it was handed in last
        self.state = "new"
        self.batch = ""  # the newest that has it
        self.is_stale = False  # its batch has a former version
        self.is_dropped = False
        self.after: set[str] = set()  # as the job file has it, with names that may be none of it
        self.handed_after: set[str] = set()  # as it was handed in last
        self.waits: dict[str, str] = {}  # what its batch waits for: the batch of each, or its state
        self.made = self.came = 0  # the hand-in of its batch, and of its return into the job
        self.ended = 0  # by the clock of the model


class Alive:
    """A runner that lives: its lease, and the batch it has open."""

    def __init__(self, lease: Lease, opener: Opener, opened: ActiveBatch, batch: str) -> None:
        self.lease, self.opener, self.opened, self.batch = lease, opener, opened, batch


class JobMachine(RuleBasedStateMachine):
    """Rules are what users, runners and accidents do; invariants are what must always hold."""

    runners = Bundle("runners")

    @initialize(is_chain=st.booleans())
    def make_store(self, is_chain: bool) -> None:
        self.root = tempfile.mkdtemp(prefix="umpteen-machine-")
        os.environ["UMPTEEN_LEASES"] = self.root + "/leases"
        self.store = DirectoryStore(self.root + "/store")
        self.executor = QueueExecutor({})
        self.file = ["a", "b"]
        self.known: dict[str, Known] = {name: Known() for name in "abcd"}
        for before, name in itertools.pairwise("abcd" if is_chain else ""):
            self.known[name].after = {before}
        self.order: list[str] = []  # by index
        self.queued: list[str] = []
        self.living: dict[str, Alive] = {}
        self.tasks_of: dict[str, list[str]] = {}
        self.closed: set[str] = set()
        self.upto = self.clock = 0
        self.attempts: dict[str, int] = {}
        self.outcomes: dict[tuple[str, str], str] = {}  # by batch and name

    def teardown(self) -> None:
        for alive in self.living.values():
            alive.lease.remove()
            alive.opened.file.close()
        shutil.rmtree(getattr(self, "root", "/nonexistent"), ignore_errors=True)

    # --- what users do ----------------------------------------------------------------

    @rule(name=NAMES)
    def edit(self, name: str) -> None:
        """A command in the job file changes."""
        self.known[name].version += 1

    @rule(name=NAMES)
    def add_or_remove(self, name: str) -> None:
        """A task comes into the job file, or goes from it."""
        if name not in self.file:
            self.file.append(name)
        elif len(self.file) > 1:
            self.file.remove(name)

    @rule(name=NAMES, other=NAMES)
    def depend(self, name: str, other: str) -> None:
        """In the job file one task comes to be after another, or is so no longer."""
        if other < name:
            self.known[name].after ^= {other}

    def list_after(self, name: str) -> set[str]:
        return self.known[name].after.intersection(self.file)

    def build_task(self, name: str) -> Task:
        after = [(other, "succeeded") for other in sorted(self.list_after(name))]
        command = f"echo {name} {self.known[name].version}"
        return Task(command, name, options=TaskOptions(after=after) if after else None)

    @rule(rerun=st.sampled_from(sorted(_RUNS)))
    def run(self, rerun: str) -> None:
        """The job is handed in, as `umpteen run --rerun` does."""
        given = list(map(self.build_task, self.file))
        address = Setting(self.store.address, "test")
        job = Job("job", given, merge_settings({"address": address, "slots": Setting(1, "test")}))
        create_job(self.store, job)
        with submission_lock(self.store) as lock:
            history = self.read()
            plan = build_plan(
                job, history, read_known(job, history, rerun), {*self.queued, *self.living}, rerun
            )
            expected = {name for name in self.file if self.judge(name) in _RUNS[rerun]}
            assert all(int(batch) > self.upto for batch in plan.again)
            again = {name for batch in plan.again for name in self.left_of(batch)}
            planned = {plan.by_index(index).name for index in plan.to_run} | again
            self.check_plan(planned, expected, rerun)
            if plan.is_empty:
                return
            before = history.read_records(i for i in plan.to_run if i < history.count)
            attempts = {
                index: Past(records[-1][1].attempt, records[-1][0])
                for index, records in before.items()
                if records
            }
            submit_plan(plan, history, self.executor, attempts, lock)
            self.closed.update(plan.closed)
        self.note_hand_in(self.read(), set(plan.again))

    def check_plan(self, planned: set[str], expected: set[str], rerun: str) -> None:
        """What it has is expected, needed by that, or behind; and what is behind is in it."""
        takes_behind = rerun in ("default", "all")
        while not takes_behind:
            needed = {d for name in expected for d in self.list_after(name)}
            needed = {name for name in needed if self.judge(name) in _OPEN} - expected
            if not needed:
                break
            expected |= needed
        assert expected <= planned, (planned, expected)
        for name in planned - expected:
            assert takes_behind, name
            assert self.may_be_behind(name, planned), name
        for name in set(self.file) - planned if takes_behind else ():
            known = self.known[name]
            for other in known.waits.keys() & self.list_after(name):
                if self.judge(name) == "succeeded":
                    told = (name, other, self.judge(other))
                    assert self.judge(other) == "succeeded", told
                    assert other not in planned, told
                    assert self.known[other].ended < known.ended, told

    def may_be_behind(self, name: str, planned: set[str]) -> bool:
        """Whether there is a reason to run again what has succeeded."""
        known = self.known[name]
        after = self.list_after(name)
        is_newer = any(
            other in planned
            or (self.known[other].is_dropped and self.judge(other) == "succeeded")
            or max(self.known[other].made, self.known[other].came) > known.made
            for other in after
        )
        return self.judge(name) == "succeeded" and (is_newer or not after <= known.handed_after)

    def note_hand_in(self, history: History, again: set[str]) -> None:
        number = len(history.hand_ins)
        before = {name: self.judge(name) for name in self.file}
        held = {name: self.known[name].batch for name in self.file}
        for name in self.file:
            if name not in self.order:
                self.order.append(name)
            known = self.known[name]
            if known.handed != known.version:
                known.is_stale = known.batch != "" and known.state == "waiting"
                if not known.is_stale:  # what its batch had to tell of it is told
                    known.batch = ""
                known.state = "waiting" if known.state != "new" else "new"
            if known.is_dropped:
                known.came = number
            known.handed, known.is_dropped = known.version, False
            known.handed_after = self.list_after(name)
        for name in set(self.order) - set(self.file):
            self.known[name].is_dropped = True
        for entry in history.hand_ins[-1].batches:
            self.queued.append(entry.batch)
            if entry.batch in again:
                continue
            names = [self.order[i] for part in history.batches[entry.batch].indices for i in part]
            self.tasks_of[entry.batch] = names
            for name in names:
                known = self.known[name]
                known.batch, known.state, known.is_stale = entry.batch, "waiting", False
                known.made = number
                known.waits = {
                    other: entry.batch if other in names
                    else held[other] if before[other] == "running" else before[other]
                    for other in self.list_after(name)
                }  # fmt: skip
        for name in self.file:
            known = self.known[name]
            known.state = "waiting" if known.state == "new" else known.state

    @rule()
    def cancel(self) -> None:
        """All that was handed in is cancelled; runners that live hear of it at once."""
        if not self.tasks_of:
            return
        self.upto = max(map(int, self.tasks_of))
        self.store.replace(CANCEL, msgspec.json.encode({"upto": self.upto}))
        for alive in list(self.living.values()):
            left = [p for p in alive.opened.todo if not alive.opened.is_done(p)]
            alive.opened.record_cancelled()
            for position in left:
                self.count(alive, position, "cancelled")
            self.end(alive)

    # --- what runners do ----------------------------------------------------------------

    @precondition(lambda self: self.queued)
    @rule(target=runners, data=st.data())
    def start(self, data: st.DataObject) -> Any:
        """A runner takes a batch."""
        batch = data.draw(st.sampled_from(sorted(self.queued)))
        return batch if self.take(batch) else multiple()

    def take(self, batch: str) -> bool:
        """Whether somebody is at it then."""
        self.queued.remove(batch)
        token = os.urandom(6).hex()
        lease = Lease.create(token, identify(self.store), 1)
        opener = Opener(identify(self.store), self.store, token, read_machine())
        opened = opener.open(batch)
        if opened is None:
            assert batch in self.closed
            lease.remove()
            return False
        alive = Alive(lease, opener, opened, batch)
        self.living[batch] = alive
        if int(batch) <= self.upto:
            assert not opened.todo
            for position, state in enumerate(opened.states):
                if state == NUMBER_OF["cancelled"]:
                    self.count(alive, position, "cancelled")
            self.end(alive)
            return False
        return True

    @rule()
    def work(self) -> None:
        """All that waits is taken, and all that lives comes to a good end, as far as it can."""
        for batch in list(self.queued):
            self.take(batch)
        for _ in self.known:
            for batch in sorted(self.living):
                for _ in self.tasks_of[batch]:
                    self.finish(batch=batch, state="succeeded")
        for alive in list(self.living.values()):
            self.end(alive)

    @rule(name=NAMES, rerun=st.sampled_from(sorted(_RUNS)))
    def change_and_run(self, name: str, rerun: str) -> None:
        """What most people do: change something, run it, let it come to its end, run it again."""
        self.edit(name=name)
        self.run(rerun=rerun)
        self.work()
        self.run(rerun="default")

    @rule(batch=runners, state=st.sampled_from(["succeeded", "failed", "timed_out", "retried"]))
    def finish(self, batch: str, state: str) -> None:
        """A task of a runner comes to its end, or is to be tried again."""
        alive = self.living.get(batch)
        left = [p for p in alive.opened.todo if not alive.opened.is_done(p)] if alive else []
        left = [p for p in left if self.find_met(self.tasks_of[batch][p]) is not None]
        if alive is None or not left:
            return
        name = self.tasks_of[batch][left[0]]
        if not self.find_met(name):
            state = "skipped"
        recorded = "failed" if state == "retried" else state
        record = alive.opened.build_record(left[0], recorded)
        record = record._replace(retry=state == "retried")
        assert record.attempt > self.attempts.get(name, 0), "an attempt's number came twice"
        self.attempts[name] = record.attempt
        alive.opened.file.append(record.to_line().encode() + b"\n")
        if state == "retried":
            alive.opened.attempt_failed(record.to_dict())
        else:
            alive.opened.record_end(left[0], NUMBER_OF[state])
            self.count(alive, left[0], "failed" if state == "timed_out" else state)

    @rule(batch=consumes(runners))
    def stop(self, batch: str) -> None:
        """A runner ends in good order, with whatever is left."""
        if batch in self.living:
            self.end(self.living[batch])

    @rule(batch=consumes(runners), is_torn=st.booleans())
    def kill(self, batch: str, is_torn: bool) -> None:
        """A runner dies, perhaps in the middle of a line."""
        alive = self.living.pop(batch, None)
        if alive is None:
            return
        if is_torn:
            os.write(alive.opened.file.fd, b'{"task":0,"state":"succ')
        alive.opened.file.close()
        os.close(alive.lease.lock)

    @precondition(lambda self: self.queued)
    @rule()
    def lose(self) -> None:
        """A batch that was handed in never starts."""
        self.queued.pop()

    # --- the model ------------------------------------------------------------------------

    def end(self, alive: Alive) -> None:
        alive.opened.file.append(alive.opened.build_end())
        alive.opened.file.close()
        alive.lease.remove()
        del self.living[alive.batch]

    def find_met(self, name: str) -> bool | None:
        """Whether all that a task waits for has succeeded; None where that is not known yet."""
        waits = self.known[name].waits.items()
        met = [self.outcomes.get((on, other)) if on.isdigit() else on for other, on in waits]
        if None in met and {"failed", "cancelled", "skipped"}.isdisjoint(met):
            return None
        return set(met) <= {"succeeded"}

    def count(self, alive: Alive, position: int, state: str) -> None:
        name = self.tasks_of[alive.batch][position]
        known = self.known[name]
        self.outcomes.setdefault((alive.batch, name), state)
        if known.batch != alive.batch or known.state == "succeeded":
            return
        if known.is_stale:
            known.is_stale, known.batch = False, ""
        else:
            known.state = state
            self.clock += 1
            known.ended = self.clock

    def judge(self, name: str) -> str:
        """What a task's condition is when its job is handed in."""
        known = self.known[name]
        is_held = known.batch in self.queued or known.batch in self.living
        if known.state in ("new", "waiting") and is_held:
            return "running"
        if name not in self.order:
            return "new"
        if known.version != known.handed:
            return "changed"
        return known.state

    def left_of(self, batch: str) -> list[str]:
        return [
            name
            for name in self.tasks_of[batch]
            if self.known[name].batch == batch and self.known[name].state in ("new", "waiting")
        ]

    def read(self) -> History:
        history = History(self.store)
        history.refresh()
        return history

    # --- what must hold -------------------------------------------------------------------

    @invariant()
    def states_are_the_models(self) -> None:
        """What the store says of each task is what the model says."""
        if not hasattr(self, "store"):
            return
        history = self.read()
        told = [STATES[number] for number in history.states]
        words = {"timed_out": "failed", "new": "waiting"}
        expected = [
            words.get(self.known[name].state, self.known[name].state) for name in self.order
        ]
        assert [words.get(state, state) for state in told] == expected
        for name, index in ((name, index) for index, name in enumerate(self.order)):
            assert (index in history.dropped) == self.known[name].is_dropped

    @invariant()
    def no_task_is_in_two_batches(self) -> None:
        """A task that is open stands in one batch alone that may still start."""
        open_ones = [*self.queued, *self.living] if hasattr(self, "queued") else []
        held = [name for batch in open_ones for name in self.left_of(batch)]
        assert len(held) == len(set(held))


JobMachine.TestCase.settings = settings(
    max_examples=int(os.environ.get("MACHINE_EXAMPLES", "60")),
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestJobMachine = JobMachine.TestCase
