"""What a person sees while a job runs: a live view, plain lines, JSON events, or nothing."""

from __future__ import annotations

import collections
import contextlib
import importlib
import json
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

from umpteen.errors import (
    EXIT_READER_LEFT,
    EXIT_SUCCEEDED,
    OutputError,
    ReaderLeftError,
    StoreError,
)
from umpteen.model.record import Record
from umpteen.planning.plan import Plan
from umpteen.query.failures import Failure, choose_failures, is_failure, read_failure
from umpteen.query.job_view import JobView
from umpteen.query.liveness import read_status
from umpteen.query.status import JobStatus
from umpteen.query.unrun import UnrunCounts
from umpteen.report.plan import plan_to_dict, render_dry_run, render_plan
from umpteen.report.printing import say
from umpteen.report.run import (
    fit_progress,
    render_end,
    render_goes_on,
    render_leave,
    render_nothing_to_retry,
    render_start,
)
from umpteen.report.status import (
    failure_to_dict,
    render_bar,
    render_counts,
    render_failures,
    render_left,
    render_unrun,
    status_to_dict,
)
from umpteen.system.stop_signals import STOP_SIGNALS, Stops
from umpteen.system.terminal import clean
from umpteen.verbs.handle import JobHandle

__all__ = [
    "LiveView",
    "View",
    "Waiting",
    "open_view",
    "show_idle",
    "show_leave",
    "show_plan",
    "stop_signals",
]

_PLAIN_S, _SOON_S = 5.0, 3.0
_JSON_S = 1.0
_SHOWN_FAILURES = 5
_MOST_FAILURES, _MOST_EVENTS = 50, 1000  # at one look


class Waiting:
    """What is shown on stderr before there is a job to look at: `tell` is given it.

    is_shown: whether it is shown at all. `tell` raises KeyboardInterrupt once the user asked to
    stop.
    """

    def __init__(self, stop: Stops, *, is_shown: bool) -> None:
        self.stop, self.is_shown = stop, is_shown
        self.shown_s = time.monotonic() + _SOON_S - _PLAIN_S

    def tell(self, text: str) -> None:
        """Show it now and then."""
        if self.stop.count:
            raise KeyboardInterrupt
        if self.is_shown and time.monotonic() - self.shown_s >= _PLAIN_S:
            self.shown_s = time.monotonic()
            _say(text)


@contextlib.contextmanager
def stop_signals(*, is_last: bool = False) -> Iterator[Stops]:
    """Count signals instead of dying of them.

    is_last: whether the process only has to end after this; once asked to, it hears no more.
    """
    stop = Stops()
    if threading.current_thread() is not threading.main_thread():  # only that one hears them
        yield stop
        return
    heard = [n for n in STOP_SIGNALS if signal.getsignal(n) is not signal.SIG_IGN]  # as under nohup
    before = {number: signal.signal(number, stop.add) for number in heard}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if is_last and stop.count else handler)


def open_view(
    submission: JobHandle, job: str, *, quiet: bool, as_json: bool, is_silent: bool = False
) -> View:
    """The view that suits the flags and the terminal. job: what to type for it, if known.

    is_silent: for a program, which asks for what it wants to know.
    """
    if is_silent:
        return View(submission, job)
    if as_json:
        return JsonView(submission, job)
    if quiet:
        return QuietView(submission, job)
    if "ipykernel" in sys.modules:
        return NotebookView(submission, job)
    return LiveView(submission, job) if _is_terminal() else PlainView(submission, job)


def _is_terminal() -> bool:
    with contextlib.suppress(OSError, ValueError):  # closed
        return sys.stderr is not None and sys.stderr.isatty()
    return False


