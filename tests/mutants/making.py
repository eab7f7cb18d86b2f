"""Small wrong changes ("mutants") of our code, each of which some test must notice."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("authority", "tokens", "promotion", "jobs", "policy")
MODULES = ("core/states.py",)  # which states may follow which, for all of them
# Descriptions, start-up and pages' forms: what they get wrong is seen, not dangerous.
LEFT_OUT = {"__init__.py", "kinds.py", "constants.py", "models.py", "forms.py", "enums.py"}

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult,
    ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
}  # fmt: skip
_QUERIES = {"filter", "exclude", "get", "update", "Q", "first", "get_or_create", "may", "require"}
_SILENT = {"log", "logger", "logging"}
RAN = "_gravingdock_statement_ran"


@dataclass(frozen=True)
class Mutant:
    """One change: the file, the function, its line, and what it reads after the change."""

    path: str
    function: str
    line: int
    change: str
    number: int  # of the changes of this file

    @property
    def package(self) -> str:
        """The package of `lifecycle/` that is changed."""
        return Path(self.path).parts[1]

    @property
    def name(self) -> str:
        """The name under which a surviving mutant is explained; it does not depend on the line."""
        return f"{self.path} {self.function}: {self.change}"


def files() -> list[Path]:
    """Return the files whose functions are changed."""
    found: list[Path] = []
    for package in PACKAGES:
        found += [path for path in (ROOT / "lifecycle" / package).rglob("*.py") if path.name not in LEFT_OUT]
    found += [ROOT / "lifecycle" / module for module in MODULES]
    return sorted(found)


def mutants_of(path: Path) -> list[Mutant]:
    """Return all mutants of a file, in the order of its text."""
    tree = ast.parse(path.read_text())
    name = str(path.relative_to(ROOT))
    return [
        Mutant(name, function, line, change, number)
        for number, (function, line, change, _) in enumerate(_changes(tree))
    ]


def changes_in(text: str) -> list[str]:
    """Return the descriptions of all changes of a file's text."""
    return [change for _, _, change, _ in _changes(ast.parse(text))]


def code_of(mutant: Mutant) -> CodeType:
    """Return the compiled module with the change."""
    path = ROOT / mutant.path
    tree = ast.parse(path.read_text())
    for number, (_, _, _, change) in enumerate(_changes(tree)):
        if number == mutant.number:
            change()
            break
    return compile(ast.fix_missing_locations(tree), str(path), "exec", dont_inherit=True)


def _changes(tree: ast.Module) -> Iterator[tuple[str, int, str, _Change]]:
    """Yield (function, line, description, a function that makes the change in the tree)."""
    for function, node in _functions(tree, ""):
        for child in _body(node):
            for old, change in _changes_of(child):
                line = (child.iter if isinstance(child, ast.comprehension) else child).lineno
                yield function, line, f"{old} => {change.reads}"[:200], change


def watched_code(path: Path) -> CodeType:
    """Return the compiled module in which each statement of a function first calls `RAN(path, line)`, a builtin."""
    tree = ast.parse(path.read_text())
    for _, function in _functions(tree, ""):
        for node in ast.walk(function):
            for field in ("body", "orelse", "finalbody"):
                statements = getattr(node, field, None)
                if isinstance(statements, list):
                    setattr(node, field, [new for old in statements for new in (_note_of(path, old), old)])
    return compile(ast.fix_missing_locations(tree), str(path), "exec", dont_inherit=True)


def _note_of(path: Path, statement: ast.stmt) -> ast.stmt:
    call = ast.Call(ast.Name(RAN, ast.Load()), [ast.Constant(str(path)), ast.Constant(statement.lineno)], [])
    return ast.copy_location(ast.Expr(call), statement)


def statements_of(path: Path) -> dict[int, int]:
    """Return {line: first line of the innermost statement that it belongs to} for the lines of all functions."""
    found: dict[int, int] = {}
    for _, function in _functions(ast.parse(path.read_text()), ""):
        for node in ast.walk(function):  # outer ones first
            if isinstance(node, ast.stmt) and node is not function:
                found.update(dict.fromkeys(range(node.lineno, (node.end_lineno or node.lineno) + 1), node.lineno))
    return found


