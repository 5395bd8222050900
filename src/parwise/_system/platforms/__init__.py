"""What operating systems have that Python does not offer on all of them."""
