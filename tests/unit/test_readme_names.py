"""Pages name tests that prove what they promise: each of them exists."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PROJECT = TESTS.parent


def pages() -> list[Path]:
    """Every page for people, wherever it stands."""
    folders = (".", ".github", "packaging", "port_knocking_doors", "tests")
    return sorted({path for name in folders for path in (PROJECT / name).glob("**/*.md" if name != "." else "*.md")})


def test_every_test_that_a_page_names_exists() -> None:
    named = {name for page in pages() for name in re.findall(r"`(test_\w+)`", page.read_text())}
    defined = {
        node.name
        for path in TESTS.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    }
    assert named
    assert named - defined == set()
