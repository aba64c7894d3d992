"""Ray's driver for umpteen: a process connected to one cluster, and the actor that it leaves there.

    python3 -P -m umpteen.executors.ray.driver

Each line of stdin is a call, in JSON, and is answered by a line. It is a process of its own, as
Ray prints, knows one cluster a process, and ends a process whose cluster dies. Being of
`__main__`, `Owner` and `run_batch` travel by value, so that workers need nothing of umpteen.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import queue
import sys
import threading
import types
from collections.abc import Mapping, Sequence
from typing import Any

from umpteen.errors import EXIT_UNREACHABLE, EXIT_WRONG_USE, RUNNER_CRASHED

__all__ = ["Owner", "main", "run_batch"]

ray: Any = importlib.import_module("ray")

_NAMESPACE = "umpteen"
_ANSWER_S = 6.0
_AGAIN_S = 1.0
_AHEAD = 2  # batches that wait at a worker's door
_HANG_S = 10.0  # without a move, before it is taken to
_LINGER_S = 10.0  # for those who want to know how it ended
_RETRIES = 3  # of a batch whose worker died; more are for `collect`
_PART = (
    50_000  # characters; what is longer would be lost with the driver, for a new start of the actor
)
_CALLS_MOST = 10_000  # at once: two for each batch
_HOPELESS = (EXIT_WRONG_USE, EXIT_UNREACHABLE)

Answer = list[Any]  # code of the runner, what it complained of


# --- on the cluster -------------------------------------------------------------------------


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
            while ray.get(owner.hear.remote(batch)):
                module.hasten([json.loads(order)["mark"]])
        except Exception:  # the owner is gone, and this worker soon will be
            may_begin.put(False)

    threading.Thread(target=listen, daemon=True).start()
    if not may_begin.get():
        return json.dumps({"code": 0, "said": ""})
    answer: str = module.run_batch(order)
    return answer


class _Window:
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
        """Where a worker is free, the first that waits is with one that hangs,
        and counts no more.
        """
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
    """The actor that has the batches of one hand-in: it ends when all of them have ended.

    Should its machine die, Ray starts it elsewhere, and so it hands in all of them again, of
    which each does what is left. The parts make one text, in JSON: carrier, orders, earlier.
    """

    def __init__(self, *parts: str) -> None:
        told = json.loads("".join(parts))
        self.orders = {order["batch"]: order for order in told["orders"]}
        self.earlier: dict[str, list[str]] = told["earlier"]
        self.workers: int = told["workers"]
        self.windows = {self._name_needs(order): _Window() for order in told["orders"]}
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

    async def _carry(self, order: Mapping[str, Any]) -> None:
        """One batch, once those that it is after have ended, from here to its end."""
        batch = order["batch"]
        answer: Answer = [RUNNER_CRASHED, "its owner failed"]
        try:
            codes = [await self._wait_for(other) for other in order["after"]]
            answer = [max(codes, default=0), ""]
            if not answer[0] and batch not in self.cancelled:
                answer = await self._run(batch, order)
        finally:
            self.answers[batch] = answer
            self.ends[batch].set()
            self.calls[batch].set()
        if answer[0] in _HOPELESS:  # so would be the others
            await self.cancel([other for other in self.orders if other not in self.running])

    async def _wait_for(self, batch: str) -> int:
        """The code of a batch of this hand-in, or of an earlier one."""
        if batch in self.orders:
            return await self.wait_for(batch)
        mark, number = self.earlier[batch]
        while True:
            try:
                owner = ray.get_actor(mark, namespace=_NAMESPACE)
                code: int = await owner.wait_for.remote(number)
                return code
            except ray.exceptions.RayActorError:  # it may be coming back elsewhere
                await asyncio.sleep(_AGAIN_S)
            except (
                Exception
            ):  # it is gone, and its batches with it: the store has what came of them
                return 0

    async def _run(self, batch: str, order: Mapping[str, Any]) -> Answer:
        window = self.windows[self._name_needs(order)]
        await window.enter(batch, self.workers)
        if batch in self.cancelled:
            window.leave(batch)
            return [0, ""]
        try:
            remote = ray.remote(run_batch).options(max_retries=_RETRIES, **order["needs"])
            self.refs[batch] = remote.remote(self.carrier, self.me, batch, order["order"])
            answer = json.loads(await self.refs[batch])
            return [answer["code"] if answer["code"] >= 0 else RUNNER_CRASHED, answer["said"]]
        except Exception as error:  # a worker that dies again and again, no such environment, ...
            said = (str(error) or type(error).__name__).strip().splitlines()[0]
            return (
                [0, ""] if batch in self.cancelled else [RUNNER_CRASHED, f"Ray gave it up: {said}"]
            )
        finally:
            window.leave(batch)

    @staticmethod
    def _name_needs(order: Mapping[str, Any]) -> str:
        return json.dumps(order["needs"], sort_keys=True)

    async def begin(self, batch: str) -> bool:
        """Told by a worker: whether it may begin with a batch."""
        if batch in self.cancelled:
            return False
        self.running.add(batch)
        self.windows[self._name_needs(self.orders[batch])].begin(batch)
        return True

    async def hear(self, batch: str) -> bool:
        """Told to a worker: True when its runner is to look at the cancel mark,
        False at the end.
        """
        await self.calls[batch].wait()
        self.calls[batch].clear()
        return batch not in self.answers

    async def wait_for(self, batch: str) -> int:
        """The code of a batch when it has ended."""
        await self.ends[batch].wait()
        code: int = self.answers[batch][0]
        return code

    async def hasten(self, batches: Sequence[str]) -> None:
        """Have the runners of these look at the cancel mark now."""
        for batch in self.running.intersection(batches):
            self.calls[batch].set()

    async def cancel(self, batches: Sequence[str]) -> None:
        """Let those of these not begin that have not; the runners of the others are to look."""
        await self.hasten(batches)
        for batch in batches:
            if batch not in self.running and batch not in self.answers:
                self.cancelled.add(batch)
                if batch in self.refs:
                    ray.cancel(self.refs[batch])
        for window in self.windows.values():
            window.open()

    async def look(self) -> dict[str, Any]:
        """states: of batches. ending: the worst answer. is_over: whether no more is to come of it.
        wants: what the first batch needs that waits.
        """
        states, wants = {}, None
        for batch, order in self.orders.items():
            is_queued = batch not in self.running and batch not in self.answers
            wants = wants or (order["needs"] if is_queued else None)
            states[batch] = "queued" if is_queued else "running"
        states.update(dict.fromkeys(self.answers, "ended"))
        answers = self.answers.values()
        ending = max(answers, key=lambda told: (told[0] in _HOPELESS, told), default=[0, ""])
        is_over = len(self.answers) == len(self.orders) or ending[0] in _HOPELESS
        return {"states": states, "ending": ending, "is_over": is_over, "wants": wants}

    async def leave(self) -> None:
        """End this actor."""
        ray.actor.exit_actor()


# --- the process ----------------------------------------------------------------------------


def main() -> int:
    """Answer calls until stdin is closed."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # where what Ray prints may go
    driver = _Driver()
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = {"answer": getattr(driver, asked.pop("call"))(**asked)}
        except Exception as error:  # whatever Ray may raise
            answer = {"error": type(error).__name__, "said": str(error)}
        print(json.dumps(answer), file=answers, flush=True)
    ray.shutdown()
    return 0


