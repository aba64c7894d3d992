"""What follows from how a runner of this process ended."""

from __future__ import annotations

from umpteen.errors import BackendError, SettingsError, StoreError
from umpteen.model.complaint import find_complaint, find_last_word

__all__ = ["REFUSED", "RunnerEnds"]

REFUSED = (StoreError.exit_code, SettingsError.exit_code)  # it could not go on, and said why
_MOST_DEATHS = 5  # of runners in a row, without a task that ended between them


class RunnerEnds:
    """The ends of the runners that a watch has seen, one after the other."""

    def __init__(self) -> None:
        self.deaths = 0  # in a row, without a task that ended between them
        self.waiting = -1  # tasks that waited at the last of them

    def add(self, returned: int | None, said: str, waiting: int) -> None:
        """Raises StoreError or BackendError where another runner would end like this one.

        returned: its exit code, 0 or None where nothing is wrong. said: on its stderr. waiting:
        how many tasks wait.
        """
        if returned in REFUSED:
            raise _build_refusal(returned, said)
        if not returned:
            return
        self.deaths = self.deaths + 1 if waiting == self.waiting else 1
        self.waiting = waiting
        if self.deaths >= _MOST_DEATHS:
            why = find_last_word(said) or _describe_end(returned)
            raise BackendError(
                f"the runner died {self.deaths} times: {why}", "run it again to go on",
                returned=returned, last_lines=said or None,
            )  # fmt: skip


def _build_refusal(returned: int | None, said: str) -> StoreError | BackendError:
    """The runner's own error. Never wrong use: the job has been submitted."""
    kind = StoreError if returned == StoreError.exit_code else BackendError
    complaint = find_complaint(said)
    if complaint:
        return kind(complaint.message, complaint.hint or None)
    return kind(find_last_word(said) or "the runner gave up on the store")


def _describe_end(returned: int) -> str:
    """How a runner ended that said nothing."""
    return f"exit code {returned}" if returned >= 0 else f"killed by signal {-returned}"
