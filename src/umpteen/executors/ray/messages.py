"""What the head, Ray's driver and the owner on the cluster say to one another, all of it JSON."""

from __future__ import annotations

from typing import TypedDict

__all__ = ["OwnerBatch", "OwnerReport", "OwnerRequest", "RayResources"]


class RayResources(TypedDict, total=False):
    """What a batch takes of a machine, in Ray's words."""

    num_cpus: float
    num_gpus: float
    memory: int  # bytes
    resources: dict[str, float]  # custom ones, by name


class OwnerBatch(TypedDict):
    """A batch that an owner is given."""

    batch: str
    after: list[str]  # batches of this submission or of `earlier`
    needs: RayResources
    order: str  # what the carrier is told, as `engine.build_order` has it


class OwnerRequest(TypedDict):
    """All that an owner is given."""

    carrier: tuple[str, str]  # name and text of the module that runs a batch on a worker
    orders: list[OwnerBatch]
    earlier: dict[str, tuple[str, str]]  # mark and number of batches of former submissions
    workers: int  # how many batches may run at once; 0: unknown


class OwnerReport(TypedDict):
    """How the batches of an owner are."""

    states: dict[str, str]  # by batch: queued, running or ended
    ending: tuple[int, str]  # exit code and complaint of the runner that ended worst
    is_over: bool  # whether the ending cannot get worse
    wants: RayResources | None  # of the first batch that waits
