#!/bin/sh
# Runs the spell checker `typos`, a fixed version of it from PyPI, kept under target/.
#
#   tests/bed/typos.sh ARGS...
set -eu

version=1.52.0
here=$(dirname "$0")
home=target/typos

is_installed() {
    [ "$("$home/bin/typos" --version 2>/dev/null)" = "typos-cli $version" ]
}

if ! is_installed; then
    # Debian's python3 has no ensurepip, which `venv` needs, without this package.
    python3 -c 'import ensurepip, venv' 2>/dev/null || sh "$here/host.sh" /no/ensurepip=python3-venv
    rm -rf "$home"
    echo "+ installing typos $version in $home" >&2
    python3 -m venv "$home"
    "$home/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: \
        "typos==$version"
    is_installed || {
        echo "$home/bin/typos is $("$home/bin/typos" --version), not $version" >&2
        exit 1
    }
fi
echo "+ typos $*" >&2
exec "$home/bin/typos" "$@"
