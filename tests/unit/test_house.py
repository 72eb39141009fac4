"""The structure of the package: imports go down only, and pure modules do no I/O.

`FLOORS` has a line for each folder of the package, and one for each floor of modules in its root. A new module needs no
line here; a new folder needs one.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import port_knocking_doors

PACKAGE = Path(port_knocking_doors.__file__).parent
TESTS = Path(__file__).parents[1]

# From the bottom up. A folder may import from those above it in this list; its own modules import each other in no
# circle.
FLOORS = (
    "__init__ errors model",
    "events",
    "system",
    "knocks",
    "config",
    "capture",
    "doors",
    "firewall",
    "control",
    "client",
    "daemon",
    "doctor sandbox",
    "cli",
    "__main__",
)
PURE = ("__init__", "errors", "model", "events", "knocks")
"""Folders of which every module is pure; `PURE_MODULES` are pure though others of their folder are not."""
PURE_MODULES = (
    "system/printable",
    "system/rate_limit",
    "system/resource",
    "system/local_routes",
    "system/netlink_attributes",
    "system/rtnetlink",
    "config/toml",
    "config/reader_types",
    "config/readers",
    "config/describe",
    "config/schema",
    "config/lint",
    "config/reserve",
    "config/native",
    "config/render",
    "config/knockd",
    "config/tportknockd",
    "config/knockd_to_toml",
    "config/knockd_advice",
    "config/knockd_doors",
    "config/firewall_command",
    "config/firewall_effect",
    "config/iptables_command",
    "config/firewalld_command",
    "config/ufw_command",
    "config/nft_command",
    "config/shell_line",
    "config/service_names",
    "config/step_syntax",
    "capture/packet",
    "capture/ring",
    "capture/block",
    "capture/bpf",
    "capture/bpf_source",
    "capture/bpf_assembler",
    "doors/table",
    "doors/opener",
    "firewall/address_set",
    "firewall/source_set",
    "firewall/rich_match",
    "firewall/bans",
    "firewall/error_codes",
    "firewall/plan",
    "firewall/rich_rule",
    "firewall/zone_settings",
    "firewall/zones",
    "firewall/exposure",
    "firewall/advice",
    "control/protocol",
    "control/status",
    "control/text",
    "control/metrics",
    "client/packets",
    "client/snippets",
    "daemon/observer",
    "daemon/counters",
    "doctor/finding",
    "doctor/expected",
    "doctor/ruleset",
    "doctor/frames",
    "doctor/trace",
)
WORLDLY = {
    *("asyncio", "ctypes", "datetime", "fcntl", "io", "locale", "logging", "multiprocessing", "os", "pathlib", "pwd"),
    *("resource", "secrets", "select", "selectors", "shutil", "signal", "subprocess", "sys", "syslog", "tempfile"),
    *("threading", "time"),
}
BUILT_IN = {"open", "print", "input", "exec", "eval"}
ROOT_MODULES_MAX = 8
LINES_MAX = 400
CLASS_LINES_MAX = 250
LONG_MODULES: dict[str, str] = {}
"""Modules of more lines, each with the reason."""
LONG_CLASSES: dict[str, str] = {}
"""Classes of more lines, each with the reason."""
EXCEPTIONS_MAX = 2
TEST_NAME_MAX = 70
UNCLEAR = re.compile(r"\b(somebody|nobody|everybody|anybody|whoever|anew)\b", re.IGNORECASE)
"""Words that hide who does something: a message, a docstring or a comment names it."""


@cache
def modules() -> dict[str, Path]:
    """Every module by its path in the package, such as `capture/ring`."""
    return {str(path.relative_to(PACKAGE).with_suffix("")): path for path in sorted(PACKAGE.rglob("*.py"))}


def folders() -> set[str]:
    return {path.parent.name for path in PACKAGE.glob("*/__init__.py")}


def floor_of(module: str) -> int:
    return next(floor for floor, rooms in enumerate(FLOORS) if module.split("/")[0] in rooms.split())


def imports(path: Path) -> Iterator[str]:
    """What the module imports: modules of the package as `/folder/module/name`, everything else by its first name."""
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
            yield f"/{rest.replace('.', '/')}" if first == PACKAGE.name else first


def module_of(imported: str) -> str:
    """The module that `/a/b/c` leads into: the longest part of it that is one."""
    parts = imported.strip("/").split("/")
    for end in range(len(parts), 0, -1):
        for name in ("/".join(parts[:end]), "/".join((*parts[:end], "__init__"))):
            if name in modules():
                return name
    return "__init__"


def used_by(module: str) -> set[str]:
    found = {module_of(name) for name in imports(modules()[module]) if name.startswith("/")}
    # What a folder's `__init__` imports belongs to the folder.
    return {other for other in found - {module} if not module.startswith(other.removesuffix("/__init__") + "/")}


def test_folder_or_root_module_has_a_floor() -> None:
    assert {module.split("/")[0] for module in modules()} == set(" ".join(FLOORS).split())


def test_package_root_has_few_modules() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= ROOT_MODULES_MAX


def test_module_is_not_longer_than_the_limit() -> None:
    lines = {module: len(path.read_text().splitlines()) for module, path in modules().items()}
    assert {module for module, count in lines.items() if count > LINES_MAX} - set(LONG_MODULES) == set()


@cache
def classes() -> tuple[tuple[str, int], ...]:
    """Every class of the package and its lines."""
    nodes = (node for path in modules().values() for node in ast.walk(ast.parse(path.read_text())))
    return tuple((n.name, (n.end_lineno or 0) - n.lineno + 1) for n in nodes if isinstance(n, ast.ClassDef))


def test_class_is_not_longer_than_the_limit() -> None:
    assert {name for name, lines in classes() if lines > CLASS_LINES_MAX} - set(LONG_CLASSES) == set()


def test_limits_have_few_exceptions() -> None:
    assert max(len(LONG_MODULES), len(LONG_CLASSES)) <= EXCEPTIONS_MAX


PRINTERS = ("system/terminal", "doctor/report")
"""The modules that call `print`. The sandbox shows nothing of others but its own hosts."""


def test_everything_is_printed_by_way_of_the_terminal() -> None:
    """Text of others, such as names and errors, may have characters that a terminal obeys."""
    printing = {
        module
        for module, path in modules().items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert {module for module in printing if not module.startswith("sandbox/")} == set(PRINTERS)


def test_class_name_is_unique_in_the_package() -> None:
    counted = Counter(name for name, _ in classes())
    assert {name for name, count in counted.items() if count > 1} == set()


def test_name_of_test_is_not_longer_than_the_limit() -> None:
    names = {
        node.name
        for path in TESTS.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }
    assert {name for name in names if len(name) > TEST_NAME_MAX} == set()


def test_text_names_who_does_something() -> None:
    texts = {module: path.read_text() for module, path in modules().items()}
    assert {module: words for module, text in texts.items() if (words := UNCLEAR.findall(text))} == {}


@pytest.mark.parametrize("folder", sorted(folders()))
def test_folder_says_in_a_sentence_what_lives_there(folder: str) -> None:
    assert ast.get_docstring(ast.parse((PACKAGE / folder / "__init__.py").read_text()))


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_go_down_only(module: str) -> None:
    floor, room = floor_of(module), module.split("/")[0]
    higher = {other for other in used_by(module) if floor_of(other) >= floor and other.split("/")[0] != room}
    assert higher == set()


def test_modules_of_folder_import_each_other_in_no_circle() -> None:
    below: dict[str, set[str]] = {module: used_by(module) for module in modules() if not module.endswith("__init__")}
    while free := [module for module, used in below.items() if not used & below.keys()]:
        for module in free:
            del below[module]
    assert below == {}


def pure() -> list[str]:
    return [module for module in modules() if module.split("/")[0] in PURE or module in PURE_MODULES]


@pytest.mark.parametrize("module", pure())
def test_pure_module_imports_nothing_of_the_world(module: str) -> None:
    assert set(imports(modules()[module])) & WORLDLY == set()


@pytest.mark.parametrize("module", pure())
def test_pure_module_imports_pure_modules_only(module: str) -> None:
    fronts = {f"{folder}/__init__" for folder in folders()}
    assert used_by(module) - set(pure()) - fronts == set()


def test_listed_pure_module_exists() -> None:
    assert set(PURE_MODULES) - modules().keys() == set()


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


@pytest.mark.parametrize("module", pure())
def test_pure_module_uses_only_constants_of_half_worldly_modules(module: str) -> None:
    assert list(worldly_uses(modules()[module])) == []


def test_one_module_alone_uses_d_bus() -> None:
    assert [module for module, path in modules().items() if "dbus_next" in imports(path)] == ["firewall/bus"]
