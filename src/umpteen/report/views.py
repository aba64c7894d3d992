"""What a person sees while a job runs: a live view, plain lines, JSON events, or nothing."""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

from umpteen.errors import EXIT_READER_LEFT, EXIT_SUCCEEDED, OutputError, ReaderLeftError
from umpteen.executors.base import PreviewSection
from umpteen.planning.plan import Plan
from umpteen.query.failure_feed import News
from umpteen.query.failures import Failure
from umpteen.query.status import JobStatus
from umpteen.query.unrun import UnrunCounts
from umpteen.report.plan import plan_to_dict, render_dry_run, render_plan, render_requests
from umpteen.report.printing import say
from umpteen.report.run import (
    Ending,
    build_ending,
    build_goes_on,
    fit_progress,
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
from umpteen.system.streams import write_stderr
from umpteen.system.terminal import clean
from umpteen.verbs.handle import JobHandle

__all__ = ["LiveView", "View", "open_view", "show_idle", "show_leave", "show_plan"]

_PLAIN_S = 5.0
_JSON_S = 1.0
_FAILURES_SHOWN = 5
_FAILURES_MOST, _EVENTS_MOST = 50, 1000  # at one look
_NOTEBOOK_COLUMNS = 110
_NO_NEWS = News((), UnrunCounts())
_STOPPING = ("ending what runs; once more ends it at once", "ending what runs at once")


def open_view(
    handle: JobHandle, job: str, *, quiet: bool, as_json: bool, is_silent: bool = False
) -> View:
    """The view that suits the flags and the terminal. job: what to type for it.

    is_silent: for a program, which asks for what it wants to know.
    """
    if is_silent:
        return View(job)
    if as_json:
        return JsonView(handle, job)
    if quiet:
        return QuietView(handle, job)
    if "ipykernel" in sys.modules:
        return NotebookView(handle, job)
    return LiveView(handle, job) if _is_terminal() else PlainView(handle, job)


def _is_terminal() -> bool:
    with contextlib.suppress(OSError, ValueError):  # closed
        return sys.stderr is not None and sys.stderr.isatty()
    return False


class View:
    """Shows nothing: what a view is asked for while a job is watched."""

    # Whether who read it has gone.
    is_unread = False
    # How many failures it shows at one look, and whether what never ran is among them.
    failures_most, takes_unrun = 0, False

    def __init__(self, job: str) -> None:
        self._job = job  # what to type for the job

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, status: JobStatus, news: News) -> None:
        """One look at the job."""

    def show_end(
        self, status: JobStatus, news: News, seconds: float, *, is_interrupted: bool
    ) -> None:
        """The last look at it. seconds: since the command began."""

    def show_interrupted(self, count: int) -> None:
        """The user asked to stop for the `count`-th time."""

    def show_left(self, status: JobStatus) -> None:
        """That the job goes on without this process: on stderr, as nobody reads stdout."""
        for line in render_goes_on(status, self._job):
            write_stderr(line)


class _Closing:
    """The lines under a run, whatever came before them."""

    def __init__(self, handle: JobHandle, job: str) -> None:
        self._handle, self._job = handle, job
        self._work_before_s = handle.history.seconds

    def build(self, status: JobStatus, seconds: float, *, is_interrupted: bool) -> Ending:
        """How the run ended, and what to type."""
        handle = self._handle
        if is_interrupted and not handle.is_own:
            return build_goes_on(status, self._job)
        work_s = max(0.0, handle.history.seconds - self._work_before_s)
        ending = build_ending(
            status, self._job, seconds, work_s, is_whole=handle.is_whole,
            left_failed=handle.summary.left_failed, left_behind=handle.summary.left_behind,
        )  # fmt: skip
        return ending._replace(first="interrupted. " + ending.first) if is_interrupted else ending


class _NewestFailures:
    """The newest failures of a job that is watched, and counts of what never ran."""

    def __init__(self, job: str) -> None:
        self._job = job
        self._newest: list[Failure] = []
        self._unrun = _NO_NEWS.unrun

    def add(self, news: News) -> None:
        """What came since the last look."""
        self._newest = [*self._newest, *news.failures][-_FAILURES_SHOWN:]
        self._unrun = news.unrun

    def render(self, width: int) -> list[str]:
        """For that many columns."""
        unrun = render_unrun(self._unrun.list_groups(), width)
        return [*render_failures(self._job, self._newest, width), *unrun]


def show_idle(
    handle: JobHandle, status: JobStatus, job: str, *, is_chosen: bool, quiet: bool, as_json: bool
) -> int:
    """That there is nothing to run again; the exit code. is_chosen: where only some were meant."""
    if as_json:
        view = JsonView(handle, job)
        view.show_end(status, _NO_NEWS, 0.0, is_interrupted=False)
        return EXIT_READER_LEFT if view.is_unread else EXIT_SUCCEEDED
    if not quiet:
        for line in render_nothing_to_retry(status, job, is_chosen=is_chosen):
            write_stderr(line)
    return EXIT_SUCCEEDED


