"""What a user types for a job: its name, its address, or the file that it is made from.

One word in, one job out; and back, the shortest word that finds a job from here.
"""

from __future__ import annotations

import os

from umpteen.errors import ErrorCode, InputError, UmpteenError
from umpteen.query.registry import find_address, find_addresses, give_options, is_job
from umpteen.store.address import parse_address

__all__ = ["find_job", "is_job_file", "shorten_bundle_job", "shorten_job", "shorten_path"]


def find_job(word: str, name: str | None = None) -> str:
    """The job that a word means: its name, its address, or a job file or run file.

    A file means the job at the address where it would run from here, and no other. name: of the
    job, where it is not the one that the file says. Raises InputError.
    """
    if name is None and not is_job_file(word):
        return word
    from umpteen.formats import read_names  # only a file needs the readers of files

    found, address, options = read_names(word, name)
    if options:
        give_options(address, options)
    if not is_job(address):
        raise _no_such_job(word, found, address)
    return shorten_job(found, parse_address(address))


def _no_such_job(file: str, name: str, address: str) -> InputError:
    others = [shorten_path(other) for other in find_addresses(name)]
    hint = f"of that name there is {' and '.join(others)}: give its address" if others else None
    where = shorten_path(parse_address(address))
    message = f"{file} has not been run from here: there is no job at {where}"
    return InputError(message, hint or "umpteen ls shows all jobs", code=ErrorCode.NO_JOB)


def is_job_file(word: str) -> bool:
    """Whether a word names a file, and no job is called that."""
    return os.path.isfile(word) and not find_addresses(word)


def shorten_job(name: str, address: str) -> str:
    """The job's name, where that is enough to find it from here, else its address."""
    try:
        is_enough = find_address(name) == address
    except UmpteenError:
        is_enough = False
    return name if is_enough else shorten_path(address)


def shorten_bundle_job(bundle: str, name: str, address: str) -> str:
    """The bundle's name, where that is enough to find its job from here, else as `shorten_job`."""
    short = shorten_job(bundle, address)
    return short if short == bundle else shorten_job(name, address)


def shorten_path(path: str) -> str:
    """The path from here where it is below here, else as it is."""
    try:
        return path.removeprefix(os.getcwd().rstrip("/") + "/")
    except FileNotFoundError:  # we are in a folder that was removed
        return path
