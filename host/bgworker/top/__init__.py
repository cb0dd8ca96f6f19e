"""``bgworker top``: the full-screen view, drawn with textual.

A client like any other, in a process of its own. ``order`` is pure: which rows, in which order;
``feed`` and ``logs`` have a thread each that waits for the host and for the log files; ``table``,
``panes`` and ``dialogs`` are widgets; ``app`` puts them together and knows the keys. What rows
are and what they say is ``tui``'s. Only ``cli.top`` imports this room: textual is an extra.

Whatever others wrote is shown as plain text, never as textual's markup.
"""
