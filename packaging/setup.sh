# shellcheck shell=bash
# Sourced by packaging/demo and packaging/test: brings this machine to where the project runs, and changes nothing that is
# there already. What needs root is done by packaging/setup-system; the rest is a virtual environment.
#
#   set_up demo|test      afterwards $venv is the environment, and the programs of /usr/sbin are on PATH
#   PYTHON=python3.12     choose the Python (3.10 or later); PIP_* variables reach pip
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
caches=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/port-knocking-doors/$(printf %s "$project" | sha256sum | cut -c1-12)
venv=$project/.venv
export PATH="$PATH:/usr/sbin:/sbin" # an ordinary user's PATH on Debian lacks them
unset PYTHONHOME PYTHONPATH

say() { printf 'set-up: %s\n' "$*" >&2; }
die() {
  say "$*"
  exit 1
}
trap 'say interrupted; rm -f "${log:-}"; exit 130' INT
have() { command -v "$1" >/dev/null 2>&1; }

# --- system packages -------------------------------------------------------------------------------------------------

# Each line: a program that the sandbox or the tests start, and the package it comes in on this machine.
programs() { # programs apt|dnf demo|test
  printf '%s\n' 'firewalld firewalld' 'firewall-cmd firewalld' 'nft nftables' 'unshare util-linux'
  if [ "$1" = apt ]; then
    printf '%s\n' 'mount mount' 'ip iproute2' 'dbus-daemon dbus' # where dbus-daemon is a package of its own, dbus brings it
    [ "$2" = demo ] || printf '%s\n' 'mandoc mandoc' 'groff groff-base'
    [ "$2" = demo ] || printf '%s\n' 'shellcheck shellcheck' 'nc netcat-openbsd' 'nc.traditional netcat-traditional' 'nmap nmap' 'hping3 hping3' 'knock knockd' 'ps procps'
    [ "$2" = demo ] || printf '%s\n' 'systemd-analyze systemd' '/usr/lib/polkit-1/polkitd polkitd' 'dbus-send dbus-bin'
    [ "$2" = demo ] || printf '%s\n' 'ssh openssh-client' 'sshd openssh-server' 'ncat ncat' 'knockd knockd' 'fail2ban-regex fail2ban' 'curl curl' 'wget wget'
  else
    [ "$2" = demo ] || printf '%s\n' 'ssh openssh-clients' 'sshd openssh-server'
    printf '%s\n' 'mount util-linux' 'ip iproute' 'dbus-daemon dbus-daemon'
    [ "$2" = demo ] || printf '%s\n' 'groff groff-base' 'nc nmap-ncat' 'nmap nmap' 'ps procps-ng' 'curl curl' 'wget wget' 'systemd-analyze systemd' '/usr/lib/polkit-1/polkitd polkit'
    [ "$2" = demo ] || echo 'dbus-send dbus-tools'
    # RHEL itself has none of these.
    [ "$2" = demo ] || ! is_fedora || printf '%s\n' 'shellcheck ShellCheck' 'hping3 hping3' 'knock knock' 'fail2ban-regex fail2ban-server' 'mandoc mandoc'
  fi
}

is_fedora() { grep -Eqs '^ID="?fedora' /etc/os-release; }

python_packages() { # python_packages apt|dnf
  if [ "$1" = apt ]; then
    printf '%s\n' python3 python3-venv
  elif grep -Eqs '^PLATFORM_ID="platform:el[89]"' /etc/os-release; then
    echo python3.12 # the python3 of RHEL 8 and 9 is too old
  else
    echo python3
  fi
}

