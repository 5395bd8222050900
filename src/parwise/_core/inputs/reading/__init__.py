"""Proofs that a function only reads its arguments: then it may get the caller's own memory."""
