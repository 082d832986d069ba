#!/bin/sh
# Checks what `make dist`, `make install` and `make xtf` make of the image, which must be built.
#
#   tests/bed/check-release.sh
set -eu

here=$(dirname "$0")
image=target/image/xen-contig
# A space, as in many a home directory.
work="$PWD/target/check release"

fail() {
    echo "check-release: $*" >&2
    exit 1
}

release() {
    sh "$here/release.sh" "$@"
}

# The value of `kernel` in a configuration.
kernel_of() {
    sed -n 's/^kernel *= *"\(.*\)"$/\1/p' "$1"
}

# Another user's settings change nothing.
tarball_is_reproducible() {
    release dist "$work/dist" >"$work/log" 2>&1 || fail "\`make dist\` fails: $(cat "$work/log")"
    mv "$work"/dist/*.tar.gz "$work/first.tar.gz"
    (umask 077 && TZ=Asia/Tokyo USER=other release dist "$work/dist" >/dev/null 2>&1)
    cmp "$work/first.tar.gz" "$work"/dist/*.tar.gz || fail "two runs of \`make dist\` differ"
}

tarball_is_complete() {
    tar -xzf "$work/first.tar.gz" -C "$work"
    set -- "$work"/xen-contig-*/
    cd "$1"
    sha256sum --check --strict --quiet SHA256SUMS || fail "SHA256SUMS does not match"
    find . -type f ! -name SHA256SUMS | sed 's|^\./||' | sort >"$work/files"
    sed 's/^[0-9a-f]*  //' SHA256SUMS | sort | cmp - "$work/files" || fail "SHA256SUMS lists other files"
    cmp "$OLDPWD/$image" xen-contig
    top=$PWD
    (cd "$OLDPWD" && sh "$here/library.sh" "$top/libxen_contig.a" "$top") >/dev/null ||
        fail "a C program cannot be linked with the library"
    for config in pv.cfg pvh.cfg driver-domain.cfg; do
        [ "$(kernel_of $config)" = xen-contig ] || fail "$config does not start the image beside it"
    done
    # Documents and configurations speak of files that exist, by their names in this directory.
    grep -n -e 'target/image' -e 'xen-configs/' README.md ./*.cfg && fail "a path of the repository"
    grep -o '`[A-Za-z/.-]*\.\(cfg\|md\|debug\)`' README.md | tr -d '`' | while read -r file; do
        [ -f "$file" ] || fail "README.md names $file, which is not in the tarball"
    done
    # Crates that permit no other licence than their own want its text.
    tail -n +3 licences/README | grep -v Apache | sed 's/: .*//; s/ v/-/' | while read -r crate; do
        [ -d "licences/$crate" ] || fail "the licence of $crate is missing"
    done
    cd "$OLDPWD"
}

refuses() {
    if release check-install 2>"$work/refusal"; then
        fail "DESTDIR=\`$DESTDIR\` PREFIX=\`$PREFIX\` is not refused"
    fi
    grep -q "^$1 is \`" "$work/refusal" || fail "the refusal does not name $1: $(cat "$work/refusal")"
}

installation_works() {
    make --silent install DESTDIR="$work/default" >/dev/null
    [ -f "$work/default/usr/local/share/xen-contig/pv.cfg" ] || fail "PREFIX is not /usr/local by default"
    export DESTDIR PREFIX
    DESTDIR=relative PREFIX=/usr refuses DESTDIR
    for bad in local '/opt/my prefix' '/opt/"' '/opt/a|b'; do
        DESTDIR='' PREFIX=$bad refuses PREFIX
    done
    DESTDIR="$work/root" PREFIX=/opt/xen/
    make --silent install DESTDIR="$DESTDIR" PREFIX="$PREFIX" >/dev/null
    for config in pv.cfg pvh.cfg driver-domain.cfg; do
        kernel=$(kernel_of "$DESTDIR/opt/xen/share/xen-contig/$config")
        [ "$kernel" = /opt/xen/lib/xen-contig/xen-contig ] || fail "the installed $config starts $kernel"
        cmp "$image" "$DESTDIR$kernel"
    done
    [ -f "$DESTDIR/opt/xen/include/xen-contig/xen_contig.h" ] || fail "no header was installed"
    [ -f "$DESTDIR/opt/xen/lib/xen-contig/xen-contig.debug" ] || fail "no symbols were installed"
    [ -f "$DESTDIR/opt/xen/share/doc/xen-contig/docs/TESTING.md" ] || fail "no documents were installed"
    if grep -rIl "$DESTDIR" "$DESTDIR"; then
        fail "an installed file contains DESTDIR"
    fi
    make --silent uninstall DESTDIR="$DESTDIR" PREFIX="$PREFIX" >/dev/null
    [ -z "$(find "$DESTDIR" -type f)" ] || fail "\`make uninstall\` leaves $(find "$DESTDIR" -type f)"
}

# What the runner of XTF requires of a test, and Xen's CI of a directory that it does not fetch.
xtf_runner_finds_the_tests() {
    release xtf "$work/xtf" >/dev/null
    make -s -C "$work/xtf" TESTS=tests/xen-contig || fail "its Makefile fails"
    python3 - "$work/xtf/tests/xen-contig" <<'END' || fail "XTF's runner would not find the tests"
import json, os, sys
where = sys.argv[1]
info = json.load(open(os.path.join(where, "info.json")))
assert info["name"] == os.path.basename(where), "the name is not the directory's"
assert info["category"] in ("functional", "xsa"), "a category that runs only by name"
assert sorted(info["environments"]) == ["hvm64", "pv64"], "the environments"
assert info["variations"] == [], "the variations"
END
    for choice in pv64:pv hvm64:pvh; do
        environment=${choice%:*}
        test=test-$environment-xen-contig
        config=$work/xtf/tests/xen-contig/$test.cfg
        grep -qx "name=\"$test\"" "$config" || fail "the runner would not find the domain of $config"
        grep -qx "type=\"${choice#*:}\"" "$config" || fail "$config is not of type ${choice#*:}"
        cmp "$image" "$work/xtf/$(kernel_of "$config")"
    done
}

sh "$here/host.sh" python3=python3
[ -f "$image" ] || fail "$image does not exist: \`make image\` builds it"
rm -rf "$work"
mkdir -p "$work"
tarball_is_reproducible
tarball_is_complete
installation_works
xtf_runner_finds_the_tests
rm -rf "$work"
echo "dist, install and xtf: as they should be"
