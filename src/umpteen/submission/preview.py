"""What an executor would be asked for by a plan, as a dry run shows it; nothing is written."""

from __future__ import annotations

import time

from umpteen.errors import BackendError
from umpteen.executors.base import Executor, PreviewSection
from umpteen.history.history import History
from umpteen.planning.batch_files import build_batches
from umpteen.planning.plan import Plan
from umpteen.submission.plan import choose_sizes, list_past, read_tried
from umpteen.submission.settings import open_executor_of
from umpteen.submission.write import build_request, list_again, number_next

__all__ = ["preview_request"]

_MARK = "MARK"  # stands for the word of the submission


def preview_request(plan: Plan, history: History) -> list[PreviewSection]:
    """What the executor of a plan would be asked for; nothing where it does not say."""
    executor = open_executor_of(plan.job.settings)
    if plan.is_empty or not executor.abilities.previews:
        return []
    try:
        return _preview(plan, history, executor)
    except BackendError as error:  # a dry run needs nobody to be there
        return [PreviewSection("queue", f"not known: {error}", {})]


def _preview(plan: Plan, history: History, executor: Executor) -> list[PreviewSection]:
    tried = read_tried(plan, history)
    sizes = choose_sizes(plan, executor, tried)
    made = list_again(plan, history)
    past, first = list_past(history, tried), number_next(history.store)
    # What batches say of folders is of no interest here, and to find it may take a connection.
    built = build_batches(plan, history.store.address, "", first, past, time.time(), sizes)
    made += [new for new, _ in built]
    return executor.preview(build_request(plan, history, _MARK, made))