class View:
    """Shows nothing, and has what the others have in common.

    failures: the newest. folds: what was skipped or cancelled, counted. is_unread: whether who
    read it has gone.
    """

    is_unread = False

    def __init__(self, submission: JobHandle, job: str = "") -> None:
        self.submission = submission
        self.history = submission.history
        self.job = job or JobView(self.history).word
        self.folds = UnrunCounts()
        self.work_before_s = self.history.seconds
        self.failures: list[Failure] = []
        self.unread: collections.deque[tuple[str, Record]] = collections.deque()
        self.is_started = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, status: JobStatus) -> None:
        """One look at the job."""
        del status
        self.history = self.submission.history

    def show_end(self, status: JobStatus, seconds: float, *, is_interrupted: bool) -> None:
        """The last look at it: nothing to say."""
        del status, seconds, is_interrupted

    def tell_interrupted(self, count: int) -> None:
        """The user asked to stop for the `count`-th time."""

    def show_left(self, status: JobStatus) -> None:
        """That it goes on without us, which nobody would read where it is told else."""
        for line in render_goes_on(status, self.job):
            _say(line)

    def take_recent(self) -> list[tuple[str, Record]]:
        """What ended without success since the last call; what the store does not tell is left."""
        if self.submission.is_looking:
            return []
        with contextlib.suppress(StoreError):
            return list(self.history.take_recent())
        return []

    def read_failures(self, entries: Iterable[tuple[str, Record]]) -> Iterator[Failure]:
        """As people see them; those that the store does not tell of now come the next time."""
        self.unread.extend(entries)
        with contextlib.suppress(StoreError):
            while self.unread and not self.submission.is_looking:
                yield read_failure(self.history, *self.unread[0])
                self.unread.popleft()

    def take_failures(self) -> list[Failure]:
        """Failures since the last call, the newest last; what else did not succeed is counted."""
        failed: collections.deque[tuple[str, Record]] = collections.deque(maxlen=_MOST_FAILURES)
        for batch, record in self.take_recent():
            if is_failure(record):
                failed.append((batch, record))
            else:
                self.folds.add(self.history, batch, record)
        return list(self.read_failures(failed))

    def keep_failures(self) -> None:
        """Have the newest failures in `failures`, and the others counted."""
        self.failures = [*self.failures, *self.take_failures()][-_SHOWN_FAILURES:]

    def failure_lines(self, width: int) -> list[str]:
        """The newest failures, and what was skipped or cancelled."""
        return [
            *render_failures(self.job, self.failures, width),
            *render_unrun(self.folds.list_groups(), width),
        ]

    def end_lines(self, status: JobStatus, seconds: float, *, is_interrupted: bool) -> list[str]:
        """The lines under a run, whatever came before them."""
        if is_interrupted and not self.submission.is_own:
            return render_goes_on(status, self.job)
        work_s = max(0.0, self.history.seconds - self.work_before_s)
        lines = render_end(
            status, self.job, seconds, work_s, is_whole=self.submission.is_whole,
            left_failed=self.submission.summary.left_failed,
            left_behind=self.submission.summary.left_behind,
        )  # fmt: skip
        if is_interrupted:
            lines[0] = "interrupted. " + lines[0]
        return lines


