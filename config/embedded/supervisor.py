"""The supervisor of an embedded installation. It restarts each service that ends, and keeps a log of each."""

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
# In the environment of every service and its children. So `make down` recognises processes that lost their parent.
MARK: Final = "GRAVINGDOCK_PART_OF"
# A service can fail for a while, for example with a full disk or while its predecessor still uses memory. So it is
# retried without end, and each wait is one second longer.
_RETRIES: Final = 1_000_000
_SHUTDOWN_STATE: Final = 6  # fault code from supervisor's xmlrpc.Faults for every command during a shutdown


class PartDied(RuntimeError):
    """A service ended right after its start. The message contains the end of its log."""


@dataclass(frozen=True, slots=True)
class Part:
    """One program that the supervisor runs."""

    name: str
    command: Sequence[str]
    folder: Path
    stop_signal: str = "TERM"
    stop_wait_s: int = 30
    environment: Mapping[str, str] = field(default_factory=dict)
    is_group_stopped: bool = False  # send the stop signal to all its processes, not only to the first


class Supervisor:
    """A supervisor with its files below `home` and its socket in a private folder with a short path."""

    def __init__(self, home: Path, sockets: Path) -> None:
        self.home = home
        self.socket = sockets / "supervisor.sock"
        self.configuration = home / "supervisor.conf"
        self.logs = home / "log"

    @property
    def _pid_file(self) -> Path:
        return self.home / "supervisor.pid"

    def write(self, parts: Sequence[Part]) -> None:
        """Write the configuration for the services `parts`."""
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
        """Return whether the supervisor responds."""
        try:
            self._call("getState")
        except (OSError, xmlrpc.client.Error):
            return False
        return True

    def start(self) -> None:
        """Start the supervisor in the background, without any service; raises PartDied."""
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

    def reload_configuration(self, names: Sequence[str]) -> None:
        """Reload the configuration of stopped services, because an upgrade may have changed it."""
        self._call("reloadConfig")
        for name in names:
            self._call("removeProcessGroup", name)
            self._call("addProcessGroup", name)

    def start_part(self, name: str) -> None:
        """Start one service and wait until it has run for one second; raises PartDied with the end of its log."""
        try:
            self._call("startProcess", name, True)
        except xmlrpc.client.Fault as fault:
            if "ALREADY_STARTED" in str(fault.faultString):
                return
            raise PartDied(
                f"{name} did not stay up ({fault.faultString}). The end of its log:\n{self.tail(name)}"
            ) from None

    def start_parts(self, names: Sequence[str], timeout_s: float = 60) -> None:
        """Start several services at once and wait until each has stayed up; raises PartDied for the first failure."""
        states = self.states()
        for name in names:
            try:
                if states[name] == "BACKOFF":  # it waits before its next try: start it now
                    self._call("stopProcess", name, True)
                self._call("startProcess", name, False)
            except xmlrpc.client.Fault as fault:
                if "ALREADY_STARTED" not in str(fault.faultString):
                    # The supervisor also reports SPAWN_ERROR for a program that ended before its next check.
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
        """Send the stop signal to several services without waiting; stopped services are ignored."""
        for name in names:
            with contextlib.suppress(xmlrpc.client.Fault):
                self._call("stopProcess", name, False)

    def await_stopped(self, names: Sequence[str], timeout_s: float = 60) -> None:
        """Wait until all of the services have stopped. The supervisor kills those that do not stop."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            states = self.states()
            if not any(states.get(name) in {"RUNNING", "STOPPING", "STARTING"} for name in names):
                return
            time.sleep(0.1)

    def family(self) -> set[tuple[int, str]]:
        """Return {(process ID, start time)} of all descendants of the supervisor, including builds in namespaces."""
        if not self.is_running():
            return set()
        parents: dict[int, list[tuple[int, str]]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and (process := started_at(int(entry.name))) is not None:
                parents.setdefault(process[0], []).append((int(entry.name), process[1]))
        descendants: set[tuple[int, str]] = set()
        waiting = [int(self._call("getPID"))]
        while waiting:
            children = parents.get(waiting.pop(), [])
            descendants.update(children)
            waiting.extend(pid for pid, _ in children)
        return descendants

    def states(self) -> dict[str, str]:
        """Return {service: its state}, with the supervisor's names of states."""
        return {row["name"]: row["statename"] for row in self._call("getAllProcessInfo")}

    def tail(self, name: str, lines: int = 15) -> str:
        """Return the last lines of a service's log."""
        path = self.logs / f"{name}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else "(no log)"

    def shut_down(self, first: Sequence[str], timeout_s: float = 90) -> None:
        """Stop the services `first`, which need the others, then all others and the supervisor; wait until it ended."""
        if not self.is_running():
            return
        try:
            pid = int(self._pid_file.read_text())
            self.ask_to_stop(first)
            self.await_stopped(first)
            self._call("shutdown")
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != _SHUTDOWN_STATE:
                raise  # with this code, another process is shutting it down already: wait for the end
        except (OSError, ValueError):
            return  # it has just ended
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
    """Return (parent's ID, start time in clock ticks) of a process, or None when it has ended or is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else (int(fields[1]), fields[19])


def _quote(word: str) -> str:
    """Return `word` quoted for a `command=` line, which the supervisor splits like a shell and expands for % signs."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'
