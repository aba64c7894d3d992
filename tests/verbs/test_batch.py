from __future__ import annotations

from pathlib import Path

from umpteen.formats import read_job
from umpteen.formats.files import open_document
from umpteen.formats.saturn_batch import read_batch
from umpteen.verbs.batch import BatchOptions, build_batch, build_command


def test_command_has_the_flags_that_are_on_and_the_file_last() -> None:
    command = build_command("abc", BatchOptions(is_strict=True, echoes=False), ["0.json"])
    assert command[-3:] == ["--token=abc", "--strict", "0.json"]
    every = build_command("abc", BatchOptions(True, True, True), ["x.json", "--batch-id=1"])
    assert every[-6:] == [
        "--token=abc", "--strict", "--take-over", "--echo", "x.json", "--batch-id=1",
    ]  # fmt: skip


def test_batch_says_what_its_file_says(tmp_path: Path) -> None:
    file = tmp_path / "batch.yaml"
    file.write_text(
        f"remote_output_path: {tmp_path}/out\nruns:\n- cmd: echo 1\n- cmd: echo 2\n"
        f"  remote_output_path: {tmp_path}/two\n"
    )
    batch = read_batch(open_document(str(file), "runs", ""))
    assert build_batch(batch, read_job([str(file)])) == {
        "nprocs": 16,
        "remote_output_path": f"{tmp_path}/out",
        "runs": [
            {"cmd": "echo 1"},
            {"cmd": "echo 2", "remote_output_path": f"{tmp_path}/two"},
        ],
    }
