"""Which runners live here, and what dead ones left: ended, and nobody else's."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.wait import wait_until
from umpteen.errors import StoreError
from umpteen.model.states import SLOTS_MOST
from umpteen.runner.lease import (
    SYNCED,
    Lease,
    SlotEntry,
    find_folder,
    is_held,
    list_living,
    read_last_slots,
)
from umpteen.runner.leftovers import end_leftovers
from umpteen.store.identity import Identity
from umpteen.system.host import boot_ticks
from umpteen.system.locks import leases_folder, local_lock, lock_file

TOKEN, OTHER = "a" * 12, "b" * 12
STORE = Identity("/store")
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture(autouse=True)
def leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of leases of this test's own."""
    monkeypatch.setenv("UMPTEEN_LEASES", str(tmp_path / "leases"))
    (tmp_path / "leases").mkdir()
    return tmp_path / "leases" / f"umpteen-{os.getuid()}"


@pytest.fixture
def start() -> Iterator[Start]:
    """`start("sleep", "600", TOKEN)` is a process in a session of its own, bearing the token."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*command: str, token: str = "") -> subprocess.Popen[bytes]:
        env = {"PATH": os.environ["PATH"]} | ({"UMPTEEN_RUNNER": token} if token else {})
        started.append(
            subprocess.Popen(command, env=env, start_new_session=True, stdout=subprocess.PIPE)
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def die(lease: Lease) -> None:
    """What the kernel does when a runner dies."""
    os.close(lease.lock)


def put_slot(lease: Lease, pid: int, start_ticks: int) -> None:
    lease.open_slots(["1"])
    lease.set_slot(SlotEntry(0, 0, 0, pid, start_ticks, time.time()))


def test_leases_folder_is_for_its_owner_alone(leases: Path) -> None:
    assert leases_folder() == str(leases)
    assert leases.stat().st_mode & 0o777 == 0o700


def test_leases_folder_that_is_no_folder_is_refused(leases: Path) -> None:
    leases.touch()
    with pytest.raises(StoreError, match="not a folder of yours"):
        leases_folder()


def test_leases_folder_that_cannot_be_made_is_refused_with_what_to_set(leases: Path) -> None:
    leases.parent.rmdir()
    leases.parent.touch()
    with pytest.raises(StoreError, match="Not a directory") as caught:
        leases_folder()
    assert "UMPTEEN_LEASES" in str(caught.value.hint)


def test_leases_folder_of_our_own_is_taken_as_it_is(
    leases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UMPTEEN_LEASES", str(leases))
    assert leases_folder() == str(leases)


def test_nothing_of_others_is_removed_however_old_it_is(leases: Path) -> None:
    above = leases.parent
    Path(leases_folder(), "mine.txt").touch()
    (above / "thesis").mkdir()
    (above / "thesis" / "ch1.tex").touch()
    (above / ("c" * 12)).mkdir()  # of somebody who names folders like that
    for path in (above / "thesis", above / ("c" * 12), leases / "mine.txt"):
        os.utime(path, (0, 0))
    end_leftovers(STORE)
    assert sorted(path.name for path in above.iterdir()) == ["c" * 12, "thesis", leases.name]
    assert (leases / "mine.txt").exists()


def test_lease_that_an_older_version_put_beside_our_folder_is_found(
    leases: Path, start: Start
) -> None:
    left = start("sleep", "600", token=TOKEN)
    lease = Lease.create(TOKEN, STORE, 1)
    os.rename(leases / TOKEN, leases.parent / TOKEN)
    assert is_held(TOKEN) is True
    die(lease)
    assert end_leftovers(STORE) == [TOKEN]
    assert left.wait(10) == -9
    os.utime(leases.parent / TOKEN, (0, 0))
    assert end_leftovers(STORE) == []
    assert (leases.parent / TOKEN).exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a folder away")
def test_leases_folder_of_somebody_else_is_refused(leases: Path) -> None:
    leases.mkdir()
    os.chown(leases, 65534, 65534)
    with pytest.raises(StoreError, match="not a folder of yours"):
        leases_folder()


def test_leases_folder_that_is_a_link_is_refused(leases: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    leases.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="not a folder of yours"):
        leases_folder()


def test_lease_is_held_while_its_runner_lives() -> None:
    lease = Lease.create(TOKEN, STORE, 2)
    assert is_held(TOKEN) is True
    die(lease)
    assert is_held(TOKEN) is False


def test_lease_that_is_not_there_is_unknown() -> None:
    assert is_held(TOKEN) is None
    assert find_folder(TOKEN).read_info() == {}


def test_lease_given_up_leaves_nothing(leases: Path) -> None:
    Lease.create(TOKEN, STORE, 2).remove()
    assert is_held(TOKEN) is None
    assert list(leases.iterdir()) == []


def test_lease_keeps_what_was_set_apart_until_it_is_old(leases: Path) -> None:
    lease = Lease.create(TOKEN, STORE, 2)
    spool = leases / TOKEN / "spool"
    for name in ("0-1", "1-1"):
        (spool / name).mkdir(parents=True)
        (spool / name / "stdout").touch()
    kept = Path(lease.keep_refused(str(spool / "1-1")))
    lease.remove()
    assert (kept / "stdout").exists()
    assert not spool.exists()
    assert end_leftovers(STORE) == []
    assert kept.exists()
    os.utime(leases / TOKEN, (0, 0))
    end_leftovers(Identity("/another"))
    assert list(leases.iterdir()) == []


def test_lease_is_held_as_long_as_any_process_has_its_lock() -> None:
    lease = Lease.create(TOKEN, STORE, 1)
    helper = subprocess.Popen(["sleep", "600"], pass_fds=[lease.lock])
    die(lease)
    assert is_held(TOKEN) is True
    helper.kill()
    helper.wait()
    assert is_held(TOKEN) is False


def test_living_runners_are_those_of_the_store_that_hold_their_lease() -> None:
    dead = Lease.create("c" * 12, STORE, 1)
    leases = [Lease.create(TOKEN, STORE, 1), Lease.create(OTHER, Identity("/elsewhere"), 1)]
    with local_lock("hand-in"):
        die(dead)
        assert list_living(STORE) == {TOKEN}
    for lease in leases:
        lease.remove()
    assert list_living(STORE) == set()


def test_lease_says_what_runs_in_its_slots() -> None:
    lease = Lease.create(TOKEN, STORE, 3)
    lease.open_slots(["1"])
    entries = [SlotEntry(slot, 1, 70 + slot, 4000 + slot, 2**40, 1.5) for slot in (0, 2)]
    for entry in entries:
        lease.set_slot(entry)
    assert lease.list_slots() == entries
    lease.clear_slot(0)
    assert lease.list_slots() == entries[1:]
    lease.remove()


def test_lease_says_what_is_about_to_run() -> None:
    lease = Lease.create(TOKEN, STORE, 3)
    lease.open_slots(["7", "8"])
    lease.mark_slot(1, 1, 70)
    assert lease.list_slots() == []
    assert read_last_slots(TOKEN, "8") == {70}
    assert read_last_slots(TOKEN, "7") == set()
    lease.clear_slot(1)
    assert read_last_slots(TOKEN, "8") == set()
    lease.remove()


def test_lease_says_what_has_ended_last() -> None:
    lease = Lease.create(TOKEN, STORE, 3)
    lease.open_slots(["7"])
    lease.set_slot(SlotEntry(1, 0, 70, 4000, 2**40, 1.5))
    lease.end_slot(1, 0, 70)
    assert lease.list_slots() == []
    assert read_last_slots(TOKEN, "7") == set()
    assert read_last_slots(TOKEN, "7", ended=True) == {70}
    lease.remove()


def test_lease_of_more_slots_than_can_be_is_no_larger(leases: Path) -> None:
    lease = Lease.create(TOKEN, STORE, 10**12)
    size = (leases / TOKEN / "slots").stat().st_size
    assert size == 32 * SLOTS_MOST
    assert (leases / TOKEN / "slots").stat().st_blocks * 512 >= size  # it has its room on the disk
    die(lease)
    os.truncate(leases / TOKEN / "slots", 10**13)  # as an older version left it
    assert end_leftovers(STORE) == [TOKEN]
    assert read_last_slots(TOKEN, "1") == set()


def test_lease_on_a_disk_that_refuses_says_so_and_leaves_nothing(
    leases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(StoreError, match="No space left on device") as caught:
        Lease.create(TOKEN, STORE, 1)
    assert "UMPTEEN_LEASES" in str(caught.value.hint)
    assert list(leases.iterdir()) == []


def test_lease_that_is_being_made_is_not_taken_for_a_dead_one(
    leases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, looked = fcntl.flock, []

    def look_before(fd: int, how: int) -> None:
        if how & fcntl.LOCK_EX:
            looked.append(end_leftovers(STORE))
        flock(fd, how)

    monkeypatch.setattr("umpteen.runner.lease.fcntl.flock", look_before)
    lease = Lease.create(TOKEN, STORE, 1)
    assert looked == [[]]
    assert not (leases / TOKEN / "buried").exists()
    lease.remove()


def test_local_lock_keeps_others_out_until_it_is_left(leases: Path) -> None:
    with local_lock("name"):
        assert is_locked(leases / "name.lock")
    assert not is_locked(leases / "name.lock")


def test_lock_file_may_be_shared(leases: Path) -> None:
    path = leases_folder() + "/x.lock"
    with lock_file(path, shared=True), lock_file(path, shared=True):
        assert is_locked(leases / "x.lock")
    assert not is_locked(leases / "x.lock")


def test_lock_file_that_was_removed_while_waited_for_is_made_anew() -> None:
    path = Path(leases_folder(), "x.lock")
    held, entered = [], threading.Event()

    def wait_for_it() -> None:
        with lock_file(str(path)):
            held.append(is_locked(path))
            entered.set()

    with lock_file(str(path)):
        thread = threading.Thread(target=wait_for_it)
        thread.start()
        path.unlink()
    assert entered.wait(20)
    thread.join()
    assert held == [True]


def is_locked(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


# --- leftovers ------------------------------------------------------------------------------


def test_end_leftovers_ends_what_bears_a_dead_runners_token(start: Start) -> None:
    left = start("sleep", "600", token=TOKEN)
    die(Lease.create(TOKEN, STORE, 1))
    assert end_leftovers(STORE) == [TOKEN]
    assert left.wait(10) == -9


def test_end_leftovers_ends_the_session_of_a_task_and_what_is_left_of_it(start: Start) -> None:
    ticks = boot_ticks()
    # Its leader has gone already; the child bears no token.
    leader = start("sh", "-c", "sleep 600 & echo $!")
    assert leader.stdout
    child = int(leader.stdout.readline())
    leader.wait(10)
    lease = Lease.create(TOKEN, STORE, 1)
    put_slot(lease, leader.pid, ticks)
    die(lease)
    end_leftovers(STORE)
    wait_until(lambda: not is_running(child), 10)


def test_end_leftovers_spares_a_process_that_has_the_pid_by_now(start: Start) -> None:
    stranger = start("sleep", "600")
    lease = Lease.create(TOKEN, STORE, 1)
    put_slot(lease, stranger.pid, boot_ticks() // 2)
    die(lease)
    assert end_leftovers(STORE) == [TOKEN]
    assert stranger.poll() is None


def test_end_leftovers_spares_what_is_of_others(start: Start) -> None:
    spared = [start("sleep", "600", token=OTHER), start("sleep", "600")]
    alive = start("sleep", "600", token="c" * 12)
    die(Lease.create(TOKEN, STORE, 1))
    die(Lease.create(OTHER, Identity("/another/store"), 1))
    living = Lease.create("c" * 12, STORE, 1)
    assert end_leftovers(STORE) == [TOKEN]
    assert [process.poll() for process in [*spared, alive]] == [None] * 3
    living.remove()


def test_end_leftovers_ends_what_forks_away_from_it(start: Start) -> None:
    # Each generation starts the next before it is killed.
    script = "i=0; while [ $i -lt 40 ]; do i=$((i+1)); sleep 600 & sleep 0.01; done; wait"
    left = start("sh", "-c", script, token=TOKEN)
    die(Lease.create(TOKEN, STORE, 1))
    end_leftovers(STORE)
    assert left.wait(10) == -9
    assert not [pid for pid in os.listdir("/proc") if pid.isdigit() and bears(int(pid), TOKEN)]


def test_end_leftovers_deals_with_a_dead_runner_once() -> None:
    die(Lease.create(TOKEN, STORE, 1))
    assert end_leftovers(STORE) == [TOKEN]
    assert end_leftovers(STORE) == []
    assert is_held(TOKEN) is False


def test_end_leftovers_forgets_what_is_a_month_old(leases: Path) -> None:
    die(Lease.create(TOKEN, STORE, 1))
    end_leftovers(STORE)
    month = time.time() - 31 * 86400
    os.utime(leases / TOKEN, (month, month))
    end_leftovers(STORE)
    assert not (leases / TOKEN).exists()


def test_end_leftovers_leaves_what_was_synced(leases: Path) -> None:
    synced = Path(leases_folder(), SYNCED)
    synced.mkdir()
    os.utime(synced, (1, 1))
    end_leftovers(STORE)
    assert (leases / SYNCED).exists()


def is_running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def bears(pid: int, token: str) -> bool:
    try:
        found = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return f"UMPTEEN_RUNNER={token}".encode() in found.split(b"\0") and is_running(pid)
