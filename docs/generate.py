"""`make docs`: write docs/reference/ from the code, so that it cannot say anything else. `--check` compares instead.

What is generated: the API from its OpenAPI document, both command lines from their parsers, settings, roles, errors and
audit actions from the lines that define them. `inventory-format.md` beside them is written by hand.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import importlib
import os
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, get_type_hints

ROOT: Final = Path(__file__).resolve().parent.parent
REFERENCE: Final = ROOT / "docs" / "reference"
NOTE: Final = "<!-- Written by `make docs` from the code. Do not edit: change the code, then run it again. -->\n"
# What Django and its kin bring is in their own documentation.
OUR_COMMANDS: Final = ROOT / "lifecycle" / "management" / "commands"


def pages() -> dict[str, str]:
    """Return {file name: content} of every generated page."""
    made = {
        "api.md": api(),
        "audit-events.md": audit_events(),
        "cli.md": command_line(),
        "commands.md": commands(),
        "errors.md": errors(),
        "events.md": domain_events(),
        "roles.md": roles(),
        "settings.md": settings(),
    }
    return {name: NOTE + content.rstrip() + "\n" for name, content in made.items()}


def api() -> str:
    """Return every operation of `/api/v1/`, by path."""
    from drf_spectacular.generators import SchemaGenerator  # noqa: PLC0415 -- needs Django set up

    schema: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)
    lines = [
        "# API\n",
        "`Authorization: Bearer gdk_...` on every request; JSON in and out; errors are `application/problem+json`"
        " ([errors](errors.md)). The OpenAPI 3.1 document of a running server is at `/api/v1/schema/`.\n",
    ]
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            lines.append(f"## `{method.upper()} {path}`\n")
            if text := operation.get("description", "").strip():
                lines.append(text + "\n")
            names = [f"`{item['name']}`" for item in operation.get("parameters", ()) if item["in"] == "query"]
            if names:
                lines.append(f"Query: {', '.join(names)}.\n")
            if (fields := _body(schema, operation)) is not None:
                lines.append(f"Body: {', '.join(fields) or 'none'}.\n")
            lines.append(f"Answers: {', '.join(sorted(map(str, operation['responses'])))}.\n")
    return "\n".join(lines)


def _body(schema: dict[str, Any], operation: dict[str, Any]) -> list[str] | None:
    """Return the names in a request's body, with `?` behind those that may be left out; None without a body."""
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if content is None:
        return None
    shape = content["schema"]
    if "$ref" in shape:
        shape = schema["components"]["schemas"][shape["$ref"].rpartition("/")[2]]
    required = shape.get("required", ())
    return [f"`{name}`" + ("" if name in required else "?") for name in shape.get("properties", {})]


def command_line() -> str:
    """Return the help of every `gravingdock` command."""
    from lifecycle.cli.main import __doc__ as about  # noqa: PLC0415 -- as above
    from lifecycle.cli.main import parser  # noqa: PLC0415 -- as above

    lines = ["# The `gravingdock` command\n", (about or "").strip() + "\n"]
    for name, sentence, command in _leaves(parser(), ""):
        lines += [f"## `{name}`\n", f"{sentence[:1].upper()}{sentence[1:]}.\n", *_describe(command)]
    return "\n".join(lines)


