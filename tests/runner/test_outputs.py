"""The folders that a lane makes, beside others that come and go."""

from __future__ import annotations

import itertools
import multiprocessing
from multiprocessing.synchronize import Event
from pathlib import Path

from umpteen.runner.lanes.outputs import OutputFolders
from umpteen.runner.leftovers import remove_scratch
from umpteen.store.directory import DirectoryStore
from umpteen.store.identity import identify

FORK = multiprocessing.get_context("fork")


def end_runners(address: str, has_ended: Event) -> None:
    for number in itertools.count():
        remove_scratch(address, f"{number:012x}")
        if has_ended.wait(0.0005):  # still a thousand times as often as runners end
            return


def test_results_of_a_slot_are_made_while_other_runners_end(tmp_path: Path) -> None:
    store = DirectoryStore(str(tmp_path / "job"))
    place, has_ended = identify(store).place, FORK.Event()
    # No thread: one of these takes turns with us at each call of the system, and may always win.
    other = FORK.Process(target=end_runners, args=(store.address, has_ended))
    other.start()
    try:
        for number in range(2000):
            folders = OutputFolders(store, place, f"f{number:011x}", store.address)
            assert Path(folders.slot_results(0)).is_dir()
            remove_scratch(store.address, folders.token)
    finally:
        has_ended.set()
        other.join()
