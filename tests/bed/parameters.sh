#!/bin/sh
# Checks the parameters of a make target before anything is installed or built, so that a typing
# error costs no time.
#
#   tests/bed/parameters.sh TARGET NAME...
#
# NAME... are the variables that make's command line sets. Their values are in the environment.
set -eu

here=$(dirname "$0")
target=$1
shift

known='MODE XEN XENARGS VCPUS MEMORY ARGS TIMEOUT COMPARE INTO FUZZ SECONDS TOOLCHAIN KERNEL CFG TYPE
EXPECT TRACE DESTDIR PREFIX'

# The parameters that each target uses, besides TOOLCHAIN.
case $target in
    run) used='MODE XEN XENARGS VCPUS MEMORY ARGS TIMEOUT' ;;
    gdb) used='MODE KERNEL CFG TYPE XEN XENARGS VCPUS MEMORY ARGS' ;;
    guest) used='KERNEL CFG TYPE EXPECT XEN XENARGS VCPUS MEMORY ARGS TIMEOUT' ;;
    test) used='XEN XENARGS TIMEOUT' ;;
    test-long) used='XEN XENARGS TIMEOUT SECONDS' ;;
    vcpus | virtio | drivers) used='XEN XENARGS TIMEOUT' ;;
    conformance) used='XEN XENARGS VCPUS MEMORY TIMEOUT' ;;
    soak) used='XEN XENARGS VCPUS MEMORY ARGS TIMEOUT' ;;
    bench) used='XEN XENARGS ARGS TIMEOUT COMPARE INTO' ;;
    trace) used='MODE XEN TRACE' ;;
    fuzz) used='FUZZ SECONDS' ;;
    install | uninstall) used='DESTDIR PREFIX' ;;
    *) used= ;;
esac

bad() {
    echo "make $target: $*" >&2
    exit 4
}

# Prints the words of the rest that are $1 in other letters, or nearly so.
similar() {
    wanted=$(echo "$1" | tr '[:lower:]_-' '[:upper:]  ' | tr -d ' ')
    shift
    for name in "$@"; do
        case $name in
            "$wanted" | "$wanted"? | ?"$wanted") echo "$name" && return ;;
        esac
        case $wanted in
            "$name"? | ?"$name") echo "$name" && return ;;
        esac
    done
}

for name in "$@"; do
    case " $(echo $known) " in
        *" $name "*) ;;
        *)
            meant=$(similar "$name" $known)
            [ -z "$meant" ] || bad "\`$name\` is not a parameter; do you mean $meant?"
            bad "\`$name\` is not a parameter; make help lists them"
            ;;
    esac
    case " $used TOOLCHAIN " in
        *" $name "*) ;;
        *) bad "$name is given, but this target does not use it. It uses: ${used:-no parameter}" ;;
    esac
done

uses() {
    case " $used " in *" $1 "*) ;; *) return 1 ;; esac
}

# A whole number from $3 to $4.
number() {
    uses "$1" && [ -n "$2" ] || return 0
    case $2 in
        *[!0-9]* | ??????????*) ;;
        *) [ "$2" -ge "$3" ] && [ "$2" -le "$4" ] && return ;;
    esac
    bad "$1 is \`$2\`, but must be a whole number from $3 to $4${5:+ ($5)}"
}

one_of() {
    uses "$1" && [ -n "$2" ] || return 0
    parameter=$1 value=$2
    shift 2
    for word in "$@"; do
        [ "$word" != "$value" ] || return 0
    done
    bad "$parameter is \`$value\`, but must be one of: $*"
}

file() {
    uses "$1" && [ -n "$2" ] || return 0
    [ -f "$2" ] || bad "$1 is \`$2\`, which is not a file"
}

# Prints $2 bytes of the file $1 from the place $3, in hexadecimal.
bytes() { od -An -v -tx1 -N"$2" -j"$3" "$1" | tr -d ' \n'; }

# Refuses what neither QEMU nor xl could boot. The bed then reads the rest of the file.
program() {
    uses "$1" && [ -f "$2" ] || return 0
    case $(bytes "$2" 4 0) in
        7f454c46)
            # EM_386 and EM_X86_64.
            case $(bytes "$2" 2 18) in
                0300 | 3e00) ;;
                *) bad "$1 is \`$2\`, an ELF file for another machine than x86" ;;
            esac
            ;;
        1f8b*) ;;
        *)
            # A bzImage of Linux.
            [ "$1 $(bytes "$2" 4 514)" = 'KERNEL 48647253' ] ||
                bad "$1 is \`$2\`, which is not an ELF file, and not one that gzip has compressed"
            ;;
    esac
}

# Quotes, backslashes and control characters would not get through make, QEMU and xl unchanged.
plain() {
    uses "$1" || return 0
    case $2 in
        *[\"\'\\]* | *[[:cntrl:]]*)
            bad "$1 is \`$2\`; leave out quotes, backslashes and control characters"
            ;;
    esac
}

one_of MODE "${MODE:-}" pv-dom0 pv-domu pvh-dom0 pvh-domu all
[ "$target" != gdb ] || [ "${MODE:-}" != all ] ||
    bad 'MODE is `all`, but a debugger needs one mode: pv-dom0, pv-domu, pvh-dom0 or pvh-domu'
one_of TYPE "${TYPE:-}" pv pvh
number VCPUS "${VCPUS:-}" 1 32
number MEMORY "${MEMORY:-}" 1 1048576 MiB
if uses MEMORY && [ -n "${MEMORY:-}" ]; then
    host=$(awk '$1 == "MemTotal:" { print int($2 / 1024) }' /proc/meminfo)
    [ "$MEMORY" -le "${host:-1048576}" ] ||
        bad "MEMORY is \`$MEMORY\`, but this host has $host MiB"
fi
number TIMEOUT "${TIMEOUT:-}" 1 86400 seconds
number SECONDS "${SECONDS:-}" 1 86400
plain ARGS "${ARGS:-}"
plain XENARGS "${XENARGS:-}"
plain TRACE "${TRACE:-}"
for parameter in COMPARE INTO KERNEL CFG; do
    eval "value=\${$parameter:-}"
    file "$parameter" "$value"
done
program KERNEL "${KERNEL:-}"
if uses EXPECT; then
    case ${EXPECT:-ktap} in
        ktap | xtf | regex:?*) ;;
        *) bad "EXPECT is \`$EXPECT\`, but must be ktap, xtf, or regex:PATTERN" ;;
    esac
fi
if uses FUZZ && [ "${FUZZ:-all}" != all ] && [ ! -d "tests/fuzz/corpus/$FUZZ" ]; then
    bad "FUZZ is \`$FUZZ\`, but must be all or one of: $(cd tests/fuzz/corpus && echo *)"
fi
if uses XEN && [ -n "${XEN:-}" ]; then
    releases=$(awk '!/^#/ && NF { print $1 }' "$here/xen-releases")
    case " $(echo $releases) " in
        *" $XEN "*) ;;
        *)
            [ -e "$XEN" ] || bad "XEN is \`$XEN\`, but must be one of: $(echo $releases)," \
                "or the path of a hypervisor or of an installed Xen tree that exists"
            program XEN "$XEN"
            ;;
    esac
fi
case ${TOOLCHAIN:-auto} in
    rustup | debian | auto) ;;
    *) bad "TOOLCHAIN is \`$TOOLCHAIN\`, but must be one of: rustup debian auto" ;;
esac
[ "$target" != guest ] || [ -n "${KERNEL:-}${CFG:-}" ] ||
    bad 'KERNEL is not given: name the kernel to boot, or CFG, an xl configuration that names it'
