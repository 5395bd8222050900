"""Tests that hold for forked workers only, and why; they are skipped where workers are portable ones."""

from __future__ import annotations

FORK_SERVER = "it looks at the fork server, of which portable workers have none"
NO_FILE = "portable workers get large functions by their connection, which no limit on files concerns"

#: By the name of a test, or of a file.
SKIPPED = {
    "test_failed_starts.py": "it lets system calls fail that portable workers do not make",
    "test_foreign_bytes.py": "it writes to sockets of packets, of which portable workers have none",
    "test_direct.py": "portable workers do not read or write the caller's memory",
    "test_without_workers.py": "it lets the start of a fork server fail",
    "test_interrupted_pool_is_renewed": FORK_SERVER,
    "test_a_killed_fork_server_leaves_no_zombie": FORK_SERVER,
    "test_answer_that_comes_too_late": FORK_SERVER,
    "test_crash_at_start": FORK_SERVER,
    "test_dead_fork_server": FORK_SERVER,
    "test_a_fork_server_that_cannot_be_replaced": FORK_SERVER,
    "test_fork_server_killed_during_a_call": FORK_SERVER,
    "test_fork_server_stopped_beside_workers_that_the_call_does_not_use": FORK_SERVER,
    "test_fork_server_that_only_closes_its_socket_is_ended": FORK_SERVER,
    "test_gaps_after_the_end_of_the_fork_server": FORK_SERVER,
    "test_retries_after_the_end_of_the_fork_server": FORK_SERVER,
    "test_random_signals": FORK_SERVER,
    "test_files_of_limited_size": NO_FILE,
    "test_large_closure_travels_once_per_worker": NO_FILE,
    "test_nothing_lives_in_dev_shm": "portable workers have their shared memory there",
    "test_tiny_dev_shm": "portable workers need 5 MB there for each of them",
    "test_nobody_else_can_speak": "it looks at sockets of packets",
    "test_no_more_processes_can_be_made": FORK_SERVER,
    "test_parent_killed_takes_workers_along": "a thread sees the caller's end, once C code releases the GIL",
    "test_pool_that_is_put_back_while_another_one_is_made": "it makes a pool of forked workers",
    "test_the_machine": "it expects what forked workers print",
}
#: By a parameter.
PARAMETERS = {
    "fork server": FORK_SERVER,
    "everything": FORK_SERVER,
    "other": "children of the caller are not only its workers",
}


def reason(item):
    """Why a test is skipped, or None."""
    values = item.callspec.params.values() if item.path.name == "test_silence.py" and hasattr(item, "callspec") else ()
    of_values = [PARAMETERS[one] for one in values if isinstance(one, str) and one in PARAMETERS]
    return SKIPPED.get(item.path.name) or SKIPPED.get(item.name.partition("[")[0]) or next(iter(of_values), None)
