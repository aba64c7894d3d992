"""The table of hosts: a line each, whatever a host says of itself."""

from __future__ import annotations

from typing import Any

from umpteen.executors.ssh.hosts import Host
from umpteen.model.agent_messages import HostCopy, HostItem, HostRunner, Probe
from umpteen.report.hosts import host_to_dict, render_cleaned, render_hosts
from umpteen.system.openssh import Destination
from umpteen.verbs.hosts import Answered, HostFacts

PROBE = Probe(
    host="node", machine="m", boot="b", python="3.11.2", cpus=8, memory=16_000_000_000, gpus=2,
    load=1.25, disk_free=500_000_000_000, time=1000.0, user="me", folder="/var/tmp/umpteen-1",
)  # fmt: skip


def answer(host: str = "h1", slots: int = 0, **facts: Any) -> Answered[HostFacts]:
    told = HostFacts(PROBE, runners=[], copies=[], trip_s=0.0123, ahead_s=0.0)
    return Answered(Host(Destination(host), slots), told._replace(**facts))


def silent(host: str, reason: str) -> Answered[HostFacts]:
    return Answered(Host(Destination(host)), None, reason, "what to do")


def runner(job: str, time: float, address: str = "/jobs/a") -> HostRunner:
    return HostRunner("ab12", address, job, time)


def cells(answered: Answered[HostFacts]) -> dict[str, str]:
    """What stands in the table for a host, by the heads of the columns."""
    head, row = render_hosts([answered])
    names = ["host", "slots", "memory", "gpus", "disk free", "load", "python", "answers in",
             "runs", "copies", "wrong"]  # fmt: skip
    assert head.split() == " ".join(names).split()
    starts = [head.index(name) for name in names]
    return dict(zip(names[8:], (row[a:b].strip() for a, b in cut_at(starts[8:])), strict=True))


def cut_at(starts: list[int]) -> list[tuple[int, int | None]]:
    return list(zip(starts, [*starts[1:], None], strict=True))


def test_table_has_a_line_a_host_with_what_it_has_or_why_it_is_not_reached() -> None:
    assert render_hosts([answer(slots=3), silent("h2", "no python3")]) == [
        "host   slots  memory  gpus  disk free  load  python  answers in  runs  copies  wrong",
        "h1    3 of 8   16 GB     2     500 GB   1.2  3.11.2       12 ms  -     -       -",
        "h2         -       -     -          -     -  -                -  -     -       no python3",
    ]


def test_wrong_disk_and_clock_are_told_in_words() -> None:
    low = answer(probe=PROBE._replace(disk_free=12_000_000), ahead_s=-7200.0)
    assert cells(low)["wrong"] == ("its disk is nearly full: 12 MB left; its clock is 2 h behind")
    assert cells(answer(ahead_s=4.9))["wrong"] == "-"
    assert cells(answer(ahead_s=5.1))["wrong"] == "its clock is 5.1 s ahead"


def test_runners_are_shown_by_job_with_the_first_start() -> None:
    runners = [runner("one", 980.0), runner("one", 400.0), runner("", 940.0, "s3://b/two")]
    assert cells(answer(runners=runners))["runs"] == (
        "one (2 runners, for 10 min), s3://b/two (for 60 s)"
    )
    more = [*runners, runner("three", 1.0), runner("four", 1.0)]
    assert cells(answer(runners=more))["runs"].endswith(", s3://b/two (for 60 s) and 2 more")


def test_copies_are_counted_with_their_size() -> None:
    copies = [HostCopy(name, "job", 1500, 0.0, has_runner=False, is_home=True) for name in "ab"]
    assert cells(answer(copies=copies))["copies"] == "2, 3.0 KB"


def test_words_of_a_host_can_do_nothing_to_the_terminal_or_the_table() -> None:
    evil = "\x1b[2J日本\nx\x07" + "y" * 100
    lines = render_hosts([
        answer(probe=PROBE._replace(python=evil), runners=[runner(evil, 990.0)]),
        silent("h2", evil),
    ])  # fmt: skip
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)
    assert "日本 x" + "y" * 33 + "… " in lines[1]
    # Wide characters take two columns each: two cells of the first row have two of them.
    assert lines[1].index(" (for 10 s)") + 4 == lines[0].index("runs") + 40


def test_json_has_times_by_our_clock() -> None:
    copy = HostCopy("n", "job", 5, 4600.0, has_runner=True, is_home=False)
    told = host_to_dict(
        answer(slots=3, ahead_s=3600.0, runners=[runner("j", 4000.0)], copies=[copy])
    )
    assert told["runners"] == [
        {"token": "ab12", "address": "/jobs/a", "job": "j", "started_s": 400.0}
    ]
    assert told["copies"][0]["changed_s"] == 1000.0
    assert (told["slots"], told["cpus"], told["round_trip_ms"]) == (3, 8, 12.3)
    assert (told["clock_ahead_s"], told["wrong"]) == (3600.0, ["its clock is 60 min ahead"])


def test_cleaned_table_counts_what_is_gone() -> None:
    items = [
        HostItem("copy", "aa-bb", "sweep\x1b[1m", 2000),
        HostItem("runner", "runner-aa.zip", "", 1000),
        HostItem("synced", "cc", "", 500, "Permission denied"),
    ]
    h1, h2, h3 = (Host(Destination(name)) for name in ("h1", "h2", "h3"))
    answers: list[Answered[list[HostItem]]] = [
        Answered(h1, items), Answered(h2, []), Answered(h3, None, "it does not answer")
    ]  # fmt: skip
    assert list(render_cleaned(answers, is_dry=False)) == [
        "host  removed                    size",
        "h1    copy of sweep, aa-bb     2.0 KB",
        "h1    runner runner-aa.zip     1.0 KB",
        "h1    synced folder cc      500 bytes  Permission denied",
        "h2    nothing",
        "h3    -                                it does not answer",
        "2 things, 3.0 KB",
    ]
    dry = list(render_cleaned(answers[1:2], is_dry=True))
    assert dry == ["host  to be removed  size", "h2    nothing", "0 things, 0 bytes to be removed"]
