"""Options as they travel with a function that another process gets."""

from __future__ import annotations

from typing import Any


class GivenOptions(dict[str, Any]):
    """Options by name. A copy in another process lacks what belongs to this one: executors and progress functions.

    Most cannot be pickled, and no call there needs them: within a mapped function it runs in the worker, silently.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave out objects that run calls or show progress; the name of an executor and a label stay."""
        own = {"executor", "progress"}
        return GivenOptions, ({k: v for k, v in self.items() if k not in own or isinstance(v, str | bool | None)},)
