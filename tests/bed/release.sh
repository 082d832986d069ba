#!/bin/sh
# Puts the image together with what its users need. `make dist`, `make install` and `make xtf` call it.
#
#   tests/bed/release.sh dist [DIR]     DIR/xen-contig-VERSION.tar.gz, in place of DIR [target/dist]
#   tests/bed/release.sh install        the same files under $DESTDIR$PREFIX
#   tests/bed/release.sh uninstall      removes them
#   tests/bed/release.sh check-install   refuses a DESTDIR or PREFIX that `install` cannot use
#   tests/bed/release.sh xtf [DIR]      tests for the runner of XTF and for Xen's CI [target/xtf]
#   tests/bed/release.sh version        the version that `dist` uses
set -eu

LC_ALL=C
export LC_ALL
here=$(dirname "$0")
image=target/image/xen-contig
library=target/image/libxen_contig.a
DESTDIR=${DESTDIR:-}
PREFIX=${PREFIX:-/usr/local}

fail() {
    echo "$*" >&2
    exit 4
}

# Without a repository of its own, a source tree has no commit: it may lie inside another repository.
in_git() {
    [ -e .git ]
}

# Cargo.toml's version; unless its tag is checked out unchanged, with the commit.
version() {
    number=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"$/\1/p' Cargo.toml)
    [ -n "$number" ] || fail "Cargo.toml has no version in [workspace.package]"
    commit=v$number
    if in_git; then
        commit=$(git describe --tags --match "v$number" --always --dirty --abbrev=12)
    fi
    case $commit in
        "v$number") echo "$number" ;;
        "v$number"-*) echo "${commit#v}" ;;
        *) echo "$number-g$commit" ;;
    esac
}

# The time that every file of the tarball gets, in seconds since 1970. An archive made by git gives its
# files the time of the commit.
time_of_sources() {
    if [ -n "${SOURCE_DATE_EPOCH:-}" ]; then
        echo "$SOURCE_DATE_EPOCH"
    elif in_git; then
        git log -1 --format=%ct
    else
        stat -c %Y Cargo.toml
    fi
}

compiler() {
    case $(sh "$here/toolchain.sh" which) in
        rustup) rustc --version ;;
        *) /usr/bin/rustc --version ;;
    esac
}

# A file of the repository goes to the name $2, in the directory $root if that is relative to it.
put() {
    install -D -m "${3:-644}" "$1" "$root$2"
}

# Names of files in the repository become names after the installation.
put_text() {
    sed -e 's|make image && ||' -e "s|target/image/|$lib|g" -e "s|xen-configs/|$share|g" \
        -e "s|docs/|${doc}docs/|g" "$1" >target/release-text
    put target/release-text "$2"
    rm target/release-text
}

# Puts everything under $root, with the names that begin with $lib, $share and $doc.
put_all() {
    [ -f "$image" ] || fail "$image does not exist: \`make image\` builds it"
    [ -f "$library" ] || fail "$library does not exist: \`make library\` builds it"
    put "$image" "${lib}xen-contig" 755
    put "$image.debug" "${lib}xen-contig.debug"
    put "$library" "${lib}libxen_contig.a"
    put c/include/xen_contig.h "${include}xen_contig.h"
    for name in pv.cfg pvh.cfg driver-domain.cfg grub-dom0.cfg relay-console.sh; do
        put_text "xen-configs/$name" "$share$name"
    done
    put_text xen-configs/README.md "${doc}README.md"
    for name in CHANGELOG.md LICENSE-APACHE LICENSE-MIT; do
        put "$name" "$doc$name"
    done
    for name in EMBEDDING TESTING TRACING CONFORMANCE GLOSSARY; do
        put "docs/$name.md" "${doc}docs/$name.md"
    done
}

