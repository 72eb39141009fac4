"""`python3 packaging/generate FOLDER` writes what the packages need and the program declares already.

    port-knocking-doors.1 and others             a manual page for each file in packaging/man
    port-knocking-doors.bash  _port-knocking-doors  port-knocking-doors.fish
                                                 completion for bash, zsh and fish

Commands, options and keys of the configuration file come from the program's own declarations, so a new command needs no
work here. The repository holds none of these files. SOURCE_DATE_EPOCH gives the date of the pages.
"""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import completion
import manual
import markdown
from commands import program


def main(folder: Path) -> None:
    """Write all files into `folder`, which is made if it does not exist."""
    seconds = int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))
    date = time.strftime("%Y-%m-%d", time.gmtime(seconds))
    whole = program()
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {
        **dict(manual.pages(whole, date)),
        f"{whole.name}.bash": completion.bash(whole),
        f"_{whole.name}": completion.zsh(whole),
        f"{whole.name}.fish": completion.fish(whole),
    }.items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    try:
        main(Path(sys.argv[1]))
    except markdown.MarkdownError as error:
        sys.exit(str(error))
