#!/bin/sh
# Sees to it that the machine has what the build and the bed call, through apt, and calls apt
# only if something is missing.
#
#   tests/bed/host.sh PROGRAM-OR-FILE=PACKAGE ...
#
# Without arguments: everything but the Rust toolchain, which toolchain.sh chooses.
set -eu

if [ $# -eq 0 ]; then
    set -- \
        cc=gcc \
        /usr/lib/x86_64-linux-gnu/crt1.o=libc6-dev \
        strip=binutils \
        gzip=gzip \
        qemu-system-x86_64=qemu-system-x86 \
        /etc/ssl/certs/ca-certificates.crt=ca-certificates \
        /usr/share/keyrings/debian-archive-keyring.gpg=debian-archive-keyring
fi

missing=
for need in "$@"; do
    what=${need%=*}
    case $what in
        /*) [ -e "$what" ] || missing="$missing ${need##*=}" ;;
        *) command -v "$what" >/dev/null 2>&1 || missing="$missing ${need##*=}" ;;
    esac
done
[ -n "$missing" ] || exit 0

as_root=
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null 2>&1; then
        echo "missing packages:$missing" >&2
        echo "run this as root, install sudo, or have them installed: apt-get install$missing" >&2
        exit 1
    fi
    as_root="sudo"
fi

# The Rust that the build needs comes with Debian's security updates. A machine whose sources leave
# those out gets them for these two calls; its own sources stay as they are.
options=
if ! grep -rqs -e '-security' /etc/apt/sources.list /etc/apt/sources.list.d; then
    release=$(. /etc/os-release && echo "$VERSION_CODENAME")
    parts=$(mktemp -d)
    trap 'rm -rf "$parts"' EXIT
    cp /etc/apt/sources.list.d/* "$parts" 2>/dev/null || :
    echo "deb http://deb.debian.org/debian-security $release-security main" \
        >"$parts/security.list"
    chmod -R a+rX "$parts"
    options="-o Dir::Etc::sourceparts=$parts"
    echo "with Debian's security updates, which this machine's apt sources do not name"
fi

echo "installing with apt:$missing"
set -x
# shellcheck disable=SC2086 # lists of words
$as_root env DEBIAN_FRONTEND=noninteractive apt-get -q $options update
# shellcheck disable=SC2086
$as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y $options --no-install-recommends install $missing