class _Change:
    def __init__(self, node: ast.AST, reads: str, **fields: object) -> None:
        self._node, self.reads, self._fields = node, reads, fields

    def __call__(self) -> None:
        for name, value in self._fields.items():
            setattr(self._node, name, value)


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Yield the outermost functions, methods included."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef):
            yield prefix + child.name, child
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.If | ast.Try):
            yield from _functions(child, prefix)


def _body(function: ast.FunctionDef) -> Iterator[ast.AST]:
    for statement in function.body:
        yield from _walk(statement)


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes in order, without messages: arguments of `raise` and of log calls, and f-strings."""
    yield node
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom) or _is_log(node):
        return
    for child in ast.iter_child_nodes(node):
        yield from _walk(child)


def _is_log(node: ast.AST) -> bool:
    call = node.value if isinstance(node, ast.Expr) else node
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
        return False
    return isinstance(call.func.value, ast.Name) and call.func.value.id in _SILENT


def _short(node: ast.AST) -> str:
    return " ".join(ast.unparse(node).split())[:90]


def _changes_of(node: ast.AST) -> Iterator[tuple[str, _Change]]:
    """Yield (what it reads now, the change) of one node."""
    for changes in (_of_conditions, _of_values, _of_statements):
        yield from changes(node)


def _of_conditions(node: ast.AST) -> Iterator[tuple[str, _Change]]:
    if isinstance(node, ast.Compare):
        for position, operator in enumerate(node.ops):
            new = [*node.ops]
            new[position] = _COMPARISONS[type(operator)]()
            yield _short(node), _Change(node, _short(_with(node, ops=new)), ops=new)
    elif isinstance(node, ast.BoolOp):
        for position in range(len(node.values)):
            rest = node.values[:position] + node.values[position + 1 :]
            without = rest if len(rest) > 1 else rest * 2  # the tree needs two values
            yield _short(node), _Change(node, f"without {_short(node.values[position])}", values=without)
    elif isinstance(node, ast.If | ast.IfExp | ast.While):
        for value in (True, False):
            if isinstance(node, ast.While) and value:
                continue
            yield f"if {_short(node.test)}", _Change(node, f"if {value}", test=ast.Constant(value))
    elif isinstance(node, ast.comprehension):
        for position, test in enumerate(node.ifs):
            rest = node.ifs[:position] + node.ifs[position + 1 :]
            yield f"for ... if {_short(test)}", _Change(node, "no condition", ifs=rest)


def _of_values(node: ast.AST) -> Iterator[tuple[str, _Change]]:
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        operator = _ARITHMETIC[type(node.op)]()
        yield _short(node), _Change(node, _short(_with(node, op=operator)), op=operator)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield str(node.value), _Change(node, str(not node.value), value=not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield str(node.value), _Change(node, str(node.value + 1), value=node.value + 1)


def _of_statements(node: ast.AST) -> Iterator[tuple[str, _Change]]:
    """Drop what a statement does: its call, its error, its value, or a condition of its query."""
    if isinstance(node, ast.Return) and node.value is not None and not _is_empty(node.value):
        yield _short(node), _Change(node, "return None", value=ast.Constant(None))
    elif isinstance(node, ast.Raise):
        yield _short(node)[:60], _Change(node, "nothing", __class__=ast.Pass)
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and not _is_log(node):
        yield _short(node), _Change(node, "nothing", value=ast.Constant(None))
    elif isinstance(node, ast.Call) and _called(node) in _QUERIES:
        for position, keyword in enumerate(node.keywords):
            rest = node.keywords[:position] + node.keywords[position + 1 :]
            if keyword.arg is not None and (rest or node.args or _called(node) != "update"):
                yield _short(node), _Change(node, f"without {_short(keyword)}", keywords=rest)


def _is_empty(node: ast.AST) -> bool:
    """Return whether a value counts as none in a condition, so that `return None` would change nothing."""
    return isinstance(node, ast.Constant) and not node.value


def _called(node: ast.Call) -> str:
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def _with(node: ast.AST, **fields: object) -> ast.AST:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed
