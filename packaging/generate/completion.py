"""Completion for bash, zsh and fish: complete scripts, so that the tabulator key does not start the program."""

import re
from collections.abc import Iterator

from commands import Command, Option

_FILES, _FOLDERS, _HOSTS, _INTERFACES, _ZONES = "files", "folders", "hosts", "interfaces", "zones"
_BY_VALUE = {"FILE": _FILES, "PATH": _FILES, "FOLDER": _FOLDERS, "DIR": _FOLDERS, "HOST": _HOSTS}
_BY_OPTION = {"--interface": _INTERFACES, "--zone": _ZONES}

_ZONE_NAMES = r"ls /usr/lib/firewalld/zones /etc/firewalld/zones 2>/dev/null | sed -n 's/\.xml$//p' | sort -u"
"""A call of firewall-cmd takes a quarter of a second."""
_INTERFACE_NAMES = "ls /sys/class/net"


def _kind(option: Option) -> str:
    """The kind of the option's value; empty if unknown."""
    return next((_BY_OPTION[name] for name in option.names if name in _BY_OPTION), "") or _kind_of(option.value)


def _kind_of(value: str) -> str:
    return _BY_VALUE.get(value.strip("[].").split(":")[0], "")


def _families(program: Command) -> Iterator[tuple[str, Command]]:
    """The program, under an empty name, and each command."""
    yield "", program
    for command in program.commands:
        yield command.name, command


_BASH_VALUES = {
    _FILES: 'compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$current")',
    _FOLDERS: 'compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- "$current")',
    _HOSTS: 'mapfile -t COMPREPLY < <(compgen -A hostname -- "$current")',
    _INTERFACES: f'mapfile -t COMPREPLY < <(compgen -W "$({_INTERFACE_NAMES})" -- "$current")',
    _ZONES: f'mapfile -t COMPREPLY < <(compgen -W "$({_ZONE_NAMES})" -- "$current")',
    "": "COMPREPLY=()",
}


def bash(program: Command) -> str:
    """A script for bash-completion's folder, or to be sourced; it does not need bash-completion."""
    function = "_" + program.name.replace("-", "_")
    valued = [name for option in program.options if option.value for name in option.names]
    lines = [
        f"# bash completion for {program.name}, made by packaging/generate",
        f"{function}() {{",
        "    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} command='' i",
        "    # bash takes --conf=FILE for three words",
        "    if [[ $current == = ]]; then",
        "        current=''",
        "    elif [[ $previous == = ]]; then",
        "        previous=${COMP_WORDS[COMP_CWORD - 2]}",
        "    fi",
        "    for ((i = 1; i < COMP_CWORD; i++)); do",
        "        case ${COMP_WORDS[i]} in",
        f"            {' | '.join(valued)}) [[ ${{COMP_WORDS[i + 1]}} == = ]] && ((i++)); ((i++)) ;;",
        "            -*) ;;",
        "            *) command=${COMP_WORDS[i]}; break ;;",
        "        esac",
        "    done",
        "    case $command:$previous in",
    ]
    for name, command in _families(program):
        for option in command.options:
            if option.value:
                patterns = " | ".join(f"{name}:{each}" for each in option.names)
                lines += [f"        {patterns})", f"            {_BASH_VALUES[_kind(option)]}", "            return ;;"]
    lines += ["    esac", "    case $command in"]
    for name, command in _families(program):
        options = " ".join(each for option in command.options for each in option.names)
        words = " ".join(inner.name for inner in command.commands)
        kinds = [kind for kind in (_kind_of(argument.value) for argument in command.arguments) if kind]
        other = _BASH_VALUES[kinds[0]] if kinds else f'mapfile -t COMPREPLY < <(compgen -W "{words}" -- "$current")'
        if not kinds and not words:
            other = _BASH_VALUES[""]
        lines += [
            f"        {name or _QUOTED_NOTHING})",
            "            if [[ $current == -* ]]; then",
            f'                mapfile -t COMPREPLY < <(compgen -W "{options}" -- "$current")',
            "            else",
            f"                {other}",
            "            fi ;;",
        ]
    return "\n".join([*lines, "    esac", "}", f"complete -F {function} {program.name}", ""])


