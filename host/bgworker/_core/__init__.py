"""The pure machine: registrations, events and monotonic time in, decisions out. Imports no os, socket, signal or time."""