install_missing() { # install_missing demo|test
  local manager='' program package missing=() install
  if have apt-get; then manager=apt; elif have dnf; then manager=dnf; fi
  while read -r program package; do
    have "$program" || [[ " ${missing[*]-} " == *" $package "* ]] || missing+=("$package")
  done < <(programs "$manager" "$1")
  # firewalld does not start without this file, and in a minimal Debian nothing else brings it.
  [ -e /etc/protocols ] || [ "$manager" != apt ] || missing+=(netbase)
  if [ -z "$(venv_python)" ] && [ -z "$(find_python)" ]; then
    [ -z "${PYTHON:-}" ] || die "PYTHON=$PYTHON is no Python of 3.10 or later with venv and ensurepip"
    while read -r package; do missing+=("$package"); done < <(python_packages "$manager")
  fi
  [ ${#missing[@]} -gt 0 ] || return 0
  [ -n "$manager" ] || die "this machine has neither apt-get nor dnf; install these by hand: ${missing[*]}"
  say "missing here: ${missing[*]}"
  install=("$project/packaging/setup-system" "${missing[@]}")
  if [ "$(id -u)" = 0 ]; then
    bash "${install[@]}" 8<&- || exit $?
  elif have sudo; then
    say "installing system packages needs root; sudo may ask for your password"
    # In CI no one can answer: fail at once rather than wait.
    sudo ${CI:+-n} -- bash "${install[@]}" || die "the system packages were not installed (see above)"
  else
    die "only root can install them and there is no sudo here; as root, run: ${install[*]}"
  fi
  hash -r
}

# --- Python ----------------------------------------------------------------------------------------------------------

# Prints "VERSION PATH" of a Python that is new enough and has the named modules; of its base, should it be an environment's.
about_python() { # about_python PYTHON MODULES
  "$1" -I -c "
import os, sys
if sys.version_info < (3, 10): sys.exit(1)
import $2
print('.'.join(map(str, sys.version_info[:3])), os.path.realpath(sys.executable))
" 2>/dev/null
}

find_python() {
  local candidate candidates=(python3 /usr/bin/python3 python3.{14,13,12,11,10})
  [ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
  for candidate in "${candidates[@]}"; do
    if have "$candidate" && about_python "$candidate" 'ensurepip, venv'; then return; fi
  done
}

# The same of the environment's own Python, as long as that works and PYTHON names no other.
venv_python() {
  local own
  own=$(about_python "$venv/bin/python" pip) || return 0
  [ -z "${PYTHON:-}" ] || [ "$own" = "$(find_python)" ] || return 0
  echo "$own"
}

# --- the environment -------------------------------------------------------------------------------------------------
# .venv/.set-up says what was installed with what; .venv/.unfinished stands while something is being installed.

stamp() { # stamp demo|test "VERSION PATH"
  printf '%s %s %s %s\n' "$1" "$(sha256sum <"$project/pyproject.toml" | cut -c1-32)" "$venv" "$2"
}

standing() { sed -n 1p "$venv/.set-up" 2>/dev/null || true; }

is_ready() { # is_ready demo|test; the tests' environment serves the demo too
  local python
  python=$(venv_python)
  [ -n "$python" ] && [ ! -e "$venv/.unfinished" ] || return 1
  [ "$(standing)" = "$(stamp test "$python")" ] || [ "$(standing)" = "$(stamp "$1" "$python")" ]
}

choose_place() { # choose_place demo|test
  if [ -e "$venv" ]; then [ ! -w "$venv" ] || return 0; else [ ! -w "$project" ] || return 0; fi
  ! is_ready "$1" || return 0
  venv=$caches/venv
  mkdir -p "$caches" || die "neither $project nor $caches can be written: nowhere to put the virtual environment"
}

pip_failed() { # pip_failed WHAT LOG
  grep -v '^\[notice\]' "$2" | tail -n 12 | sed 's/^/    /' >&2
  die "$1: $(grep -m1 '^ *ERROR' "$2" || grep -m1 '^ *error' "$2" || echo 'see above'); the log: $2"
}

# What is used is compiled by Python itself: that is a fifth of what there is. Without a finder of its own, an editable
# project costs every start of Python 15 ms less.
pip_install() { # pip_install LOG ARGUMENT…
  PIP_USER=0 PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    "$venv/bin/python" -m pip install --quiet --progress-bar off --no-compile \
    --config-settings editable_mode=compat "${@:2}" >"$1" 2>&1 </dev/null
}

make_environment() { # make_environment demo|test
  local want=$1 python='' version path log source=$project started=$SECONDS
  ! is_ready "$want" || return 0
  # What an environment for tests holds, it keeps when the demo is run after a change of pyproject.toml.
  [[ "$(standing)" != "test "* ]] || want='test'
  [ -e "$venv/.unfinished" ] || python=$(venv_python)
  # One for another folder or another release of Python is made again; one that was made by hand is completed.
  [ ! -e "$venv/.set-up" ] || [[ "$(standing)" == *" $venv $python" ]] || python=''

  log=$(mktemp "${TMPDIR:-/tmp}/port-knocking-doors-setup.XXXXXX")
  if [ -z "$python" ]; then
    python=$(find_python)
    [ -n "$python" ] || die "no Python of 3.10 or later with venv and ensurepip is here; name one: PYTHON=… $0"
    read -r version path <<<"$python"
    say "making a virtual environment with Python $version ($path): $venv"
    rm -rf "$venv" 2>"$log" || die "can't remove the old environment: $(tail -n1 "$log")"
    mkdir "$venv" || die "can't make $venv"
    touch "$venv/.unfinished"
    "$path" -m venv "$venv" >"$log" 2>&1 || pip_failed 'making the virtual environment failed' "$log"
  fi
  touch "$venv/.unfinished"
  if [ "$venv" != "$project/.venv" ]; then # setuptools writes beside pyproject.toml: let that be elsewhere
    source=$caches/source
    mkdir -p "$source"
    ln -sfn "$project"/{pyproject.toml,README.md,LICENSE,port_knocking_doors} "$source/"
  fi
  if [ "$want" = test ]; then
    say "installing the project, its dependencies and the test tools into it …"
    source+='[dev]'
  else
    say "installing the project and its dependencies into it …"
  fi
  # Not every Python can have atheris, and to build it takes clang: without, the tests replay the fuzzer's corpus only.
  if [ "$want" != test ] || ! pip_install "$log" --only-binary atheris --editable "${source%]},fuzz]"; then
    pip_install "$log" --editable "$source" || pip_failed 'pip install failed' "$log"
    [ "$want" != test ] || say "there is no atheris for this Python: the tests will not fuzz"
  fi
  stamp "$want" "$(about_python "$venv/bin/python" pip)" >"$venv/.set-up"
  rm -f "$venv/.unfinished" "$log"
  say "the environment is ready, in $((SECONDS - started)) s"
}

# ---------------------------------------------------------------------------------------------------------------------

set_up() { # set_up demo|test
  [ "$(uname -s)" = Linux ] || die "this needs Linux, with firewalld and nftables"
  choose_place "$1"
  # One at a time; the lock is on the folder itself, so it leaves no file, and it ends with this process.
  if [ "$venv" = "$project/.venv" ]; then exec 8<"$project"; else exec 8<"$caches"; fi
  flock --nonblock 8 || {
    say "waiting for another set-up of this project to end …"
    flock 8
  }
  install_missing "$1"
  make_environment "$1"
  exec 8<&-
}
