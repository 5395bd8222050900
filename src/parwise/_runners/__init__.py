"""Where tasks are computed.

Each runner has one function, ``run(job)``: it takes every task from
``job.plan`` and gives what became of it to ``job.accept``.
"""
