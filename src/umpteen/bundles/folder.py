"""The folder that bundles lie in: `NAME_YYYYmmddHHMMSS.json`, each name and time once."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from umpteen.bundles.bundle import Bundle, BundleJob
from umpteen.bundles.bundle_file import decode_jobs, encode_jobs, parse_jobs, write_job
from umpteen.config.machines import Config
from umpteen.errors import InputError, StoreError, find_nearest, say_nearest
from umpteen.job.spec import check_job_name
from umpteen.system.locks import lock_file
from umpteen.system.whole_files import replace_file

__all__ = ["Added", "BundleFolder"]

_FORM = "%Y%m%d%H%M%S"
_FILE = re.compile(r"(.+)_([0-9]{14})\.json", re.DOTALL)
_SECOND = dt.timedelta(seconds=1)


class Added(NamedTuple):
    """Where a job was put."""

    bundle: Bundle
    # Its name in the bundle, which may be another than was asked for.
    job: str
    # Whether the bundle was made for it.
    is_new: bool


class BundleFolder:
    """The bundles of this user on this machine."""

    def __init__(self, config: Config) -> None:
        self.path = os.path.join(config.local.folder, "jobs")

    def read(self, name: str, timestamp: str | None = None) -> Bundle:
        """The newest bundle of exactly that name, or the one of a time.

        Raises InputError where there is none, or its file is wrong.
        """
        found = self._find(name)
        wanted = max(found, default=None) if timestamp is None else timestamp
        if wanted is None:
            raise InputError(f"there is no bundle {name!r}", self._hint(name))
        if wanted not in found:
            hint = f"there are {', '.join(sorted(found))}" if found else self._hint(name)
            raise InputError(f"there is no bundle {name!r} of {wanted}", hint)
        return self._open(name, wanted, decode_jobs(self._locate(name, wanted)))

    def list_names(self) -> list[str]:
        """Those that bundles have, each once. Raises StoreError where they cannot be read."""
        return sorted({name for name, _ in self._list()})

    def create(self, name: str, job: BundleJob | None = None) -> Bundle:
        """A new bundle with at most one job. Raises StoreError where it cannot be written."""
        with self._locked():
            return self._create(name, job)

    def append(self, name: str, job: BundleJob) -> Added:
        """Put a job into the newest bundle of that name, or into a new one where there is none.

        Where the bundle has a job of that name it becomes `NAME_001`. Raises InputError where the
        file is wrong, and StoreError where it cannot be written.
        """
        with self._locked():
            if not (found := self._find(name)):
                return Added(self._create(name, job), job.name, is_new=True)
            timestamp = max(found)
            path = self._locate(name, timestamp)
            jobs = decode_jobs(path)
            own = _find_free(job.name, jobs)
            # What was written by hand stays as it is.
            jobs = {**jobs, own: {**write_job(job), "name": own}}
            bundle = self._open(name, timestamp, jobs)
            with _writing(path):
                mode = os.stat(path).st_mode & 0o777
                # The file itself, where `path` is a link to it.
                replace_file(os.path.realpath(path), encode_jobs(jobs), mode)
            return Added(bundle, own, is_new=False)

    def _create(self, name: str, job: BundleJob | None) -> Bundle:
        jobs = {job.name: write_job(job)} if job else {}
        timestamp = self._find_time(name)
        bundle = self._open(name, timestamp, jobs)
        with _writing(bundle.path):
            replace_file(bundle.path, encode_jobs(jobs))  # no bundle has this time: we are alone
        return bundle

    def _find_time(self, name: str) -> str:
        """Now, or the first second after it that no bundle has: scripts of two are called by it.

        It is later than that of every other bundle of this name, also where the clock was put back.
        """
        taken = {timestamp for _, timestamp in self._list()}
        now = dt.datetime.now().replace(microsecond=0)
        for newest in sorted(self._find(name))[-1:]:
            with contextlib.suppress(ValueError, OverflowError):  # digits that are no time
                now = max(now, dt.datetime.strptime(newest, _FORM) + _SECOND)
        while now.strftime(_FORM) in taken:
            now += _SECOND
        return now.strftime(_FORM)

    def _open(self, name: str, timestamp: str, jobs: Mapping[str, Any]) -> Bundle:
        check_job_name(name)
        path = self._locate(name, timestamp)
        return Bundle(name, timestamp, path, parse_jobs(jobs, path))

    def _locate(self, name: str, timestamp: str) -> str:
        return os.path.join(self.path, f"{name}_{timestamp}.json")

    def _find(self, name: str) -> list[str]:
        """The times of the bundles of exactly that name."""
        return [timestamp for own, timestamp in self._list() if own == name]

    def _list(self) -> list[tuple[str, str]]:
        try:
            names = os.listdir(self.path)
        except FileNotFoundError:
            return []
        except OSError as error:
            message = f"cannot read {self.path}: {error.strerror}"
            raise StoreError(message, path=self.path) from error
        return [(match[1], match[2]) for name in names if (match := _FILE.fullmatch(name))]

    def _hint(self, name: str) -> str:
        near = find_nearest(name, self.list_names())
        return say_nearest(near) if near else "umpteen schedule makes bundles"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone with the folder, among all machines that see it."""
        with _writing(self.path):
            os.makedirs(self.path, exist_ok=True)
            # Here, where what keeps it from being made is told as what it is.
            open(lock := os.path.join(self.path, ".lock"), "a").close()
        with lock_file(lock):
            yield


@contextlib.contextmanager
def _writing(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}", path=path) from error


def _find_free(name: str, taken: Mapping[str, Any]) -> str:
    number, free = 0, name
    while free in taken:
        number += 1
        free = f"{name}_{number:03}"
    return free
