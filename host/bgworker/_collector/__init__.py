"""The collector: a helper program of the host that takes every worker's output and the host's facts, and writes the files.

``python -m bgworker._collector`` (``__main__``) sets itself up and runs ``loop``, which is
the only room that knows all others:

    names, lines, plain, tail    pure: file names, bytes into lines, lines into records, a reason out of the last lines
    files                        appending to a file that may vanish, fill up or be a trap; counting what is lost
    standard_error               the same lines on stderr, without ever waiting for its reader
    sinks                        which line goes where
    streams                      one life of a worker and its two pipes
    lives                        all of them: reading, the last lines of an exit, the end
    history                      history.jsonl
    loop                         the selector and the messages of the host

One thread, one selector, no polling. The host starts it and nothing imports it, except that
``bgworker._logs``, the reading side, shares names, lines and plain. It never runs plugin
code, and never exits because of a file.

What a SIGKILL of the collector can cost: the bytes of one read of one pipe (at most 64 KiB)
that were being written at that instant, and per pipe the beginning of the one line that had
no newline yet (at most 16 KiB). Everything else waits in the pipes, which the host still
holds, and is written by the collector that replaces this one.
"""
