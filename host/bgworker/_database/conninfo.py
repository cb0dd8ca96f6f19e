"""Connection strings: what the user wrote, what our connections use, what anybody may see.

Strings in, strings out; no connection is made here. psycopg is imported only to read a
user's url: the embedded server's own strings must not wait for that import.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from bgworker.errors import ConfigurationError

#: Connection parameters by libpq's keywords.
Parameters = dict[str, str]

#: Given to every connection unless the url says otherwise (design section 8, point 11): a peer that
#: is lost is noticed within a minute while idle, and within half a minute while something is sent.
DEFAULTS: Final[Mapping[str, str]] = {
    "keepalives": "1",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
    "connect_timeout": "10",
}
#: The one default that libpq also reads from the environment.
_CONNECT_TIMEOUT_VARIABLE: Final = "PGCONNECT_TIMEOUT"
#: Names a service to every libpq program.
_SERVICE_VARIABLE: Final = "PGSERVICE"
_NO_SSLMODE: Final = "none of libpq's"
#: Never shown; libpq marks the same ones with the display character "*".
SECRETS: Final = frozenset({"password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"})
#: Shorter passwords are not searched for in messages: they would blank out half of every sentence.
_SHORTEST_MASKED: Final = 4

_ENCODE_HINT: Final = (
    "In a url, special characters of a user name or password are percent-encoded, for example @ as %40 and / as %2F."
)


def parse(url: Any, what: str = "database url") -> Parameters:
    """Return the parameters of ``[database] url`` (or ``direct_url``): a url, key=value pairs, or ``{"env": NAME}``.

    A ``service`` is replaced by what its file says of it.

    Args:
        url: What workers.toml says.
        what: How errors name it.

    Raises:
        ConfigurationError: It cannot be read; the message quotes nothing of it, since any part may be the password.
    """
    return _with_service(read(url, what), what)


def read(url: Any, what: str = "database url") -> Parameters:
    """Return what the url itself says, as ``parse`` does but for its ``service``: the same today and tomorrow.

    Raises:
        ConfigurationError: It cannot be read.
    """
    if isinstance(url, Mapping):
        name = str(url.get("env", ""))
        if not (text := os.environ.get(name, "")):
            raise ConfigurationError(f'{what} cannot be read: environment variable "{name}" is not set')
    else:
        text = str(url)
    if not text.strip():
        raise ConfigurationError(f"{what} cannot be read: it is empty")
    try:
        from psycopg import ProgrammingError
        from psycopg.conninfo import conninfo_to_dict
    except ImportError as error:
        raise ConfigurationError(
            "database cannot be reached: package psycopg is not installed", f"{error}.", 'pip install "bgworker[postgres]"'
        ) from None
    try:
        parameters = {key: str(value) for key, value in conninfo_to_dict(text).items() if value is not None}
    except ProgrammingError as error:
        # libpq quotes what it could not read, and that may be a piece of the password.
        reason = re.sub(r'".*"', '"..."', str(error).strip(), flags=re.DOTALL)
        raise ConfigurationError(f"{what} cannot be read: {reason}", "", _ENCODE_HINT) from None
    _refuse_misread_password(parameters, what)
    return parameters


def _with_service(parameters: Parameters, what: str) -> Parameters:
    """Return the parameters with what the service file says of ``service``, or of PGSERVICE, where they name nothing.

    Read here and not left to libpq: a host name in that file would be looked up by libpq, which
    blocks (see addresses), its timeouts would lose against our defaults, and its password
    would not be known as one. libpq's own reader is asked, so that the file is found where it
    finds it.
    """
    explicit = {key: value for key, value in parameters.items() if key != "service"}
    service = parameters.get("service") or os.environ.get(_SERVICE_VARIABLE)
    if not service:
        return explicit
    if problem := _service_problem(service):
        raise ConfigurationError(f"{what} cannot be used: {problem}")
    before = os.environ.pop(_SERVICE_VARIABLE, None)
    try:
        without = _libpq_defaults()
        # Only the environment can name a service here. No thread runs yet that could look at it meanwhile.
        os.environ[_SERVICE_VARIABLE] = service
        found = {key: value for key, value in _libpq_defaults().items() if value != without.get(key) and key != "service"}
    finally:
        os.environ.pop(_SERVICE_VARIABLE, None)
        if before is not None:
            os.environ[_SERVICE_VARIABLE] = before
    return {**found, **explicit}


def _libpq_defaults() -> Parameters:
    from psycopg import pq

    return {option.keyword.decode(): option.val.decode() for option in pq.Conninfo.get_defaults() if option.val is not None}


def _service_problem(service: str) -> str:
    """Return libpq's words for why there is no such service, "" if there is one; no connection is tried."""
    from psycopg import pq

    # PQconndefaults says nothing of a service that is missing. Here its file is read first, and then this sslmode ends it.
    connection = pq.PGconn.connect_start(keyword_string({"service": service, "sslmode": _NO_SSLMODE}).encode())
    message = one_line(connection.get_error_message())
    connection.finish()
    return "" if f'"{_NO_SSLMODE}"' in message else message