def _leaves(parser: argparse.ArgumentParser, sentence: str) -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    """Yield (name, its help in the list of commands, parser) of each command that has none below it."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield parser.prog, sentence, parser
    for group in groups:
        helps = {choice.dest: choice.help or "" for choice in group._choices_actions}
        for name, child in group.choices.items():
            yield from _leaves(child, helps.get(name, ""))


def commands() -> str:
    """Return our `manage.py` commands."""
    lines = ["# `manage.py` commands\n", "Run them as `.venv/bin/python manage.py NAME`, where `make up` has run.\n"]
    for module in sorted(pkgutil.iter_modules([str(OUR_COMMANDS)]), key=lambda module: module.name):
        command = importlib.import_module(f"lifecycle.management.commands.{module.name}").Command()
        parser = command.create_parser("manage.py", module.name)
        lines += [f"## `{module.name}`\n", str(command.help).strip() + "\n", *_describe(parser, skip=_DJANGOS)]
    return "\n".join(lines)


_DJANGOS: Final = frozenset(
    {"help", "version", "verbosity", "settings", "pythonpath", "traceback", "no_color", "force_color", "skip_checks"}
)


def _describe(parser: argparse.ArgumentParser, *, skip: frozenset[str] = frozenset({"help"})) -> list[str]:
    rows = []
    for action in parser._actions:
        if action.dest in skip or action.help == argparse.SUPPRESS:
            continue
        name = ", ".join(action.option_strings) or str(action.metavar or action.dest)
        value = "" if action.nargs == 0 or not action.option_strings else f" {action.metavar or action.dest.upper()}"
        text = (action.help or "").replace("%(default)s", str(action.default)).replace("|", "\\|")
        rows.append(f"| `{name}{value}` | {text} |")
    return ["| Argument | What it is |", "|---|---|", *rows, ""] if rows else []


# What only `make up` reads; the ports' defaults are those of config/embedded/settings_file.py.
_OF_MAKE_UP: Final = {
    "DEMO": ("boolean", "`1`", "`make up`: `0` starts without the demonstration, which else runs once"),
    "GRAVINGDOCK_HOME": ("folder", "`var`", "where `env`, the embedded servers' data, logs and scratch files live"),
    "PG_PORT": ("port", "", "`make up`: PostgreSQL's on 127.0.0.1; at the first start another where it is taken"),
    "REDIS_PORT": ("port", "", "`make up`: Redis', likewise"),
    "REGISTRY_PORT": ("port", "", "`make up`: the registry's, likewise"),
    "WEB_PORT": ("port", "", "`make up`: the web process', likewise"),
}


def settings() -> str:
    """Return what an operator may set, with its default and the comment on its line or above it."""
    from config.embedded.settings_file import OWN_PART, PREFERRED_PORTS, REMEMBERED  # noqa: PLC0415 -- as above

    remembered = {"PUBLIC_URL", *PREFERRED_PORTS, *OWN_PART.values(), *REMEMBERED}
    lines = [
        "# Settings\n",
        "Read from the environment, then from `var/env`; `NAME_FILE` in place of `NAME` names a file that holds the"
        " value. A missing or bad one stops the start, and says which. *Remembered*: given to `make up`, it is written"
        " to `var/env` and holds for later starts ([change a setting](../how-to/change-a-setting.md)).\n",
        "| Name | Kind | Default | Remembered | What it is |",
        "|---|---|---|---|---|",
    ]
    text = (ROOT / "config" / "settings.py").read_text()
    source = text.splitlines()
    found: dict[str, str] = {}
    for name, (kind, otherwise, comment) in _OF_MAKE_UP.items():
        port, kept = PREFERRED_PORTS.get(name), "yes" if name in remembered else ""
        found[name] = f"| `{name}` | {kind} | {f'`{port}`' if port else otherwise} | {kept} | {comment} |"
    for call in _env_calls(ast.parse(text)):
        name = str(ast.literal_eval(call.args[0]))
        given = [*call.args[1:], *(word.value for word in call.keywords if word.arg == "default")]
        # A default that is no literal is another setting's value: the line's comment names it.
        default = "required" if not given else ast.unparse(given[0]) if isinstance(given[0], ast.Constant) else ""
        comment = source[call.lineno - 1].partition("  # ")[2] or _comment_above(source, call.lineno - 1)
        comment = comment.replace("|", "\\|")
        default = f"`{default}`" if default not in {"", "''", "required"} else default.strip("'")
        kept = "yes" if name in remembered else ""
        found[name] = f"| `{name}` | {_function(call)} | {default} | {kept} | {comment} |"
    return "\n".join([*lines, *(found[name] for name in sorted(found))])


def _comment_above(source: list[str], row: int) -> str:
    above = source[row - 1].strip()
    return above[2:] if above.startswith("# ") and not above.startswith("# ---") else ""


def _env_calls(tree: ast.AST) -> Iterator[ast.Call]:
    """Yield each outermost `env.kind("NAME", ...)`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Call) and _function(node) and node.args and isinstance(node.args[0], ast.Constant):
            yield node
        else:
            yield from _env_calls(node)


