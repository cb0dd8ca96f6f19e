"""Plugins: found without importing them, loaded one by one under guard."""
