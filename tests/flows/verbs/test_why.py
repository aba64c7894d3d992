"""`umpteen why`: what became of a task, and what to type next."""

from __future__ import annotations

import json
import os
import re
import signal

from tests.support.command import Umpteen
from tests.support.processes import find_runners
from tests.support.wait import wait_until

WAIT = "touch began; until [ -e go ]; do sleep 0.05; done"


def write(umpteen: Umpteen, *tasks: dict[str, object]) -> None:
    umpteen.write("job.json", json.dumps({"tasks": tasks}))


def why(umpteen: Umpteen, task: str) -> list[str]:
    """The lines, with times and hosts made alike."""
    done = umpteen("why", "job", task)
    assert (done.returncode, done.stderr) == (0, "")
    text = re.sub(r"\d\d:\d\d\b", "TIME", done.stdout)
    text = re.sub(r" on [^ ,.:)]+", "", text)
    return re.sub(r"[0-9a-f]{12}", "TOKEN", text).splitlines()


def test_why_a_success_says_when(umpteen: Umpteen) -> None:
    umpteen("run", "sleep 0.02", "--name", "job")
    first, *rest = why(umpteen, "0")
    assert first.startswith("0 succeeded at TIME, after 0.0")
    assert rest == ["  batch     1, runner TOKEN, which has ended"]


def test_why_a_failure_says_how_and_what_to_type(umpteen: Umpteen) -> None:
    umpteen("run", "exit 2", "--name", "job")
    assert why(umpteen, "0")[:3] == [
        "0 failed (exit 2) at TIME.",
        "  umpteen logs job 0 --stderr",
        "  umpteen retry job 0     runs it again",
    ]


def test_why_skipped_names_what_failed_and_all_that_is_behind_it(umpteen: Umpteen) -> None:
    write(
        umpteen, {"name": "prep", "command": "exit 2"},
        {"name": "train", "command": "true", "after": "prep"},
        {"name": "eval", "command": "true", "after": "train"},
    )  # fmt: skip
    umpteen("run", "job.json")
    assert why(umpteen, "train")[:3] == [
        "train was skipped after prep, which failed (exit 2) at TIME.",
        "  umpteen logs job prep --stderr",
        "  umpteen retry job prep     runs prep and the 2 tasks behind it",
    ]
    assert why(umpteen, "eval")[0] == (
        "eval was skipped after train, which was skipped because prep failed (exit 2) at TIME."
    )
    assert "runs it again and the 2 tasks behind it" in why(umpteen, "prep")[2]


def test_why_skipped_after_one_that_was_to_fail(umpteen: Umpteen) -> None:
    write(
        umpteen, {"name": "a", "command": "true"},
        {"name": "mend", "command": "true", "after": {"a": "failed"}},
    )  # fmt: skip
    umpteen("run", "job.json")
    assert why(umpteen, "mend")[0] == (
        "mend was skipped after a, which was to fail and succeeded at TIME."
    )


def test_why_skipped_through_many_names_one_of_them(umpteen: Umpteen) -> None:
    write(
        umpteen, {"name": "prep", "command": "exit 2"},
        {"name": "t-{n}", "command": "true", "after": "prep", "matrix": {"n": "1..9"}},
        {"name": "join", "command": "true", "after": "t-*"},
    )  # fmt: skip
    umpteen("run", "job.json")
    assert why(umpteen, "join")[0] == (
        "join was skipped after t-1 and 8 more, which were skipped because prep failed (exit 2) "
        "at TIME."
    )


def test_why_skipped_after_a_canary_calls_it_one(umpteen: Umpteen) -> None:
    umpteen("run", "exit {n}", "n=0,1,2,3", "--canary", "2", "--name", "job")
    first, *rest = why(umpteen, "n=3")
    assert first == "n=3 was skipped after the canary n=1, which failed (exit 1) at TIME."
    assert rest[1] == "  umpteen retry job n=1     runs n=1 and the 2 tasks behind it"


