"""Two runners that start one batch at the same time: one of them has it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from umpteen.runner.active_batch import ActiveBatch
from umpteen.runner.batch_start import Opener
from umpteen.runner.lease import Lease
from umpteen.store.directory import DirectoryStore, RecordsFile
from umpteen.store.identity import identify
from umpteen.store.layout import JOB, batch_key
from umpteen.system.host import read_machine

BATCH = b"""{"nprocs": 1, "remote_output_path": "/x", "runs": [{"cmd": "true", "remote_output_path":
"/x/0"}], "umpteen": {"version": 1, "job": "job", "batch": "1", "indices": "0", "names": ["0"]}}"""
ENOUGH_S = 2.0  # for another to open the batch, if nothing keeps it from doing so


class Slow(DirectoryStore):
    """A folder in which something happens before this runner's records are there."""

    def __init__(self, address: str, meanwhile: Callable[[], None]) -> None:
        super().__init__(address)
        self.meanwhile = meanwhile

    def open_records(self, key: str) -> RecordsFile:
        self.meanwhile()
        return super().open_records(key)


@pytest.mark.parametrize("tokens", [("a" * 12, "b" * 12), ("b" * 12, "a" * 12)])
def test_one_of_two_starts_has_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokens: tuple[str, str]
) -> None:
    monkeypatch.setenv("UMPTEEN_LEASES", str(tmp_path / "leases"))
    plain = DirectoryStore(str(tmp_path / "store"))
    plain.create(JOB, b'{"name":"job","version":1}')
    plain.create(batch_key("1"), BATCH)
    store = identify(plain)
    leases = [Lease.create(token, store, 1) for token in tokens]
    opened: list[ActiveBatch | None] = []

    def open_as(token: str, through: DirectoryStore) -> None:
        opener = Opener(store, through, token, read_machine())
        opened.append(opener.open("1"))

    other = threading.Thread(target=open_as, args=(tokens[1], plain))

    def let_other_start() -> None:
        other.start()
        other.join(ENOUGH_S)

    open_as(tokens[0], Slow(plain.address, let_other_start))
    other.join()
    for each in opened:
        if each is not None:
            each.file.close()
    for lease in leases:
        lease.remove()
    assert [each is None for each in opened].count(False) == 1
    assert list((tmp_path / "leases").glob("*/*.lock")) == []
