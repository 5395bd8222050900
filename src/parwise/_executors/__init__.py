"""Private: how the tasks of a job are computed, in this process, in workers or by another library."""
