"""What may be there in place of a configuration file, and what is said of it."""

import os
from pathlib import Path


def a_folder(path: Path) -> None:
    path.mkdir()


def a_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


def a_link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def too_large(path: Path) -> None:
    path.write_bytes(b"#" * (2**20 + 1))


def not_utf8(path: Path) -> None:
    path.write_bytes(b"\n\n# \xff\n")


def not_toml(path: Path) -> None:
    path.write_text("\nzone = = 1")


def empty(path: Path) -> None:
    path.touch()


BROKEN = [
    (a_folder, ": this file cannot be read (Is a directory), expected one that this user may read"),
    (a_dangling_link, ": this file cannot be read (No such file or directory), expected "),
    (a_link_to_itself, ": this file cannot be read (Too many levels of symbolic links), expected "),
    (a_pipe, ": this is not an ordinary file, expected TOML text"),
    (a_device, ": this is not an ordinary file, expected TOML text"),
    (too_large, ": this file is too large, expected at most 1048576 bytes"),
    (not_utf8, ":3: this is not UTF-8, expected TOML text"),
    (not_toml, ":2: this is not TOML: a value is none that TOML knows, expected one such as 10"),
    (empty, ": the key ports_to_controls is missing, expected a list of 1 to 64 ports"),
]