_QUOTED_NOTHING = "''"

_ZSH_VALUES = {
    _FILES: "_files",
    _FOLDERS: "_files -/",
    _HOSTS: "_hosts",
    _INTERFACES: f'compadd -- ${{(f)"$({_INTERFACE_NAMES})"}}',
    _ZONES: f'compadd -- ${{(f)"$({_ZONE_NAMES})"}}',
    "": "( )",
}


def zsh(program: Command) -> str:
    """A script for a folder of zsh's fpath, by the name `_PROGRAM`."""
    lines = [
        f"#compdef {program.name}",
        "# made by packaging/generate",
        "local curcontext=$curcontext state line",
        "typeset -A opt_args",
        "_arguments -C -s \\",
        *_zsh_options(program),
        "    '1: :->command' \\",
        "    '*:: :->rest' && return",
        "case $state in",
        "    command)",
        "        local -a commands=(",
        *(f"            {_zsh_quoted(f'{one.name}:{one.brief}')}" for one in program.commands),
        "        )",
        "        _describe -t commands command commands ;;",
        "    rest)",
        "        case $words[1] in",
    ]
    for command in program.commands:
        lines += [f"            {command.name})", "                _arguments -s \\"]
        lines += [f"            {line}" for line in _zsh_options(command)]
        lines += [f"            {line}" for line in _zsh_arguments(command)]
        lines[-1] = lines[-1].removesuffix(" \\") + " ;;"
    return "\n".join([*lines, "        esac ;;", "esac", ""])


def _zsh_options(command: Command) -> Iterator[str]:
    for option in command.options:
        about = re.sub(r"([\[\]:])", r"\\\1", option.brief)
        value = f":{option.value.replace(':', ' ')}:{_ZSH_VALUES[_kind(option)]}" if option.value else ""
        exclusive = "*" if option.repeatable else f"({' '.join(option.names)})"
        for name in option.names:
            equals = "=" if value and name.startswith("--") else "+" if value else ""
            yield f"    {_zsh_quoted(f'{exclusive}{name}{equals}[{about}]{value}')} \\"


def _zsh_arguments(command: Command) -> Iterator[str]:
    for number, argument in enumerate(command.arguments, start=1):
        place = "*" if argument.repeatable else str(number)
        name = argument.value.strip("[].").replace(":", " ")
        yield f"    {_zsh_quoted(f'{place}:{name}:{_ZSH_VALUES[_kind_of(argument.value)]}')} \\"


def _zsh_quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


_FISH_VALUES = {
    _FILES: "-r -F",
    _FOLDERS: "-x -a '(__fish_complete_directories)'",
    _HOSTS: "-x -a '(__fish_print_hostnames)'",
    _INTERFACES: f"-x -a {_fish_quoted(f'({_INTERFACE_NAMES})')}",
    _ZONES: f"-x -a {_fish_quoted(f'({_ZONE_NAMES})')}",
    "": "-x",
}


def fish(program: Command) -> str:
    """A script for fish's folder vendor_completions.d."""
    names = " ".join(command.name for command in program.commands)
    complete = f"complete -c {program.name}"
    outside = f"-n 'not __fish_seen_subcommand_from {names}'"
    lines = [f"# fish completion for {program.name}, made by packaging/generate", f"{complete} -f"]
    lines += [f"{complete} {outside} -a {one.name} -d {_fish_quoted(one.brief)}" for one in program.commands]
    for name, command in _families(program):
        where = f"-n '__fish_seen_subcommand_from {name}'" if name else outside
        for option in command.options:
            spelt = " ".join(f"-l {one[2:]}" if one.startswith("--") else f"-s {one[1:]}" for one in option.names)
            value = f" {_FISH_VALUES[_kind(option)]}" if option.value else ""
            lines.append(f"{complete} {where} {spelt}{value} -d {_fish_quoted(option.brief)}")
        for kind in dict.fromkeys(_kind_of(argument.value) for argument in command.arguments):
            if kind:
                lines.append(f"{complete} {where} {_FISH_VALUES[kind].removeprefix('-r ').replace('-x', '-f')}")
    return "\n".join([*lines, ""])
