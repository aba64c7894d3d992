"""The files of a job that a host needs which does not see its folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from umpteen.errors import SettingsError
from umpteen.executors.ssh.progress import ELSEWHERE
from umpteen.executors.ssh.remote_agent import RemoteAgent
from umpteen.model.batch import BatchView
from umpteen.store.address import is_remote
from umpteen.store.directory import DirectoryStore
from umpteen.store.job_files import read_batch_file
from umpteen.store.layout import CANCEL, JOB, batch_key, records_folder, synced_key
from umpteen.store.records import find_end
from umpteen.system.host_agent import PART_BYTES

__all__ = ["send_batches", "send_mark"]

_SYNCED = "synced"  # beside leases, as `runner.lease` has it


def send_batches(
    agent: RemoteAgent, store: DirectoryStore, folder: str, batches: Sequence[str]
) -> None:
    """Put what a runner there needs for these batches into its copy of the job's folder.

    What earlier starts elsewhere have recorded of them goes along, so that only the rest is run.
    Raises SettingsError where a task's outputs cannot come home, and as RemoteAgent does.
    """
    files: list[tuple[str, bytes]] = []
    size = 0
    for key, content in _list_files(agent, store, folder, batches):
        files.append((key, content))
        size += len(content)
        if size > PART_BYTES:
            agent.put(folder, files, private=JOB)
            files, size = [], 0
    if files:
        agent.put(folder, files, private=JOB)


def _list_files(
    agent: RemoteAgent, store: DirectoryStore, folder: str, batches: Sequence[str]
) -> Iterator[tuple[str, bytes]]:
    yield JOB, store.read(JOB) or b""
    if mark := store.read(CANCEL):
        yield CANCEL, mark
    sent: set[str] = set()
    for batch in batches:
        content = read_batch_file(store, batch)
        view = BatchView(content)
        yield batch_key(batch), _localize(store, batch, folder)
        _send_synced(agent, store, folder, {digest for digest, _, _ in view.synced} - sent)
        sent.update(digest for digest, _, _ in view.synced)
        for other in (batch, *view.waits):
            yield from _list_records(agent, store, folder, other)
        for other in view.waits:
            yield batch_key(other), _localize(store, other, folder)


def _localize(store: DirectoryStore, batch: str, folder: str) -> bytes:
    """A batch file whose tasks have their outputs below another folder."""
    content = json.loads(store.read(batch_key(batch)) or b"{}")
    top = content["remote_output_path"].rstrip("/")
    content["remote_output_path"] = folder
    for run in content["runs"]:
        output = run["remote_output_path"]
        if output.startswith(f"{top}/"):
            run["remote_output_path"] = folder + output[len(top) :]
        elif not is_remote(output):
            raise SettingsError(
                f"a task has its outputs in {output}, which is no folder of the job",
                "hosts that do not see it cannot put them there: leave remote_output_path out",
            )
    return json.dumps(content, separators=(",", ":")).encode()


def _list_records(
    agent: RemoteAgent, store: DirectoryStore, folder: str, batch: str
) -> Iterator[tuple[str, bytes]]:
    """The records files of a batch that are not there: each of a start that is over there.

    Nothing more comes of it in that copy, so that nobody is to wait for its end.
    """
    keys = [f"{records_folder(batch)}/{name}" for name in store.names(records_folder(batch))]
    are_there = agent.has(folder, keys) if keys else []
    for key, is_there in zip(keys, are_there, strict=True):
        if is_there or not key.endswith(".jsonl"):
            continue
        content = store.read(key) or b""
        content = content[: content.rfind(b"\n") + 1]
        yield key, content if find_end(content) else content + ELSEWHERE


def _send_synced(agent: RemoteAgent, store: DirectoryStore, folder: str, digests: set[str]) -> None:
    """Put the archives of folders that were not unpacked there yet."""
    for digest in sorted(digests):
        key = synced_key(digest)
        unpacked = agent.has(agent.folder, [f"{_SYNCED}/{digest}"])
        if not (unpacked[0] or agent.has(folder, [key])[0]):
            agent.send_file(folder, key, store.path(key))


def send_mark(agent: RemoteAgent, store: DirectoryStore, folder: str) -> None:
    """Put the cancel mark there."""
    agent.put(folder, [(CANCEL, store.read(CANCEL) or b"")])
