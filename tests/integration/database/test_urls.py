"""libpq's own ways to say where a server is and how to get in: each works in [database] url as in any libpq program."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from tests.integration.database.driving import IS_ROOT, FakeHost, Server, free_port
from tests.integration.database.tls import TlsProxy, make_certificate, needs_openssl

MakeHost = Callable[..., FakeHost]


@pytest.fixture
def place(open_directory: Path) -> Path:
    """A directory for the files that a url names."""
    directory = open_directory / "files"
    directory.mkdir()
    return directory


def passfile(place: Path) -> Path:
    """Return a file with the password."""
    path = place / "passfile"
    path.write_text("*:*:*:*:sesame\n")
    path.chmod(0o600)
    return path


def test_service_file(make_host: MakeHost, shared_server: Server, place: Path) -> None:
    """A service= in the url is read by libpq's rules; status shows where it leads, without the password."""
    services = place / "services"
    services.write_text(f"[shop]\nhost=localhost\nport={shared_server.port}\nuser=postgres\npassword=sesame\nconnect_timeout=4\n")
    host = make_host(PGSERVICEFILE=str(services))
    host.external("postgresql:///postgres?service=shop")
    message = host.phase("recovery_finished")
    assert message["url"] == f"postgresql://postgres@localhost:{shared_server.port}/postgres?connect_timeout=4"
    assert psycopg.conninfo.conninfo_to_dict(message["conninfo"])["connect_timeout"] == "4"
    with host.connect() as connection:
        connection.execute("SELECT 1")


def test_missing_service(make_host: MakeHost, place: Path) -> None:
    """A service that its file does not know is one error that names it."""
    (place / "services").write_text("[shop]\nhost=localhost\n")
    host = make_host(PGSERVICEFILE=str(place / "services"))
    host.external("postgresql:///?service=store")
    assert 'definition of service "store" not found' in host.phase("unreachable")["detail"]
    host.received("log", level="ERROR")


def test_passfile_in_the_url(host: FakeHost, shared_server: Server, place: Path) -> None:
    """A passfile= in the url is libpq's to read, in our connections and the workers'."""
    where = quote(str(passfile(place)), safe="")
    host.external(f"postgresql://postgres@127.0.0.1:{shared_server.port}/postgres?passfile={where}")
    host.phase("recovery_finished")
    with host.connect() as connection:
        connection.execute("SELECT 1")


@pytest.mark.parametrize("form", ["postgresql://postgres@{directory}:{port}/postgres", "postgresql:///postgres?host={directory}"])
def test_unix_socket(make_host: MakeHost, shared_server: Server, form: str) -> None:
    """A directory in the host's place, percent-encoded, or as host=, is where the server's socket is."""
    host = make_host(PGPORT=str(shared_server.port), PGUSER="postgres")
    host.external(form.format(directory=quote(str(shared_server.directory), safe=""), port=shared_server.port))
    message = host.phase("recovery_finished")
    assert psycopg.conninfo.conninfo_to_dict(message["url"])["host"] == str(shared_server.directory)


def test_strange_password_and_options(host: FakeHost, shared_server: Server) -> None:
    """A password of any characters, percent-encoded, and options reach the workers as they are meant."""
    password = "a@b/c:d e%f'\\ü"
    with shared_server.connect() as administrator:
        administrator.execute(psycopg.sql.SQL("CREATE ROLE odd LOGIN PASSWORD {}").format(psycopg.sql.Literal(password)))
    try:
        where = f"odd:{quote(password, safe='')}@127.0.0.1:{shared_server.port}/postgres"
        host.external(f"postgresql://{where}?options=-c%20work_mem%3D8MB")
        message = host.phase("recovery_finished")
        assert "odd@127.0.0.1" in message["url"]
        assert password not in message["url"]
        assert quote(password, safe="") not in message["url"]
        with host.connect() as connection:
            assert connection.execute("SHOW work_mem").fetchone() == ("8MB",)
    finally:
        assert host.stop() < 5
        with shared_server.connect() as administrator:
            administrator.execute("DROP ROLE odd")


