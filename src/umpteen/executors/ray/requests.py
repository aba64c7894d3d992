"""What Ray is asked and what it answers, worked out without a cluster."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from umpteen.executors.base import BatchRequest, BatchState, SubmitRequest
from umpteen.executors.engine import build_order, parse_handle, rank_status
from umpteen.executors.own_runs import ExitStatus
from umpteen.executors.ray.messages import OwnerBatch, OwnerReport, OwnerRequest, RayResources
from umpteen.executors.zipapp import build_carrier

__all__ = [
    "OwnerAnswer",
    "Silence",
    "build_environment",
    "build_needs",
    "build_owner_request",
    "count_room",
    "find_wanted",
    "find_worst",
    "read_answer",
    "read_state",
    "tell_room",
]

# --- builders ---------------------------------------------------------------------------------


def build_needs(options: Mapping[str, Any], slots: int, batch: BatchRequest) -> RayResources:
    """What a batch takes of a machine, in Ray's words."""
    needs = RayResources(num_cpus=max(options.get("num_cpus", max(1, slots)), batch.cpus))
    if batch.gpus:
        needs["num_gpus"] = batch.gpus
    if batch.memory:
        needs["memory"] = batch.memory
    if resources := dict(options.get("resources") or {}):
        needs["resources"] = resources
    return needs


def build_environment(options: Mapping[str, Any]) -> dict[str, Any]:
    """The runtime_env of the options, as Ray wants it: its variables are text."""
    built = dict(options.get("runtime_env") or {})
    variables = built.get("env_vars")
    if isinstance(variables, Mapping):
        built["env_vars"] = {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in variables.items()
        }
    return built


def build_owner_request(
    request: SubmitRequest, options: Mapping[str, Any], workers: int
) -> OwnerRequest:
    """What the owner is given. workers: how many batches may run at once, 0 where nobody knows."""
    batches = [_build_batch(request, options, batch) for batch in request.orders]
    earlier = {batch: parse_handle(text) for batch, text in request.earlier.items()}
    return OwnerRequest(
        carrier=build_carrier(),
        orders=batches,
        earlier={batch: (handle.mark, handle.batch) for batch, handle in earlier.items()},
        workers=workers,
    )


def _build_batch(
    request: SubmitRequest, options: Mapping[str, Any], batch: BatchRequest
) -> OwnerBatch:
    needs = build_needs(options, request.slots, batch)
    cpus = int(needs["num_cpus"]) if batch.cpus else 0
    return OwnerBatch(
        batch=batch.batch,
        after=list(batch.after),
        needs=needs,
        order=build_order(request, batch.batch, cpus=cpus),
    )


# --- parsers ----------------------------------------------------------------------------------


def count_room(nodes: Sequence[Mapping[str, float]], needs: RayResources) -> int:
    """How many batches fit at once into machines that have that much."""
    wanted = _name_resources(needs)
    if not wanted:
        return 0
    return sum(
        min(int(node.get(name, 0) / amount) for name, amount in wanted.items()) for node in nodes
    )


def tell_room(nodes: Sequence[Mapping[str, float]], needs: RayResources) -> str:
    """Why a batch that needs this waits, in words."""
    if not nodes:
        return "the Ray cluster has no machines yet"
    if count_room(nodes, needs) or not _name_resources(needs):
        return "the machines of the Ray cluster have no room yet"
    shown = ", ".join(f"{name}: {amount:g}" for name, amount in _name_resources(needs).items())
    return f"no machine of the Ray cluster has {shown}"


def _name_resources(needs: RayResources) -> dict[str, float]:
    """What a batch takes, as machines name what they have."""
    named = {
        "CPU": needs.get("num_cpus", 0),
        "GPU": needs.get("num_gpus", 0),
        "memory": needs.get("memory", 0),
        **needs.get("resources", {}),
    }
    return {name: amount for name, amount in named.items() if amount}


class Silence(enum.Enum):
    """Why an owner says nothing."""

    GONE = "gone"
    """It has ended, as all of its batches have."""

    SILENT = "silent"
    """It does not answer, or its cluster does not."""


OwnerAnswer = OwnerReport | Silence


def read_answer(told: Any) -> OwnerAnswer:
    """What the driver tells of an owner: a report, or a word where there is none."""
    if isinstance(told, str):
        return Silence(told)
    report: OwnerReport = told
    return report


def read_state(answer: OwnerAnswer, batch: str) -> BatchState:
    """How far a batch is, as its owner says."""
    if isinstance(answer, Silence):
        return BatchState.ENDED if answer is Silence.GONE else BatchState.UNKNOWN
    return BatchState(answer["states"].get(batch, BatchState.ENDED))


def find_worst(answers: Iterable[OwnerAnswer]) -> ExitStatus | None:
    """The worst exit status that owners say; None where it may get worse."""
    reports = [answer for answer in answers if not isinstance(answer, Silence)]
    if not all(report["is_over"] for report in reports):
        return None
    statuses = [ExitStatus(*report["ending"]) for report in reports]
    return max(statuses, key=rank_status, default=ExitStatus(0))


def find_wanted(answers: Iterable[OwnerAnswer]) -> RayResources | None:
    """What the first batch needs that waits; None where none does."""
    wants = (answer["wants"] for answer in answers if not isinstance(answer, Silence))
    return next(filter(None, wants), None)
