#!/bin/sh
# Chooses the Rust toolchain and runs cargo with it.
#
#   tests/bed/toolchain.sh cargo ARGS...   cargo for the host
#   tests/bed/toolchain.sh kernel ARGS...  cargo for the bare-metal target, the kernel's flags set
#   tests/bed/toolchain.sh image           the kernel image, stripped, under target/image/
#   tests/bed/toolchain.sh library         the static library for kernels in C, under target/image/
#   tests/bed/toolchain.sh reproduce       builds the image here and elsewhere and compares
#   tests/bed/toolchain.sh which           what was chosen
#
# TOOLCHAIN=rustup|debian|auto forces the choice. `auto`, the default: rustup where its active
# toolchain is new enough and has the bare-metal target or can fetch it, otherwise Debian's
# packages, which lack the target's core library and so build it from source.
set -eu

target=x86_64-unknown-none
least=89 # the highest rust-version in the workspace: 1.89
here=$(dirname "$0")
refused=target/rustup-target-refused

show_and_run() {
    echo "+ $*" >&2
    "$@"
}

rustup_serves() {
    command -v rustup >/dev/null 2>&1 || return 1
    minor=$(minor_of rustc)
    [ -n "$minor" ] && [ "$minor" -ge "$least" ] || return 1
    rustup target list --installed 2>/dev/null | grep -qx "$target" && return 0
    # Asked once: where it can't be fetched, each try costs time.
    [ ! -e "$refused" ] || return 1
    show_and_run rustup target add "$target" >&2 && return 0
    mkdir -p target && touch "$refused"
    return 1
}

minor_of() {
    "$@" --version 2>/dev/null | sed -n 's/^rustc 1\.\([0-9]*\)\..*/\1/p'
}

debian_is_new() {
    minor=$(minor_of /usr/bin/rustc)
    [ -n "$minor" ] && [ "$minor" -ge "$least" ]
}

choose() {
    case ${TOOLCHAIN:-auto} in
        rustup)
            rustup_serves || {
                echo "TOOLCHAIN=rustup, but rustup has no Rust >= 1.$least with $target" >&2
                exit 1
            }
            chosen=rustup
            ;;
        debian) chosen=debian ;;
        auto) if rustup_serves; then chosen=rustup; else chosen=debian; fi ;;
        *)
            echo "TOOLCHAIN is \`$TOOLCHAIN\`, but must be rustup, debian or auto" >&2
            exit 1
            ;;
    esac
    if [ "$chosen" = debian ]; then
        debian_is_new || sh "$here/host.sh" /no/new/rustc=rustc-web /no/new/cargo=cargo-web \
            /no/new/core=rust-web-src >&2
        debian_is_new || {
            echo "Debian's rustc-web is $(/usr/bin/rustc --version), but Rust 1.$least is needed" >&2
            exit 1
        }
        sh "$here/host.sh" /usr/bin/rustc=rustc-web /usr/bin/cargo=cargo-web ld.lld=lld \
            /usr/lib/rustlib/src/rust/library/core/Cargo.toml=rust-web-src >&2
    fi
}

# Debian's programs are called by their full names: rustup's may come first in PATH.
run_cargo() {
    if [ "$chosen" = rustup ]; then
        case $1 in
            clippy) cargo clippy --version >/dev/null 2>&1 || show_and_run rustup component add clippy ;;
            fmt) cargo fmt --version >/dev/null 2>&1 || show_and_run rustup component add rustfmt ;;
        esac
        show_and_run cargo "$@"
        return
    fi
    RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc CARGO=/usr/bin/cargo RUSTFMT=/usr/bin/rustfmt
    export RUSTC RUSTDOC CARGO RUSTFMT
    case $1 in
        clippy)
            sh "$here/host.sh" /usr/bin/cargo-clippy=rust-web-clippy >&2
            show_and_run /usr/bin/cargo-clippy "$@"
            ;;
        fmt)
            sh "$here/host.sh" /usr/bin/cargo-fmt=rustfmt-web >&2
            show_and_run /usr/bin/cargo-fmt "$@"
            ;;
        *) show_and_run /usr/bin/cargo "$@" ;;
    esac
}

