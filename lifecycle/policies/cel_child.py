"""The process that evaluates CEL expressions: `python -m lifecycle.policies.cel_child CPU_SECONDS MEMORY_BYTES`.

It reads one JSON object a line ({"values": {...}, "texts": [...]}) and writes one line for each text. The kernel ends
it when one expression takes more than its processor time or memory, whatever the library does then.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from typing import Any

import cel

_SHOWN = 300  # characters of a value that is neither true nor false


def main() -> None:
    """Answer until the input ends."""
    seconds, memory = float(sys.argv[1]), int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    programs: dict[str, Any] = {}
    for line in sys.stdin:
        request = json.loads(line)
        for text in request["texts"]:
            signal.setitimer(signal.ITIMER_PROF, seconds)  # the default action of its signal ends the process
            answer = _answer(text, request["values"], programs)
            signal.setitimer(signal.ITIMER_PROF, 0)
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()


def _answer(text: str, values: dict[str, Any], programs: dict[str, Any]) -> dict[str, Any]:
    try:
        if text not in programs:
            if len(programs) >= 500:
                programs.clear()
            programs[text] = cel.compile(text)
        value = programs[text].execute(values)
    except BaseException as error:  # noqa: BLE001 -- the library's panics are no Exception
        return {"problem": (str(error).strip().splitlines() or [type(error).__name__])[0][:_SHOWN]}
    return {"value": value if isinstance(value, bool) else repr(value)[:_SHOWN]}


if __name__ == "__main__":
    main()
