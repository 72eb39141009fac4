"""The house: imports go down only, and what is below touches no world."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import port_knocking_doors

PACKAGE = Path(port_knocking_doors.__file__).parent

LEVELS = tuple(
    frozenset(level.split())
    for level in (
        # values that everything speaks of
        "__init__ errors model",
        # pure logic
        "dialects doors herald lapses requests rich_rule rtnetlink scoped status throttle traps zones",
        "config.toml config.values config.words capture.packet capture.ring",
        "config.keys",
        "knockers config.native config.writing config.knockd config.tportknockd capture.bpf capture.block",
        "ways config.migration config.steps outgoing",
        "recipes",
        # the world, one thing a module
        "clock datagrams log notify runtime served one_time",
        "listeners links firewalld capture.sniffer commands guardian knockd_log teller config.loader",
        "background client control relay",
        # two or three of them together
        "ears doorkeeper in_force sandbox",
        "insight",
        "daemon sweep demo doctor",
        "cli",
        "__main__",
    )
)
PURE = frozenset[str]().union(*LEVELS[:7])
WORLDLY = {
    *("asyncio", "ctypes", "datetime", "fcntl", "io", "locale", "logging", "multiprocessing", "os", "pathlib", "pwd"),
    *("resource", "secrets", "select", "selectors", "shutil", "signal", "subprocess", "sys", "syslog", "tempfile"),
    *("threading", "time"),
}
BUILT_IN = {"open", "print", "input", "exec", "eval"}


@cache
def rooms() -> dict[str, list[Path]]:
    """The modules by name; the sandbox and the command line are one room each."""
    found: dict[str, list[Path]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] in ("sandbox", "cli"):
            found.setdefault(parts[0], []).append(path)
        elif parts[-1] != "__init__" or len(parts) == 1:
            found.setdefault(".".join(parts), []).append(path)
    return found


def imports(path: Path) -> Iterator[str]:
    """What the module imports: other modules of the package as `.name`, everything else by its first name."""
    package = path.relative_to(PACKAGE.parent).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) + 1 - node.level], *filter(None, [node.module])] if node.level else []
            origin = ".".join(base) if node.level else str(node.module)
            names = [f"{origin}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            first, _, rest = name.partition(".")
            yield f".{rest}" if first == PACKAGE.name else first


def level_of(name: str) -> int:
    return next(level for level, names in enumerate(LEVELS) if name in names)


def room_of(imported: str) -> str:
    """The room that `.a.b.c` leads into: the longest part of it that is one."""
    parts = imported.strip(".").split(".")
    known = rooms()
    for end in range(len(parts), 0, -1):
        if ".".join(parts[:end]) in known:
            return ".".join(parts[:end])
    return "__init__"


def test_every_room_has_its_level() -> None:
    assert set(rooms()) == set().union(*LEVELS)


@pytest.mark.parametrize("name", sorted(rooms()))
def test_imports_go_down_only(name: str) -> None:
    used = {room_of(found) for path in rooms()[name] for found in imports(path) if found.startswith(".")}
    assert {other for other in used - {name} if level_of(other) >= level_of(name)} == set()


@pytest.mark.parametrize("name", sorted(PURE))
def test_what_is_below_touches_no_world(name: str) -> None:
    assert {found for path in rooms()[name] for found in imports(path)} & WORLDLY == set()


def worldly_uses(path: Path) -> Iterator[str]:
    """What is called or taken from where values are at home, too: built-in functions, and of `socket` no constant."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in BUILT_IN:
            yield node.func.id
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            name = f"{node.value.id}.{node.attr}"
            if (node.value.id == "socket" and not node.attr.isupper()) or name == "random.SystemRandom":
                yield name
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module in ("socket", "random"):
            yield from (f"{node.module}.{alias.name}" for alias in node.names if alias.name != "Random")


@pytest.mark.parametrize("name", sorted(PURE))
def test_of_what_is_half_worldly_only_the_constants_are_used_below(name: str) -> None:
    assert [use for path in rooms()[name] for use in worldly_uses(path)] == []


def test_one_room_alone_speaks_d_bus() -> None:
    assert [name for name, paths in rooms().items() if any("dbus_next" in imports(path) for path in paths)] == [
        "firewalld"
    ]
