"""supervisord.conf read into workers: each [program:x] becomes one [[worker]] or several.

Keys and their defaults are those of supervisord's manual ("Configuration File"). What a key
becomes stands in one method each; what has no counterpart, or a value that supervisord would refuse
(``kinds``), is a remark, never silence.
"""

from __future__ import annotations

import configparser
import glob
import os
import re
import shlex
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from bgworker._migration import kinds
from bgworker._migration.conversion import WITH_THE_HOST, Conversion, Remark, named_once
from bgworker._spec import MAX_RESTART_TIME
from bgworker._supervision import MOST_INSTANCES, STOP_SIGNALS
from bgworker.errors import ConfigurationError

#: Seconds; no time of ours is longer.
_LONGEST: Final = int(MAX_RESTART_TIME)
_PAIR: Final = re.compile(r"""\s*([^=\s,]+)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^,]*?))\s*(?:,|$)""")
#: The number of a process in its name, with what parts it from the rest.
_NUMBERED: Final = re.compile(r"[-_:. ]*%\(process_num\)\d*[dis]")
#: Sections that say how supervisord itself is reached; ours needs nothing.
_CONTROL: Final = ("unix_http_server", "inet_http_server", "supervisorctl")
_NO_COUNTERPART: Final = {
    "priority": 'workers are written in this order; to wait for another one, use after = ["NAME:ready"]',
    "stopasgroup": "the signal goes to the program; what it leaves behind in its session is killed when it has ended",
    "killasgroup": "that is always so: SIGKILL goes to the whole session",
    "serverurl": "programs find nothing of supervisord's any more",
    "redirect_stderr": "both are captured, and logs shows them together",
    "stdout_syslog": "logs are files, or standard error with bgworker run --log stderr",
    "stderr_syslog": "logs are files, or standard error with bgworker run --log stderr",
    "stdout_events_enabled": "what a program prints raises no events",
    "stderr_events_enabled": "what a program prints raises no events",
    "stdout_capture_maxbytes": "what a program prints raises no events",
    "stderr_capture_maxbytes": "what a program prints raises no events",
}
_LOG_KEY: Final = re.compile(r"(stdout|stderr)_logfile(_maxbytes|_backups)?")
#: Keys that are read together with another one, or mean nothing alone.
_READ_ELSEWHERE: Final = ("process_name", "numprocs", "numprocs_start", "exitcodes", "startsecs")


def convert(path: str, environ: Mapping[str, str]) -> Conversion:
    """Read a supervisord.conf.

    Args:
        path: The file.
        environ: For ``%(ENV_X)s``.

    Raises:
        ConfigurationError: It cannot be read, or is no configuration file.
    """
    reader = _Reader(path, environ)
    reader.read(path)
    return reader.convert()


class _Section:
    """One section of a file, with the line of each key."""

    def __init__(self, path: str, name: str, values: dict[str, str], lines: dict[str, int], line: int) -> None:
        self.path, self.name, self.values, self.lines, self.line = path, name, values, lines, line

    @property
    def here(self) -> str:
        return os.path.dirname(os.path.abspath(self.path))