def _function(call: ast.Call) -> str:
    """Return `kind` of a call of `env.kind`, "" for any other."""
    function = call.func
    is_env = isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id == "env"
    return function.attr if isinstance(function, ast.Attribute) and is_env and function.attr != "BadSetting" else ""


def roles() -> str:
    """Return the verbs, and which built-in role holds which."""
    from accounts.verbs import BUILTIN_ROLES, Verb  # noqa: PLC0415 -- as above
    from lifecycle.authority.constants import VERB_WORDS  # noqa: PLC0415 -- as above

    lines = [
        "# Roles and verbs\n",
        "A role is a set of verbs. A grant gives a role to somebody over a team's repositories (a pattern), maybe in"
        " one environment only, maybe until a day. Admins compose roles of their own.\n",
        "What is not built yet asks nobody for its verb: to hold one of those changes nothing today.\n",
        f"| Verb | What it allows | {' | '.join(BUILTIN_ROLES)} |",
        f"|---|---|{'---|' * len(BUILTIN_ROLES)}",
    ]
    for verb in Verb:
        marks = ["yes" if verb in verbs else "" for verbs in BUILTIN_ROLES.values()]
        lines.append(f"| `{verb.value}` | {VERB_WORDS[verb]} | {' | '.join(marks)} |")
    lines.append("\nIn the registry: pull is `image.view`, push is `image.create`, delete is `image.delete`.")
    return "\n".join(lines)


