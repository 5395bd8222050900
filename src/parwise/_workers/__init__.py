"""Private: worker processes, and the serialization of everything that travels to and from them."""