class _Reader:
    def __init__(self, path: str, environ: Mapping[str, str]) -> None:
        self._path = path
        self._environ = environ
        self._sections: list[_Section] = []
        self._result = Conversion()
        self._groups: dict[str, str] = {}
        self._daemon: _Section | None = None

    # -- reading ------------------------------------------------------------------------------------------------------------

    def read(self, path: str) -> None:
        """Take in a file, and those that its [include] names."""
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read()
        except OSError as error:
            raise ConfigurationError(f'could not read "{path}": {error.strerror}') from None
        except UnicodeDecodeError:
            raise ConfigurationError(f'could not read "{path}": it is not UTF-8') from None
        parser = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"), strict=False, allow_no_value=True)
        try:
            parser.read_string(text, path)
        except configparser.Error as error:
            raise ConfigurationError(f'"{path}" is not a configuration of supervisord: {error.message.splitlines()[0]}') from None
        places = _places(text)
        for name in parser.sections():
            values = {key: value or "" for key, value in parser.items(name)}
            lines = {key: places[name, key] for key in values if (name, key) in places}
            self._sections.append(_Section(path, name, values, lines, places.get((name, ""), 0)))
        if parser.has_option("include", "files"):
            self._include(self._sections[parser.sections().index("include") - len(parser.sections())])

    def _include(self, section: _Section) -> None:
        patterns = section.values["files"].replace("%(here)s", section.here).split()
        for pattern in patterns:
            found = sorted(glob.glob(os.path.join(section.here, pattern)))
            for path in found:
                self.read(path)
            if not found:
                self._remark(section, "files", f'"{pattern}" names no file')

    # -- converting ---------------------------------------------------------------------------------------------------------

    def convert(self) -> Conversion:
        """Return what the sections become."""
        for section in self._sections:
            if section.name.startswith("group:"):
                for program in filter(None, map(str.strip, section.values.get("programs", "").split(","))):
                    self._groups[program] = section.name.partition(":")[2]
            elif section.name == "supervisord":
                self._daemon = self._checked(section, "", ("umask",))
        programs = []
        for section in self._sections:
            kind, _, name = section.name.partition(":")
            if kind == "program" and name:
                checked = self._checked(section, name.strip(), kinds.KEYS)
                programs.append((int(checked.values.get("priority", "999")), checked))
            else:
                self._other(section, kind)
        for _priority, section in sorted(programs, key=lambda placed: placed[0]):
            self._program(section, section.name.partition(":")[2].strip())
        for name, count in named_once(self._result.workers).items():
            self._result.remarks.append(
                Remark(self._path, 0, f'"{name}"', f"{count} workers would have this name; give each its own")
            )
        return self._result

    def _checked(self, section: _Section, name: str, keys: Collection[str]) -> _Section:
        """Return a section with these keys written out, and without those whose values supervisord would refuse."""
        process = _Program(self, section, name, self._groups.get(name), 0, 1, is_first=True)
        kept = dict(section.values)
        for key in [key for key in kept if key in keys]:
            kept[key] = process.expanded(key, kept[key]).strip()
            # As it is written: what an environment variable holds may be a secret.
            if (problem := kinds.find_problem(key, kept[key], section.values[key])) is not None:
                del kept[key]
                self._remark(section, key, problem)
        return _Section(section.path, section.name, kept, section.lines, section.line)

    def _other(self, section: _Section, kind: str) -> None:
        match kind:
            case "supervisord":
                for key in section.values:
                    if key not in ("environment", "umask", "directory"):
                        self._remark(section, key, "has no counterpart; see [host] in docs/operating.md")
            case "include":
                pass
            case "group":
                if "priority" in section.values:
                    self._remark(section, "priority", _NO_COUNTERPART["priority"])
            case "eventlistener":
                self._remark(section, "", "is left out: write a hook bgworker_event instead, see docs/plugins.md")
            case "fcgi-program":
                self._remark(section, "", "is left out: there are no FastCGI sockets here")
            case _ if kind in _CONTROL or kind.startswith("rpcinterface"):
                self._remark(section, "", "is left out: the commands reach the host through its data directory")
            case _:
                self._remark(section, "", "is no section that supervisord knows, and is left out")

    def _program(self, section: _Section, name: str) -> None:
        command = section.values.get("command", "")
        if not command.strip():
            self._remark(section, "", "is left out: it has no command")
            return
        asked = int(section.values.get("numprocs", "1"))
        count = max(asked, 1)
        first = int(section.values.get("numprocs_start", "0"))
        template = section.values.get("process_name") or (
            "%(program_name)s" if count == 1 else "%(program_name)s_%(process_num)02d"
        )
        processes = [
            _Program(self, section, name, self._groups.get(name), number, count, is_first=number == first)
            for number in range(first, first + count)
        ]
        workers = [process.convert(template) for process in processes]
        if asked < 1:
            workers[0]["enabled"] = False
            self._remark(section, "numprocs", f"{asked} is no process at all; one worker is written, with enabled = false")
        common_name = processes[0].name_from(_NUMBERED.sub("", template)).strip("-_:. ") or name
        self._result.workers += self._as_instances(section, common_name, workers) or workers

    def _as_instances(self, section: _Section, name: str, workers: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
        """Return the processes of one program as one worker with instances; None where they differ in more than their names."""
        if len(workers) == 1 or len(workers) > MOST_INSTANCES:
            return None
        first, *others = ({key: value for key, value in worker.items() if key != "bgw_name"} for worker in workers)
        if differing := sorted({key for other in others for key in other if other[key] != first[key]}):
            reason = f"a [[worker]] for each process, because %(process_num) stands in its {', '.join(differing)}"
            advice = f"one that reads BGWORKER_INSTANCE, 1 to {len(workers)}, can do with instances = {len(workers)}"
            self._remark(section, "numprocs", f"{reason}; {advice}")
            return None
        were, last = workers[0]["bgw_name"], workers[-1]["bgw_name"]
        renamed = "" if were == last else f", and no longer {were} to {last}"
        self._remark(section, "numprocs", f"its processes are called {name}-1 to {name}-{len(workers)} here{renamed}")
        if first["bgw_type"] == name:
            del first["bgw_type"]
        return [{"bgw_name": name, "instances": len(workers), **first}]

    @property
    def daemon(self) -> _Section | None:
        """The section [supervisord], whose environment, umask and directory every program inherits."""
        return self._daemon

    @property
    def environ(self) -> Mapping[str, str]:
        """The environment of this process."""
        return self._environ

    def _remark(self, section: _Section, key: str, text: str) -> None:
        subject = f"[{section.name}]" + (f" {key}" if key else "")
        self._result.remarks.append(Remark(section.path, section.lines.get(key, section.line), subject, text))

    remark = _remark


class _Program:
    """One process of a [program:x]."""

    def __init__(
        self, reader: _Reader, section: _Section, program: str, group: str | None, number: int, count: int, *, is_first: bool
    ) -> None:
        self._reader, self._section, self._group, self._program = reader, section, group, program
        self._is_first = is_first  # what is said of all processes of a program is said once
        self._count = count
        self._expansions = {
            "program_name": program,
            "group_name": group or program,
            "process_num": number,
            "numprocs": count,
            "here": section.here,
            "host_node_name": os.uname().nodename,
        }
        self._worker: dict[str, Any] = {}

    def convert(self, template: str) -> dict[str, Any]:
        """Return the keys of the [[worker]]."""
        self._worker["bgw_name"] = self.name_from(template)
        if self._group or self._count > 1:
            self._worker["bgw_type"] = self._group or self._program
        self._command()
        self._worker |= WITH_THE_HOST
        self._inherited()
        handlers: dict[str, Callable[[str], None]] = {
            "directory": lambda value: self._set("working_directory", self.expanded("directory", value)),
            "user": lambda value: self._set("user", self.expanded("user", value), "the host must be started by root for that"),
            "umask": lambda value: self._set("umask", kinds.umask(value)),
            "environment": lambda value: self._environment("environment", value, self._section),
            "autostart": self._autostart,
            "autorestart": self._autorestart,
            "startretries": self._startretries,
            "stopsignal": self._stopsignal,
            "stopwaitsecs": self._stopwaitsecs,
        }
        values = self._section.values
        if "autorestart" not in values:
            self._autorestart("unexpected")
        for key, value in values.items():
            if key in handlers:
                handlers[key](value)
            elif _LOG_KEY.fullmatch(key):
                self._say(key, "what a program prints is kept in the data directory; see bgworker logs")
            elif key in _NO_COUNTERPART:
                if not _is_default(key, value):
                    self._say(key, _NO_COUNTERPART[key])
            elif key == "startsecs" and "startretries" not in values:
                self._say(key, "a program has started as soon as it is executed; healthy_after of restart_backoff is similar")
            elif key not in _READ_ELSEWHERE and key != "command":
                self._say(key, "is no key that supervisord knows, and is left out")
        if "stopwaitsecs" not in values:
            self._worker["stop_timeout"] = 10  # supervisord's default; ours is shorter
        return self._worker

    def name_from(self, template: str) -> str:
        """Return the name that a ``process_name`` gives this process."""
        return self.expanded("process_name", template).strip()

    def _say(self, key: str, text: str) -> None:
        if self._is_first:
            self._reader.remark(self._section, key, text)

    def _set(self, key: str, value: Any, remark: str = "") -> None:
        self._worker[key] = value
        if remark:
            self._say(key, remark)

    def expanded(self, key: str, text: str) -> str:
        """Return the text with %(name)s replaced as supervisord does; left as it is where that cannot be."""
        names = dict(self._expansions)
        for name in re.findall(r"%\(ENV_([^)]+)\)", text):
            if name in self._reader.environ:
                names[f"ENV_{name}"] = self._reader.environ[name]
                self._say(key, f"%(ENV_{name})s was replaced by what {name} is now")
        try:
            return text % names
        except KeyError as error:
            self._say(key, f"%({error.args[0]})s has no value here; write it in by hand")
        except (TypeError, ValueError):
            self._say(key, "has a % that supervisord could not have read either; look at it by hand")
        return text

    def _command(self) -> None:
        text = self.expanded("command", self._section.values["command"])
        try:
            self._worker["command"] = shlex.split(text)
        except ValueError as error:
            self._worker["command"] = text.split()
            self._say("command", f"its quotes do not match ({error}); look at it by hand")
        if not self._worker["command"]:
            self._worker["command"] = [text]

    def _inherited(self) -> None:
        daemon = self._reader.daemon
        if daemon is None:
            return
        values = daemon.values
        if "environment" in values:
            self._environment("environment", values["environment"], daemon)
        if "umask" in values and "umask" not in self._section.values:
            self._worker["umask"] = kinds.umask(values["umask"])
        if "directory" in values and "directory" not in self._section.values:
            self._worker["working_directory"] = self.expanded("directory", values["directory"])

    def _environment(self, key: str, text: str, section: _Section) -> None:
        found = self._worker.setdefault("environment", {})
        end = 0
        for match in _PAIR.finditer(text):
            if match.start() != end:
                break
            end = match.end()
            name, value = match[1], next(group for group in match.groups()[1:] if group is not None)
            if value == f"%(ENV_{name})s":
                continue  # inherited anyway
            found[name] = self.expanded(key, value)
        if end < len(text.rstrip()):
            self._reader.remark(section, key, f"could not be read from {text[end : end + 20]!r} on; look at it by hand")
        if not found:
            del self._worker["environment"]

    def _autostart(self, value: str) -> None:
        if not kinds.boolean(value):
            self._worker["enabled"] = False
            self._say("autostart", "enabled = false: such a worker is not there until it is enabled, or registered by a client")

    def _autorestart(self, value: str) -> None:
        codes = kinds.exit_codes(self._section.values.get("exitcodes", "0"))
        match kinds.restart(value):
            case None:
                self._worker["restart_on"] = "crash"
                if good := sorted({code for code in codes if code}):
                    self._worker["success_exit_codes"] = good
                if 0 not in codes:
                    self._say("exitcodes", "exit code 0 is success here in any case")
            case True:
                self._worker["restart_on"] = "always"
            case False:
                self._worker["bgw_restart_time"] = "BGW_NEVER_RESTART"

    def _startretries(self, _value: str) -> None:
        if kinds.restart(self._section.values.get("autorestart", "unexpected")) is False:
            self._say("startretries", "it is left out: a program that is never restarted is not tried again either")
            return
        healthy = min(max(int(self._section.values.get("startsecs", "1")), 1), _LONGEST)
        self._worker["restart_backoff"] = {"healthy_after": healthy}
        self._say("startretries", "nothing is given up here: pauses between failures grow instead, see restart_backoff")

    def _stopsignal(self, value: str) -> None:
        name = kinds.signal_name(value)
        if name not in STOP_SIGNALS:
            self._say("stopsignal", f"SIG{name} cannot be sent here, only {', '.join(STOP_SIGNALS)}; SIGTERM is")
        elif name != "TERM":
            self._worker["stop_signal"] = name

    def _stopwaitsecs(self, value: str) -> None:
        seconds = min(max(int(value), 1), _LONGEST)
        self._worker["stop_timeout"] = seconds
        if seconds != int(value):
            self._say("stopwaitsecs", f"{int(value)} is out of range here, 1 to {_LONGEST}; stop_timeout = {seconds}")


def _is_default(key: str, value: str) -> bool:
    return value.strip().lower() in {"priority": ("999",), "serverurl": ("auto",)}.get(key, ("false", "0", "no", "off"))


def _places(text: str) -> dict[tuple[str, str], int]:
    """Return the line of each section ("" as the key) and of each key in it, the last one where there are several."""
    found: dict[tuple[str, str], int] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        if match := re.match(r"\[([^\]]+)\]", line):
            section = match[1]
            found[section, ""] = number
        elif match := re.match(r"([^\s;#=:][^=:]*?)\s*(?:[=:]|\s[;#]|$)", line):
            found[section, match[1].lower()] = number
    return found
