"""Pages name tests that prove what they promise: each of them exists."""

import ast
from pathlib import Path

from tests.helpers.pages import pages

TESTS = Path(__file__).parents[1]


def test_test_that_a_page_names_exists() -> None:
    named = {name for page in pages() for name in page.code if name.startswith("test_")}
    defined = {
        node.name
        for path in TESTS.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    }
    assert named
    assert named - defined - EXAMPLES == set()


EXAMPLES = {"test_full_table_rejects_newcomer_when_all_are_ahead"}
"""A name that CONTRIBUTING shows as an example of one."""
