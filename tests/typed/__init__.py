"""A project that uses everything public, as the type checkers see it (tests/test_types.py). Nothing of it is run."""
