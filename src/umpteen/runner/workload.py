"""Which batches a runner is to run: some of a store, or a batch file that becomes one.

Standard library alone.
"""

from __future__ import annotations

import json
import os
from typing import NamedTuple

from umpteen.errors import SettingsError, StoreError, UmpteenError
from umpteen.model.states import SLOTS_MOST
from umpteen.runner.arguments import Options
from umpteen.runner.batch_start import read_batch
from umpteen.runner.import_batch import ImportedFile, adopt_batch, read_import
from umpteen.store.address import is_remote, open_store, parse_address
from umpteen.store.base import Store
from umpteen.store.identity import LOST_HINT, Identity, find_place, identify
from umpteen.store.job_files import read_job
from umpteen.store.layout import REMOVING
from umpteen.store.owners import refuse_strangers

__all__ = ["Work", "check_job", "find_work"]


class Work(NamedTuple):
    """What there is to do: batches of a store, so many tasks at once.

    note: what is left alone, in words.
    """

    store: Identity
    batches: list[str]
    slots: int
    note: str = ""

    @property
    def address(self) -> str:
        """Of the store."""
        return self.store.address


def find_work(options: Options) -> Work:
    """What the command line says; raises InputError, SettingsError and StoreError."""
    file = None if options.batches else read_import(options.place)
    address = file.address if file else options.place
    if not is_remote(address) and not options.is_carried:
        refuse_strangers(parse_address(address))
    if options.batches and options.slots:
        address = parse_address(options.place)
        store = Identity(address, options.store, find_place(address))
        return Work(store, options.batches, min(options.slots, SLOTS_MOST))
    return _ask_child(options, file) if is_remote(address) else _read_work(options, file)


def _read_work(options: Options, file: ImportedFile | None) -> Work:
    if file is None:
        store, batches, note = open_store(options.place), options.batches, ""
    else:
        store, batches, note = adopt_batch(file, options.batch_id)
    if not batches:
        return Work(identify(store), batches, 0, note)
    with store.patient():
        check_job(store)
        slots = min(read_batch(store, batches[0]).slots, SLOTS_MOST)
        return Work(identify(store), batches, slots, note)


def check_job(store: Store, *, is_here: bool = False) -> None:
    """Raises StoreError where there is no job, as from a machine that sees another disk.

    is_here: whether this machine put it there.
    """
    job = read_job(store)
    if job is None:
        if is_here:
            raise StoreError(f"{store.address} was moved or removed", LOST_HINT, path=store.address)
        raise StoreError(
            f"this machine sees no job at {store.address}",
            "use a path that is shared by all machines, or an object store",
            path=store.address,
        )
    if job.get(REMOVING):
        message = f"the job at {store.address} is being removed"
        raise StoreError(message, "umpteen rm goes on with that", path=store.address)


def _ask_child(options: Options, file: ImportedFile | None) -> Work:
    """As a process of its own: what a store elsewhere needs must not be here before lanes are.

    Threads do not survive a fork, and what a lane starts would count our memory as its own.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        with os.fdopen(writing, "w") as answers:
            try:
                json.dump(_read_work(options, file), answers)
            except UmpteenError as error:
                json.dump(
                    {"said": str(error), "hint": error.hint, "code": error.exit_code}, answers
                )
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answers:
        answer = json.loads(answers.read() or '{"said": "the runner was killed", "code": 3}')
    os.waitpid(pid, 0)
    if isinstance(answer, dict):
        kind = StoreError if answer["code"] == StoreError.exit_code else SettingsError
        raise kind(answer["said"], answer.get("hint"))
    return Work(Identity(*answer[0]), *answer[1:])
