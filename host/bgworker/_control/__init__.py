"""The control socket: its wire (protocol), the host end (server) and the client end (client)."""
