"""What is mapped: arrays in memory, arrays in files, items."""
