"""The end of a runner: what is left is ended, recorded or kept, and said; the exit code.

Standard library alone.
"""

from __future__ import annotations

import contextlib
import sys
import time

from umpteen.errors import EXIT_SOME_FAILED, EXIT_SUCCEEDED, RUNNER_CRASHED, StoreError
from umpteen.runner.complaints import STORE_HINT
from umpteen.runner.leftovers import remove_scratch
from umpteen.runner.parts import RunnerParts
from umpteen.store.identity import LOST_HINT

__all__ = ["close_runner"]


def close_runner(
    parts: RunnerParts,
    *,
    lost: str,
    is_cancelled: bool,
    is_urgent: bool,
    is_alone: bool,
    is_strict: bool,
) -> int:
    """End the batches and say what is left; the exit code.

    lost: why the address no longer leads to the store; empty where it does. is_cancelled: the
    whole job was. is_urgent: no store is waited for. is_alone: nobody but us says what is left.
    is_strict: a task that did not succeed has an exit code of its own.
    """
    parts.lanes.end_strays()
    found = parts.batch_loader.finish_opening()
    if found and found.batch:
        parts.batches.add(found.ordinal, found.batch)
    if parts.lanes.has_crashed:
        return _close_crashed(parts)
    is_over = is_cancelled or bool(parts.batches.given_up)
    if is_over:
        with contextlib.suppress(OSError, StoreError):
            parts.batches.cancel_rest(parts.batch_loader.open_rest())
    _keep_unsent(parts)
    left = "" if is_over or not parts.signals.stops.count else _describe_left(parts)
    for ordinal in list(parts.batches.open):
        parts.batches.end(ordinal)
    _wait_for_stores(parts, is_urgent=is_urgent)
    if lost:  # whoever finds the store clears the rest
        parts.complaints.add(lost, LOST_HINT)
        return StoreError.exit_code
    with contextlib.suppress(OSError):
        remove_scratch(parts.folder.address, parts.token)
    if _leave_kept(parts):
        return StoreError.exit_code
    if not parts.batch_loader.unopened and not parts.dispatcher.passed_over:
        parts.lease.remove()  # else we are to be taken for dead, and not waited for
    return _choose_exit_code(parts, left if is_alone else "", is_strict=is_strict)


def _close_crashed(parts: RunnerParts) -> int:
    """One of our own processes was killed: what is recorded stays, all else is for the next run."""
    _keep_unsent(parts)
    with contextlib.suppress(OSError):
        parts.recorder.sync(wait=True)
    _leave_kept(parts)
    print("error: a part of the runner was killed; run the job again", file=sys.stderr)
    return RUNNER_CRASHED


def _keep_unsent(parts: RunnerParts) -> None:
    """Have what did not arrive in its store kept on this machine."""
    parts.completions.take_arrived()
    parts.recorder.keep(parts.uploads.stop(), parts.uploads.trouble)


def _describe_left(parts: RunnerParts) -> str:
    """What a signal has kept from its end; empty where nothing was."""
    tasks = sum(active.left for active in parts.batches.open.values())
    batches = len(parts.batch_loader.unopened)
    said = [f"{tasks:,} of its tasks"] * bool(tasks) + [f"{batches:,} batches"] * bool(batches)
    return " and ".join(said)


def _wait_for_stores(parts: RunnerParts, *, is_urgent: bool) -> None:
    is_hopeless = is_urgent or parts.uploads.is_lost(time.monotonic())
    with (
        contextlib.suppress(OSError),
        contextlib.nullcontext() if is_hopeless else parts.store.patient(),
    ):
        parts.recorder.sync(wait=True)
    parts.heartbeat.finish()


def _leave_kept(parts: RunnerParts) -> bool:
    """Leave outcomes that the store did not take on this machine, and say where."""
    said = parts.recorder.leave_kept(parts.lease.folder)
    if said:
        parts.complaints.add(said, parts.recorder.find_hint() or STORE_HINT)
    return bool(said)


def _choose_exit_code(parts: RunnerParts, left: str, *, is_strict: bool) -> int:
    """Say what has kept us from all that was to be done; the exit code."""
    if refused := parts.batch_loader.trouble:
        parts.complaints.add(refused.text, refused.hint or STORE_HINT)
        return StoreError.exit_code
    if trouble := parts.recorder.trouble:
        said = f"the results store cannot be written: {trouble.text}"
        parts.complaints.add(said, STORE_HINT)
        return StoreError.exit_code
    if left:
        print(f"interrupted: {left} left; the same command goes on", file=sys.stderr)
        return 128 + parts.signals.stops.number
    return EXIT_SOME_FAILED if is_strict and parts.batches.did_fail else EXIT_SUCCEEDED
