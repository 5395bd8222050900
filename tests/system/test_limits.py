"""Limits of CPUs and memory, read from the files of both cgroup versions."""

from __future__ import annotations

from parwise._system import limits
from parwise._system.limits import _group_limits, memory_limit


def test_cpu_quota_of_both_cgroup_versions(tmp_path):
    group = tmp_path / "a" / "b"
    group.mkdir(parents=True)
    (tmp_path / "member").write_text("0::/a/b\n")
    assert list(limits._quotas(tmp_path, tmp_path / "member")) == []
    (group / "cpu.max").write_text("max 100000\n")
    (tmp_path / "a" / "cpu.max").write_text("150000 100000\n")
    assert list(limits._quotas(tmp_path, tmp_path / "member")) == [1.5]
    first = tmp_path / "cpu,cpuacct" / "x"
    first.mkdir(parents=True)
    (tmp_path / "member").write_text("4:cpu,cpuacct:/x\n2:memory:/x\n")
    (first / "cpu.cfs_quota_us").write_text("-1\n")
    (first / "cpu.cfs_period_us").write_text("100000\n")
    assert list(limits._quotas(tmp_path, tmp_path / "member")) == []
    (first / "cpu.cfs_quota_us").write_text("250000\n")
    assert list(limits._quotas(tmp_path, tmp_path / "member")) == [2.5]
    assert list(limits._quotas(tmp_path, tmp_path / "missing")) == []
    assert limits.cpu_count() >= 1


def test_memory_limit_of_groups(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "memory.max").write_text("1000000\n")
    (tmp_path / "a" / "b" / "memory.max").write_text("max\n")
    membership = tmp_path / "cgroup"
    membership.write_text("0::/a/b\n")
    assert list(_group_limits(tmp_path, membership)) == [1_000_000]
    (tmp_path / "memory" / "c").mkdir(parents=True)
    (tmp_path / "memory" / "c" / "memory.limit_in_bytes").write_text("77\n")
    membership.write_text("3:cpu:/x\n4:memory:/c\n")
    assert list(_group_limits(tmp_path, membership)) == [77]
    assert list(_group_limits(tmp_path, tmp_path / "none")) == []
    assert memory_limit() > 2**20
