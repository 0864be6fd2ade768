"""Much at once, from one place to another: moving a storage, and reading all of one to see that it is whole."""
