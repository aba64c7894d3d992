"""Batch files from elsewhere become batches of a job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.runner import end_batch, open_batch
from umpteen.errors import InputError
from umpteen.runner.import_batch import adopt_batch, build_batch_id, read_import
from umpteen.store.directory import DirectoryStore
from umpteen.store.job_files import read_batch_file, read_submissions
from umpteen.store.layout import batch_key, tasks_key

OTHER = "aaaaaaaaaaaa"


def write(folder: Path, **content: Any) -> str:
    """A batch file with two runs, but for what is said."""
    whole = {
        "remote_output_path": str(folder / "job"),
        "runs": [{"cmd": "true"}, {"cmd": "false", "remote_output_path": f"{folder}/job/b"}],
        **content,
    }
    path = folder / "batch.json"
    path.write_text(json.dumps(whole))
    return str(path)


@pytest.fixture
def path(tmp_path: Path, leases: Path) -> str:
    """A batch file with two runs."""
    assert leases.is_dir()
    return write(tmp_path)


def test_import_makes_a_batch_that_is_known_by_its_content(path: str, tmp_path: Path) -> None:
    file = read_import(path)
    assert file.address == str(tmp_path / "job")
    store, batches, note = adopt_batch(file)
    assert (batches, note) == ([build_batch_id(Path(path).read_bytes())], "")
    batch = read_batch_file(store, batches[0])
    assert batch["nprocs"] == 16
    assert batch["runs"] == [
        {"cmd": "true", "remote_output_path": f"{store.address}/0"},
        {"cmd": "false", "remote_output_path": f"{store.address}/b"},
    ]
    assert (batch["umpteen"]["names"], batch["umpteen"]["indices"]) == (["0", "b"], "0-1")
    (handed,) = read_submissions(store)
    assert [each.batch for each in handed.batches] == batches
    lines = (store.read(tasks_key(1)) or b"").splitlines()
    assert [json.loads(line)["command"] for line in lines] == ["true", "false"]


def test_import_of_the_same_file_is_the_same_batch(path: str) -> None:
    first = adopt_batch(read_import(path))
    assert adopt_batch(read_import(path))[1:] == first[1:]
    assert len(read_submissions(first.store)) == 1


def test_import_under_an_id_of_what_was_written_has_that(path: str) -> None:
    assert adopt_batch(read_import(path), "abc123").batches == ["abc123"]


def test_import_of_a_file_that_has_ended_makes_a_batch_of_what_is_not_done(path: str) -> None:
    store, (first,), _ = adopt_batch(read_import(path))
    end_batch(open_batch(store, first, OTHER), "succeeded", "failed")
    store.replace("0/status_code", b"0")
    again = adopt_batch(read_import(path))
    assert again.note == "1 run is done and left alone"
    (second,) = again.batches
    assert second != first
    batch = read_batch_file(store, second)
    assert batch["umpteen"]["names"] == ["b"]
    assert batch["umpteen"]["attempts"] == {"0": [1, OTHER]}


def test_import_of_a_file_that_is_done_has_nothing_to_do(path: str) -> None:
    store, (first,), _ = adopt_batch(read_import(path))
    end_batch(open_batch(store, first, OTHER), "succeeded", "succeeded")
    for name in ("0", "b"):
        store.replace(f"{name}/status_code", b"0")
    assert adopt_batch(read_import(path))[1:] == ([], "2 runs are done; nothing to do")


def test_import_of_a_batch_of_a_store_is_that_batch(tmp_path: Path, leases: Path) -> None:
    assert leases.is_dir()
    store = DirectoryStore(str(tmp_path / "job"))
    store.replace(batch_key("7"), b"{}")
    file = read_import(store.path(batch_key("7")))
    assert file.address == store.address
    assert adopt_batch(file).batches == ["7"]


def test_import_of_a_copy_of_a_batch_of_a_store_is_that_batch(tmp_path: Path) -> None:
    file = read_import(write(tmp_path, umpteen={"batch": "7"}))
    assert adopt_batch(file).batches == ["7"]


@pytest.mark.parametrize(
    ("content", "field", "said"),
    [
        ({"remote_output_path": 5}, "remote_output_path", "is missing"),
        ({"nprocs": 0}, "nprocs", "not from 1"),
        ({"nprocs": True}, "nprocs", "not from 1"),
        ({"runs": {}}, "runs", "there are no runs"),
        ({"runs": [{"cmd": "a"}, {}]}, "cmd", "run 1 has no cmd"),
        ({"runs": [{"cmd": "a", "local_results_dir": 5}]}, "local_results_dir", "is no text"),
        ({"runs": [{"cmd": "a"}, {"cmd": "b", "remote_output_path": "/x/job/0/"}]},
         "remote_output_path", "runs 0 and 1 have one"),
        ({"umpteen": []}, "umpteen", "names no batch"),
        ({"umpteen": {"batch": "../x"}}, "umpteen", "names no batch"),
    ],
)  # fmt: skip
def test_import_refuses_what_is_no_batch_file(
    tmp_path: Path, content: dict[str, Any], field: str, said: str
) -> None:
    with pytest.raises(InputError, match=said) as caught:
        read_import(write(tmp_path, **{"remote_output_path": "/x/job", **content}))
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[]", "an object with 'runs'"),
        (b"{", "Expecting property name"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b"[" * 100_000, "no JSON that can be read"),
    ],
)
def test_import_refuses_what_is_no_json(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "batch.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_import(str(path))


def test_import_refuses_a_file_that_is_all_holes(tmp_path: Path) -> None:
    path = tmp_path / "batch.json"
    path.touch()
    with open(path, "r+b") as file:
        file.truncate(1 << 42)
    with pytest.raises(InputError, match="File too large"):
        read_import(str(path))
