"""What the machine has, and whether the kernel killed for want of memory."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from umpteen.system import resources as machine
from umpteen.system.resources import Capacity, OutOfMemoryWatch, is_memory_short, read_capacity

MB = 1 << 20


# --- capacity -------------------------------------------------------------------------------


def test_capacity_is_no_more_than_the_machine_has() -> None:
    here = read_capacity()
    assert 1 <= here.cpus <= (os.cpu_count() or 1)
    assert 64 * MB < here.memory <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_memory_of_a_machine_that_runs_tests_is_not_short() -> None:
    assert not is_memory_short(read_capacity())


@pytest.mark.parametrize(
    ("variables", "gpus"),
    [
        ({"UMPTEEN_GPUS": "3"}, ("0", "1", "2")),
        ({"UMPTEEN_GPUS": "0"}, ()),
        ({"UMPTEEN_GPUS": "2,5"}, ("2", "5")),
        ({"UMPTEEN_GPUS": " 2 , 5,"}, ("2", "5")),
        ({"UMPTEEN_GPUS": "1", "CUDA_VISIBLE_DEVICES": "4,5"}, ("0",)),
        ({"UMPTEEN_GPUS": "", "CUDA_VISIBLE_DEVICES": "4,5"}, ("4", "5")),
        ({"CUDA_VISIBLE_DEVICES": "3"}, ("3",)),
        ({"CUDA_VISIBLE_DEVICES": "GPU-8932f937,MIG-1"}, ("GPU-8932f937", "MIG-1")),
        ({"CUDA_VISIBLE_DEVICES": ""}, ()),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, ()),
    ],
)
def test_gpus_are_those_that_the_environment_names(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], gpus: tuple[str, ...]
) -> None:
    for name in ("UMPTEEN_GPUS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert read_capacity().gpus == gpus


def test_gpus_are_the_device_files_where_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UMPTEEN_GPUS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    found = [path for path in Path("/dev").glob("nvidia*") if path.name[6:].isdigit()]
    assert len(read_capacity().gpus) == len(found)


# --- files of the kernel ----------------------------------------------------------------------

Files = dict[str, str]


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Files:
    """What the kernel's files say in place of the real ones; one that is not here is empty."""
    found: Files = {}
    monkeypatch.setattr(machine, "read_text", lambda path: found.get(path, "").strip())
    return found


VERSION_2 = {
    "/proc/self/cgroup": "0::/user/mine\n",
    "/sys/fs/cgroup/user/mine/memory.max": "max\n",
    "/sys/fs/cgroup/user/memory.max": f"{1000 * MB}\n",
    "/sys/fs/cgroup/user/memory.current": f"{900 * MB}\n",
    "/sys/fs/cgroup/user/memory.stat": f"anon 5\ninactive_file {100 * MB}\nactive_file 7\n",
}
VERSION_1 = {
    "/proc/self/cgroup": "5:cpu:/elsewhere\n4:memory,freezer:/user/mine\n0::/\n",
    "/sys/fs/cgroup/memory/user/mine/memory.limit_in_bytes": "9223372036854771712\n",
    "/sys/fs/cgroup/memory/user/memory.limit_in_bytes": f"{1000 * MB}\n",
    "/sys/fs/cgroup/memory/user/memory.usage_in_bytes": f"{900 * MB}\n",
    "/sys/fs/cgroup/memory/user/memory.stat": (
        f"inactive_file 1\ntotal_inactive_file {100 * MB}\n"
    ),
}
FREE = {"/proc/meminfo": "MemFree: 1 kB\nMemAvailable:    8000000 kB\n"}


@pytest.mark.parametrize("version", [VERSION_1, VERSION_2])
def test_capacity_is_no_more_than_any_group_above_may_have(files: Files, version: Files) -> None:
    files.update(version)
    assert read_capacity().memory == 1000 * MB


@pytest.mark.parametrize("version", [VERSION_1, VERSION_2])
@pytest.mark.parametrize(("used_mb", "is_short"), [(900, False), (1049, False), (1051, True)])
def test_memory_is_short_where_little_of_the_groups_limit_is_left(
    files: Files, version: Files, used_mb: int, is_short: bool
) -> None:
    used = {
        path: f"{used_mb * MB}\n"
        for path in version
        if path.endswith(("current", "usage_in_bytes"))
    }
    files.update({**FREE, **version, **used})
    # The 100 MB of files that may be forgotten count as free, and 50 MB have to be.
    assert is_memory_short(Capacity(1, 1000 * MB, ())) == is_short


