"""Leaves a thread behind at import, as numerical libraries do."""

import threading

threading.Thread(target=threading.Event().wait, daemon=True).start()
