"""The collector as a process, its host end driven by the test; and the reading of its files."""
