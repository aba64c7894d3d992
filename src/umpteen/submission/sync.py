"""Puts the archives of synced folders into the store; most jobs sync none, and load no packer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from umpteen.job.spec import Job
from umpteen.store.address import is_remote
from umpteen.store.base import Store
from umpteen.store.layout import synced_key

__all__ = ["measure_syncs", "put_syncs"]


def put_syncs(store: Store, job: Job, *, is_far: bool) -> Job:
    """Put the folders that a job syncs into its store, but for those that are there; the job with
    their digests.

    is_far: whether its tasks may run where the folders are not. Raises InputError for what cannot
    be packed.
    """
    syncs = _measure_syncs(store, job)
    if not syncs:
        return job
    from umpteen.submission.archive import pack

    there = set(store.names(os.path.dirname(synced_key(""))))
    for sync in syncs:
        key = synced_key(sync.digest)
        if os.path.basename(key) not in there:
            exclude = _list_excluded(store)
            store.create(key, pack(sync.source, sync.digest, name=sync.name, exclude=exclude))
    return _with_synced(job, syncs, is_far=is_far)


def measure_syncs(store: Store, job: Job, *, is_far: bool) -> Job:
    """The same, but nothing is put into the store."""
    return _with_synced(job, _measure_syncs(store, job), is_far=is_far)


class _Sync(NamedTuple):
    """What is synced: the digest of a folder or file here, and where it is to be on a machine.

    name: of a file there; None for a folder.
    """

    digest: str
    source: str
    destination: str | None
    name: str | None


def _measure_syncs(store: Store, job: Job) -> list[_Sync]:
    settings = job.settings
    if not settings.file_syncs:
        return []
    from umpteen.submission.archive import measure

    syncs = []
    for written, wanted in settings.file_syncs:
        source = _expand(written, settings.submitted_from)
        # Where it is itself it may have been changed since, and is not to be put back.
        is_moved = wanted and _expand(wanted, settings.submitted_from) != source
        destination, name = (wanted if is_moved else None), None
        if os.path.isfile(source):
            folder, name = os.path.split(destination or source)
            name = name or os.path.basename(source)
            destination = destination and (folder or os.curdir)
        digest = measure(source, name=name, exclude=_list_excluded(store)).digest
        syncs.append(_Sync(digest, source, destination, name))
    return syncs


def _list_excluded(store: Store) -> list[str]:
    """Results are no part of a folder that is synced, although they may lie in it."""
    own = [] if is_remote(store.address) else [store.address]
    return [os.path.abspath("umpteen-results"), *own]


def _with_synced(job: Job, syncs: Sequence[_Sync], *, is_far: bool) -> Job:
    synced = [
        (
            sync.digest,
            sync.destination,
            sync.source + "/" * (sync.name is None) if is_far and not sync.destination else "",
        )
        for sync in syncs
    ]
    if not synced:
        return job
    return msgspec.structs.replace(
        job, settings=msgspec.structs.replace(job.settings, synced=synced)
    )


def _expand(path: str, folder: str) -> str:
    return os.path.abspath(os.path.join(folder, os.path.expanduser(path)))