def errors() -> str:
    """Return every error code with its HTTP status."""
    from lifecycle.core.errors import LifecycleError  # noqa: PLC0415 -- as above

    for module in pkgutil.walk_packages([str(ROOT / "lifecycle")], "lifecycle."):
        if not module.ispkg and module.name.split(".")[1] not in {"migrations", "management", "cli", "bench", "demo"}:
            importlib.import_module(module.name)
    found: dict[str, tuple[int, str]] = {}
    classes: dict[str, type[LifecycleError]] = {}
    waiting: list[type[LifecycleError]] = [LifecycleError]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        classes[kind.__name__] = kind
        if kind is not LifecycleError and "code" in vars(kind):
            found.setdefault(kind.code, (kind.http_status, " ".join((kind.__doc__ or "").split())))
    from rest_framework.exceptions import APIException  # noqa: PLC0415 -- as above

    for raised in APIException.__subclasses__():
        found.setdefault(str(raised.default_code), (raised.status_code, str(raised.default_detail)))
    of_jobs: set[str] = set()
    for path in sorted((ROOT / "lifecycle").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                _note_codes(node, classes, found, of_jobs, is_of_a_job=path.name == "handlers.py")
    rows = [f"| `{code}` | {status} | {text} |" for code, (status, text) in sorted(found.items())]
    more = ", ".join(f"`{code}`" for code in sorted(of_jobs - found.keys()))
    about = f"The `error_code` of a job that failed is one of these too, or one of its own: {more}.\n"
    return "\n".join(["# Errors\n", about, "| Code | HTTP status | Meaning |", "|---|---|---|", *rows])


def _note_codes(
    call: ast.Call, classes: dict[str, type[Any]], found: dict[str, tuple[int, str]], of_jobs: set[str], *,
    is_of_a_job: bool,
) -> None:  # fmt: skip
    """Add the codes that a call spells out: an error with a `code=` of its own, a ready answer, a job's end."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    words = [_literal(argument) for argument in call.args]
    own = next((word.value for word in call.keywords if word.arg == "code"), None)
    if name in classes and isinstance(own, ast.Constant) and not is_of_a_job:
        found.setdefault(str(own.value), (classes[name].http_status, str(words[0])))
    elif name == "problem_answer" and len(words) == 3 and all(words):
        found.setdefault(str(words[1]), (int(str(words[0])), str(words[2])))
    elif name == "_failed" and len(words) > 1 and words[1]:
        of_jobs.add(str(words[1]))
    elif name in {"fail", *classes} and isinstance(own, ast.Constant):
        of_jobs.add(str(own.value))


def _literal(argument: ast.expr) -> object:
    """Return what a call spells out, with "..." for the parts of a text that are filled in; None for anything else."""
    if isinstance(argument, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "..." for part in argument.values)
    return argument.value if isinstance(argument, ast.Constant) else None


def domain_events() -> str:
    """Return every domain event with its meaning, and the functions that subscribe to it."""
    from lifecycle.events import subscriptions  # noqa: PLC0415 -- needs Django set up

    lines = [
        "# Domain events\n",
        "A service publishes an event inside its transaction. The subscribers run at once, in the same transaction.\n",
        "| Event | Meaning | Carries | Subscribers |",
        "|---|---|---|---|",
    ]
    for kind, functions in sorted(subscriptions().items(), key=lambda item: item[0].__name__):
        meaning = " ".join((kind.__doc__ or "").split())
        carries = ", ".join(f"`{name}`" for name in kind.__slots__)
        names = ", ".join(
            f"`{function.__module__.removeprefix('lifecycle.')}.{function.__name__}`" for function in functions
        )
        lines.append(f"| `{kind.__name__}` | {meaning} | {carries} | {names} |")
    return "\n".join(lines)


# How the types of details are written in JSON.
_IN_JSON: Final = {
    bool: "boolean",
    dict[str, str]: "object of strings",
    float: "number",
    int: "integer",
    str: "string",
    tuple[str, ...]: "array of strings",
}


def audit_events() -> str:
    """Return every action that the audit trail can hold: its details, what it means, and the file that records it."""
    from lifecycle.audit.actions import DETAILS_OF, Action  # noqa: PLC0415 -- as above

    written_by = _recorders()
    lines = [
        "# Audit events\n",
        "The details of an event depend on its action. An action without details stores an empty object.\n",
        "| Action | Details | Meaning | Written by |",
        "|---|---|---|---|",
    ]
    for action in sorted(Action):
        details = ", ".join(f"`{name}`: {kind}" for name, kind in _fields(DETAILS_OF.get(action)))
        files = ", ".join(sorted(written_by.get(action.name, ())))
        lines.append(f"| `{action}` | {details} | {action.meaning} | {files} |")
    return "\n".join(lines)


def _fields(kind: type[Any] | None) -> Iterator[tuple[str, str]]:
    """Yield (name, type in JSON) of each field of a dataclass; nothing for None."""
    hints = get_type_hints(kind) if kind is not None else {}
    for field in dataclasses.fields(kind) if kind is not None else ():
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield field.name, f"object ({', '.join(f'`{name}`: {text}' for name, text in _fields(hint))})"
        else:
            yield field.name, _IN_JSON[hint]


def _recorders() -> dict[str, set[str]]:
    """Return {name of an action: the files that record it}."""
    found: dict[str, set[str]] = {}
    for folder in ("lifecycle", "accounts"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and node.args and _is_record(node.func):
                    for part in ast.walk(node.args[0]):
                        if isinstance(part, ast.Attribute) and ast.unparse(part.value) == "Action":
                            found.setdefault(part.attr, set()).add(str(path.relative_to(ROOT)))
    return found


def _is_record(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in {"record", "_record"}


def main() -> int:
    """Write the pages, or with `--check` name those that differ and return 1."""
    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    import django  # noqa: PLC0415 -- after the path

    django.setup()
    made = pages()
    if "--check" in sys.argv[1:]:
        stale = [name for name, content in made.items() if _text(REFERENCE / name) != content]
        if stale:
            print(f"docs/reference is older than the code: {', '.join(stale)}. Run `make docs`.")  # noqa: T201 -- the command's answer
        return 1 if stale else 0
    REFERENCE.mkdir(exist_ok=True)
    for name, content in made.items():
        (REFERENCE / name).write_text(content)
    return 0


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


if __name__ == "__main__":
    sys.exit(main())
