"""What is refused of a bundle before anything is written."""

from __future__ import annotations

import pytest

from umpteen.bundles.bundle import Bundle, BundleJob
from umpteen.config.machines import Machine
from umpteen.errors import InputError
from umpteen.verbs.submit_bundle import plan_bundle

MACHINE = Machine("local", path="/w")


def make_bundle(**jobs: BundleJob) -> Bundle:
    return Bundle("b", "20260102030405", "b.json", jobs)


def test_plan_says_what_would_be_submitted_in_order() -> None:
    jobs = {
        "b": BundleJob("b", "x", dependencies=["a"]),
        "a": BundleJob("a", "x", slurm={"array": "0-9"}),
    }
    first, second = plan_bundle(make_bundle(**jobs), MACHINE)
    assert first == ("a", "/w/slurm/a_20260102030405.sh", [], 10)
    assert (second.name, second.after, second.tasks) == ("b", ["a"], 1)


def test_names_that_cannot_stand_beside_one_another_are_refused() -> None:
    jobs = {"a": BundleJob("a", "x", slurm={"array": "0-1"}), "a.0": BundleJob("a.0", "x")}
    with pytest.raises(InputError, match=r"a\.0") as caught:
        plan_bundle(make_bundle(**jobs), MACHINE)
    assert caught.value.file == "b.json"
