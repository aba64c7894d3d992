"""The order of a bundle's jobs, and what is wrong with their dependencies."""

from __future__ import annotations

import pytest

from umpteen.bundles.bundle import Bundle, BundleJob
from umpteen.bundles.order import Dependency, list_dependencies, sort_jobs
from umpteen.errors import InputError


def make(**dependencies: list[str]) -> Bundle:
    jobs = {name: BundleJob(name, "app", dependencies=d) for name, d in dependencies.items()}
    return Bundle("b", "20260102030405", "b.json", jobs)


def test_line_10_jobs_come_after_those_that_they_depend_on() -> None:
    bundle = make(d=["b", "c"], b=["a"], c=["afterany:a"], a=[], e=["singleton"])
    names = [job.name for job in sort_jobs(bundle)]
    assert sorted(names) == ["a", "b", "c", "d", "e"]
    assert names.index("a") < min(names.index("b"), names.index("c"))
    assert names.index("d") > max(names.index("b"), names.index("c"))


def test_line_08_job_that_was_added_first_may_depend_on_the_last() -> None:
    assert [job.name for job in sort_jobs(make(a=["b"], b=[]))] == ["b", "a"]


@pytest.mark.parametrize(
    ("jobs", "said"),
    [
        ({"a": ["a"]}, "a after a"),
        ({"a": ["b"], "b": ["a"]}, "a after b after a"),
        ({"a": ["c"], "b": ["afterany:a"], "c": ["b"], "d": []}, "c after b after a after c"),
    ],
)
def test_line_09_jobs_that_wait_for_one_another_are_named(
    jobs: dict[str, list[str]], said: str
) -> None:
    with pytest.raises(InputError, match="jobs wait for one another: ") as caught:
        sort_jobs(make(**jobs))
    turns = caught.value.message.partition("one another: ")[2].split(" after ")[1:]
    expected = said.split(" after ")[1:]
    assert expected in [turns[at:] + turns[:at] for at in range(len(turns))]


@pytest.mark.parametrize(
    ("dependency", "hint"),
    [("perp", "'prep'"), ("afterany:perp", "'prep'"), ("afterwards:prep", "valid are")],
)
def test_line_31_dependency_that_is_not_there_is_named(dependency: str, hint: str) -> None:
    bundle = make(prep=[], train=[dependency])
    with pytest.raises(InputError, match=f"'train' depends on '{dependency}'") as caught:
        sort_jobs(bundle)
    assert hint in (caught.value.hint or "")


def test_kinds_of_dependencies_are_read() -> None:
    words = ["a", "afterany:a", "afternotok:a", "afterok:a", "singleton", "afterany:x"]
    bundle = make(a=[], **{"afterany:x": [], "b": words})
    assert list_dependencies(bundle, bundle.jobs["b"]) == [
        Dependency("afterok", "a"), Dependency("afterany", "a"), Dependency("afternotok", "a"),
        Dependency("afterok", "a"), Dependency("singleton", ""),
        Dependency("afterok", "afterany:x"),
    ]  # fmt: skip
