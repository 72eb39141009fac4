"""Broken configuration files, and the message for each."""

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
    (a_folder, ": cannot read the file (Is a directory), expected a file that this user may read"),
    (a_dangling_link, ": cannot read the file (No such file or directory), expected "),
    (a_link_to_itself, ": cannot read the file (Too many levels of symbolic links), expected "),
    (a_pipe, ": not a regular file, expected TOML text"),
    (a_device, ": not a regular file, expected TOML text"),
    (too_large, ": the file is too large, expected at most 1048576 bytes"),
    (not_utf8, ":3: the file is not UTF-8, expected TOML text"),
    (not_toml, ":2: invalid TOML: a value is invalid, expected one such as 10"),
    (empty, ": the key ports_to_controls is missing, expected a list of 1 to 64 ports"),
]
