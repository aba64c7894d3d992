"""What Slurm's commands answer; the texts are those of Slurm 22.05."""

from __future__ import annotations

import pytest

from umpteen.executors.base import BatchState
from umpteen.executors.own_runs import ExitStatus
from umpteen.executors.slurm.answers import (
    Config,
    NodeKind,
    QueueLine,
    find_reason,
    parse_accounts,
    parse_config,
    parse_jobs,
    parse_nodes,
    parse_queue,
    parse_submit_limit,
    read_state,
    say_reason,
)
from umpteen.executors.slurm.cluster import Handle, QueueAnswer, parse_handle
from umpteen.executors.slurm.runs import explain_end
from umpteen.model.complaint import find_complaint
from umpteen.runner.slurm.commands import is_transient, parse_job_id

QUEUE = """\
2|0-3,7%2|PENDING|0||Dependency|job-ab12-0|(null)|
1|4|RUNNING|0|n1|None|we ird|$(id)|why job-0123456789ab-1|
1|3|FAILED|1792|n2|NonZeroExitCode|job-ab12-1|(null)|
1|2|FAILED|9|n2|JobLaunchFailure|job-ab12-1|(null)|
9|N/A|RUNNING|0|n1|None|other|(null)|
garbage
"""
HANDLE = Handle("lab", "job-ab12", 0, 3)


@pytest.mark.parametrize(
    ("out", "expected"), [("12\n", 12), ("12;lab\n", 12), ("hello\n12\n", 12), ("no", None)]
)
def test_job_id_is_what_sbatch_answers(out: str, expected: int | None) -> None:
    assert parse_job_id(out) == expected


def test_config_has_the_name_and_the_size_of_arrays() -> None:
    out = "Configuration data as of 2026\nClusterName             = lab\nMaxArraySize  = 51\n"
    assert parse_config(out) == Config("lab", 51)
    assert parse_config(f"{out}MaxJobCount             = 70\n").job_count == 70


def test_limit_of_a_user_is_the_least_of_his() -> None:
    out = "UserName=a(5)\n    MaxJobs= MaxJobsAccrue= MaxSubmitJobs=500(3) MaxWallPJ=\n"
    assert parse_submit_limit(out) == 500
    assert parse_submit_limit(out + out.replace("500", "70")) == 70
    assert parse_submit_limit("    MaxJobs= MaxSubmitJobs= MaxWallPJ=\n") is None


def test_queue_lines_are_elements() -> None:
    waiting, running, failed, killed = parse_queue(QUEUE)
    assert list(waiting.indices) == [0, 1, 2, 3, 7]
    assert running == QueueLine(
        1, [4], "RUNNING", 0, "n1", "None", "job-0123456789ab-1", "we ird|$(id)"
    )
    assert (failed.exit_code, killed.exit_code) == (7, 137)


def test_queue_finds_an_element_by_its_mark() -> None:
    queue = QueueAnswer(list(parse_queue(QUEUE)))
    assert queue.find(Handle("lab", "job-ab12", 0, 7)) is not None
    assert queue.find(Handle("lab", "job-ab1", 0, 7)) is None
    assert queue.find(Handle("lab", "job-ab12", 0, 4)) is None
    assert queue.find_state(Handle("lab", "job-ab12", 0, 4)) == BatchState.ENDED


def test_element_that_a_job_has_still_to_submit_waits() -> None:
    line = "9|0|{}|0||None|umpteen-ab12-submitter|(null)|\n"
    handle = Handle("lab", "job-ab12", 0, 4)
    for state, expected in (("RUNNING", BatchState.QUEUED), ("COMPLETED", BatchState.ENDED)):
        queue = QueueAnswer(list(parse_queue(QUEUE + line.format(state))))
        assert queue.find_state(handle) == expected
        assert queue.list_submitters([handle]) == [9] * (expected == BatchState.QUEUED)


def test_all_jobs_that_submit_the_rest_are_known() -> None:
    line = "{}|0|{}|0||None|umpteen-ab12-submitter|(null)|\n"
    out = line.format(8, "RUNNING") + line.format(9, "PENDING") + line.format(7, "COMPLETED")
    queue = QueueAnswer(list(parse_queue(out)))
    assert queue.list_submitters([Handle("lab", "job-ab12", 0, 4)] * 2) == [8, 9]


def test_line_that_was_cut_short_is_none() -> None:
    assert [line.name for line in parse_queue("1|4|RUNNING|0|n1|None|job-ab12-1|")] == []


def test_jobs_are_found_by_a_name_or_by_a_comment() -> None:
    mark = "0123456789ab"
    lines = [f"7|train|why not a-{mark}-1|", f"8|a-{mark}-1|(null)|", f"9|train|a-{mark}-11|"]
    out = "\n".join([*lines, "", "odd", ""])
    assert parse_jobs(out, f"a-{mark}-1") == [7, 8]


