"""Processes: birth, reaping, signals, the lifeline, and the helper programs."""
