"""Whether libpq can read the urls of [database]: if not, the file is refused as for any other error in it.

Without this the host would be up, and its database workers would wait for ever. The host itself reads no
urls, for it has no database code. Connects to nothing. Used by ``catalogue`` alone.
"""

from __future__ import annotations

import sys

from bgworker._config.findings import ConfigurationErrors, Findings
from bgworker._config.include import split
from bgworker._config.model import Configuration, shortened
from bgworker.errors import ConfigurationError


def check(configuration: Configuration, text: str, *, with_service: bool) -> None:
    """See that the urls can be read.

    Args:
        configuration: Made of the text.
        text: For the lines of errors.
        with_service: Whether to look up what ``service`` names, too. Not for a configuration that is in force: a loader that takes
            another one's place must not fail because a file outside of workers.toml has gone.

    Raises:
        ConfigurationErrors: What libpq says of them.
    """
    database = configuration.database
    if database is None or database.url == "embedded":
        return
    from bgworker._database import conninfo

    wrong: list[ConfigurationError] = []
    for key, url in (("url", database.url), ("direct_url", database.direct_url)):
        if url is None:
            continue
        line = Findings(configuration.path, split(text, configuration.path)[0].text).line(("database", key))
        place = shortened(configuration.path, 200) + (f":{line}" if line is not None else "")
        try:
            (conninfo.parse if with_service else conninfo.read)(url, f"{place}: [database] {key}")
        except ConfigurationError as error:
            # Without psycopg no url can be read at all. Whoever checks is to know; a host says so in its status, and runs the rest.
            if with_service or "psycopg" in sys.modules:
                wrong.append(error)
    if wrong:
        raise ConfigurationErrors(configuration.path, wrong)
