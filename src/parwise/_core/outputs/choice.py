"""Which output a call gets."""

from __future__ import annotations

from ..call import Call
from ..results import Form
from .output import ArrayOutput, ListOutput, Output, RawOutput
from .unordered import UnorderedOutput


def output_of(call: Call, ordered: bool) -> Output:
    """Make the output of the call's form; of items that may come in any order if not `ordered`."""
    if not ordered:
        return UnorderedOutput(call)
    if call.form == "optional":  # most calls do without
        from .optional import OptionalOutput

        return OptionalOutput(call)
    outputs: dict[Form, type[Output]] = {"arrays": ArrayOutput, "raw": RawOutput, "list": ListOutput}
    return outputs[call.form](call)