# The same sources give the same bytes wherever they lie: no path of this machine's gets in.
kernel_flags() {
    rustc=rustc
    [ "$chosen" = rustup ] || rustc=/usr/bin/rustc
    printf '%s\037' \
        -Crelocation-model=static -Ccode-model=kernel -Cforce-frame-pointers=yes \
        "--remap-path-prefix=$PWD=/xen-contig" \
        "--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo" \
        "--remap-path-prefix=$($rustc --print sysroot)/lib/rustlib/src/rust=/rust"
    [ "$chosen" = rustup ] || printf '%s\037' -Clinker=ld.lld
}

run_kernel() {
    flags=$(kernel_flags)
    CARGO_ENCODED_RUSTFLAGS=${flags%?}
    export CARGO_ENCODED_RUSTFLAGS
    subcommand=$1
    shift
    if [ "$chosen" = rustup ]; then
        run_cargo "$subcommand" --target "$target" "$@"
    else
        RUSTC_BOOTSTRAP=1
        export RUSTC_BOOTSTRAP
        run_cargo "$subcommand" --target "$target" -Zbuild-std=core,alloc,compiler_builtins \
            -Zbuild-std-features=compiler-builtins-mem "$@"
    fi
}

make_image() {
    run_kernel build --locked --release -p xen-contig-kernel
    built=${CARGO_TARGET_DIR:-target}/$target/release/xen-contig
    image=target/image/xen-contig
    mkdir -p target/image
    if ! cmp -s "$built" "$image.debug"; then
        cp "$built" "$image.debug.new"
        show_and_run strip -o "$image.new" "$image.debug.new"
        mv "$image.new" "$image"
        mv "$image.debug.new" "$image.debug"
    fi
    echo "$image: $(wc -c <"$image") bytes"
}

make_library() {
    run_kernel build --locked --profile library -p xen-contig-staticlib
    library=target/image/libxen_contig.a
    mkdir -p target/image
    # xen-sys exports functions that call through a page of the kernel, and nothing here calls them. A kernel
    # that links without --gc-sections would have to define that page.
    show_and_run objcopy --strip-debug --enable-deterministic-archives \
        --remove-section='.text.hypercall_[1-5]' --strip-symbol=HYPERCALL_PAGE \
        "${CARGO_TARGET_DIR:-target}/$target/library/libxen_contig.a" "$library.new"
    mv "$library.new" "$library"
    echo "$library: $(wc -c <"$library") bytes"
}

# A space in the path, since paths are what gets into images most easily.
reproduce() {
    copy="target/reproduce/another place"
    rm -rf target/reproduce
    mkdir -p "$copy"
    git ls-files -z | tar --null -T - -cf - | tar -xf - -C "$copy"
    # Most of a build is the work of one thread, so the two of them fit two processors.
    log=target/reproduce/log
    (cd "$copy" && unset CARGO_TARGET_DIR && sh tests/bed/toolchain.sh image) >"$log" 2>&1 &
    other=$!
    make_image
    wait "$other" || {
        cat "$log" >&2
        echo "the second build failed" >&2
        exit 1
    }
    if ! cmp "target/image/xen-contig" "$copy/target/image/xen-contig"; then
        echo "two builds of the same sources differ" >&2
        exit 1
    fi
    echo "the same sources gave the same bytes in two places"
    rm -rf target/reproduce
}

command=${1:-which}
[ $# -eq 0 ] || shift
choose
case $command in
    cargo) run_cargo "$@" ;;
    kernel) run_kernel "$@" ;;
    image) make_image ;;
    library) make_library ;;
    reproduce) reproduce ;;
    which) echo "$chosen" ;;
    *)
        echo "unknown command \`$command\`" >&2
        exit 1
        ;;
esac
