"""One target under atheris, in a process of its own, since libFuzzer ends the process that it runs in.

python -m tests.fuzz.guided TARGET [LIBFUZZER OPTION OR FOLDER…]
"""

import sys
from importlib import import_module


def main() -> None:
    atheris = import_module("atheris")  # it has no types, and not every Python has it
    name, *options = sys.argv[1:]
    with atheris.instrument_imports(include=["port_knocking_doors"]):
        import_module("port_knocking_doors.capture.packet")
        targets = import_module("tests.fuzz.targets")
        target = targets.named(name)
        import_module(target.module)
    atheris.Setup([sys.argv[0], *options], target.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
