"""The live view: plain data in, rich renderables out.

A client like any other: it talks to the host through the control socket only, and never
runs in the host's process. ``health``, ``model``, ``text`` and ``plain`` are pure and need no
rich; ``render`` is the only file that draws, ``figures`` the only one that asks the machine,
``feed`` the only one that asks the host and waits. ``cli`` and ``top`` import this room, nothing else does.
"""