def _refuse_misread_password(parameters: Parameters, what: str) -> None:
    # postgresql://me:p@ss@host reads as host "ss@host", and postgresql://me:p/ss@host as port "p":
    # a plain error here, or pieces of the password would be shown as a host name.
    if "@" in parameters.get("host", ""):
        raise ConfigurationError(f'{what} cannot be used: its host name contains "@"', "", _ENCODE_HINT)
    if not all(port == "" or port.isdecimal() for port in parameters.get("port", "").split(",")):
        raise ConfigurationError(f"{what} cannot be used: its port is not a number", "", _ENCODE_HINT)


def with_defaults(parameters: Mapping[str, str], **more: str) -> Parameters:
    """Return the parameters with our keepalives and timeouts where they name none, and with ``more`` on top."""
    defaults = dict(DEFAULTS)
    if _CONNECT_TIMEOUT_VARIABLE in os.environ:
        del defaults["connect_timeout"]
    return {**defaults, **parameters, **more}


def keyword_string(parameters: Mapping[str, str]) -> str:
    """Return the parameters as libpq's key=value string."""
    return " ".join(f"{key}='{_escape(value)}'" for key, value in parameters.items())


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "\\'")


def public_url(parameters: Mapping[str, str]) -> str:
    """Return the parameters as a url that anybody may see: no secret in it."""
    shown = {key: value for key, value in parameters.items() if key not in SECRETS}
    user, database = shown.pop("user", ""), shown.pop("dbname", "")
    hosts, ports = shown.get("host", "").split(","), shown.get("port", "").split(",")
    authority = ""
    # A directory cannot stand where a url has its host, and then the port is a parameter as well.
    if not any("/" in host for host in hosts) and len(ports) in (1, len(hosts)):
        shown.pop("host", None)
        shown.pop("port", None)
        each = ports * len(hosts) if len(ports) == 1 else ports
        authority = ",".join(_host(host) + (f":{port}" if port else "") for host, port in zip(hosts, each, strict=True))
    prefix = f"{quote(user, safe='')}@" if user else ""
    query = "&".join(f"{key}={quote(value, safe='')}" for key, value in shown.items())
    return f"postgresql://{prefix}{authority}/{quote(database, safe='')}" + (f"?{query}" if query else "")


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else quote(host, safe="")


def without_secrets(message: str, parameters: Mapping[str, str]) -> str:
    """Return the message on one line, with every secret of the parameters replaced."""
    for key in SECRETS & parameters.keys():
        if len(parameters[key]) >= _SHORTEST_MASKED:
            message = message.replace(parameters[key], "********")
    return one_line(message)


def one_line(message: str) -> str:
    """Return a server's or libpq's message as one line without a period."""
    parts = [line.strip() for line in message.splitlines() if line.strip()]
    return "; ".join(part.rstrip(".") for part in parts)


def keepalive(parameters: Mapping[str, str]) -> tuple[float, float] | None:
    """Return after how many idle seconds a peer is to be asked for a sign of life, and how long it has for its answer.

    Those of TCP's keepalives, in the same parameters; None where they are switched off, or never were on (the embedded server).
    """

    def seconds(key: str) -> float:
        text = parameters.get(key, "")
        # libpq: 0 means the system's value, which on most systems is hours.
        return float(text) if text.isdecimal() and int(text) > 0 else float(DEFAULTS[key])

    if parameters.get("keepalives", "0") == "0":
        return None
    return seconds("keepalives_idle"), seconds("keepalives_interval") * seconds("keepalives_count")


def connect_timeout(parameters: Mapping[str, str]) -> float:
    """Return how long one connection attempt may take, read as libpq reads it."""
    text = parameters.get("connect_timeout") or os.environ.get(_CONNECT_TIMEOUT_VARIABLE, "")
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    # libpq: 0 and less mean for ever, 1 means 2. For ever is not for a process that must answer its host.
    return max(2.0, seconds) if seconds > 0 else 130.0
