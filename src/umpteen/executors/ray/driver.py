"""Ray's driver for umpteen: a process that is connected to one cluster.

    python3 -P -m umpteen.executors.ray.driver

Each line of stdin is a call, in JSON, and is answered by a line. It is a process of its own, as
Ray prints, knows one cluster a process, and ends a process whose cluster dies.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from umpteen.executors.ray import owner as owner_module
from umpteen.executors.ray.messages import OwnerReport
from umpteen.executors.ray.owner import NAMESPACE, Owner

__all__ = ["main"]

ray: Any = importlib.import_module("ray")

_ANSWER_S = 6.0
# Characters of one argument: what is longer would be kept by the driver, and be lost with it when
# the actor is started again.
_PART = 50_000
_CALLS_MOST = 10_000  # at once: two for each batch


def main() -> int:
    """Answer calls until stdin is closed."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # where what Ray prints may go
    ray.cloudpickle.register_pickle_by_value(owner_module)  # workers have nothing of umpteen
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
                address=address, runtime_env=runtime_env or None, namespace=NAMESPACE,
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
                namespace=NAMESPACE,
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

    def look(self, marks: Sequence[str]) -> dict[str, OwnerReport | str]:
        """What each owner says, by its mark: a word where it does not, "gone" or "silent"."""
        found: dict[str, OwnerReport | str] = dict.fromkeys(marks, "gone")
        asked = {mark: self.owners[mark].look.remote() for mark in marks if self._find(mark)}
        if asked:
            ray.wait(list(asked.values()), num_returns=len(asked), timeout=_ANSWER_S)
        for mark, ref in asked.items():
            try:
                found[mark] = ray.get(ref, timeout=0.1)
            except ray.exceptions.ActorDiedError:
                del self.owners[mark]
            except ray.exceptions.RayError:
                found[mark] = "silent"
        return found

    def tell_owners(self, order: str, batches: Mapping[str, Sequence[str]]) -> None:
        """Have owners, by their marks, `wake` or `cancel` these batches, if they answer."""
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
                self.owners[mark] = ray.get_actor(mark, namespace=NAMESPACE)
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