def test_why_timed_out_says_so_once_and_how_to_give_it_longer(umpteen: Umpteen) -> None:
    umpteen("run", "sleep 60", "--timeout", "0.1", "--name", "job")
    first, *rest = why(umpteen, "0")
    assert re.fullmatch(r"0 timed out at TIME, after 0\.1\d* s\.", first)
    assert rest[2] == "  umpteen retry job 0 --timeout 2s     gives it longer"


def test_why_repeats_the_address_that_was_typed(umpteen: Umpteen) -> None:
    umpteen("run", "exit 1", "--name", "job")
    done = umpteen("why", "./umpteen-results/job", "0")
    assert "umpteen retry ./umpteen-results/job 0     runs it again" in done.stdout


def test_why_breaks_a_long_sentence_for_the_terminal(umpteen: Umpteen) -> None:
    tasks: list[dict[str, object]] = [
        {"name": f"{'long-' * 8}{number}", "command": "false"} for number in range(3)
    ]
    after = [task["name"] for task in tasks]
    write(umpteen, *tasks, {"name": "join", "command": "true", "after": after})
    umpteen("run", "job.json")
    lines = umpteen.at_terminal("why", "job", "join", columns=80)
    sentence = lines[: next(i for i, line in enumerate(lines) if line.startswith("  umpteen"))]
    assert len(sentence) > 2
    assert max(map(len, sentence)) <= 80
    assert " ".join(sentence) == umpteen("why", "job", "join").stdout.splitlines()[0]


def test_why_of_a_pattern_says_that_it_takes_one_task(umpteen: Umpteen) -> None:
    umpteen("run", "true", "n=1..3", "--name", "job")
    for verb in ("why", "logs"):
        done = umpteen(verb, "job", "n=*")
        assert done.returncode == 2
        assert f"no task 'n=*' in 'job': {verb} takes one task, no pattern" in done.stderr
        assert "hint: cancel and retry take patterns" in done.stderr


def test_why_running_and_waiting_say_who_is_at_it(umpteen: Umpteen) -> None:
    write(
        umpteen, {"name": "a", "command": WAIT}, {"name": "b", "command": "true", "after": "a"},
        {"name": "c", "command": "true"},
    )  # fmt: skip
    umpteen("run", "job.json", "--slots", "1", "--detach")
    wait_until((umpteen.folder / "began").exists)
    wait_until(lambda: why(umpteen, "a")[0].startswith("a runs since TIME ("))
    assert ", in slot 0, process " in why(umpteen, "a")[0]
    assert why(umpteen, "b")[0] == "b has not run: it waits for a, which has not ended."
    assert why(umpteen, "c")[0] == "c has not run: it waits for a free slot."
    assert why(umpteen, "c")[-1] == "  batch     1, runner TOKEN"


def test_why_lost_says_that_its_runner_died(umpteen: Umpteen) -> None:
    write(umpteen, {"name": "a", "command": WAIT})
    umpteen("run", "job.json", "--detach")
    wait_until((umpteen.folder / "began").exists)
    wait_until(lambda: "a runs since" in why(umpteen, "a")[0])
    for pid in find_runners(umpteen):
        os.kill(pid, signal.SIGKILL)
    assert why(umpteen, "a") == [
        "a has not come to an end, and nobody is at it any more.",
        "  umpteen collect job     runs what has not run",
        "  attempt   1 was lost: it began at TIME, and its runner died",
        "  batch     1, runner TOKEN, which has ended",
    ]


def test_why_interrupted_says_so(umpteen: Umpteen) -> None:
    write(umpteen, {"name": "a", "command": WAIT})
    watcher = umpteen.start("run", "job.json")
    wait_until((umpteen.folder / "began").exists)
    os.killpg(watcher.pid, signal.SIGINT)
    watcher.communicate(timeout=30)
    lines = why(umpteen, "a")
    assert lines[0] == "a has not come to an end, and nobody is at it any more."
    assert lines[2].startswith("  attempt   1 was interrupted at TIME, after ")


