"""A job read back from its store: its tasks, and settings to go on with."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.store import put_hand_in
from umpteen.errors import InputError, SettingsError
from umpteen.history.history import History
from umpteen.job.settings import ExecutorChoice
from umpteen.query.registry import give_options, register
from umpteen.store.directory import DirectoryStore
from umpteen.store.layout import JOB, handed_key, options_key
from umpteen.submission.read_back import read_back_job, read_back_settings, refuse_removed

PATH = "my_lab.queue:LabExecutor"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DirectoryStore:
    """An empty one, and a registry of this test's own."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return DirectoryStore(str(tmp_path / "job"))


def read(store: DirectoryStore, **more: Any) -> History:
    """A job of one task that was submitted like that."""
    put_hand_in(store, 1, [{"command": "a"}], {"1": "0"}, **more)
    history = History(store)
    history.refresh()
    return history


def test_import_path_is_taken_from_no_store(store: DirectoryStore) -> None:
    history = read(store, executor=PATH)
    with pytest.raises(SettingsError, match="which is loaded only where you give it") as caught:
        read_back_settings(history, detach=True)
    hint = f"give the job's file in place of its name, or --executor {PATH}"
    assert caught.value.hint == hint


@pytest.mark.parametrize("name", [PATH, "local", "dask"])
def test_executor_that_is_given_counts(store: DirectoryStore, name: str) -> None:
    history = read(store, executor=PATH)
    settings = read_back_settings(history, detach=False, executor=ExecutorChoice(name))
    assert settings.executor == name


def test_options_stay_where_the_same_executor_is_given_without_any(store: DirectoryStore) -> None:
    history = read(store, executor="dask")
    store.create(options_key(1), b'{"scheduler_address": "tcp://a:1"}')
    same = read_back_settings(history, detach=False, executor=ExecutorChoice("dask"))
    assert same.executor_options == {"scheduler_address": "tcp://a:1"}
    other = ExecutorChoice("dask", {"scheduler_address": "tcp://b:2"})
    assert read_back_settings(history, detach=False, executor=other).executor_options == {
        "scheduler_address": "tcp://b:2"
    }
    moved = read_back_settings(history, detach=False, executor=ExecutorChoice("ray"))
    assert moved.executor_options == {}


def test_what_this_machine_has_stays_of_the_options_that_it_had(store: DirectoryStore) -> None:
    history = read(store, executor="local")
    store.create(options_key(1), b'{"detach": true, "capabilities": ["gpu"]}')
    for detach in (True, False):
        options = read_back_settings(history, detach=detach).executor_options
        assert options == {"capabilities": ["gpu"], **({"detach": True} if detach else {})}
    given = ExecutorChoice("local", {"capabilities": ["a"]})
    settings = read_back_settings(history, detach=False, executor=given)
    assert settings.executor_options == {"capabilities": ["a"]}


def test_executor_that_somebody_else_may_have_written_is_refused(store: DirectoryStore) -> None:
    read(store, executor="dask")
    os.chmod(store.path(handed_key(1)), 0o666)
    history = History(store)
    history.refresh()
    with pytest.raises(SettingsError, match="may be somebody else's, and names the executor"):
        read_back_settings(history, detach=True)
    assert read_back_settings(history, detach=True, executor=ExecutorChoice("local")).slots >= 1


def test_slots_of_this_machine_are_not_those_of_an_engine(store: DirectoryStore) -> None:
    history = read(store, settings={"slots": 7})
    assert read_back_settings(history, detach=False).slots == 7
    settings = read_back_settings(history, detach=False, executor=ExecutorChoice("ray"))
    assert settings.slots == 0


def test_settings_are_as_before_but_for_the_deadline(store: DirectoryStore, tmp_path: Path) -> None:
    before = {"grace_s": 3.0, "synced": [["0a", "/there", ""]], "address": "/moved/from", "x": 1}
    history = read(store, settings={**before, "deadline_s": 5.0, "cwd": str(tmp_path)})
    settings = read_back_settings(history, detach=True)
    assert (settings.grace_s, settings.deadline_s) == (3.0, None)
    assert settings.synced == [("0a", "/there", "")]
    assert (settings.address, settings.submitted_from) == (store.address, str(tmp_path))
    assert settings.executor_options == {"detach": True}
    assert set(settings.sources.values()) == {"the run before"}


def test_project_that_was_moved_here_runs_from_here(
    store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = read(store, settings={"cwd": "/no/such/folder"})
    monkeypatch.chdir(tmp_path)
    assert read_back_settings(history, detach=True).submitted_from == str(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert read_back_settings(history, detach=True).submitted_from == "/no/such/folder"


def test_results_are_opened_as_this_machine_knows_and_not_as_the_store_says(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = read(store, settings={"results_options": {"endpoint_url": "http://evil"}})
    assert read_back_settings(history, detach=True).results_options == {}
    monkeypatch.setattr(store, "address", "s3://bucket/job")
    register("job", "s3://bucket/job", options={"endpoint_url": "http://lab", "secret": "x"})
    monkeypatch.setenv("UMPTEEN_RESULTS_OPTIONS", '{"secret": "y"}')
    known = read_back_settings(history, detach=True).results_options
    assert known == {"endpoint_url": "http://lab", "secret": "y"}
    give_options("s3://bucket/job", {"anon": True})
    assert read_back_settings(history, detach=True).results_options == {"anon": True}


def test_job_has_its_tasks_in_their_newest_form(store: DirectoryStore) -> None:
    put_hand_in(store, 1, [{"command": c} for c in "abc"], {"1": "0-2"})
    lines = [{"command": "b2", "index": 1}, {"command": "", "index": 2, "dropped": True}]
    put_hand_in(store, 2, lines, {}, changed="1", dropped="2")
    history = History(store)
    history.refresh()
    job = read_back_job(history, read_back_settings(history, detach=True))
    assert (job.name, [task.command for task in job.tasks]) == ("job", ["a", "b2"])


def test_job_that_is_being_removed_is_refused(store: DirectoryStore) -> None:
    refuse_removed(read(store))
    store.replace(JOB, json.dumps({"name": "job", "version": 1, "removing": "all"}).encode())
    history = History(store)
    history.refresh()
    with pytest.raises(InputError, match="'job' is being removed"):
        refuse_removed(history)
