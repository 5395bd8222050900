"""Limits of CPUs and memory, read from the files of both cgroup versions."""

from __future__ import annotations

import os

import pytest

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


def test_memory_that_groups_leave(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    for name, text in {
        "max": "1000000",
        "current": "900000",
        "stat": "anon 5\ninactive_file 50\nactive_file 7",
    }.items():
        (tmp_path / "a" / f"memory.{name}").write_text(f"{text}\n")
    membership, meminfo = tmp_path / "cgroup", tmp_path / "meminfo"
    membership.write_text("0::/a\n")
    assert list(limits._group_room(tmp_path, membership)) == [100_057]
    (tmp_path / "a" / "memory.max").write_text("max\n")
    assert list(limits._group_room(tmp_path, membership)) == []
    meminfo.write_text("MemTotal: 9 kB\nMemAvailable: 3 kB\n")
    monkeypatch.setattr(limits, "_group_room", lambda: iter([10_000]))
    assert limits.available_memory(meminfo) == 3072
    monkeypatch.setattr(limits, "_group_room", lambda: iter([-5, 10_000]))
    assert limits.available_memory(meminfo) == 0
    monkeypatch.setattr(limits, "_group_room", lambda: iter([]))
    assert limits.available_memory(tmp_path / "none") == memory_limit()


@pytest.mark.parametrize(
    ("text", "own", "idle"),
    [
        ("0.20 0.18 0.12 1/80 11206", 1, True),
        ("0.20 0.18 0.12 2/80 11206", 1, False),
        ("0.20 0.18 0.12 2/80 11206", 2, True),
        ("0.20 0.18 0.12 3/80 11206", 2, False),
        ("0.20 0.18 0.12 0/0 0", 1, True),  # of a sandbox that tells nothing
        ("", 1, True),
    ],
)
def test_idle_cpus(tmp_path, monkeypatch, text, own, idle):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    (tmp_path / "loadavg").write_text(text)
    assert limits.cpu_is_idle(own, tmp_path / "loadavg") is idle


def test_idle_cpus_that_no_file_tells(tmp_path):
    assert limits.cpu_is_idle(load=tmp_path / "loadavg")
