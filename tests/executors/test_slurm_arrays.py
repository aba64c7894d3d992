"""Which batches go into one array, and what each array is after."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from umpteen.executors.base import BatchRequest
from umpteen.executors.slurm.arrays import ArrayJob, ArrayNeeds, Element, build_arrays

SIZE = 1001


def make(*orders: tuple[str, list[str]]) -> list[BatchRequest]:
    return [BatchRequest(batch, after) for batch, after in orders]


def test_batches_that_are_alike_are_one_array() -> None:
    orders = make(("1", []), ("2", []), ("3", []))
    assert build_arrays(orders, SIZE) == [ArrayJob(("1", "2", "3"), ArrayNeeds())]


def test_batches_that_need_other_things_are_arrays_of_their_own() -> None:
    orders = [BatchRequest("1"), BatchRequest("2", cpus=4), BatchRequest("3", memory=5, gpus=1)]
    found = build_arrays([*orders, BatchRequest("4", cpus=4)], SIZE)
    assert [(array.batches, array.needs) for array in found] == [
        (("1",), ArrayNeeds()),
        (("2", "4"), ArrayNeeds(cpus=4)),
        (("3",), ArrayNeeds(memory=5, gpus=1)),
    ]


def test_more_batches_than_an_array_may_have_are_several() -> None:
    found = build_arrays(make(*((str(number), []) for number in range(1, 8))), 3)
    assert [array.batches for array in found] == [("1", "2", "3"), ("4", "5", "6"), ("7",)]


def test_array_is_after_the_elements_that_its_batches_are_after() -> None:
    orders = make(("1", []), ("2", []), ("3", []), ("4", ["2"]), ("5", ["1", "3"]), ("6", ["2"]))
    found = build_arrays(orders, SIZE)
    assert found[1:] == [
        ArrayJob(("4", "6"), ArrayNeeds(), (Element(0, 1),)),
        ArrayJob(("5",), ArrayNeeds(), (Element(0, 0), Element(0, 2))),
    ]


def test_array_is_after_a_whole_one_where_that_is_all_of_it() -> None:
    found = build_arrays(make(("1", []), ("2", []), ("3", ["1", "2"])), SIZE)
    assert found[1].after == (Element(0),)


def test_batches_after_many_different_ones_are_one_array_after_all_of_these() -> None:
    first: list[tuple[str, list[str]]] = [(str(number), []) for number in range(1, 41)]
    orders = make(*first, *((str(100 + n), [str(n)]) for n in range(1, 31)))
    (_, second) = build_arrays(orders, SIZE)
    assert (len(second.batches), second.after) == (30, (Element(0),))


def test_batches_with_other_options_are_other_arrays() -> None:
    said = [{"time": "5"}, {"time": "9"}, {"time": "5"}, {}]
    orders = [BatchRequest(str(n), options=options) for n, options in enumerate(said, 1)]
    found = [(array.batches, dict(array.needs.options)) for array in build_arrays(orders, SIZE)]
    assert found == [(("1", "3"), {"time": "5"}), (("2",), {"time": "9"}), (("4",), {})]


def test_batches_of_former_submissions_are_named() -> None:
    (array,) = build_arrays(make(("8", ["3", "2"])), SIZE)
    assert array.earlier == ("2", "3")


@given(
    st.lists(st.lists(st.integers(0, 40), max_size=4), max_size=40),
    st.integers(1, 7),
)
def test_each_batch_is_once_in_an_array_behind_all_that_it_is_after(
    afters: list[list[int]], size: int
) -> None:
    orders = make(
        *((str(n), [str(other) for other in after if other < n]) for n, after in enumerate(afters))
    )
    found = build_arrays(orders, size)
    place = {name: (k, i) for k, array in enumerate(found) for i, name in enumerate(array.batches)}
    assert sorted(place, key=int) == [order.batch for order in orders]
    assert all(len(array.batches) <= size for array in found)
    for order in orders:
        after = found[place[order.batch][0]].after
        assert all(element.array < place[order.batch][0] for element in after)
        for other in order.after:
            number, index = place[other]
            assert Element(number) in after or Element(number, index) in after
