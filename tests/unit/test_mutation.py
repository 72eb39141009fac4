"""The mutation run's faults: what each kind of code is changed to, and that nothing else of the module changes."""

import ast
from pathlib import Path

import pytest

from tests.mutation.__main__ import spread, unit_tests_of
from tests.mutation.mutants import mutants

FAULTS = {
    "a comparison": ("x = a < b", {"a < b": ["a <= b"]}),
    "a chain of them": ("x = a < b is c", {"a < b is c": ["a <= b is c", "a < b is not c"]}),
    "and": ("x = a and b", {"a and b": ["a or b"]}),
    "not": ("x = not a", {"not a": ["a"]}),
    "a sum": ("x = a + 1", {"a + 1": ["a - 1"], "1": ["2", "0"]}),
    "nothing below zero": ("x = 0", {"0": ["1"]}),
    "a minus": ("x = -a", {"-a": ["a"]}),
    "a truth": ("x = True", {"True": ["False"]}),
    "a condition": ("while a: b", {"while a:": ["while not a:"]}),
    "a statement of a function": ("def f():\n    return a", {"return a": ["pass"]}),
    "a statement of a loop": ("def f():\n    for a in b: a += b", {"a += b": ["a -= b", "pass"]}),
    "no text": ("def f():\n    'A docstring.'", {}),
    "no annotation, no decorator": ("@f(1)\ndef g(a: 'b[1]') -> c[2]: ...", {}),
    "no statement of a module": ("a = b", {}),
}


@pytest.mark.parametrize(("source", "expected"), FAULTS.values(), ids=FAULTS)
def test_code_of_each_kind_has_its_faults(source: str, expected: dict[str, list[str]]) -> None:
    found: dict[str, list[str]] = {}
    for mutant in mutants(source):
        found.setdefault(mutant.before, []).append(mutant.after)
        assert ast.unparse(ast.parse(source)).replace(mutant.before, mutant.after, 1) == mutant.source
    assert found == expected


def test_fault_is_reported_with_its_line() -> None:
    assert [mutant.line for mutant in mutants("a = b\n\nif a == b:\n    c = 0")] == [3, 4]


def test_module_is_tested_by_its_own_tests_first_then_by_its_folder() -> None:
    tests = unit_tests_of(Path("port_knocking_doors/doors/table.py"))
    assert (tests[0], tests[-1]) == ("tests/unit/doors/test_table.py", "tests/unit/doors")


def test_sample_is_spread_over_the_whole_module() -> None:
    found = mutants("\n".join(f"x = a + {number}" for number in range(10, 20)))
    assert [mutant.line for mutant in spread(found, 5)] == [1, 3, 5, 7, 9]
    assert spread(found, 99) == found
