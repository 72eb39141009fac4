"""What a mutant is: a module's source with one small fault.

A library would be better. mutmut 3.8 ended with an error of its runner here, leaves out decorated functions and
constants, and brings textual and libcst; cosmic-ray 8.7 brings SQLAlchemy, aiohttp and twenty more, changes the files
of the tree that it runs in, and takes one mutant after the other. Neither was tried for long.
"""

import ast
import copy
from collections.abc import Iterator
from typing import NamedTuple

_COMPARED = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
_DELETED = (ast.Expr, ast.Assign, ast.AugAssign, ast.Raise, ast.Return, ast.Continue, ast.Break, ast.Delete)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_NOT_RUN = {"annotation", "returns", "decorator_list", "type_params"}
"""Fields of the syntax tree that are for the type checker, or of which faults are noise."""


class Mutant(NamedTuple):
    """One fault: where, what it changes, and the whole source with it."""

    line: int
    before: str
    after: str
    source: str


def mutants(source: str) -> list[Mutant]:
    """Every mutant of a module, in the order of its lines."""
    tree = ast.parse(source)
    found = []
    for path, node, in_function in _nodes(tree, (), False):
        for changed in _changes(node, in_function):
            copied = copy.deepcopy(tree)
            _put(copied, path, changed)
            line = getattr(node, "lineno", 1)
            found.append(Mutant(line, _shown(node), _shown(changed), ast.unparse(ast.fix_missing_locations(copied))))
    return sorted(found, key=lambda mutant: mutant.line)


Path = tuple[tuple[str, int | None], ...]
"""The way to a node from the root: fields, and places in those that are lists."""


def _nodes(node: ast.AST, path: Path, in_function: bool) -> Iterator[tuple[Path, ast.AST, bool]]:
    in_function = in_function or isinstance(node, _FUNCTIONS)
    for field, value in ast.iter_fields(node):
        if field in _NOT_RUN:
            continue
        for place, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.AST):
                here = (*path, (field, place))
                yield here, child, in_function
                yield from _nodes(child, here, in_function)


def _put(root: ast.AST, path: Path, new: ast.AST) -> None:
    node = root
    for field, place in path[:-1]:
        node = getattr(node, field) if place is None else getattr(node, field)[place]
    field, place = path[-1]
    if place is None:
        setattr(node, field, new)
    else:
        getattr(node, field)[place] = new


def _changes(node: ast.AST, in_function: bool) -> Iterator[ast.AST]:
    """What may stand in a node's place."""
    if isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            ops = [*node.ops[:place], _COMPARED[type(operator)](), *node.ops[place + 1 :]]
            yield ast.Compare(node.left, ops, node.comparators)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in _COMPUTED:
        changed = copy.deepcopy(node)
        changed.op = _COMPUTED[type(node.op)]()
        yield changed
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield node.operand
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield ast.Constant(not node.value)
        elif isinstance(node.value, int | float):
            yield from (ast.Constant(node.value + step) for step in (1, -1) if node.value + step >= 0)
    elif isinstance(node, ast.If | ast.While | ast.IfExp) and isinstance(
        node.test, ast.Name | ast.Call | ast.Attribute
    ):
        negated = copy.deepcopy(node)
        negated.test = ast.UnaryOp(ast.Not(), node.test)
        yield negated
    if in_function and isinstance(node, _DELETED) and not _is_text(node):
        yield ast.Pass()


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _shown(node: ast.AST) -> str:
    """The first line of a node's source."""
    lines = ast.unparse(node).splitlines() or [""]
    return lines[0]
