#!/bin/busybox sh
# Init of the Debian Linux that the suite boots as a domU: reports by KTAP what it finds, and powers
# off.
/bin/busybox mkdir -p /proc /sys
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
echo "KTAP version 1"
echo "1..2"
type=$(/bin/busybox cat /sys/hypervisor/type)
[ "$type" = xen ] && echo "ok 1 hypervisor" || echo "not ok 1 hypervisor # it is $type"
uptime=$(/bin/busybox cat /proc/uptime)
[ -n "$uptime" ] && echo "ok 2 proc" || echo "not ok 2 proc"
/bin/busybox poweroff -f
