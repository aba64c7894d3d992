"""Which task is after which: names, patterns, outcomes, cycles, order, canaries."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umpteen.job.dependencies import Graph, GraphError, build_graph, list_by_priority
from umpteen.job.spec import Task, TaskOptions
from umpteen.model.dependencies import FREE, link


def make(name: str, *after: str, priority: int = 0, template: int = 0) -> Task:
    """A task; an outcome stands behind a colon: `prep:any`."""
    pairs = [
        (pattern, outcome or "succeeded")
        for pattern, _, outcome in (text.partition(":") for text in after)
    ]
    terms = TaskOptions(after=pairs, priority=priority, template=template)
    return Task("true", name, options=None if terms == TaskOptions() else terms)


def build(*tasks: Task, canary: int = 0) -> Graph:
    graph = build_graph(tasks, canary)
    assert graph is not None
    return graph


def names_before(graph: Graph, tasks: list[Task], name: str) -> list[str]:
    """Names of the tasks that a task is after."""
    position = [task.name for task in tasks].index(name)
    return [tasks[earlier].name for earlier in graph.before(position)]


def order_of(graph: Graph, *tasks: Task) -> list[str]:
    return [tasks[position].name for position in graph.order]


# --- names and patterns ---------------------------------------------------------------------


@pytest.mark.parametrize("tasks", [[], [make("a"), make("b")], [make("a", priority=3)]])
def test_graph_of_tasks_that_wait_for_nothing_is_none(tasks: list[Task]) -> None:
    assert build_graph(tasks) is None


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (["a-1"], ["a-1"]),
        (["a-1", "b-1"], ["a-1", "b-1"]),
        (["b-1", "a-1"], ["b-1", "a-1"]),
        (["a-*"], ["a-1", "a-2", "a-10"]),
        (["a-?"], ["a-1", "a-2"]),
        (["a-[12]"], ["a-1", "a-2"]),
        (["a-[!1]"], ["a-2"]),
        (["*-1"], ["a-1", "b-1"]),
        (["a-*", "a-1", "?-1"], ["a-1", "a-2", "a-10", "b-1"]),
        (["we[i]rd"], ["we[i]rd"]),
        (["a\nb"], ["a\nb"]),
        (["x.y"], ["x.y"]),
    ],
)
def test_graph_finds_tasks_by_name_and_pattern(after: list[str], expected: list[str]) -> None:
    names = ["a-1", "a-2", "a-10", "b-1", "we[i]rd", "weird", "a\nb", "x.y", "xzy"]
    tasks = [*map(make, names), make("last", *after)]
    assert names_before(build(*tasks), tasks, "last") == expected


def test_graph_outcomes_are_kept_apart() -> None:
    tasks = [make("a"), make("b"), make("c"), make("last", "a:any", "b:failed", "c:succeeded")]
    (barrier,) = build(*tasks).barriers
    assert (barrier.succeeded, barrier.any, barrier.failed) == ([2], [0], [1])


def test_graph_one_task_may_be_asked_for_two_outcomes() -> None:
    (barrier,) = build(make("a"), make("b", "a:any", "a:failed")).barriers
    assert (barrier.succeeded, barrier.any, barrier.failed) == ([], [0], [0])


def test_graph_task_after_the_success_of_one_other_needs_no_barrier() -> None:
    tasks = [make("a"), make("b", "a"), make("c", "a:any"), make("d", "a", "b")]
    graph = build(*tasks)
    assert (list(graph.behind), len(graph.barriers)) == ([FREE, link(0), 0, 1], 2)
    assert [names_before(graph, tasks, name) for name in "bcd"] == [["a"], ["a"], ["a", "b"]]


@given(st.integers(0, 1 << 30))
def test_graph_links_are_neither_barriers_nor_free_and_lead_back(position: int) -> None:
    assert link(position) < FREE
    assert link(link(position)) == position


def test_graph_task_without_after_has_nothing_before_it() -> None:
    tasks = [make("a"), make("b", "a")]
    assert names_before(build(*tasks), tasks, "a") == []


@pytest.mark.parametrize(
    ("after", "message", "hint"),
    [
        ("prepp", "after 'prepp': there is no task of that name", "prep"),
        ("zzz", "after 'zzz': there is no task of that name", ""),
        ("x-*", "after 'x-*': no task's name is like that", ""),
        ("PREP", "there is no task of that name", ""),
    ],
)
def test_graph_unknown_name_is_told_with_the_nearest(after: str, message: str, hint: str) -> None:
    with pytest.raises(GraphError) as error:
        build(make("prep"), make("other"), make("last", after))
    assert message in str(error.value)
    assert (error.value.position, error.value.field) == (2, "after")
    assert hint in (error.value.hint or "")


@pytest.mark.parametrize("after", ["0", "?", "*"])
def test_graph_names_that_are_positions_are_no_names(after: str) -> None:
    # They are known only once a job has been handed in, and then must change nothing.
    fresh = [Task("true"), make("last", after)]
    known = [Task("true", "0", automatic=True), make("last", after)]
    said = []
    for tasks in (fresh, known):
        with pytest.raises(GraphError) as error:
            build_graph(tasks)
        said.append(str(error.value))
    assert said[0] == said[1]


# --- cycles ---------------------------------------------------------------------------------


def cycle_of(*tasks: Task, canary: int = 0) -> str:
    with pytest.raises(GraphError) as error:
        build_graph(tasks, canary)
    _, found, names = str(error.value).partition("tasks wait for each other: ")
    assert found, error.value
    return names


def test_graph_task_after_itself_is_a_cycle() -> None:
    assert cycle_of(make("a"), make("b", "b")) == "b after b"


@pytest.mark.parametrize("pattern", ["*", "a-*", "a-[123]", "?-?"])
def test_graph_pattern_leaves_out_the_task_whose_it_is(pattern: str) -> None:
    tasks = [make("a-1"), make("a-2", f"{pattern}:any"), make("a-3")]
    assert names_before(build(*tasks), tasks, "a-2") == ["a-1", "a-3"]


def test_graph_pattern_leaves_out_no_other_task() -> None:
    tasks = [make("a-1"), make("a-2", "a-*"), make("b", "a-*")]
    graph = build(*tasks)
    assert names_before(graph, tasks, "a-2") == ["a-1"]
    assert names_before(graph, tasks, "b") == ["a-1", "a-2"]


def test_graph_pattern_that_means_its_own_task_alone_is_told() -> None:
    with pytest.raises(GraphError) as error:
        build(make("b"), make("a-1", "a-*"))
    assert "after 'a-*': no other task's name is like that" in str(error.value)


def test_graph_own_name_beside_a_pattern_is_a_cycle() -> None:
    assert cycle_of(make("a"), make("b", "*", "b")) == "b after b"


@pytest.mark.parametrize("count", [2, 20_000])
def test_graph_tasks_of_a_pattern_that_means_them_all_are_a_cycle(count: int) -> None:
    tasks = [make("first"), *(make(f"a-{n}", "a-*") for n in range(count))]
    began_s = time.process_time()
    assert cycle_of(*tasks) == "a-0 after a-1 after a-0"
    assert time.process_time() - began_s < 5, "with a barrier each these are 4 x 10⁸ edges"


def test_graph_cycle_is_named_in_order() -> None:
    assert cycle_of(make("a", "b"), make("b", "c"), make("c", "a")) == "a after b after c after a"


def test_graph_cycle_leaves_out_what_only_leads_to_it() -> None:
    tasks = [make("start", "a"), make("a", "b"), make("b", "a", "end"), make("end")]
    assert cycle_of(*tasks) == "a after b after a"


def test_graph_cycle_through_a_shared_barrier_is_named_in_order() -> None:
    # `start` and `c` share a barrier, so the walk comes back to that and not to a task.
    tasks = [
        make("start", "a", "end"), make("a", "b"), make("b", "c"), make("c", "a", "end"),
        make("end"),
    ]  # fmt: skip
    assert cycle_of(*tasks) == "c after a after b after c"


def test_graph_long_cycle_is_named_by_its_ends() -> None:
    tasks = [make(f"t{n}", f"t{(n + 1) % 5000}") for n in range(5000)]
    said = cycle_of(*tasks).split(" after ")
    assert said == [
        "t0",
        "t1",
        "t2",
        "t3",
        "t4",
        "t5",
        "…",
        "t4996",
        "t4997",
        "t4998",
        "t4999",
        "t0",
    ]


def test_graph_error_of_a_cycle_points_at_one_of_its_tasks() -> None:
    with pytest.raises(GraphError) as error:
        build_graph([make("x"), make("a", "b"), make("b", "a")])
    assert error.value.position in (1, 2)


@given(st.integers(1, 30), st.integers(0, 10), st.data())
def test_graph_every_cycle_is_found_and_is_one(
    length: int, others: int, data: st.DataObject
) -> None:
    tasks = [make(f"c{n}", f"c{(n + 1) % length}", *(["o*"] * bool(others))) for n in range(length)]
    tasks += [make(f"o{n}") for n in range(others)]
    said = cycle_of(*data.draw(st.permutations(tasks))).split(" after ")
    steps = [pair for pair in itertools.pairwise(said) if "…" not in pair]
    assert said[0] == said[-1]
    assert all((int(one[1:]) + 1) % length == int(other[1:]) for one, other in steps)


# --- shared barriers ------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["a-*", "a-[0-9]*"])
def test_graph_ten_thousand_after_ten_thousand_stays_small_and_fast(pattern: str) -> None:
    count = 10_000
    tasks = [make(f"a-{n}") for n in range(count)]
    tasks += [make(f"b-{n}", pattern) for n in range(count)]
    began_s = time.process_time()
    graph = build(*tasks)
    behind = graph.list_behind({count - 1})
    took_s = time.process_time() - began_s
    assert [len(barrier.succeeded) for barrier in graph.barriers] == [count]
    assert behind == set(range(count, 2 * count))
    assert took_s < 5, "one by one these are 10⁸ edges, and a minute"


def test_graph_long_chain_needs_no_recursion() -> None:
    count = 50_000
    tasks = [make(f"t{n}", f"t{n + 1}") for n in range(count)] + [make(f"t{count}")]
    assert list(build(*tasks).order) == list(range(count, -1, -1))


# --- order ------------------------------------------------------------------------------------


def test_graph_order_is_as_given_where_that_will_do() -> None:
    tasks = [make("c"), make("a", "c"), make("b", "c", "a")]
    assert order_of(build(*tasks), *tasks) == ["c", "a", "b"]


def test_graph_order_brings_what_is_needed_just_before() -> None:
    tasks = [make("last", "m"), make("x"), make("m", "first"), make("first"), make("y")]
    assert order_of(build(*tasks), *tasks) == ["first", "m", "last", "x", "y"]


def test_graph_order_keeps_chains_together_by_priority() -> None:
    tasks = [
        make("a1"), make("a2", "a1"), make("b1"), make("b2", "b1", priority=5),
        make("c", priority=1),
    ]  # fmt: skip
    assert order_of(build(*tasks), *tasks) == ["b1", "b2", "c", "a1", "a2"]


def test_priorities_put_the_highest_first_and_keep_equals_in_order() -> None:
    tasks = [
        make("a"),
        make("b", priority=-1),
        make("c", priority=2),
        make("d"),
        make("e", priority=2),
    ]
    assert [tasks[position].name for position in list_by_priority(tasks)] == list("ceadb")


def test_priorities_of_none_leave_the_order() -> None:
    assert list(list_by_priority([make("a"), make("b", "a")])) == [0, 1]


def chances(draw: st.DrawFn) -> list[Task]:
    """Tasks in any order, each after some with lower numbers, by name or by pattern."""
    count = draw(st.integers(1, 12))
    tasks = []
    for number in range(count):
        earlier = [f"t{n:02}" for n in range(number)]
        after = draw(st.lists(st.sampled_from(earlier), max_size=3)) if earlier else []
        if number > 9 and draw(st.booleans()):
            after.append("t0*")
        outcomes = [draw(st.sampled_from(["", ":any", ":failed"])) for _ in after]
        marked = [one + other for one, other in zip(after, outcomes, strict=True)]
        tasks.append(make(f"t{number:02}", *marked, priority=draw(st.integers(-2, 2))))
    return draw(st.permutations(tasks))


@given(tasks=st.composite(chances)(), canary=st.integers(0, 3))
def test_graph_order_has_every_task_once_and_after_what_it_is_after(
    tasks: list[Task], canary: int
) -> None:
    graph = build_graph(tasks, canary)
    if graph is None:
        assert not canary
        return
    place = {position: place for place, position in enumerate(graph.order)}
    assert sorted(place) == list(range(len(tasks)))
    for position, own in place.items():
        assert all(place[earlier] < own for earlier in graph.before(position))


@given(tasks=st.composite(chances)(), data=st.data())
def test_graph_behind_is_what_the_edges_lead_to(tasks: list[Task], data: st.DataObject) -> None:
    graph = build_graph(tasks)
    if graph is None:
        return
    chosen = data.draw(st.sets(st.integers(0, len(tasks) - 1)))
    reached: set[int] = set()
    while True:
        more = {
            position
            for position in range(len(tasks))
            if not (chosen | reached).isdisjoint(graph.before(position))
        }
        if more <= reached:
            break
        reached |= more
    assert graph.list_behind(chosen) == reached


# --- canaries -----------------------------------------------------------------------------------


def test_canary_puts_the_rest_of_each_template_behind_its_first() -> None:
    tasks = [
        make(f"{kind}{n}", template=number) for number, kind in enumerate("ab") for n in range(3)
    ]
    graph = build(*tasks, canary=1)
    assert {task.name: names_before(graph, tasks, task.name) for task in tasks} == {
        "a0": [], "a1": ["a0"], "a2": ["a0"], "b0": [], "b1": ["b0"], "b2": ["b0"]
    }  # fmt: skip


def test_canary_adds_to_what_a_task_is_after_already() -> None:
    tasks = [make("prep", template=1), *(make(f"a{n}", "prep", template=2) for n in range(3))]
    graph = build(*tasks, canary=2)
    assert names_before(graph, tasks, "a0") == names_before(graph, tasks, "a1") == ["prep"]
    assert names_before(graph, tasks, "a2") == ["prep", "a0", "a1"]


def test_canary_first_tasks_are_those_of_the_highest_priority() -> None:
    tasks = [make("a0", template=1), make("a1", template=1, priority=3)]
    graph = build(*tasks, canary=1)
    assert (names_before(graph, tasks, "a0"), order_of(graph, *tasks)) == (["a1"], ["a1", "a0"])


def test_canary_of_many_shares_one_barrier() -> None:
    graph = build(*(make(f"a{n}", template=1) for n in range(1000)), canary=3)
    assert [barrier.succeeded for barrier in graph.barriers] == [[0, 1, 2]]
    assert list(graph.behind) == [FREE] * 3 + [0] * 997


def test_canary_does_not_hide_a_cycle() -> None:
    assert cycle_of(make("a", "b"), make("b", "a"), canary=1) == "a after b after a"
