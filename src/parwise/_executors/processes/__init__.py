"""Worker processes of parwise's own, as a call uses them."""
