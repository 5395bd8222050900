"""Private: the functions that users call, and `Pool`; `parwise` itself re-exports them."""
