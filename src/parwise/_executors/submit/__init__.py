"""`Pool.submit`: calls one by one, computed in workers several at a time where they are short."""