@pytest.mark.parametrize(
    ("memory_mb", "available_mb", "is_short"),
    [(64_000, 255, True), (64_000, 257, False), (1000, 49, True), (1000, 51, False)],
)
def test_memory_is_short_where_the_machine_has_little_left(
    files: Files, memory_mb: int, available_mb: int, is_short: bool
) -> None:
    files["/proc/meminfo"] = f"MemTotal: 9 kB\nMemAvailable: {available_mb * 1024} kB\n"
    assert is_memory_short(Capacity(1, memory_mb * MB, ())) == is_short


@pytest.mark.usefixtures("files")
def test_memory_is_never_short_where_the_kernel_does_not_tell() -> None:
    assert not is_memory_short(Capacity(1, 64 * MB, ()))


# --- kills ----------------------------------------------------------------------------------------


class Kernel:
    """A counter of kills, and a clock."""

    def __init__(self, files: Files) -> None:
        self.files, self.now_s = files, 1000.0
        self.count(5)

    def count(self, kills: int) -> None:
        self.files["/proc/vmstat"] = f"oom_kill_other 99\noom_kill {kills}\nzone 1\n"


@pytest.fixture
def kernel(files: Files, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel(files)
    monkeypatch.setattr(time, "monotonic", lambda: kernel.now_s)
    return kernel


@pytest.mark.usefixtures("kernel")
def test_watch_explains_no_death_by_kills_before_it_began() -> None:
    assert not OutOfMemoryWatch().explain()


def test_watch_explains_one_death_by_each_kill(kernel: Kernel) -> None:
    watch = OutOfMemoryWatch()
    kernel.count(7)
    assert [watch.explain() for _ in range(4)] == [True, True, False, False]
    kernel.count(8)
    assert [watch.explain() for _ in range(2)] == [True, False]


@pytest.mark.parametrize(("later_s", "explains"), [(1.0, True), (1.9, True), (30.0, False)])
def test_watch_explains_a_death_soon_after_a_kill_alone(
    kernel: Kernel, later_s: float, explains: bool
) -> None:
    watch = OutOfMemoryWatch()
    kernel.count(6)
    watch.look()
    for _ in range(10):
        kernel.now_s += later_s / 10
        watch.look()
    assert watch.explain() == explains


def test_watch_looked_at_late_still_sees_what_came_since(kernel: Kernel) -> None:
    watch = OutOfMemoryWatch()
    kernel.now_s += 100
    kernel.count(6)
    assert watch.explain()


def test_watch_keeps_no_more_than_it_needs(kernel: Kernel) -> None:
    watch = OutOfMemoryWatch()
    for _ in range(10_000):
        kernel.now_s += 0.5
        watch.look()
    assert len(watch.seen) < 10


@pytest.mark.usefixtures("files")
def test_watch_without_a_counter_explains_nothing() -> None:
    assert not OutOfMemoryWatch().explain()


# --- cores ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quotas", "cores"),
    [
        ({"/sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, 8),
        ({"/sys/fs/cgroup/a/b/cpu.max": "250000 100000\n"}, 2),
        ({"/sys/fs/cgroup/a/cpu.max": "400000 100000\n"}, 4),
        ({"/sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        ({"/sys/fs/cgroup/cpu/c/cpu.cfs_quota_us": "-1\n"}, 8),
        (
            {
                "/sys/fs/cgroup/cpu/c/cpu.cfs_quota_us": "300000\n",
                "/sys/fs/cgroup/cpu/c/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
    ],
)
def test_cores_are_no_more_than_the_quota_of_any_group_above(
    files: Files, monkeypatch: pytest.MonkeyPatch, quotas: Files, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8))
    files.update({"/proc/self/cgroup": "3:cpu,cpuacct:/c\n0::/a/b\n", **quotas})
    assert machine.usable_cores() == cores


def test_cores_of_a_group_above_what_a_container_sees(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8))
    files["/proc/self/cgroup"] = "0::/../outside\n"
    files["/sys/fs/cgroup/outside/cpu.max"] = "200000 100000\n"
    assert machine.usable_cores() == 2
