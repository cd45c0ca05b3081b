"""Against folders as the kernel lays them out: this machine sets no limit."""

import pytest

from fettle.core.cgroup import cpu_quota, memory_limit, text_of, throttled_periods


@pytest.fixture
def kernel(tmp_path):
    def lay_out(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return lay_out


V2 = {"proc/self/cgroup": "0::/kubepods/pod1/box\n"}
V1 = {"proc/self/cgroup": "4:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc\n"}


def test_version_2_of_a_docker_container(kernel):
    """A container with its own namespace sees its limit at the top."""
    root = kernel({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"})
    assert cpu_quota(root) == 1.5


def test_version_2_takes_the_tightest_limit_above(kernel):
    root = kernel({
        **V2,
        "sys/fs/cgroup/kubepods/cpu.max": "800000 100000\n",
        "sys/fs/cgroup/kubepods/pod1/cpu.max": "200000 100000\n",
        "sys/fs/cgroup/kubepods/pod1/box/cpu.max": "max 100000\n",
        "sys/fs/cgroup/kubepods/pod1/memory.max": "1073741824\n",
        "sys/fs/cgroup/kubepods/pod1/box/memory.max": "max\n",
        "sys/fs/cgroup/kubepods/pod1/box/cpu.stat": "nr_periods 9\nnr_throttled 4\n",
    })  # fmt: skip
    assert cpu_quota(root) == 2.0
    assert memory_limit(root) == 1 << 30
    assert throttled_periods(root) == 4


def test_version_1(kernel):
    top = "sys/fs/cgroup/cpu,cpuacct"
    root = kernel({
        **V1,
        f"{top}/docker/abc/cpu.cfs_quota_us": "50000\n",
        f"{top}/docker/abc/cpu.cfs_period_us": "100000\n",
        f"{top}/cpu.cfs_quota_us": "-1\n",
        f"{top}/cpu.cfs_period_us": "100000\n",
        f"{top}/docker/abc/cpu.stat": "nr_periods 3\nnr_throttled 2\nthrottled_time 7\n",
        "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": "9223372036854771712\n",
    })  # fmt: skip
    assert cpu_quota(root) == 0.5
    assert throttled_periods(root) == 2
    assert memory_limit(root) is None


def test_version_1_whose_path_is_of_the_host(kernel):
    root = kernel({
        **V1,
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "300000\n",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
    })  # fmt: skip
    assert cpu_quota(root) == 3.0


@pytest.mark.parametrize("text", ["", "max", "a b", "100000 0", "0 100000", "-1 100000"])
def test_a_limit_that_is_none(kernel, text):
    root = kernel({"proc/self/cgroup": "0::/\nbroken\n", "sys/fs/cgroup/cpu.max": text})
    assert cpu_quota(root) is None


def test_a_path_stays_inside_of_the_mount(kernel):
    root = kernel({
        "proc/self/cgroup": "0::/../../outside\n", "sys/outside/cpu.max": "100000 100000"
    })  # fmt: skip
    assert cpu_quota(root) is None


def test_no_control_groups(tmp_path):
    assert cpu_quota(tmp_path) is None
    assert memory_limit(tmp_path) is None
    assert throttled_periods(tmp_path) is None
    assert text_of(tmp_path / "nothing") == ""
