"""One process at a time hands in: what its holder does when it has the lock no more."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.proxy import FaultProxy
from tests.support.s3 import S3
from tests.support.store import read_tree
from tests.support.wait import wait_until
from umpteen.errors import StoreError
from umpteen.executors.local import LocalExecutor
from umpteen.history.history import History
from umpteen.history.settings import read_settings
from umpteen.job.settings import Setting, merge_settings
from umpteen.job.spec import Job, Task
from umpteen.planning.known import read_known
from umpteen.planning.plan import Plan, build_plan
from umpteen.store import submission_lock as locks
from umpteen.store.address import open_store
from umpteen.store.base import Content, Store
from umpteen.store.directory import DirectoryStore
from umpteen.store.layout import LOCK, batch_key, handed_key, options_key, tasks_key
from umpteen.store.submission_lock import (
    LockHolder,
    SubmissionLock,
    describe_holder,
    submission_lock,
)
from umpteen.submission.job_folder import create_job
from umpteen.submission.write import submit_plan
from umpteen.system.terminal import clean

OTHERS = b'{"token":"of another"}'


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UMPTEEN_LEASES", str(tmp_path / "leases"))
    monkeypatch.setattr(locks, "_RENEW_S", 0.1)


@pytest.fixture
def far(s3: S3, s3_proxy: FaultProxy) -> Iterator[Store]:
    store = open_store(s3.address, s3.through(s3_proxy.port))
    yield store
    store.close()


def read_time(store: Store) -> float:
    """When the lock was renewed; 0 where there is none."""
    return float(json.loads(store.read(LOCK) or b'{"time":0}')["time"])


def take_over(store: Store, lock: SubmissionLock) -> None:
    """Have the lock, also where its holder was just about to renew it."""

    def put() -> bool:
        store.replace(LOCK, OTHERS)
        return not lock.renewer.is_alive()

    wait_until(put)


def test_lock_is_renewed_again_after_the_store_refused(
    far: Store, s3: S3, s3_proxy: FaultProxy
) -> None:
    direct = open_store(s3.address, s3.options)
    with submission_lock(far) as lock:
        s3_proxy.errors, s3_proxy.status, s3_proxy.code = 1.0, 403, "AccessDenied"
        s3_proxy.count()
        wait_until(lambda: s3_proxy.requests)
        renewed = read_time(direct)
        s3_proxy.errors = 0.0
        wait_until(lambda: read_time(direct) > renewed)
        lock.check()
    assert direct.read(LOCK) is None
    direct.close()


def test_holder_whose_lock_was_taken_over_writes_no_more(far: Store) -> None:
    with submission_lock(far) as lock:
        lock.check()
        take_over(far, lock)
        with pytest.raises(StoreError, match="was taken over by somebody else") as caught:
            lock.check()
        assert caught.value.hint == "run the same command again"
    assert far.read(LOCK) == OTHERS


def test_lock_that_cannot_be_given_back_ends_nobody(far: Store, s3_proxy: FaultProxy) -> None:
    with submission_lock(far):
        s3_proxy.status, s3_proxy.code, s3_proxy.errors = 403, "AccessDenied", 1.0
    s3_proxy.errors = 0.0
    with submission_lock(far) as lock:  # at once, since the kernel freed the one of this machine
        lock.check()


@pytest.mark.parametrize("differs", ["machine", "host", "boot", "holder"])
def test_lock_of_another_host_is_waited_for(far: Store, s3_proxy: FaultProxy, differs: str) -> None:
    theirs = json.dumps({**describe_holder("t")._asdict(), differs: "other"}).encode()
    far.create(LOCK, theirs)
    s3_proxy.count()
    got = threading.Event()

    def take() -> None:
        with submission_lock(far):
            got.set()

    taking = threading.Thread(target=take)
    taking.start()
    wait_until(lambda: [m for m, _ in s3_proxy.requests].count("GET") >= 3)
    assert (far.read(LOCK), got.is_set()) == (theirs, False)
    far.delete(LOCK)
    taking.join(20)
    assert got.is_set()


class StoppedError(Exception):
    """The user does not want to wait."""


@pytest.fixture
def locked(tmp_path: Path) -> DirectoryStore:
    """A store whose lock somebody else has left, on a machine with an odd name."""
    store = DirectoryStore(str(tmp_path / "store"))
    store.create(LOCK, json.dumps({"token": "t", "host": "far\x1b[2J"}).encode())
    return store


def test_wait_for_a_lock_is_told_who_asked_and_can_be_ended(
    locked: DirectoryStore, capsys: pytest.CaptureFixture[str]
) -> None:
    told = []

    def stop(text: str) -> None:
        told.append(text)
        if not text.endswith(", 0 s"):
            raise StoppedError

    with pytest.raises(StoppedError), submission_lock(locked, stop):
        pass
    assert told[0].startswith(f"waiting for the lock {locked.path(LOCK)} of a submission from far")
    assert locked.names(".umpteen") == ["lock"]
    assert capsys.readouterr().err == ""


def test_wait_for_a_lock_is_said_once_on_stderr_where_nobody_asked(
    locked: DirectoryStore, capfd: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []

    def free() -> None:
        said.append(wait_until(lambda: capfd.readouterr().err))
        locked.delete(LOCK)

    helper = threading.Thread(target=free)
    helper.start()
    with submission_lock(locked):
        pass
    helper.join(20)
    (line,) = "".join([*said, capfd.readouterr().err]).splitlines()
    assert line.startswith(f"waiting for the lock {locked.path(LOCK)} of a submission from far")
    assert clean(line) == line


class Started(LocalExecutor):
    """Counts what it is given, and starts nothing."""

    given = 0

    def submit(self, *_: object) -> dict[str, str]:
        self.given += 1
        return {}


def plan_job(store: Store, *names: str) -> tuple[Plan, History]:
    settings = merge_settings(
        {
            "address": Setting(store.address, "test"),
            "slots": Setting(1, "test"),
            "executor_options": Setting({"of": list(names)}, "test"),
        }
    )
    job = Job("job", [Task("true", name) for name in names or ["a"]], settings)
    create_job(store, job)
    history = History(store)
    history.refresh()
    return build_plan(job, history, read_known(job, history), set()), history


class Raced(DirectoryStore):
    """A folder in which somebody else writes a batch when its batches were just listed."""

    def names(self, folder: str) -> list[str]:
        names = super().names(folder)
        if folder == ".umpteen/batches":
            self.create(batch_key("1"), b"of another")
        return names


@pytest.mark.parametrize("key", [batch_key("1"), handed_key(1)])
def test_what_somebody_else_wrote_meanwhile_ends_a_hand_in(tmp_path: Path, key: str) -> None:
    store = (Raced if key == batch_key("1") else DirectoryStore)(str(tmp_path / "store"))
    executor = Started({})
    with submission_lock(store) as lock:
        plan, history = plan_job(store)
        if key == handed_key(1):
            store.create(tasks_key(1), b"of another")
            store.create(key, b"of another")
        with pytest.raises(StoreError, match="was written by somebody else") as caught:
            submit_plan(plan, history, executor, {}, lock)
    assert (caught.value.path, executor.given) == (store.path(key), 0)
    assert store.read(key) == b"of another"
    if key == handed_key(1):
        assert store.read(tasks_key(1)) == b"of another"
    else:
        assert store.read(handed_key(1)) is None


def test_hand_in_without_its_lock_writes_nothing(tmp_path: Path) -> None:
    store, executor = DirectoryStore(str(tmp_path / "store")), Started({})
    with submission_lock(store) as lock:
        plan, history = plan_job(store)
        take_over(store, lock)
        with pytest.raises(StoreError, match="was taken over"):
            submit_plan(plan, history, executor, {}, lock)
    assert executor.given == 0
    assert store.names(".umpteen/batches") == []


class Overtaken(DirectoryStore):
    """A folder where somebody else takes the lock and hands in, right before our n-th change."""

    def __init__(self, address: str, place: int) -> None:
        super().__init__(address)
        self.left = place
        self.written: dict[str, bytes] = {}

    def create(self, key: str, content: Content) -> bool:
        self.be_overtaken(key)
        return super().create(key, content)

    def replace(self, key: str, content: Content) -> None:
        self.be_overtaken(key)
        super().replace(key, content)

    def delete(self, key: str) -> None:
        self.be_overtaken(key)
        super().delete(key)

    def be_overtaken(self, key: str) -> None:
        self.left -= key != LOCK
        if self.left != 0 or self.written:
            return
        before = read_tree(Path(self.address))
        other = DirectoryStore(self.address)
        other.replace(LOCK, OTHERS)
        lock = SubmissionLock(other, LockHolder("of another"))
        plan, history = plan_job(other, "b", "c")
        with contextlib.suppress(StoreError):  # of one that is handed in by now
            submit_plan(plan, history, Started({}), {}, lock)
        lock.release()
        after = read_tree(Path(self.address))
        self.written = {path: after[path] for path in after.keys() - before.keys()}


@pytest.mark.parametrize("is_left", [False, True])
@pytest.mark.parametrize("place", range(1, 8))
def test_hand_in_that_loses_leaves_what_another_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int, is_left: bool
) -> None:
    monkeypatch.setattr(locks, "_RENEW_S", 600.0)  # a renewal would take the lock back meanwhile
    plain = DirectoryStore(str(tmp_path / "store"))
    plan, _ = plan_job(plain, "a")
    if is_left:  # by one that was killed before it handed in
        plain.create(tasks_key(1), b'{"command":"false","name":"z"}\n')
        plain.create(options_key(1), b'{"of":["z"]}')
    store, executor = Overtaken(plain.address, place), Started({})
    history = History(store)
    history.refresh()
    with submission_lock(plain) as lock:
        lock.store = store
        with contextlib.suppress(StoreError):
            submit_plan(plan, history, executor, {}, lock)
    is_ours = bool(executor.given)
    found = History(plain)
    found.refresh()
    names = [["b", "c"]] * bool(store.written) + [["a"]] * is_ours
    assert names
    read = [task.name for task in found.read_tasks()]
    assert read in ([*names[0]], [name for some in names for name in some], ["a", "b", "c"])
    assert read_settings(found)["executor_options"]["of"] in names
    now = read_tree(tmp_path / "store")
    assert {path: now.get(path) for path in store.written} == store.written
