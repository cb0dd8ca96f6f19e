"""``bgworker top``: the full-screen view, drawn with textual.

A client like any other, in a process of its own. ``order`` is pure: which rows, in which order;
``text`` what the screen says beside them. ``feed`` and ``logs`` have a thread each that waits for the
host and for the log files; ``table``, ``panes`` and ``dialogs`` are widgets; ``app`` puts them
together and acts on keys; ``doors`` is what it is handed from outside. What rows are and what they
say is ``tui``'s. Only ``cli`` imports this room, lazily: textual is an extra.

Whatever others wrote is shown as plain text, never as textual's markup.
"""
