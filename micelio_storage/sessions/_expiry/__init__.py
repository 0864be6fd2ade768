"""Sessions that go by one policy."""
