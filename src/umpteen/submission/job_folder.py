"""Makes the store of a job before its first submission, and removes it where that fails."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import msgspec

from umpteen.errors import UmpteenError
from umpteen.history.history import History
from umpteen.job.spec import Job
from umpteen.model.states import FORMAT_VERSION
from umpteen.query.registry import forget, register
from umpteen.store.address import is_remote
from umpteen.store.base import Store
from umpteen.store.identity import build_id
from umpteen.store.job_files import list_submission_numbers
from umpteen.store.layout import JOB, LOCK
from umpteen.store.owners import refuse_strangers
from umpteen.store.removal import remove_rest
from umpteen.submission.stored_options import leave_out_secrets
from umpteen.system.locks import leases_folder

__all__ = ["create_job", "job_created"]

_UNSTORED = ("sources", "results_options")


@contextlib.contextmanager
def job_created(history: History, job: Job) -> Iterator[None]:
    """Puts the job into its store and the registry, and removes a new one again where the caller
    fails.
    """
    store, is_new = history.store, not history.job
    with store.patient():
        create_job(store, job)
    try:
        leases_folder()  # refuses what is not ours, before anybody is waited for
        options = job.settings.results_options
        register(job.name, store.address, job.settings.submitted_from, options)
        yield
    except (UmpteenError, KeyboardInterrupt):
        if is_new:
            with contextlib.suppress(UmpteenError):
                _remove_unsubmitted(store)
        raise


def create_job(store: Store, job: Job) -> None:
    """Put `job.json`, if the store has none. Raises StoreError where nothing can be put."""
    if not is_remote(store.address):
        refuse_strangers(store.address)
    if store.read(JOB) is not None:
        return
    settings = msgspec.to_builtins(job.settings)
    content = {
        "version": FORMAT_VERSION,
        "id": build_id(),
        "name": job.name,
        "created": round(time.time(), 3),
        "settings": {
            **{key: value for key, value in settings.items() if key not in _UNSTORED},
            "executor_options": leave_out_secrets(store, job.settings.executor_options)[0],
        },
    }
    store.create(JOB, msgspec.json.encode(content))


def _remove_unsubmitted(store: Store) -> None:
    """Remove a job that was never submitted, and that nobody is submitting."""
    if store.read(LOCK) is not None or list_submission_numbers(store):
        return
    store.delete(JOB)
    forget(store.address)
    if not is_remote(store.address):
        remove_rest(store, ())
