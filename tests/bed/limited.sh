#!/bin/sh
# Runs a test program under a limit of time and of memory, so that a test that loops or allocates
# without end fails instead of stopping the machine. cargo calls it: see LIMITED in the Makefile.
#
#   tests/bed/limited.sh PROGRAM ARGS...
set -u

# The slowest program takes about a minute on two processors.
seconds=900
# The largest programs use less than 1 GiB, but threads reserve address space.
kib=8388608

ulimit -v "$kib"
timeout --foreground --kill-after=5 "$seconds" "$@"
status=$?
case $status in
    124 | 137) echo "$1: stopped after $seconds s (limit of tests/bed/limited.sh)" >&2 ;;
    134) echo "$1: aborted; its memory is limited to $kib KiB by tests/bed/limited.sh" >&2 ;;
esac
exit "$status"
