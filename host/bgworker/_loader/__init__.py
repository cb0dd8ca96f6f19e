"""The loader process: imports the preload libraries once, then gives birth to workers on request.

It is the only long-lived process of ours that runs plugin code at import, which is why it
can be replaced at any moment: nothing is its child, and nothing is known to it alone.
"""