def test_ipv6(host: FakeHost) -> None:
    """An IPv6 address in brackets is an address, tried as one and shown as one."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as reserved:
            port = reserved.getsockname()[1]
    except OSError:
        pytest.skip("there is no IPv6 here")
    host.external(f"postgresql://me@[::1]:{port}/x")
    message = host.phase("unreachable", containing="next try in")
    assert message["url"] == f"postgresql://me@[::1]:{port}/x"
    assert f'"::1", port {port} failed: Connection refused' in message["detail"]


@pytest.mark.parametrize(
    ("wanted", "phase"), [("any", "recovery_finished"), ("read-write", "recovery_finished"), ("standby", "unreachable")]
)
def test_target_session_attrs(host: FakeHost, shared_server: Server, wanted: str, phase: str) -> None:
    """Of several hosts the first that is what target_session_attrs asks for is taken; none is an answer, too."""
    hosts = f"127.0.0.1:{free_port()},127.0.0.1:{shared_server.port}"
    host.external(f"postgresql://postgres:sesame@{hosts}/postgres?target_session_attrs={wanted}")
    detail = host.phase(phase)["detail"]
    assert ("server is not in hot standby mode" in detail) == (wanted == "standby")


@pytest.fixture
def silent_name_server(place: Path) -> Iterator[list[str]]:
    """A name server that never answers; the prefix of a command that has it as its only one."""
    if not IS_ROOT:
        pytest.skip("needs root, for a mount namespace")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        try:
            deaf.bind(("127.0.0.99", 53))
        except OSError as error:
            pytest.skip(f"no port for a name server: {error}")
        configuration = place / "resolv.conf"
        configuration.write_text("nameserver 127.0.0.99\noptions timeout:20 attempts:1\n")
        script = 'mount --bind "$0" "$(readlink -f /etc/resolv.conf)" && exec "$@"'
        yield ["unshare", "--mount", "sh", "-c", script, str(configuration)]


@pytest.mark.slow
def test_silent_name_server_does_not_block(make_host: MakeHost, silent_name_server: list[str]) -> None:
    """A lookup that hangs blocks nobody: it is given up after 10 s with the host's name, and a stop is obeyed meanwhile."""
    host = make_host(prefix=silent_name_server)
    host.external("postgresql://me@db.example.com/x")
    assert host.phase("starting")["detail"] == "connecting to the server"
    assert 'host "db.example.com" could not be looked up within 10 s' in host.phase("unreachable")["detail"]
    host.phase("unreachable", containing="try 2")
    assert host.stop() < 2


@needs_openssl
def test_tls(make_host: MakeHost, shared_server: Server, place: Path) -> None:
    """sslmode=verify-full with the right root gets in; with a wrong one there is one reason, which says it is the certificate."""
    right, wrong = make_certificate(place, "right"), make_certificate(place, "wrong")
    with TlsProxy(shared_server, right) as proxy:
        for root, phase, words in ((right, "recovery_finished", ""), (wrong, "unreachable", "certificate verify failed")):
            host = make_host(place.parent / f"data-{root.stem}")
            where = f"postgres:sesame@127.0.0.1:{proxy.port}/postgres"
            host.external(f"postgresql://{where}?sslmode=verify-full&sslrootcert={quote(str(root), safe='')}")
            assert words in host.phase(phase)["detail"]
            assert "sslmode=verify-full" in host.messages("phase")[-1]["url"]
            if phase == "recovery_finished":
                with host.connect() as connection:
                    assert connection.pgconn.ssl_in_use
            assert host.stop() < 5


def test_no_thread_without_a_name() -> None:
    """Addresses and directories start no lookup, and so no thread, here or in the database process."""
    from bgworker._database.addresses import resolve
    from bgworker._database.waits import Waits

    waits = Waits()
    before = threading.active_count()
    found: list[tuple[list[dict[str, str]], str]] = []
    for host in ("127.0.0.1", "::1", "/run/postgresql", "127.0.0.1,/run/postgresql"):
        resolve(waits, {"host": host, "port": "5432"}, lambda attempts, reason: found.append((attempts, reason)))
    assert threading.active_count() == before
    assert [len(attempts) for attempts, _reason in found] == [1, 1, 1, 2]
    waits.close()
