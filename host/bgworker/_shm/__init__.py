"""The shared tables: their bytes (layout) and the memory files that hold them (table)."""
