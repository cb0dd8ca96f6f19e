"""Other supervisors' files, read and written anew as workers.toml: what ``bgworker import`` does.

Pure text in, text out: nothing here starts, asks or imports what a file names. Used by the
command line alone.
"""
