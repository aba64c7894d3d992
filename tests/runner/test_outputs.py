"""The folders that a lane makes, beside others that come and go."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

from umpteen.runner.lanes.outputs import OutputFolders
from umpteen.runner.leftovers import remove_scratch
from umpteen.store.directory import DirectoryStore
from umpteen.store.identity import identify


def test_results_of_a_slot_are_made_while_other_runners_end(tmp_path: Path) -> None:
    store = DirectoryStore(str(tmp_path / "job"))
    place, has_ended = identify(store).place, threading.Event()

    def end_runners() -> None:
        for number in itertools.count():
            remove_scratch(store.address, f"{number:012x}")
            if has_ended.is_set():
                return

    other = threading.Thread(target=end_runners)
    other.start()
    try:
        for number in range(2000):
            folders = OutputFolders(store, place, f"f{number:011x}", store.address)
            assert Path(folders.slot_results(0)).is_dir()
            remove_scratch(store.address, folders.token)
    finally:
        has_ended.set()
        other.join()
