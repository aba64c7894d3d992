"""What `run`, `collect` and `retry` have in common: show a job until it ends."""

from __future__ import annotations

import time

from umpteen.errors import EXIT_INTERRUPTED, EXIT_READER_LEFT
from umpteen.query.failure_feed import FailureFeed, News
from umpteen.query.job_view import JobView
from umpteen.query.status import JobStatus, choose_exit_code
from umpteen.report.views import View, open_view
from umpteen.system.stop_signals import Stops
from umpteen.verbs.handle import JobHandle
from umpteen.verbs.watch import watch

__all__ = ["watch_to_end"]


def watch_to_end(
    handle: JobHandle,
    stop: Stops,
    began_s: float,
    *,
    quiet: bool,
    as_json: bool,
    is_silent: bool = False,
    job: str = "",
) -> int:
    """Show the job until nobody is at it; the exit code. began_s: as `time.monotonic()` has it.

    job: what to type for it, where the user has typed that.
    """
    word = job or JobView(handle.history).word
    view = open_view(handle, word, quiet=quiet, as_json=as_json, is_silent=is_silent)
    feed = FailureFeed()
    interrupted = 0
    status: JobStatus | None = None
    with view:
        for status in watch(handle):
            view.show(status, _read_news(handle, view, feed))
            if view.is_unread and not interrupted and status.state == "running":
                handle.let_go()
                view.show_left(status)
                return EXIT_READER_LEFT
            if stop.count > interrupted:
                interrupted = stop.count
                if not handle.interrupt(at_once=stop.count > 1):
                    break
                view.show_interrupted(stop.count)
    assert status is not None
    seconds = time.monotonic() - began_s
    news = _read_news(handle, view, feed)
    view.show_end(status, news, seconds, is_interrupted=interrupted > 0)
    if interrupted:
        return EXIT_INTERRUPTED
    return EXIT_READER_LEFT if view.is_unread else choose_exit_code(status)


def _read_news(handle: JobHandle, view: View, feed: FailureFeed) -> News:
    """What the view shows of failures; none are read while the store is being looked at."""
    if handle.is_looking or not view.failures_most:
        return News((), feed.unrun)
    take = feed.take_all if view.takes_unrun else feed.take_failed
    return News(take(handle.history, view.failures_most), feed.unrun)