def test_why_cancelled_says_whether_it_had_begun(umpteen: Umpteen) -> None:
    write(umpteen, {"name": "a", "command": WAIT}, {"name": "b", "command": "true"})
    umpteen("run", "job.json", "--slots", "1", "--detach")
    wait_until((umpteen.folder / "began").exists)
    umpteen("cancel", "job")
    assert why(umpteen, "a")[0].startswith("a was cancelled at TIME, after ")
    assert why(umpteen, "b")[:2] == [
        "b was cancelled at TIME, before it began.",
        "  umpteen retry job b     runs it",
    ]


def test_why_retried_lists_every_attempt(umpteen: Umpteen) -> None:
    umpteen("run", "[ $UMPTEEN_ATTEMPT = 2 ]", "--name", "job", "--retries", "1")
    lines = why(umpteen, "0")
    assert lines[0].startswith("0 succeeded at TIME")
    assert lines[1] == "  attempt   1 failed (exit 1) at TIME, and was tried again by its rules"
    assert lines[2].startswith("  attempt   2 succeeded at TIME")


def test_why_changed_shows_the_command_before_and_now(umpteen: Umpteen) -> None:
    write(umpteen, {"name": "a", "command": "echo --seed 9"})
    umpteen("run", "job.json")
    write(umpteen, {"name": "a", "command": "echo --seed 9 --warm; " + WAIT})
    umpteen("run", "job.json", "--detach")
    wait_until((umpteen.folder / "began").exists)
    changed = next(line for line in why(umpteen, "a") if line.startswith("  changed"))
    assert changed.startswith("  changed   since attempt 1: 9  →  9 --warm; touch began")


def test_why_dropped_says_so(umpteen: Umpteen) -> None:
    write(umpteen, {"name": "a", "command": "true"}, {"name": "b", "command": "true"})
    umpteen("run", "job.json")
    write(umpteen, {"name": "b", "command": "true"})
    umpteen("run", "job.json")
    assert why(umpteen, "a")[0] == "a is not in the job any more; what it left is kept."


def test_why_says_where_an_expected_file_was_looked_for(umpteen: Umpteen) -> None:
    write(
        umpteen, {"name": "a", "command": "echo 1 > $RESULTS_DIR/n", "expect": "n"},
        {"name": "b", "command": "true", "expect": "results/n"},
    )  # fmt: skip
    umpteen("run", "job.json")
    lines = why(umpteen, "a")
    assert lines[0].startswith("a failed (did not leave n) at TIME")
    assert lines[3:5] == [
        f"  missing   {umpteen.folder}/n",
        "  instead   it left results/n: that is what to write in `expect`",
    ]
    assert why(umpteen, "b")[3] == f"  missing   {umpteen.store()}/b/results/n"


def test_why_names_what_this_machine_lacks(umpteen: Umpteen) -> None:
    write(umpteen, {"name": "a", "command": "false", "gpus": 2})
    umpteen("run", "job.json", env={"UMPTEEN_GPUS": "2"})
    lines = umpteen("why", "job", "a", env={"UMPTEEN_GPUS": "1"}).stdout.splitlines()
    assert "  lacks     it needs 2 gpus (there are 1)" in lines


def test_why_json_has_records_and_blockers(umpteen: Umpteen) -> None:
    write(
        umpteen, {"name": "prep", "command": "exit 2"},
        {"name": "train", "command": "true", "after": "prep"},
    )  # fmt: skip
    umpteen("run", "job.json")
    shown = json.loads(umpteen("why", "job", "1", "--json").stdout)
    assert (shown["name"], shown["state"], shown["is_alive"]) == ("train", "skipped", False)
    (blocker,) = shown["blockers"]
    assert (blocker["name"], blocker["state"], blocker["behind"]) == ("prep", "failed", 1)
    assert blocker["attempt"]["exit_code"] == 2
    assert shown["attempts"][0]["state"] == "skipped"


def test_why_of_an_unknown_task_names_the_nearest(umpteen: Umpteen) -> None:
    write(umpteen, {"name": "train", "command": "true"})
    umpteen("run", "job.json")
    done = umpteen("why", "job", "trian")
    assert done.returncode == 2
    assert "hint: did you mean 'train'?" in done.stderr
