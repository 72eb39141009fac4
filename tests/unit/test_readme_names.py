"""README names tests as witnesses: each of them is there."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_every_test_that_readme_names_is_there() -> None:
    named = set(re.findall(r"`(test_\w+)`", (TESTS.parent / "README.md").read_text()))
    there = {
        node.name
        for path in TESTS.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    }
    assert named
    assert named - there == set()
