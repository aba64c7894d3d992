"""Who gets which batch: each method of the board, and whole jobs with hosts that are lost."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Sequence
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umpteen.executors.ssh import board as board_module
from umpteen.executors.ssh.board import Board, Order
from umpteen.executors.ssh.hosts import Host
from umpteen.executors.ssh.placement import (
    Amounts,
    HostLoad,
    Move,
    Placed,
    choose_host,
    choose_move,
    place_batches,
)
from umpteen.system.openssh import Destination

HAS = Amounts(4, 0, 1 << 30)
PATIENCE_S = 30.0


def make_board(tasks: dict[str, int], *hosts: str, slots: int = 2) -> Board:
    """A board whose hosts are all up."""
    orders = [Order(name, count) for name, count in tasks.items()]
    board = Board(orders, [Host(Destination(name)) for name in hosts], PATIENCE_S)
    for name in hosts:
        board.host_is_up(name, slots, HAS)
    return board


# --- placement ----------------------------------------------------------------------------------


def load(slots: int = 2, unopened: Sequence[Placed] = (), running: int = 0) -> HostLoad:
    return HostLoad(slots, frozenset({"gpu"}), HAS, unopened, running)


def test_batch_goes_to_who_is_free_soonest() -> None:
    assert choose_host(Placed("1", 1), {"a": load(running=4), "b": load(running=2)}) == "b"
    assert choose_host(Placed("1", 1), {"a": load(2), "b": load(4)}) == "b"


def test_batch_stays_with_the_host_that_began_with_it() -> None:
    hosts = {"a": load(running=99), "b": load()}
    assert choose_host(Placed("1", 1, begun_on={"a"}), hosts) == "a"
    assert choose_host(Placed("1", 1, begun_on={"gone"}), hosts) == "b"


@pytest.mark.parametrize(
    "batch",
    [
        Placed("1", 1, frozenset({"tpu"})),
        Placed("1", 1, amounts=Amounts(5)),
        Placed("1", 1, amounts=Amounts(0, 1)),
        Placed("1", 1, amounts=Amounts(0, 0, (1 << 30) + 1)),
    ],
)
def test_batch_that_no_host_can_have_is_left_out(batch: Placed) -> None:
    assert place_batches([batch, Placed("2", 1, frozenset({"gpu"}))], {"a": load()}) == {
        "a": [Placed("2", 1, frozenset({"gpu"}))]
    }


def test_batches_are_spread_by_slots() -> None:
    batches = [Placed(str(number), 1) for number in range(9)]
    given = place_batches(batches, {"a": load(1), "b": load(2)})
    assert [len(given["a"]), len(given["b"])] == [3, 6]


def test_half_is_moved_from_the_end() -> None:
    some = [Placed(str(number), 2) for number in range(4)]
    hosts = {"a": load(2, some, running=2), "b": load(2)}
    assert choose_move(hosts) == Move("a", "b", ["2", "3"])


@pytest.mark.parametrize(
    "hosts",
    [
        {"a": load(2, [Placed("1", 5)]), "b": load(4)},  # it opens that itself, next
        {"a": load(2, [Placed("1", 1), Placed("2", 1, begun_on={"a"})]), "b": load(2)},
        {"a": load(2, [Placed("1", 1), Placed("2", 1, frozenset({"x"}))]), "b": load(2)},
        {"a": load(2, [Placed("1", 1), Placed("2", 1)]), "b": load(2, running=2)},
        {"a": load(2, [Placed("1", 1), Placed("2", 1)]), "b": load(2, [Placed("3", 1)])},
        {"a": load(2, [Placed("1", 1), Placed("2", 1)])},
        {},
    ],
)
def test_nothing_is_moved_where_nobody_gains(hosts: dict[str, HostLoad]) -> None:
    assert choose_move(hosts) is None


# --- the board ----------------------------------------------------------------------------------


def test_batches_are_given_and_end() -> None:
    board = make_board({"1": 4, "2": 4}, "a", "b")
    board.schedule()
    assert sorted([board.list_wanted("a"), board.list_wanted("b")]) == [["1"], ["2"]]
    board.note_begun_there("a", ["1", "2", "unknown"])
    assert board.list_of("a") == [*set(board.list_of("a"))]
    board.note_left("1", 1)
    assert board.list_open() == ["1", "2"]
    board.note_left("1", 0)
    board.note_left("1", 3)  # too late
    board.note_left("unknown", 0)
    board.end(["2", "unknown"])
    assert board.is_over


def test_batch_waits_for_those_that_it_is_after() -> None:
    orders = [Order("1", 1), Order("2", 1, after=["1", "elsewhere"])]
    board = Board(orders, [Host(Destination("a"))], PATIENCE_S)
    board.host_is_up("a", 1, HAS)
    board.schedule()
    assert board.list_wanted("a") == ["1"]
    board.end(["1"])
    board.schedule()
    assert board.list_wanted("a") == []
    assert board.list_awaited() == {"elsewhere"}
    board.note_done_elsewhere("elsewhere")
    board.schedule()
    assert board.list_wanted("a") == ["2"]
    assert board.list_awaited() == set()


def test_what_an_earlier_head_gave_is_kept_for_its_host() -> None:
    given = make_board({"1": 1, "2": 1}, "a", "b")
    given.schedule()
    told = given.list_given()
    assert sorted(told) == ["a", "b"]
    board = Board([Order("1", 1), Order("2", 1)], [Host(Destination(n)) for n in "ab"], PATIENCE_S)
    board.recall({**told, "gone": ["1"]})
    board.host_is_up("a", 1, HAS)
    board.host_is_down("b", "why")
    board.schedule()
    assert board.list_of("b") == told["b"]
    assert board.list_wanted("a") == []
    board.runner_ended("a", told["a"])
    board.schedule()
    assert board.list_wanted("a") == told["a"]


def test_what_no_host_has_that_is_left_is_hopeless() -> None:
    hosts = [Host(Destination("a")), Host(Destination("b"), capabilities=frozenset({"gpu"}))]
    board = Board([Order("1", 1, needs=frozenset({"gpu"}))], hosts, PATIENCE_S)
    board.host_is_up("a", 1, HAS)
    assert not board.is_hopeless()
    board.host_is_up("b", 1, HAS)
    board.schedule()
    assert not board.is_hopeless()
    board.host_is_out("b", "why")
    assert board.is_hopeless()
    board.end(["1"])
    assert not board.is_hopeless()


def test_nothing_is_given_before_all_hosts_were_tried() -> None:
    board = Board([Order("1", 1)], [Host(Destination(n)) for n in "ab"], PATIENCE_S)
    board.host_is_up("a", 1, HAS)
    board.schedule()
    assert board.list_wanted("a") == []
    board.host_is_down("b", "why")
    board.schedule()
    assert board.list_wanted("a") == ["1"]
    assert board.hosts["b"].reason == "why"


def test_host_that_is_out_loses_what_it_has_and_stays_out() -> None:
    board = make_board({"1": 1}, "a", "b")
    board.schedule()
    (giver,) = [name for name in "ab" if board.list_wanted(name)]
    board.host_is_out(giver, "why")
    board.host_is_down(giver, "other")
    assert (board.hosts[giver].state, board.hosts[giver].reason) == ("out", "why")
    board.schedule()
    assert board.list_wanted("a" if giver == "b" else "b") == ["1"]


def test_host_that_is_down_keeps_what_it_has_as_long_as_patience() -> None:
    with mock.patch.object(board_module, "time") as clock:
        clock.monotonic.return_value = 0.0
        board = make_board({"1": 1}, "a", "b")
        board.schedule()
        (giver,) = [name for name in "ab" if board.list_wanted(name)]
        board.host_is_down(giver, "why")
        for now, found in ((PATIENCE_S, [giver]), (PATIENCE_S + 1, [giver]), (PATIENCE_S + 1, [])):
            assert [name for name in giver if board.list_wanted(name)] == found
            clock.monotonic.return_value = now
            board.schedule()


def test_what_a_host_says_that_it_has_takes_nothing_from_another() -> None:
    board = make_board({"1": 1, "2": 1}, "a", "b")
    board.adopt("a", ["1"], ["2"])
    board.adopt("b", ["1", "2"], ["1", "2", "unknown"])
    board.note_begun_there("b", ["1", "2"])
    board.runner_ended("b", ["1", "2"])
    assert (board.list_of("a"), board.list_of("b")) == (["1", "2"], ["1", "2"])  # both are asked
    assert (board.list_wanted("a"), board.list_wanted("b")) == (["2"], [])


def test_what_a_host_has_lost_while_it_was_away_is_free() -> None:
    board = make_board({"1": 1, "2": 1, "3": 1}, "a", "b")
    board.adopt("a", ["1"], ["2"])
    board.adopt("b", ["3"], [])
    board.runner_ended("a", ["1", "3"])
    assert board.list_wanted("a") == ["2"]
    board.schedule()
    assert board.list_wanted("a") == ["1", "2"]  # which it began with
    assert board.list_of("b") == ["3"]


def test_records_of_a_batch_bring_it_to_their_host() -> None:
    board = make_board({"1": 1, "2": 1}, "a", "b")
    board.note_begun("b", ["1", "2", "unknown"])
    board.note_begun("a", ["1"])
    board.schedule()
    assert (board.list_wanted("a"), board.list_wanted("b")) == (["1"], ["2"])


def give_much(board: Board) -> None:
    """Have the host a open one batch, and have three more."""
    board.adopt("a", ["1"], ["2", "3", "4"])


def test_what_is_moved_goes_to_the_taker_when_the_giver_has_left_it() -> None:
    board = make_board({"1": 4, "2": 2, "3": 2, "4": 2}, "a", "b")
    give_much(board)
    board.schedule()
    kept = board.list_wanted("a")
    assert 0 < len(kept) < 3
    for _ in range(3):  # nothing more while it is on its way
        board.schedule()
    assert board.list_wanted("a") == kept
    board.settle_leaving("a", ["2", "3", "4"])  # its runner has them still
    assert board.list_wanted("b") == []
    board.settle_leaving("a", kept)
    assert sorted(kept + board.list_wanted("b")) == ["2", "3", "4"]


def test_what_was_opened_meanwhile_is_not_moved() -> None:
    board = make_board({"1": 4, "2": 2}, "a", "b")
    board.adopt("a", ["1"], ["2"])
    board.schedule()
    assert board.list_wanted("a") == []
    board.note_begun_there("a", ["2"])
    board.settle_leaving("a")
    board.schedule()
    assert (board.list_of("a"), board.list_of("b")) == (["1", "2"], [])


def test_what_is_moved_stays_free_where_the_taker_is_lost() -> None:
    board = make_board({"1": 4, "2": 2}, "a", "b")
    board.adopt("a", ["1"], ["2"])
    board.schedule()
    board.host_is_down("b", "why")
    board.settle_leaving("a")
    assert board.list_wanted("b") == board.list_wanted("a") == []
    board.schedule()
    assert board.list_wanted("a") == ["2"]


def test_what_nobody_has_is_given_up_and_what_is_not_reached_is_forgotten() -> None:
    board = make_board({"1": 1, "2": 1, "3": 1}, "a", "b")
    board.adopt("a", ["1"], [])
    board.adopt("b", ["2"], [])
    board.give_up(["1", "2", "3", "unknown"])
    assert board.list_open() == ["1", "2"]
    board.host_is_down("b", "why")
    board.forget_unreached()
    assert board.list_open() == ["1"]
    board.note_heard("a", is_idle=True)
    assert board.hosts["a"].is_idle


# --- whole jobs ---------------------------------------------------------------------------------


class SimHost:
    """A host with its thread of the head, as far as the board sees them."""

    def __init__(self, name: str, slots: int) -> None:
        self.name, self.slots = name, slots
        self.has_power = self.is_connected = True
        self.runs = False  # a runner
        self.unopened: list[str] = []
        self.open: list[str] = []
        self.sent: list[str] = []

    def lists(self) -> set[str]:
        return {*self.unopened, *self.open} if self.has_power else set()


class Simulation:
    """A job of some batches on some hosts, which are lost and come back."""

    def __init__(self, seed: int, batches: int, hosts: int, losses: int) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.left = {str(n): self.random.randint(1, 6) for n in range(batches)}
        orders = [
            Order(
                name,
                left,
                after=[str(int(name) - 1)] if int(name) and self.random.random() < 0.1 else (),
            )
            for name, left in self.left.items()
        ]
        self.hosts = [SimHost(f"h{n}", self.random.randint(1, 4)) for n in range(hosts)]
        with self.clock():
            self.board = Board(orders, [Host(Destination(h.name)) for h in self.hosts], PATIENCE_S)
        self.losses = losses
        self.heard = {host.name: 0.0 for host in self.hosts}
        self.ended: list[str] = []
        self.given_up: set[tuple[str, str]] = set()  # batches that hosts had for too long

    def clock(self) -> contextlib.AbstractContextManager[object]:
        clock = mock.Mock()
        clock.monotonic.side_effect = lambda: self.now
        return mock.patch.object(board_module, "time", clock)

    def run(self) -> None:
        with self.clock():
            for host in self.hosts:
                self.connect(host)
            for _ in range(5000):
                self.now += 0.2
                self.give_up()
                self.board.schedule()
                for host in self.random.sample(self.hosts, len(self.hosts)):
                    self.work(host)
                    if self.random.random() < 0.7:  # threads are as fast as hosts answer
                        self.serve(host)
                if self.losses and self.random.random() < 0.02:
                    self.losses -= 1
                    self.lose(self.random.choice(self.hosts))
                self.check()
                if self.board.is_over:
                    return
        raise AssertionError(f"it does not end: {self.board._batches}")

    def give_up(self) -> None:
        """Note what silent hosts have: they may come back with it."""
        for host in self.hosts:
            if self.now - self.heard[host.name] > PATIENCE_S:
                self.given_up.update((host.name, name) for name in host.lists())
            self.given_up -= {(host.name, name) for name in self.left} - {
                (host.name, name) for name in host.lists()
            }

    def check(self) -> None:
        """No batch is with two hosts, but where the first was not heard for long."""
        for name in self.left:
            holders = [host for host in self.hosts if name in host.lists()]
            patient = [h for h in holders if (h.name, name) not in self.given_up]
            if name not in self.ended:
                assert len(patient) <= 1, (name, [h.name for h in holders])

    def connect(self, host: SimHost) -> None:
        host.is_connected = True
        self.heard[host.name] = self.now
        host.sent = list(host.unopened)
        if host.runs:
            self.board.adopt(host.name, host.open, host.unopened)
        self.board.runner_ended(host.name, set(self.board.list_of(host.name)) - host.lists())
        self.board.host_is_up(host.name, host.slots, HAS)

    def lose(self, host: SimHost) -> None:
        """Its network or its power; it comes back after a while."""
        host.is_connected = False
        if self.random.random() < 0.5:
            host.has_power = host.runs = False
            host.unopened, host.open = [], []
        self.board.host_is_down(host.name, "lost")

    def work(self, host: SimHost) -> None:
        """What its runner does by itself."""
        if not host.has_power:
            return
        if host.unopened and len(host.open) < 2 and self.random.random() < 0.5:
            host.open.append(host.unopened.pop(0))
        for _ in range(host.slots):
            for name in host.open:
                if self.left[name] and self.random.random() < 0.3:
                    self.left[name] -= 1
                    break

    def serve(self, host: SimHost) -> None:
        """One turn of its thread, as `_Session.serve` has it."""
        board = self.board
        if not host.is_connected:
            if self.random.random() < 0.02:
                host.has_power = True
                self.connect(host)
            return
        board.settle_leaving(host.name, host.sent if host.runs else ())
        wanted = board.list_wanted(host.name)
        if self.random.random() < 0.3:
            board.schedule()  # the head goes on meanwhile
        if wanted and not host.runs:
            host.runs, host.unopened, host.sent = True, list(wanted), list(wanted)
        elif host.runs and wanted != [name for name in host.sent if name not in host.open]:
            host.unopened = [name for name in wanted if name not in host.open]
            host.sent = wanted
            board.note_begun_there(host.name, host.open)
            board.settle_leaving(host.name, wanted)
        self.take(host)

    def take(self, host: SimHost) -> None:
        self.heard[host.name] = self.now
        for name in self.board.list_of(host.name):
            self.board.note_left(name, self.left[name])
        self.board.note_begun_there(host.name, host.open)
        for name in [name for name in host.open if not self.left[name]]:
            host.open.remove(name)
            self.ended.append(name)
        self.board.note_heard(host.name, is_idle=not host.runs)
        if host.runs and not host.open and not host.unopened and self.random.random() < 0.5:
            host.runs = False
            self.board.runner_ended(host.name, self.board.list_of(host.name))


@settings(max_examples=150)
@given(st.integers(0, 1 << 32), st.integers(1, 12), st.integers(1, 5), st.integers(0, 12))
def test_every_job_ends_and_no_batch_is_with_two_hosts(
    seed: int, batches: int, hosts: int, losses: int
) -> None:
    Simulation(seed, batches, hosts, losses).run()
