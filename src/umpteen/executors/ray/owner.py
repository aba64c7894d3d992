"""What umpteen leaves on a Ray cluster: an actor that owns the batches of one submission.

Ray's tasks end with the process that submitted them; the owner stays, and has each batch run by
a worker. This module is sent to the cluster as a value, which then needs nothing of umpteen; so
it uses nothing of umpteen but constants.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import queue
import sys
import threading
import types
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from umpteen.errors import RUNNER_CRASHED
from umpteen.executors.engine import HOPELESS_CODES

if TYPE_CHECKING:
    from umpteen.executors.ray.messages import OwnerBatch, OwnerReport, OwnerRequest

__all__ = ["NAMESPACE", "Owner", "run_batch"]

ray: Any = importlib.import_module("ray")

NAMESPACE = "umpteen"
_AGAIN_S = 1.0
_AHEAD = 2  # batches that wait for a worker that is busy
_HANG_S = 10.0  # after so long without a start, the first batch that waits is taken to hang
_LINGER_S = 10.0  # for those who want to know how it ended
_RETRIES = 3  # of a batch whose worker died; more are for `collect`


class Answer:
    """How the runner of a batch ended; a plain class, as old Rays cannot carry a NamedTuple."""

    def __init__(self, code: int, said: str = "") -> None:
        self.code = code
        self.said = said  # what it complained of


def run_batch(carrier: Sequence[str], owner: Any, batch: str, order: str) -> str:
    """On a worker: what the carrier (its name and text) answers to an order."""
    name, text = carrier
    module: Any = sys.modules.get(name)
    if module is None:
        module = sys.modules[name] = types.ModuleType(name)
        exec(text, module.__dict__)  # noqa: S102 -- it is ours, and not installed there
    may_begin: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def listen() -> None:
        # In a thread of its own: while the main one waits for Ray, Ray gives its CPUs to others.
        try:
            may_begin.put(ray.get(owner.begin.remote(batch)))
            while ray.get(owner.wait_for_call.remote(batch)):
                module.wake([json.loads(order)["mark"]])
        except Exception:  # the owner is gone, and this worker soon will be
            may_begin.put(False)

    threading.Thread(target=listen, daemon=True).start()
    if not may_begin.get():
        return json.dumps({"code": 0, "said": ""})
    answer: str = module.run_batch(order)
    return answer


class Window:
    """Which batches of one kind are with Ray, that begins in any order what waits there.

    The first are the largest, and are to begin first: none may be far ahead of the first that
    waits. Some always wait, so that a cluster that grows by what waits does so.
    """

    def __init__(self) -> None:
        self.turn = asyncio.Lock()  # given in the order in which it is asked for
        self.moved = asyncio.Event()
        self.count = 0
        self.waiting: dict[str, int] = {}  # by batch, its number in the order of coming
        self.busy: set[str] = set()
        self.most_busy = 0  # as it was seen when nothing moved
        self.is_open = False

    async def enter(self, batch: str, workers: int) -> None:
        """Wait for a place. workers: how many batches may run at once, as far as is known."""
        async with self.turn:
            while not (self.is_open or self._has_place(workers)):
                self.moved.clear()
                try:
                    await asyncio.wait_for(self.moved.wait(), _HANG_S)
                except TimeoutError:
                    self._pass_over(workers)
            self.waiting[batch] = self.count
            self.count += 1

    def _has_place(self, workers: int) -> bool:
        busy = len(self.busy)
        most = max(_AHEAD, workers - busy, busy // 2)
        return self.count - min(self.waiting.values(), default=self.count) < most

    def _pass_over(self, workers: int) -> None:
        """Where a worker is free, the first that waits is with one that hangs: forget it."""
        if self.waiting and len(self.busy) < max(workers, self.most_busy, 1):
            del self.waiting[min(self.waiting, key=self.waiting.__getitem__)]
        self.most_busy = max(self.most_busy, len(self.busy))

    def begin(self, batch: str) -> None:
        """It waits no longer."""
        self.waiting.pop(batch, None)
        self.busy.add(batch)
        self.moved.set()

    def leave(self, batch: str) -> None:
        """It has ended."""
        self.waiting.pop(batch, None)
        self.busy.discard(batch)
        self.moved.set()

    def open(self) -> None:
        """From now on none waits for a place: those that come have been cancelled."""
        self.is_open = True
        self.moved.set()


class Owner:
    """The actor that has the batches of one submission: it ends when all of them have ended.

    Should its machine die, Ray starts it elsewhere, and so it hands in all of them again, of
    which each does what is left. The parts make one text, in JSON: carrier, orders, earlier.
    """

    def __init__(self, *parts: str) -> None:
        told: OwnerRequest = json.loads("".join(parts))
        self.orders = {order["batch"]: order for order in told["orders"]}
        self.earlier = told["earlier"]
        self.workers = told["workers"]
        self.windows = {self._name_needs(order): Window() for order in told["orders"]}
        self.running: set[str] = set()
        self.cancelled: set[str] = set()
        self.answers: dict[str, Answer] = {}
        self.ends = {batch: asyncio.Event() for batch in self.orders}
        self.calls = {batch: asyncio.Event() for batch in self.orders}
        self.refs: dict[str, Any] = {}
        self.carrier = ray.put(told["carrier"])
        self.me = ray.get_runtime_context().current_actor
        self.work = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        await asyncio.gather(*map(self._carry, self.orders.values()), return_exceptions=True)
        await asyncio.sleep(_LINGER_S)
        self.me.leave.remote()

    async def _carry(self, order: OwnerBatch) -> None:
        """One batch, once those that it is after have ended, from here to its end."""
        batch = order["batch"]
        answer = Answer(RUNNER_CRASHED, "its owner failed")
        try:
            codes = [await self._wait_for(other) for other in order["after"]]
            answer = Answer(max(codes, default=0))
            if not answer.code and batch not in self.cancelled:
                answer = await self._run(batch, order)
        finally:
            self.answers[batch] = answer
            self.ends[batch].set()
            self.calls[batch].set()
        if answer.code in HOPELESS_CODES:  # so would the others end
            await self.cancel([other for other in self.orders if other not in self.running])

    async def _wait_for(self, batch: str) -> int:
        """The code of a batch of this hand-in, or of an earlier one."""
        if batch in self.orders:
            return await self.wait_for(batch)
        mark, number = self.earlier[batch]
        while True:
            try:
                owner = ray.get_actor(mark, namespace=NAMESPACE)
                code: int = await owner.wait_for.remote(number)
                return code
            except ray.exceptions.RayActorError:  # it may be coming back elsewhere
                await asyncio.sleep(_AGAIN_S)
            except Exception:
                # It is gone, and its batches with it: the store has what came of them.
                return 0

    async def _run(self, batch: str, order: OwnerBatch) -> Answer:
        window = self.windows[self._name_needs(order)]
        await window.enter(batch, self.workers)
        if batch in self.cancelled:
            window.leave(batch)
            return Answer(0)
        try:
            remote = ray.remote(run_batch).options(max_retries=_RETRIES, **order["needs"])
            self.refs[batch] = remote.remote(self.carrier, self.me, batch, order["order"])
            answer = json.loads(await self.refs[batch])
            code = answer["code"] if answer["code"] >= 0 else RUNNER_CRASHED
            return Answer(code, answer["said"])
        except Exception as error:  # a worker that dies again and again, no such environment, ...
            said = (str(error) or type(error).__name__).strip().splitlines()[0]
            if batch in self.cancelled:
                return Answer(0)
            return Answer(RUNNER_CRASHED, f"Ray gave it up: {said}")
        finally:
            window.leave(batch)

    @staticmethod
    def _name_needs(order: OwnerBatch) -> str:
        return json.dumps(order["needs"], sort_keys=True)

    async def begin(self, batch: str) -> bool:
        """Called by a worker: whether it may begin with a batch."""
        if batch in self.cancelled:
            return False
        self.running.add(batch)
        self.windows[self._name_needs(self.orders[batch])].begin(batch)
        return True

    async def wait_for_call(self, batch: str) -> bool:
        """Called by a worker, which waits for the answer: True when its runner is to look for the
        cancel mark, False when the batch has ended.
        """
        await self.calls[batch].wait()
        self.calls[batch].clear()
        return batch not in self.answers

    async def wait_for(self, batch: str) -> int:
        """The code of a batch when it has ended."""
        await self.ends[batch].wait()
        return self.answers[batch].code

    async def wake(self, batches: Sequence[str]) -> None:
        """Have the runners of these look at the cancel mark now."""
        for batch in self.running.intersection(batches):
            self.calls[batch].set()

    async def cancel(self, batches: Sequence[str]) -> None:
        """Let those of these not begin that have not; the runners of the others are to look."""
        await self.wake(batches)
        for batch in batches:
            if batch not in self.running and batch not in self.answers:
                self.cancelled.add(batch)
                if batch in self.refs:
                    ray.cancel(self.refs[batch])
        for window in self.windows.values():
            window.open()

    async def look(self) -> OwnerReport:
        """How its batches are."""
        states: dict[str, str] = {}
        wants = None
        for batch, order in self.orders.items():
            is_queued = batch not in self.running and batch not in self.answers
            wants = wants or (order["needs"] if is_queued else None)
            states[batch] = "queued" if is_queued else "running"
        states.update(dict.fromkeys(self.answers, "ended"))
        answers = self.answers.values()
        # As `engine.rank_status` does, which is not here.
        ending = max(
            answers,
            key=lambda one: (one.code in HOPELESS_CODES, one.code, one.said),
            default=Answer(0),
        )
        is_over = len(self.answers) == len(self.orders) or ending.code in HOPELESS_CODES
        return {
            "states": states,
            "ending": (ending.code, ending.said),
            "is_over": is_over,
            "wants": wants,
        }

    async def leave(self) -> None:
        """End this actor."""
        ray.actor.exit_actor()
