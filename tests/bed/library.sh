#!/bin/sh
# Links the static library into a small C program for bare metal, and prints how much code that takes.
#
#   tests/bed/library.sh [LIBRARY HEADER-DIRECTORY]   [target/image/libxen_contig.a c/include]
set -eu

library=${1:-target/image/libxen_contig.a}
headers=${2:-c/include}
work=target/library
mkdir -p "$work"
[ -f "$library" ] || {
    echo "$library does not exist: \`make library\` builds it" >&2
    exit 4
}

# As a kernel does: no C library, no registers that interrupts do not save.
compile() {
    cc -std=c99 -pedantic -Wall -Wextra -Werror -O2 -ffreestanding -fno-pic -fno-stack-protector \
        -fno-asynchronous-unwind-tables -mno-red-zone -mgeneral-regs-only -ffunction-sections \
        -I "$headers" "$@"
}

# Links the program $1 with the options in $2. The linker refuses an undefined symbol.
link() {
    cc -nostdlib -static -no-pie $2 -Wl,--build-id=none -o "$work/$1" "$work/$1.o" "$library"
}

# Prints the sizes of the program $1.
measure() {
    link "$1" -Wl,--gc-sections
    size -A "$work/$1" | awk -v name="$2" '
        /^\.text/ { text += $2 } /^\.rodata/ { rodata += $2 } /^\.(data|bss|got)/ { data += $2 }
        END { printf "%s: %.0f KiB of code, %.0f KiB of constants, %.1f KiB of data\n", name,
            text / 1024, rodata / 1024, data / 1024 }'
}

compile -c tests/c/program/minimal.c -o "$work/minimal.o"
measure minimal "buffers and errors"
compile -DALL -c tests/c/program/minimal.c -o "$work/all.o"
measure all "the whole interface"
# Kernels such as Mini-OS link with all sections.
link all ""