class _Driver:
    """The calls that are answered."""

    def __init__(self) -> None:
        self.owners: dict[str, Any] = {}

    def greet(self) -> str:
        """The version of Ray, once it is loaded."""
        version: str = ray.__version__
        return version

    def connect(self, address: str, runtime_env: Mapping[str, Any]) -> str:
        """Connect to a cluster; the address by which it is found from elsewhere, too."""
        if not runtime_env:
            os.chdir("/")  # Ray would have its workers import from here
        _check_environment(runtime_env)
        try:
            ray.init(
                address=address, runtime_env=runtime_env or None, namespace=_NAMESPACE,
                log_to_driver=False,
            )  # fmt: skip
        except (ValueError, TypeError) as error:
            if runtime_env:
                raise WrongEnvironmentError(str(error)) from error
            raise
        if address != "auto":
            return address
        found: str = ray.get_runtime_context().gcs_address
        return found

    def submit(self, mark: str, text: str, limit_s: float) -> None:
        """Leave an owner of that name with the cluster."""
        parts = [text[start : start + _PART] for start in range(0, len(text), _PART)]
        owner = (
            ray.remote(Owner)
            .options(
                name=mark,
                namespace=_NAMESPACE,
                lifetime="detached",
                num_cpus=0,
                max_restarts=-1,
                max_concurrency=_CALLS_MOST,
            )
            .remote(*parts)
        )
        try:
            ray.get(owner.look.remote(), timeout=limit_s)
        except Exception:
            ray.kill(owner)
            raise
        self.owners[mark] = owner

    def look(self, marks: Sequence[str]) -> dict[str, Any]:
        """What each owner says: None where it is gone, empty where it does not answer."""
        found: dict[str, Any] = dict.fromkeys(marks)
        asked = {mark: self.owners[mark].look.remote() for mark in marks if self._find(mark)}
        if asked:
            ray.wait(list(asked.values()), num_returns=len(asked), timeout=_ANSWER_S)
        for mark, ref in asked.items():
            try:
                found[mark] = ray.get(ref, timeout=0.1)
            except ray.exceptions.ActorDiedError:
                del self.owners[mark]
            except ray.exceptions.RayError:
                found[mark] = {}
        return found

    def tell_owners(self, order: str, batches: Mapping[str, Sequence[str]]) -> None:
        """Have owners, by their marks, `hasten` or `cancel` these batches, if they answer."""
        asked = [
            getattr(self.owners[mark], order).remote(some)
            for mark, some in batches.items()
            if self._find(mark)
        ]
        if asked:
            ray.wait(asked, num_returns=len(asked), timeout=_ANSWER_S)

    def list_nodes(self) -> list[dict[str, float]]:
        """What each living machine of the cluster has."""
        return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]

    def _find(self, mark: str) -> bool:
        if mark not in self.owners:
            try:
                self.owners[mark] = ray.get_actor(mark, namespace=_NAMESPACE)
            except ValueError:
                return False
        return True


class WrongEnvironmentError(Exception):
    """A runtime_env that is not as Ray wants it."""


def _check_environment(runtime_env: Mapping[str, Any]) -> None:
    """Raises WrongEnvironmentError for fields that Ray would pass over in silence."""
    known = getattr(ray.runtime_env.RuntimeEnv, "known_fields", runtime_env)
    unknown = sorted(set(runtime_env).difference(known))
    if unknown and "RAY_RUNTIME_ENV_PLUGINS" not in os.environ:  # which may have more
        raise WrongEnvironmentError(f"it has no field {unknown[0]!r}")


if __name__ == "__main__":
    sys.exit(main())
