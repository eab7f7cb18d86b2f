"""The one supervisor of an embedded installation: it starts each part again when it dies, and keeps a log of each."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from config.embedded import keys

LOG_MAX: Final = "20MB"
# In the environment of every part, and of what a part starts: by it `make down` knows a process that lost its parent.
MARK: Final = "GRAVINGDOCK_PART_OF"
# A part whose disk is full, or whose predecessor's memory is still held, is tried for as long as it takes, each time a
# second later.
_RETRIES: Final = 1_000_000
_SHUTDOWN_STATE: Final = 6  # supervisor's xmlrpc.Faults: what it answers to every command while it goes down


class PartDied(RuntimeError):
    """A part ended as soon as it was started; the message carries the end of its log."""


@dataclass(frozen=True, slots=True)
class Part:
    """One program under the supervisor."""

    name: str
    command: Sequence[str]
    folder: Path
    stop_signal: str = "TERM"
    stop_wait_s: int = 30
    environment: Mapping[str, str] = field(default_factory=dict)
    is_group_stopped: bool = False  # send the stop signal to all its processes, not to the first only


class Supervisor:
    """Its files live below `home`; its socket in a short private folder."""

    def __init__(self, home: Path, sockets: Path) -> None:
        self.home = home
        self.socket = sockets / "supervisor.sock"
        self.configuration = home / "supervisor.conf"
        self.logs = home / "log"

    @property
    def _pid_file(self) -> Path:
        return self.home / "supervisor.pid"

    def write(self, parts: Sequence[Part]) -> None:
        """Write the configuration for these parts."""
        self.logs.mkdir(parents=True, exist_ok=True)
        lines = [
            "[unix_http_server]",
            f"file={self.socket}",
            "chmod=0700",
            "[supervisord]",
            f"logfile={self.logs / 'supervisor.log'}",
            f"pidfile={self._pid_file}",
            f"childlogdir={self.logs}",
            "silent=true",
            "minfds=1024",
            "[rpcinterface:supervisor]",
            "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface",
        ]
        for part in parts:
            lines += [
                f"[program:{part.name}]",
                "command=" + " ".join(_quote(word) for word in part.command),
                f"directory={part.folder}",
                "autostart=false",
                "autorestart=true",
                "startsecs=1",
                f"startretries={_RETRIES}",
                f"stopsignal={part.stop_signal}",
                f"stopwaitsecs={part.stop_wait_s}",
                f"stopasgroup={'true' if part.is_group_stopped else 'false'}",
                "killasgroup=true",
                f"stdout_logfile={self.logs / (part.name + '.log')}",
                f"stdout_logfile_maxbytes={LOG_MAX}",
                "stdout_logfile_backups=2",
                "redirect_stderr=true",
            ]
            values = {**part.environment, MARK: str(self.home)}
            pairs = ",".join(f'{name}="{value.replace("%", "%%")}"' for name, value in values.items())
            lines.append(f"environment={pairs}")
        keys.write_private(self.configuration, "\n".join(lines) + "\n")

    def is_running(self) -> bool:
        """Whether the supervisor answers."""
        try:
            self._call("getState")
        except (OSError, xmlrpc.client.Error):
            return False
        return True

    def start(self) -> None:
        """Start the supervisor itself, detached; the parts are started one by one."""
        self.socket.unlink(missing_ok=True)
        program = Path(sys.executable).with_name("supervisord")
        done = subprocess.run(
            [str(program), "-c", str(self.configuration)], capture_output=True, text=True, check=False
        )
        deadline = time.monotonic() + 10
        while not self.is_running():
            if done.returncode != 0 or time.monotonic() > deadline:
                raise PartDied(f"The supervisor did not start: {(done.stderr or done.stdout).strip()[-800:]}")
            time.sleep(0.05)

    def take_anew(self, names: Sequence[str]) -> None:
        """Let the configuration as it is written now hold for parts that do not run: an upgrade may have changed it."""
        self._call("reloadConfig")
        for name in names:
            self._call("removeProcessGroup", name)
            self._call("addProcessGroup", name)

    def start_part(self, name: str) -> None:
        """Start one part and wait until it has stayed up for a second; raises PartDied with the end of its log."""
        try:
            self._call("startProcess", name, True)
        except xmlrpc.client.Fault as fault:
            if "ALREADY_STARTED" in str(fault.faultString):
                return
            raise PartDied(
                f"{name} did not stay up ({fault.faultString}). The end of its log:\n{self.tail(name)}"
            ) from None

    def start_parts(self, names: Sequence[str], timeout_s: float = 60) -> None:
        """Start several parts at once, wait until each has stayed up; raises PartDied for the first that does not."""
        states = self.states()
        for name in names:
            try:
                if states[name] == "BACKOFF":  # it waits for its next try: now is better
                    self._call("stopProcess", name, True)
                self._call("startProcess", name, False)
            except xmlrpc.client.Fault as fault:
                if "ALREADY_STARTED" not in str(fault.faultString):
                    # The supervisor also says SPAWN_ERROR of a program that ended before it looked again.
                    raise PartDied(
                        f"{name} did not stay up ({fault.faultString}). The end of its log:\n{self.tail(name)}"
                    ) from None
        deadline = time.monotonic() + timeout_s
        while True:
            states = self.states()
            for name in names:
                if states[name] in {"FATAL", "BACKOFF", "EXITED"} or time.monotonic() > deadline:
                    raise PartDied(
                        f"{name} did not stay up ({states[name].lower()}). The end of its log:\n{self.tail(name)}"
                    )
            if all(states[name] == "RUNNING" for name in names):
                return
            time.sleep(0.1)

    def ask_to_stop(self, names: Sequence[str]) -> None:
        """Ask several parts to stop, at once; what does not run is left alone."""
        for name in names:
            with contextlib.suppress(xmlrpc.client.Fault):
                self._call("stopProcess", name, False)

    def await_stopped(self, names: Sequence[str], timeout_s: float = 60) -> None:
        """Return when none of the parts runs any more; the supervisor kills what does not obey."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            states = self.states()
            if not any(states.get(name) in {"RUNNING", "STOPPING", "STARTING"} for name in names):
                return
            time.sleep(0.1)

    def family(self) -> set[tuple[int, str]]:
        """Return (process id, start time) of all that descends from the supervisor, also builds in namespaces."""
        if not self.is_running():
            return set()
        parents: dict[int, list[tuple[int, str]]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and (found := started_at(int(entry.name))) is not None:
                parents.setdefault(found[0], []).append((int(entry.name), found[1]))
        found_all: set[tuple[int, str]] = set()
        waiting = [int(self._call("getPID"))]
        while waiting:
            children = parents.get(waiting.pop(), [])
            found_all.update(children)
            waiting.extend(pid for pid, _ in children)
        return found_all

    def states(self) -> dict[str, str]:
        """Return each part's state, as the supervisor names it."""
        return {row["name"]: row["statename"] for row in self._call("getAllProcessInfo")}

    def tail(self, name: str, lines: int = 15) -> str:
        """Return the last lines of a part's log."""
        path = self.logs / f"{name}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else "(no log)"

    def shut_down(self, first: Sequence[str], timeout_s: float = 90) -> None:
        """Stop the parts named `first`, which need the others, then all, then the supervisor; returns when gone."""
        if not self.is_running():
            return
        try:
            pid = int(self._pid_file.read_text())
            self.ask_to_stop(first)
            self.await_stopped(first)
            self._call("shutdown")
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != _SHUTDOWN_STATE:
                raise  # else somebody else is shutting it down already: wait with them
        except (OSError, ValueError):
            return  # it has just gone
        deadline = time.monotonic() + timeout_s
        while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
            time.sleep(0.1)

    def _call(self, method: str, *arguments: Any) -> Any:
        from supervisor.xmlrpc import SupervisorTransport  # noqa: PLC0415 -- only embedded installations have it

        transport = SupervisorTransport(None, None, f"unix://{self.socket}")
        proxy = xmlrpc.client.ServerProxy("http://supervisor", transport=transport)
        try:
            return getattr(proxy.supervisor, method)(*arguments)
        finally:
            transport.close()


def started_at(pid: int) -> tuple[int, str] | None:
    """Return (parent's id, start time in clock ticks) of a process, or None when it is gone or only a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else (int(fields[1]), fields[19])


def _quote(word: str) -> str:
    """Return `word` for a `command=` line: the supervisor splits it like a shell, and expands % signs."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'
