"""The result of a call: arrays that are filled task by task, and files behind `out`."""
