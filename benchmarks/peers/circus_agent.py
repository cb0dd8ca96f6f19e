"""Makes and times circus's calls, in the peers' environment: circus_agent.py ENDPOINT; one JSON line in, one out."""

import json
import sys
import time

from circus.client import CircusClient  # type: ignore[import-not-found] # of the peers' environment


def main() -> None:
    """Serve until standard input ends."""
    client = CircusClient(endpoint=sys.argv[1], timeout=60)
    for line in sys.stdin:
        order = json.loads(line)
        command = {"command": order.pop("command"), "properties": order}
        begin = time.monotonic_ns()
        try:
            answer = client.call(command)
        except Exception as error:
            answer = {"status": "error", "reason": str(error)}
        end = time.monotonic_ns()
        reply = {"error": str(answer.get("reason"))} if answer.get("status") == "error" else {"begin": begin, "end": end}
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
