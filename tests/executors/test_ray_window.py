"""Which batches the owner of a hand-in has wait with Ray at one time."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("ray")


async def simulate(count: int, workers: int, known: int, hung: set[int]) -> list[int]:
    """The order in which batches begin, where Ray takes the last that came of those that wait.

    workers: that there are. known: that the owner was told of. hung: those that never begin.
    """
    from umpteen.executors.ray.owner import Window

    window = Window()
    begun: list[int] = []
    busy: list[int] = []
    entered: list[int] = []

    async def come(number: int) -> None:
        await window.enter(str(number), known)
        entered.append(number)

    def begin_last() -> None:
        """A worker is free: Ray does not ask the owner first."""
        ready = [number for number in entered if number not in begun and number not in hung]
        if ready and len(busy) < workers - len(hung & set(entered)):
            begun.append(ready[-1])
            busy.append(ready[-1])
            window.begin(str(ready[-1]))

    coming = [asyncio.create_task(come(number)) for number in range(count)]
    for step in range(8 * count):
        await asyncio.sleep(0.002)
        if step % 4 == 0 and busy:
            ended = busy.pop(0)
            begin_last()
            window.leave(str(ended))
        begin_last()
    for task in coming:
        task.cancel()
    return begun


@pytest.mark.parametrize("known", [0, 4])
def test_large_batches_begin_before_small_ones(known: int) -> None:
    begun = asyncio.run(simulate(40, 4, known, set()))
    assert sorted(begun) == list(range(40))
    assert all(abs(place - number) <= 4 for place, number in enumerate(begun))


@pytest.mark.parametrize("known", [0, 4])
def test_batch_that_hangs_before_it_begins_stops_no_other(
    known: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("umpteen.executors.ray.owner._HANG_S", 0.02)
    begun = asyncio.run(simulate(40, 4, known, {1}))
    assert sorted(begun) == [0, *range(2, 40)]