def show_plan(plan: Plan, requests: Sequence[PreviewSection], *, as_json: bool) -> int:
    """What would run, and why; the exit code. requests: what the executor would be asked for."""
    if as_json:
        lines = [json.dumps(plan_to_dict(plan, requests))]
    else:
        lines = [*render_dry_run(plan), *render_requests(requests)]
    for line in lines:
        say(line)
    return EXIT_SUCCEEDED


def show_leave(
    handle: JobHandle, status: JobStatus, job: str, *, quiet: bool, as_json: bool
) -> int:
    """What there is to say where nobody watches: all of it at once; the exit code.

    job: what to type for it.
    """
    if as_json:
        view = JsonView(handle, job)
        view.show_started(status)
        return EXIT_READER_LEFT if view.is_unread else EXIT_SUCCEEDED
    if not quiet:
        lines = _render_head(handle, status, is_left=True)
        for line in (*lines, *render_leave(job, handle.left_over)):
            write_stderr(line)
    return EXIT_SUCCEEDED


def _render_head(handle: JobHandle, status: JobStatus, *, is_left: bool = False) -> list[str]:
    """What runs, where, and what of it ran before."""
    lines, summary = [render_start(status, is_left=is_left)], handle.summary
    if set(summary.why) != {"new"} or summary.done or summary.running:
        former = min(handle.left_over, summary.running)
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

    def __init__(self, handle: JobHandle, job: str) -> None:
        super().__init__(job)
        self._closing = _Closing(handle, job)

    def show_end(self, status: JobStatus, _: News, seconds: float, *, is_interrupted: bool) -> None:
        """The first closing line, and what to type."""
        if status.state == "succeeded" and not is_interrupted:
            return
        ending = self._closing.build(status, seconds, is_interrupted=is_interrupted)
        again = [note.text for note in ending.notes if note.label == "again"]
        write_stderr("; ".join([ending.first, *(" ".join(text.split()) for text in again[:1])]))


class PlainView(View):
    """Lines for a log: one every few seconds, and one at each failure."""

    failures_most = _FAILURES_MOST

    def __init__(self, handle: JobHandle, job: str) -> None:
        super().__init__(job)
        self._handle = handle
        self._closing = _Closing(handle, job)
        self._is_started = False
        self._next_s = time.monotonic() + _PLAIN_S
        self._trouble = ""

    def show(self, status: JobStatus, news: News) -> None:
        """A line if it is time for one, and one for each new failure."""
        if not self._is_started:
            self._is_started = True
            self._write(_render_head(self._handle, status))
        if status.trouble != self._trouble:
            self._trouble = status.trouble
            write_stderr(f"{status.name}: {status.trouble or 'goes on'}")
        self._write(render_failures(self._job, news.failures))
        if time.monotonic() >= self._next_s and status.state == "running":
            self._next_s = time.monotonic() + _PLAIN_S
            left = render_left(status.left_s)
            write_stderr(f"{status.name}: {render_counts(status)}  {left}".rstrip())

    def show_end(
        self, status: JobStatus, news: News, seconds: float, *, is_interrupted: bool
    ) -> None:
        """What was skipped or cancelled, and the closing lines."""
        self._write(render_failures(self._job, news.failures))
        self._write(render_unrun(news.unrun.list_groups()))
        self._write(self._closing.build(status, seconds, is_interrupted=is_interrupted).render())

    def show_interrupted(self, count: int) -> None:
        """What happens now, and what the next signal does."""
        write_stderr(_STOPPING[min(count, 2) - 1])

    def _write(self, lines: Sequence[str]) -> None:
        for line in lines:
            write_stderr(line)


class JsonView(View):
    """One event a line on stdout: `started`, `progress`, `failed`, `ended`."""

    failures_most, takes_unrun = _EVENTS_MOST, True

    def __init__(self, handle: JobHandle, job: str) -> None:
        super().__init__(job)
        self._handle = handle
        self._is_started = False
        self._next_s = 0.0

    def show(self, status: JobStatus, news: News) -> None:
        """Events since the last look."""
        if not self._is_started:
            self.show_started(status)
        for failure in news.failures:
            self._emit("failed", failure_to_dict(failure))
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + _JSON_S
            self._emit("progress", status_to_dict(status))

    def show_end(
        self, status: JobStatus, news: News, seconds: float, *, is_interrupted: bool
    ) -> None:
        """What failed since, and the closing event."""
        for failure in news.failures:
            self._emit("failed", failure_to_dict(failure))
        self._emit(
            "ended", status_to_dict(status), wall_s=round(seconds, 3), interrupted=is_interrupted
        )

    def show_started(self, status: JobStatus) -> None:
        """The opening event: what was submitted, and why."""
        self._is_started = True
        summary = self._handle.summary
        left = {"failed": summary.left_failed, "behind": len(summary.left_behind)}
        plan = {
            "run": summary.why, "done": summary.done, "running": summary.running,
            "left": left,
        }  # fmt: skip
        self._emit("started", status_to_dict(status), **plan)

    def _emit(self, event: str, content: Mapping[str, object], **more: object) -> None:
        """The job goes on where it cannot be printed."""
        try:
            sys.stdout.write(json.dumps({"event": event, **content, **more}) + "\n")
            sys.stdout.flush()
        except ReaderLeftError:
            self.is_unread = True
        except OutputError as error:
            write_stderr(f"{error}; the job goes on")


