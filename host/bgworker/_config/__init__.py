"""workers.toml: read, checked, merged with what plugins register."""