def test_handle_of_a_job_that_slurm_calls_otherwise_names_both() -> None:
    handle = Handle("lab", "job-ab12", 0, 3, "my/train=1")
    assert parse_handle(str(handle)) == handle
    assert (handle.name, handle.slurm_name) == ("job-ab12-0", "my/train=1")
    assert HANDLE.slurm_name == HANDLE.name


@pytest.mark.parametrize("text", ["", "lab/x/0/m", "lab/1/m", "tcp://h:1 ab/1", "lab/1/²/m"])
def test_what_is_no_handle_is_none(text: str) -> None:
    assert parse_handle(text) is None


def test_handle_is_read_back() -> None:
    assert parse_handle(str(HANDLE)) == HANDLE


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("PENDING", BatchState.QUEUED), ("COMPLETING", BatchState.RUNNING),
        ("CANCELLED by 0", BatchState.ENDED), ("NEW_WORD", BatchState.UNKNOWN),
    ],
)  # fmt: skip
def test_state_is_read_from_slurms_word(word: str, state: BatchState) -> None:
    assert read_state(word) == state


def test_accounts_are_read() -> None:
    out = "7_3|CANCELLED by 0|0:15|n1|job-ab12-0|\n7_[4-9]|PENDING|0:0|None assigned|job-ab12-0|\n"
    assert list(parse_accounts(out)) == [
        QueueLine(7, [3], "CANCELLED", 143, "n1", "", "job-ab12-0", "job-ab12-0")
    ]


def test_nodes_are_those_of_the_partition() -> None:
    out = "2|4|2000|(null)|main*|up\n1|64+|9000+|gpu:a100:4(S:0-1),gpu:2|big|up\nodd\n"
    assert parse_nodes(out) == [NodeKind(2, 4, 2000 << 20, 0)]
    assert parse_nodes(out, "big") == [NodeKind(1, 64, 9000 << 20, 6)]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("sbatch: error: Batch job submission failed: Socket timed out on send/recv", True),
        ("slurm_load_jobs error: Unable to contact slurm controller (connect failure)", True),
        ("sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying.", True),
        ("sbatch: error: invalid partition specified: nope", False),
    ],
)
def test_busy_slurm_is_told_from_one_that_refuses(said: str, expected: bool) -> None:
    assert is_transient(said) == expected


def test_reason_is_that_of_the_first_in_the_queue() -> None:
    lines = [
        QueueLine(1, [4], "PENDING", reason="Resources"),
        QueueLine(1, range(5, 99), "PENDING", reason="Priority"),
    ]
    assert find_reason(lines) == "Resources"
    assert find_reason([*lines, QueueLine(1, [3], "RUNNING")]) == ""


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("PartitionDown", "its partition is down (PartitionDown)"),
        (
            "ReqNodeNotAvail, UnavailableNodes:n1",
            (
                "a node that it needs is down, drained or reserved (ReqNodeNotAvail, "
                "UnavailableNodes:n1)"
            ),
        ),
        (
            "QOSMaxJobsPerUserLimit",
            "a limit of its QOS is reached: max jobs per user limit (QOSMaxJobsPerUserLimit)",
        ),
        (
            "AssocGrpCPUMinutesLimit",
            (
                "a limit of its account or user is reached: grp cpu minutes limit "
                "(AssocGrpCPUMinutesLimit)"
            ),
        ),
        ("SomethingNew", "something new (SomethingNew)"),
    ],
)
def test_reason_is_said_in_words(reason: str, words: str) -> None:
    assert say_reason(reason) == words


@pytest.mark.parametrize(
    ("line", "said", "code", "words"),
    [
        (QueueLine(7, [3], "FAILED", 66, "n1"), "", 3, "on n1 does not see the results"),
        (QueueLine(7, [3], "FAILED", 69, "n1"), "", 3, "on n1 finds no python3"),
        (QueueLine(7, [3], "CANCELLED"), "", 3, "7_3 was cancelled in Slurm"),
        (
            QueueLine(7, [3], "FAILED", 3, "n1"),
            "error: no room\n\nhint: make room\n",
            3,
            "on n1: no room",
        ),
        (QueueLine(7, [3], "TIMEOUT", 0, "n1"), "", 70, "its time limit was reached"),
        (QueueLine(7, [3], "FAILED", 143, "n1"), "interrupted: 1 left", 143, "interrupted: 1"),
    ],
)
def test_bad_end_is_explained(line: QueueLine, said: str, code: int, words: str) -> None:
    ended = explain_end(line, HANDLE, said, is_cancelled=False)
    assert ended.code == code
    complaint = find_complaint(ended.complaint)
    assert words in (complaint.message if complaint else ended.complaint)


def test_what_umpteen_cancelled_is_no_bad_end() -> None:
    line = QueueLine(7, [3], "CANCELLED")
    assert explain_end(line, HANDLE, "", is_cancelled=True) == ExitStatus(0)