# The crates that are linked into the image, with the texts of their licences.
put_licences() {
    list=target/release-crates
    sh "$here/toolchain.sh" cargo tree --locked -p xen-contig-kernel --target x86_64-unknown-none \
        -e normal,no-proc-macro --prefix none -f '{p}|{l}' >"$list.all"
    # Packages of this repository are listed with a path.
    grep -v ' (/' "$list.all" | sed 's/ (\*)$//' | sort -u >"$list"
    mkdir "${root}licences"
    {
        echo "The image and the library are linked with the core and alloc libraries of Rust (MIT OR Apache-2.0) and with:"
        echo
        sed 's/|/: /' "$list"
    } >"${root}licences/README"
    sed 's/ v/-/' "$list" | while IFS='|' read -r crate licence; do
        for text in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/"$crate"/LICEN[CS]E*; do
            [ ! -f "$text" ] || put "$text" "licences/$crate/${text##*/}"
        done
        # Some crates name the MIT licence and have no text of it. The text is the same for all, and the
        # holders are the authors that the crate names.
        if [ "$licence" != MIT ] || [ -d "${root}licences/$crate" ]; then
            continue
        fi
        authors=$(sed -n 's/^authors = \[\(.*\)\]$/\1/p' \
            "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/"$crate"/Cargo.toml | tr -d '"')
        {
            printf 'Copyright (c) %s\n\n' "${authors:-the authors of $crate}"
            cat LICENSE-MIT
        } >target/release-text
        put target/release-text "licences/$crate/LICENSE-MIT"
        rm target/release-text
    done
    rm "$list" "$list.all"
}

dist() {
    version=$(version)
    seconds=$(time_of_sources)
    top=xen-contig-$version
    rm -rf "$1"
    root=$1/$top/
    lib='' share='' doc='' include=''
    put_all
    put_licences
    {
        echo "version $version"
        ! in_git || echo "commit $(git rev-parse HEAD)"
        echo "compiler $(compiler)"
    } >"${root}VERSION"
    (cd "$root" && find . -type f ! -name SHA256SUMS | sed 's|^\./||' | sort |
        xargs -d '\n' sha256sum >SHA256SUMS)
    # The same commit gives the same bytes: nothing of this machine, user or hour gets in.
    tar --format=ustar --sort=name --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX \
        --mtime="@$seconds" -C "$1" -cf "$1/$top.tar" "$top"
    gzip -n -9 "$1/$top.tar"
    rm -rf "$root"
    echo "$1/$top.tar.gz: $(wc -c <"$1/$top.tar.gz") bytes"
}

# Configurations contain PREFIX within quotes, and documents contain it in commands.
check_install() {
    case $PREFIX in
        /*) ;;
        *) fail "PREFIX is \`$PREFIX\`, but must be an absolute path such as /usr/local" ;;
    esac
    case $PREFIX in
        *[[:space:]\"\'\`\\\|\&\$]*)
            fail "PREFIX is \`$PREFIX\`, but must not contain white space, quotes or any of \\ | & \$"
            ;;
    esac
    case $DESTDIR in
        '' | /*) ;;
        *) fail "DESTDIR is \`$DESTDIR\`, but must be an absolute path or empty" ;;
    esac
}

set_places() {
    check_install
    root=$DESTDIR
    prefix=${PREFIX%/}
    lib=$prefix/lib/xen-contig/
    share=$prefix/share/xen-contig/
    doc=$prefix/share/doc/xen-contig/
    include=$prefix/include/xen-contig/
}

install_all() {
    set_places
    put_all
    echo "installed in $root$lib, $root$include, $root$share and $root$doc"
}

# The four directories are this project's own.
uninstall() {
    set_places
    rm -rf "$root$lib" "$root$include" "$root$share" "$root$doc"
    echo "removed $root$lib, $root$include, $root$share and $root$doc"
}

xtf() {
    rm -rf "$1"
    root=$1/
    tests=tests/xen-contig
    put xen-configs/xtf/Makefile Makefile
    put xen-configs/xtf/info.json "$tests/info.json"
    for environment in pv64 hvm64; do
        put "$image" "$tests/test-$environment-xen-contig" 755
        put "xen-configs/xtf/test-$environment-xen-contig.cfg" "$tests/test-$environment-xen-contig.cfg"
    done
    echo "$1: copy its tests/ into XTF, or see \"XTF and Xen's CI\" in docs/TESTING.md"
}

case ${1:-} in
    dist) dist "${2:-target/dist}" ;;
    install) install_all ;;
    uninstall) uninstall ;;
    check-install) check_install ;;
    xtf) xtf "${2:-target/xtf}" ;;
    version) version ;;
    *) fail "tests/bed/release.sh: unknown command \`${1:-}\`" ;;
esac
