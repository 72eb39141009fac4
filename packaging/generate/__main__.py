"""`python3 packaging/generate FOLDER` writes what the packages need and the program declares already.

    port-knocking-doors.1  port_knocker.toml.5                                       manual pages
    port-knocking-doors.bash  _port-knocking-doors  port-knocking-doors.fish         completion for bash, zsh and fish

They are made from the command line's own declarations and from the keys of the configuration file, so a new command is
in them without anybody's doing. Nothing of it is kept in the repository. SOURCE_DATE_EPOCH gives the pages' date.
"""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import completion
import manual
from commands import program


def main(folder: Path) -> None:
    """Write all five files into `folder`, which is made if need be."""
    seconds = int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))
    date = time.strftime("%Y-%m-%d", time.gmtime(seconds))
    whole = program()
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {
        f"{whole.name}.1": manual.program_page(whole, date),
        "port_knocker.toml.5": manual.configuration_page(date),
        f"{whole.name}.bash": completion.bash(whole),
        f"_{whole.name}": completion.zsh(whole),
        f"{whole.name}.fish": completion.fish(whole),
    }.items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
