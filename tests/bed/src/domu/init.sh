#!/bin/busybox sh
# Init of the bed's Linux dom0. Starts Xen's daemons, runs `xl create` for each job under
# /bed/jobs, and reports over the second serial port, which Xen leaves alone. Whatever a guest
# or a tool said is sent behind a `|`, so that nothing they say can pass for a report.

/bin/busybox --install -s /bin
export PATH=/usr/lib/xen/bin:/bin LC_ALL=C
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts
mount -t devpts devpts /dev/pts
mount -t tmpfs run /run
mkdir -p /run/xen /run/xenstored
for module in /bed/modules/*.ko; do insmod "$module"; done
mount -t xenfs xenfs /proc/xen
stty -F /dev/ttyS1 raw
exec 3>/dev/ttyS1

say() { echo "$*" >&3; }

# A guest's log can have any bytes and any length.
quote() { tr -d '\000\r' | head -c 2000000 | awk '{ print "|" $0 }' >&3; }

section() { say "section $1"; quote; say "end"; }

uptime() { cut -d. -f1 /proc/uptime; }

# Waits until $1 seconds are over or the rest of the arguments, a command, succeeds.
wait_for() {
    deadline=$(($(uptime) + $1))
    shift
    until "$@"; do
        [ "$(uptime)" -ge "$deadline" ] && return 1
        sleep 0.1
    done
}

shut_down() { grep -q 'has shut down, reason code' /var/log/xen/xl-*.log 2>/dev/null; }
cleaned_up() { grep -q -e 'Exiting now' -e 'has been destroyed' /var/log/xen/xl-*.log 2>/dev/null; }
probed() { grep -q '^probe: order=.*pfn=0x[0-9a-f]*.$' /var/log/xen/console/guest-*.log 2>/dev/null || shut_down; }
domain() { xl list | awk 'NR > 1 && $2 > 0 { print $2 }'; }
no_domain() { [ -z "$(domain)" ]; }

job() {
    config=$(cat config)
    goal=$(cat goal)
    say "begin $(cat name)"
    rm -f /var/log/xen/xl-*.log /var/log/xen/console/guest-*.log
    xl dmesg -c >/dev/null
    set --
    while read -r line; do set -- "$@" "$line"; done <overrides
    dir=$PWD
    cd /bed/work || return
    { printf "xl create %s" "$config"; [ $# -gt 0 ] && printf " '%s'" "$@"; echo; } | section command
    timeout 100 xl create "$config" "$@" >/tmp/create 2>&1
    rc=$?
    cd "$dir" || return
    section create </tmp/create
    if [ "$rc" -ne 0 ]; then
        say "end-of-domain create-failed $rc"
    else
        say "running"
        xl list | section list
        if [ "$goal" = probe ]; then
            wait_for "$(cat seconds)" probed
        else
            wait_for "$(cat seconds)" shut_down
        fi
        if shut_down; then
            code=$(sed -n 's/.*has shut down, reason code \([0-9]*\).*/\1/p' /var/log/xen/xl-*.log | head -n 1)
            wait_for 20 cleaned_up
            say "end-of-domain shutdown $code"
        else
            say "end-of-domain running"
            [ "$goal" = probe ] || xl destroy "$(domain)" 2>&1 | section destroy
        fi
    fi
    [ "$goal" = probe ] || wait_for 20 no_domain
    cat /var/log/xen/console/guest-*.log 2>/dev/null | section console
    xl dmesg | section dmesg
    cat /var/log/xen/xl-*.log 2>/dev/null | section xl
    say "finish"
}

xenstored --pid-file=/run/xenstored.pid
xen-init-dom0 >/dev/null
xenconsoled --log=all --log-dir=/var/log/xen/console --pid-file=/run/xenconsoled.pid
xl info 2>&1 | section info
say "ready"
for dir in /bed/jobs/*/; do
    cd "$dir" || continue
    job
done
say "all done"
sleep 1
poweroff -f
