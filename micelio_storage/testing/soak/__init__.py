"""Work on a storage by processes that are killed, and a model that knows what must be there afterwards."""