def _say(line: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # of a program that uses us, it may be anything
        if sys.stderr is not None:
            sys.stderr.write(clean(line) + "\n")
            sys.stderr.flush()


def show_idle(
    submission: JobHandle, job: str, *, is_chosen: bool, quiet: bool, as_json: bool
) -> int:
    """That there is nothing to run again; the exit code. is_chosen: where only some were meant."""
    status = read_status(submission.history)
    if as_json:
        view = JsonView(submission)
        view.show_end(status, 0.0, is_interrupted=False)
        return EXIT_READER_LEFT if view.is_unread else EXIT_SUCCEEDED
    if not quiet:
        for line in render_nothing_to_retry(status, job, is_chosen=is_chosen):
            _say(line)
    return EXIT_SUCCEEDED


def show_plan(plan: Plan, *, as_json: bool) -> int:
    """What would run, and why; the exit code."""
    lines = [json.dumps(plan_to_dict(plan))] if as_json else render_dry_run(plan)
    for line in lines:
        say(line)
    return EXIT_SUCCEEDED


def show_leave(submission: JobHandle, job: str, *, quiet: bool, as_json: bool) -> int:
    """What there is to say where nobody watches: all of it at once; the exit code.

    job: what to type for it.
    """
    status = read_status(submission.history)
    if as_json:
        view = JsonView(submission)
        view.tell_started(status)
        return EXIT_READER_LEFT if view.is_unread else EXIT_SUCCEEDED
    if not quiet:
        lines = _head(submission, status, is_left=True)
        for line in (*lines, *render_leave(job, submission.left_over)):
            _say(line)
    return EXIT_SUCCEEDED


def _head(submission: JobHandle, status: JobStatus, *, is_left: bool = False) -> list[str]:
    lines, summary = [render_start(status, is_left=is_left)], submission.summary
    if set(summary.why) != {"new"} or summary.done or summary.running:
        former = min(submission.left_over, summary.running)
        left_behind = len(summary.left_behind)
        again = render_plan(
            summary.done,
            summary.running,
            summary.why,
            former,
            left_behind,
            summary.other_code,
        )
        lines.append(f"  {again or 'nothing to run'}")
    if summary.other_code:
        lines.append("  code      --rerun code runs again what was done with other code")
    if summary.dropped:
        lines.append(f"  {summary.dropped:,} that it had before are no longer in it")
    return lines


class QuietView(View):
    """One line on stderr, where tasks did not succeed: an error, such as cron mails."""

    def show_end(self, status: JobStatus, seconds: float, *, is_interrupted: bool) -> None:
        """The first closing line, and what to type."""
        if status.state != "succeeded" or is_interrupted:
            first, *rest = self.end_lines(status, seconds, is_interrupted=is_interrupted)
            again = [line.split(maxsplit=1)[1] for line in rest if line.startswith("  again ")]
            _say("; ".join([first, *(" ".join(line.split()) for line in again[:1])]))


class PlainView(View):
    """Lines for a log: one every few seconds, and one at each failure."""

    def __init__(self, submission: JobHandle, job: str = "") -> None:
        super().__init__(submission, job)
        self.next_s = time.monotonic() + _PLAIN_S
        self.trouble = ""

    def show(self, status: JobStatus) -> None:
        """A line if it is time for one, and one for each new failure."""
        super().show(status)
        if not self.is_started:
            self.is_started = True
            for line in _head(self.submission, status):
                _say(line)
        if status.trouble != self.trouble:
            self.trouble = status.trouble
            _say(f"{status.name}: {status.trouble or 'goes on'}")
        for line in render_failures(self.job, self.take_failures()):
            _say(line)
        if time.monotonic() >= self.next_s and status.state == "running":
            self.next_s = time.monotonic() + _PLAIN_S
            _say(f"{status.name}: {render_counts(status)}  {render_left(status.left_s)}".rstrip())

    def show_end(self, status: JobStatus, seconds: float, *, is_interrupted: bool) -> None:
        """What was skipped or cancelled, and the closing lines."""
        for line in render_unrun(self.folds.list_groups()):
            _say(line)
        for line in self.end_lines(status, seconds, is_interrupted=is_interrupted):
            _say(line)

    def tell_interrupted(self, count: int) -> None:
        """What happens now, and what the next signal does."""
        _say(_STOPPING if count == 1 else "ending what runs at once")


_STOPPING = "ending what runs; once more ends it at once"


class JsonView(View):
    """One event a line on stdout: `started`, `progress`, `failed`, `ended`."""

    def __init__(self, submission: JobHandle, job: str = "") -> None:
        super().__init__(submission, job)
        self.next_s = 0.0

    def show(self, status: JobStatus) -> None:
        """Events since the last look."""
        super().show(status)
        if not self.is_started:
            self.tell_started(status)
        for failure in self.read_failures(choose_failures(self.take_recent(), _MOST_EVENTS)):
            self._emit("failed", failure_to_dict(failure))
        if time.monotonic() >= self.next_s:
            self.next_s = time.monotonic() + _JSON_S
            self._emit("progress", status_to_dict(status))

    def show_end(self, status: JobStatus, seconds: float, *, is_interrupted: bool) -> None:
        """The closing event."""
        self._emit(
            "ended", status_to_dict(status), wall_s=round(seconds, 3), interrupted=is_interrupted
        )

    def tell_started(self, status: JobStatus) -> None:
        """The opening event: what was handed in, and why."""
        self.is_started = True
        summary = self.submission.summary
        left = {"failed": summary.left_failed, "behind": len(summary.left_behind)}
        plan = {
            "run": summary.why, "done": summary.done, "running": summary.running,
            "left": left,
        }  # fmt: skip
        self._emit("started", status_to_dict(status), **plan)

    def _emit(self, event: str, content: dict[str, Any], **more: Any) -> None:
        """The job is none the worse for what cannot be told of it."""
        try:
            sys.stdout.write(json.dumps({"event": event, **content, **more}) + "\n")
            sys.stdout.flush()
        except ReaderLeftError:
            self.is_unread = True
        except OutputError as error:
            _say(f"{error}; the job goes on")


class NotebookView(View):
    """One output of a notebook's cell, replaced at each look."""

    def __init__(self, submission: JobHandle, job: str = "") -> None:
        super().__init__(submission, job)
        self.output: Any = None
        self.head: list[str] = []

    def show(self, status: JobStatus) -> None:
        """The bar, the counts, and the newest failures."""
        super().show(status)
        if not self.is_started:
            self.is_started = True
            self.head = _head(self.submission, status)
        self.keep_failures()
        left = render_left(status.left_s)
        bar = f" {render_bar(status, 30)}  {render_counts(status)}   {left}".rstrip()
        self._put([*self.head, bar, *self.failure_lines(110)])

    def show_end(self, status: JobStatus, seconds: float, *, is_interrupted: bool) -> None:
        """The closing lines in place of the bar."""
        self.keep_failures()
        closing = self.end_lines(status, seconds, is_interrupted=is_interrupted)
        self._put([*self.head, *self.failure_lines(110), *closing])

    def _put(self, lines: list[str]) -> None:
        display: Any = importlib.import_module("IPython.display").display
        shown = {"text/plain": "\n".join(map(clean, lines))}
        if self.output is None:
            self.output = display(shown, raw=True, display_id=True)
        else:
            self.output.update(shown, raw=True)


class LiveView(View):
    """One bar and the newest failures, redrawn in place."""

    def __init__(self, submission: JobHandle, job: str = "") -> None:
        super().__init__(submission, job)
        from rich.console import Console
        from rich.live import Live

        self.console = Console(stderr=True, highlight=False)
        self.live = Live(console=self.console, auto_refresh=False, transient=True)
        self.note = ""

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def show(self, status: JobStatus) -> None:
        """Redraw the bar and the failures under it."""
        super().show(status)
        if not self.is_started:
            self.is_started = True
            for line in _head(self.submission, status):
                self.console.print(clean(line), markup=False)
            self.live.start()
        self.keep_failures()
        self.live.update(self._draw(status), refresh=True)

    def show_end(self, status: JobStatus, seconds: float, *, is_interrupted: bool) -> None:
        """The failures stay; the bar gives way to the closing lines."""
        self.keep_failures()
        if lines := self.failure_lines(self.console.width):
            self.console.print(_draw_failures(lines))
        first, *rest = self.end_lines(status, seconds, is_interrupted=is_interrupted)
        style = "green" if status.state == "succeeded" else "red" if status.not_succeeded else ""
        self.console.print(clean(first), style=style, markup=False, soft_wrap=True)
        for line in rest:
            self.console.print(clean(line), markup=False, soft_wrap=True)

    def tell_interrupted(self, count: int) -> None:
        """Said beside the bar."""
        self.note = _STOPPING if count == 1 else "ending what runs at once"

    def _draw(self, status: JobStatus) -> Any:
        from rich.console import Group
        from rich.text import Text

        progress = fit_progress(status, self.console.width)
        line = Text(" ")
        line.append(progress.bar, style="red" if status.not_succeeded else "green")
        line.append(progress.counts)
        line.append(progress.left, style="yellow")
        parts: list[Any] = [line]
        for note in filter(None, (self.note, status.trouble)):
            parts.append(Text(" " + clean(note), style="yellow"))
        if lines := self.failure_lines(self.console.width):
            parts.append(_draw_failures(lines))
        return Group(*parts)


def _draw_failures(lines: Sequence[str]) -> Any:
    from rich.text import Text

    shown = Text("\n".join(map(clean, lines)), no_wrap=True, overflow="crop")
    shown.highlight_regex(r"(?m)^ (failed|timed out)", "red")
    return shown