class NotebookView(View):
    """One output of a notebook's cell, replaced at each look."""

    failures_most = _FAILURES_MOST

    def __init__(self, handle: JobHandle, job: str) -> None:
        super().__init__(job)
        self._handle = handle
        self._closing = _Closing(handle, job)
        self._failures = _NewestFailures(job)
        self._head: list[str] = []
        self._output: Any = None  # IPython's handle of what is displayed

    def show(self, status: JobStatus, news: News) -> None:
        """The bar, the counts, and the newest failures."""
        self._head = self._head or _render_head(self._handle, status)
        self._failures.add(news)
        left = render_left(status.left_s)
        bar = f" {render_bar(status, 30)}  {render_counts(status)}   {left}".rstrip()
        self._put([*self._head, bar, *self._failures.render(_NOTEBOOK_COLUMNS)])

    def show_end(
        self, status: JobStatus, news: News, seconds: float, *, is_interrupted: bool
    ) -> None:
        """The closing lines in place of the bar."""
        self._failures.add(news)
        closing = self._closing.build(status, seconds, is_interrupted=is_interrupted).render()
        self._put([*self._head, *self._failures.render(_NOTEBOOK_COLUMNS), *closing])

    def _put(self, lines: list[str]) -> None:
        display: Any = importlib.import_module("IPython.display").display
        shown = {"text/plain": "\n".join(map(clean, lines))}
        if self._output is None:
            self._output = display(shown, raw=True, display_id=True)
        else:
            self._output.update(shown, raw=True)


class LiveView(View):
    """One bar and the newest failures, redrawn in place."""

    failures_most = _FAILURES_MOST

    def __init__(self, handle: JobHandle, job: str) -> None:
        super().__init__(job)
        from rich.console import Console
        from rich.live import Live

        self._handle = handle
        self._closing = _Closing(handle, job)
        self._failures = _NewestFailures(job)
        self._console = Console(stderr=True, highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._is_started = False
        self._note = ""  # beside the bar

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, status: JobStatus, news: News) -> None:
        """Redraw the bar and the failures under it."""
        if not self._is_started:
            self._is_started = True
            for line in _render_head(self._handle, status):
                self._console.print(clean(line), markup=False)
            self._live.start()
        self._failures.add(news)
        self._live.update(self._draw(status), refresh=True)

    def show_end(
        self, status: JobStatus, news: News, seconds: float, *, is_interrupted: bool
    ) -> None:
        """The failures stay; the bar gives way to the closing lines."""
        self._failures.add(news)
        if lines := self._failures.render(self._console.width):
            self._console.print(_draw_failures(lines))
        ending = self._closing.build(status, seconds, is_interrupted=is_interrupted)
        first, *rest = ending.render()
        style = "green" if status.state == "succeeded" else "red" if status.not_succeeded else ""
        self._console.print(clean(first), style=style, markup=False, soft_wrap=True)
        for line in rest:
            self._console.print(clean(line), markup=False, soft_wrap=True)

    def show_interrupted(self, count: int) -> None:
        """Said beside the bar."""
        self._note = _STOPPING[min(count, 2) - 1]

    def _draw(self, status: JobStatus) -> Any:
        from rich.console import Group
        from rich.text import Text

        progress = fit_progress(status, self._console.width)
        line = Text(" ")
        line.append(progress.bar, style="red" if status.not_succeeded else "green")
        line.append(progress.counts)
        line.append(progress.left, style="yellow")
        parts: list[Any] = [line]
        for note in filter(None, (self._note, status.trouble)):
            parts.append(Text(" " + clean(note), style="yellow"))
        if lines := self._failures.render(self._console.width):
            parts.append(_draw_failures(lines))
        return Group(*parts)


def _draw_failures(lines: Sequence[str]) -> Any:
    from rich.text import Text

    shown = Text("\n".join(map(clean, lines)), no_wrap=True, overflow="crop")
    shown.highlight_regex(r"(?m)^ (failed|timed out)", "red")
    return shown
