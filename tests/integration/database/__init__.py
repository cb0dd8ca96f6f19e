"""The database process on real servers."""
