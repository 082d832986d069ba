#!/bin/sh
# Copies what a PV guest prints into Xen's log, so that `xl dmesg` shows it, its hypercall trace included:
#
#   xl create -p xen-configs/pv.cfg 'extra="trace=full"'
#   sh xen-configs/relay-console.sh xen-contig-pv
#   xl dmesg | grep '# trace'
#
# The guest is created paused (-p), so that no line is missed. The script lets it run, and ends a moment
# after the guest does. Each line begins with the number of the domain, as the lines of PVH guests in
# Xen's log do: `(d1) `.
#
# A release build of Xen takes no line for its log from a PV guest. It takes dom0's lines, if it was
# booted with `console_to_ring`. The daemon xenconsoled must log guests (`--log=guest`). README.md in
# this directory says where to write both. The log of Xen must be large enough: `conring_size=8M`.
set -u

[ $# -eq 1 ] || {
    echo "usage: relay-console.sh NAME    (of a guest that runs, or that \`xl create -p\` has created)" >&2
    exit 2
}
name=$1
log=/var/log/xen/console/guest-$name.log
id=$(xl domid "$name") || exit

# The log goes on where the guest of that name before this one ended.
lines() { { wc -l <"$log"; } 2>/dev/null || echo 0; }
copied=$(lines)
xl unpause "$name"

# Copies the whole lines that are new. Returns false if there are none.
copy() {
    now=$(lines)
    if [ "$now" -lt "$copied" ]; then
        echo "relay-console.sh: $log was replaced, so lines are missing here" >/dev/hvc0
        copied=0
    fi
    [ "$now" -gt "$copied" ] || return 1
    tail -n "+$((copied + 1))" "$log" | head -n "$((now - copied))" | sed "s/^/(d$id) /" >/dev/hvc0
    copied=$now
}

until [ "$(lines)" -gt "$copied" ]; do
    xl domid "$name" >/dev/null 2>&1 || break
    sleep 1
done
if [ "$(lines)" -eq "$copied" ]; then
    echo "relay-console.sh: $log has no line of this guest. Does xenconsoled run with --log=guest?" >&2
    exit 1
fi
# A debug build of Xen, and any Xen for a PVH guest, takes the lines from the guest.
if xl dmesg | grep -q "^\((XEN) \)*(d$id) "; then
    echo "relay-console.sh: Xen logs the lines of $name by itself" >&2
    exit
fi
while xl domid "$name" >/dev/null 2>&1; do
    until ! copy; do sleep 1; done
    sleep 1
done
sleep 1
copy
