#!/bin/busybox sh
# Init of the bed's Linux dom0. Starts Xen's daemons, runs `xl create` for each job under
# /bed/jobs, and reports over a virtio port. Whatever a guest or a tool said is sent behind a `|`, so
# that nothing they say can pass for a report.

/bin/busybox --install -s /bin
# Where Xen's tools are depends on the prefix that they were built with.
PATH=$(cat /bed/path):/bin
export PATH LD_LIBRARY_PATH=/usr/lib/x86_64-linux-gnu LC_ALL=C
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts
mount -t devpts devpts /dev/pts
mount -t tmpfs run /run
mkdir -p /run/xen /run/xenstored
for module in /bed/modules/*.ko; do insmod "$module"; done
mount -t xenfs xenfs /proc/xen
# The driver makes the node some time after it is loaded. The bed has a time limit for all of this.
until [ -c /dev/vport0p1 ]; do sleep 0.1; done
exec 3>/dev/vport0p1

say() { echo "$*" >&3; }

# Where xenconsoled logs what guests print.
CONSOLE=/var/log/xen/console

# Sends any bytes, line by line. Equal lines are sent once, followed by `again` and how often the line
# came again. Lines of KTAP each count. What exceeds $LIMIT bytes is cut out of the middle, because the
# end has the verdict, and `cut` says how much it was. A full trace of all tests has 3 MB; awk holds
# half of the limit in dom0's memory.
LIMIT=16000000
quote() {
    tr -d '\000\r' | awk -v half="$((LIMIT / 2))" '
        # One write for several lines: each one waits for QEMU.
        function send(text) {
            lines = lines text "\n"
            if (length(lines) > 4000) flush()
        }
        function flush() { printf "%s", lines; lines = "" }
        function put(text) {
            if (!cutting && sent + length(text) < half) {
                send(text)
                sent += length(text) + 1
                return
            }
            cutting = 1
            tail[++last] = text
            for (held += length(text) + 1; held > half; held -= size) {
                size = length(tail[++gone]) + 1
                delete tail[gone]
                cut += size
            }
        }
        function fold() { if (line) put(again ? line "\nagain " again : line); again = 0 }
        line == "|" $0 && !/^(ok |not ok |1\.\.|KTAP version |Test result: )/ { again++; next }
        { fold(); line = "|" $0 }
        END {
            fold()
            if (cut) send("cut " cut)
            while (gone < last) send(tail[++gone])
            flush()
        }' >&3
}

section() { say "section $1"; quote; say "end"; }

# Sends Xen's log. Xen drops the oldest bytes when its ring is full, and `lost` says so.
send_dmesg() {
    say "section dmesg"
    xl dmesg >/tmp/dmesg
    [ "$(wc -c </tmp/dmesg)" -lt "$RING" ] || say "lost $RING"
    quote </tmp/dmesg
    say "end"
}

uptime() { cut -d. -f1 /proc/uptime; }

# Waits until $1 seconds are over or the rest of the arguments, a command, succeeds.
wait_for() {
    deadline=$(($(uptime) + $1))
    shift
    until "$@"; do
        [ "$(uptime)" -ge "$deadline" ] && return 1
        rotate
        sleep 0.1
    done
}

# Reason 2 is a domain's that is being saved.
shut_down() { grep -q 'has shut down, reason code [013456789]' /var/log/xen/xl-*.log 2>/dev/null; }
cleaned_up() { grep -q -e 'Exiting now' -e 'has been destroyed' /var/log/xen/xl-*.log 2>/dev/null; }
probed() { console | grep -q '^probe: order=.*pfn=0x[0-9a-f]*.$' || shut_down; }
# A restored domain has a log of its own until it has its name back: in the order of their last lines.
logs() { ls -tr "$CONSOLE"/guest-*.log 2>/dev/null | while read -r log; do cat "$log"; done; }

# The log of a guest that prints without end would fill dom0's memory. A log of more than $PIECE bytes
# is moved away, and xenconsoled opens a new one on SIGHUP. The first piece and the last one are kept.
PIECE=8000000
PIECES=/tmp/console
size() { stat -c %s "$1" 2>/dev/null || echo 0; }
rotate() {
    for log in "$CONSOLE"/guest-*.log; do
        [ "$(size "$log")" -gt "$PIECE" ] || continue
        mkdir -p "$PIECES"
        if [ -e "$PIECES"/first ]; then
            echo $(($(size "$PIECES/last") + $(cat "$PIECES/dropped"))) >"$PIECES"/dropped
            mv "$log" "$PIECES"/last
        else
            echo 0 >"$PIECES"/dropped
            mv "$log" "$PIECES"/first
        fi
        kill -HUP "$(cat /run/xenconsoled.pid)"
    done
}
console() {
    cat "$PIECES"/first "$PIECES"/last 2>/dev/null
    logs
}
send_console() {
    say "section console"
    dropped=$(cat "$PIECES"/dropped 2>/dev/null || echo 0)
    if [ "$dropped" -gt 0 ]; then
        quote <"$PIECES"/first
        say "cut $dropped"
        rm "$PIECES"/first
    fi
    console | quote
    say "end"
    rm -rf "$PIECES"
}
saveable() { [ "$(console | grep -c '^# c75: ready to be saved')" -ge "$1" ] || shut_down; }
# The domain that stays while others run.
KEPT=
domain() { xl list | awk -v kept="$KEPT" 'NR > 1 && $2 > 0 && $2 != kept { print $2 }'; }
no_domain() { [ -z "$(domain)" ]; }
unpause() { xl unpause "$(domain)" 2>&1 | section unpause; }

# What Xen has on record of the domain's memory: by xl, by its own count of pages, which it logs
# when asked by a debug key, and all of its M2P, `mfn=... ==> pfn=...` a line.
look() {
    { xl list; xl info | grep '^free_memory'; } | section "list-$1"
    xl debug-keys q
    sleep 1
    xl dmesg | awk -v head="General information for domain $(domain):" '
        /General information for domain/ { ours = index($0, head) }
        ours && /nr_pages=/ { last = $0 }
        END { print last }' | section "pages-$1"
    xen-mfndump dump-m2p >"/tmp/m2p-$1" 2>"/tmp/mfndump-$1" || section "mfndump-$1" <"/tmp/mfndump-$1"
}

# Holds the P2M that the guest listed (`# p2m-before: <pfn>+<frames>=<mfn> ...`, in hexadecimal)
# against Xen's M2P.
compare() {
    console | tr -d '\r' >/tmp/listing
    awk -v name="p2m-$1:" '
        function number(hex, i, n) {
            for (i = 1; i <= length(hex); i++)
                n = n * 16 + index("123456789abcdef", substr(hex, i, 1))
            return n + 0
        }
        FNR == NR && $1 == "#" && $2 == name {
            for (word = 3; word <= NF; word++)
                if (split($word, part, /[+=]/) == 3) {
                    pfn = number(part[1]); frames = number(part[2]); mfn = number(part[3])
                    for (i = 0; i < frames; i++)
                        expected[sprintf("%x", mfn + i)] = sprintf("%x", pfn + i)
                    listed += frames
                }
        }
        FNR != NR && $2 == "==>" {
            mfn = substr($1, 7)
            if (mfn in expected) {
                if (substr($3, 7) == expected[mfn]) agree++
                else if (++differ <= 5)
                    print "mfn " mfn " is pfn " expected[mfn] " by the P2M, the M2P has " $3
            }
        }
        END { print "listed=" listed + 0 " agree=" agree + 0 }' /tmp/listing "/tmp/m2p-$1" | section "m2p-$1"
    rm -f "/tmp/m2p-$1" /tmp/listing
}

# Has Xen log how many pages are free in each zone: zone N has those from 2^(N + 11) to 2^(N + 12).
send_heap() {
    xl debug-keys H
    sleep 1
    xl dmesg | grep 'heap\[' | section heap
}

# Sends the console while the guest runs, behind a `>`, up to a limit: all of it follows at the end.
STREAM=2000000
stream() {
    until ls "$CONSOLE"/guest-*.log >/dev/null 2>&1; do sleep 0.1; done
    tail -n +1 -F "$CONSOLE"/guest-*.log 2>/dev/null | awk -v limit="$STREAM" '
        (sent += length($0) + 1) < limit { gsub(/\r/, ""); print ">" $0; fflush(); next }
        !full++ { print ">[bed: the guest has printed " limit " bytes; the rest will be in console.log]"; fflush() }' >&3
}

# Lowers the maximum of the domain below what it has, and raises it again, until it ends.
shake() {
    id=$(domain)
    mib=$(xl list | awk 'NR > 1 && $2 > 0 { print $3 }')
    while [ "$(domain)" = "$id" ]; do
        for size in "$((mib / 2))" "$mib"; do
            xl mem-set "$id" "$size"
            xl mem-max "$id" "$size"
            sleep 0.2
        done
    done >/dev/null 2>&1
}

# Whether the guest has printed what it is booted for.
printed() { console | tr -d '\r' | grep -q -E -f pattern || shut_down; }

# Saves the domain twice, once to keep it and once to restore it from there.
save_and_restore() {
    wait_for 60 saveable 1
    [ -n "$(domain)" ] || return
    { echo "xl save -c"; timeout 100 xl save -c "$(domain)" /tmp/kept 2>&1; } | section kept
    rm -f /tmp/kept
    wait_for 60 saveable 2
    { echo "xl save"; timeout 100 xl save "$(domain)" /tmp/saved 2>&1; } | section saved
    xl list | section list-saved
    { echo "xl restore"; timeout 100 xl restore /tmp/saved 2>&1; } | section restored
    rm -f /tmp/saved
}

# Has Xen record the hypercalls made on processor 1, where the guest stays, and what runs there. The
# buffer has 8 MB for each processor. Recording is on before xentrace maps the buffer.
start_record() {
    xentrace -D -c 0x2 -e "$(cat record)" -S 2048 /tmp/record >/tmp/xentrace 2>&1 &
    recorder=$!
    wait_for 20 grep -q privcmd "/proc/$recorder/maps"
}
send_record() {
    kill -INT "$recorder"
    wait "$recorder"
    echo "status $?" >>/tmp/xentrace
    section xentrace </tmp/xentrace
    # Compressed, and in lines that differ, because equal ones are folded.
    gzip </tmp/record | xxd | cut -d ' ' -f 1-9 | section record
    rm /tmp/record /tmp/xentrace
}

# Prints the address of the PCI device with a vendor and a device number.
pci_address() {
    for dir in /sys/bus/pci/devices/*; do
        [ "$(cat "$dir"/vendor) $(cat "$dir"/device)" != "$1" ] || echo "${dir##*/}"
    done
}

# Makes the devices assignable that the guest is passed, and prints the setting for `xl create`.
assign() {
    list=
    while read -r ids; do
        address=$(pci_address "$ids")
        xl pci-assignable-list | grep -q "$address" || xl pci-assignable-add "$address" >>/tmp/assign 2>&1
        list="$list${list:+, }\"$address\""
    done <pass
    echo "pci=[$list]"
}

job() {
    config=$(cat config)
    goal=$(cat goal)
    say "begin $(cat name)"
    rm -f /var/log/xen/xl-*.log "$CONSOLE"/guest-*.log
    xl dmesg -c >/dev/null
    set --
    while read -r line; do set -- "$@" "$line"; done <overrides
    rm -f /tmp/assign
    [ ! -f pass ] || set -- "$@" "$(assign)"
    dir=$PWD
    cd /bed/work || return
    paused=
    { [ "$goal" = watch ] || [ -f "$dir/mem-set" ] || [ -f "$dir/unbind" ] || [ -f "$dir/relay" ] || [ -f "$dir/record" ]; } && paused=-p
    { printf "xl create %s" "${paused:+$paused }$config"; [ $# -gt 0 ] && printf " '%s'" "$@"; echo; } | section command
    # shellcheck disable=SC2086 # Where it is empty it is no argument.
    timeout 100 xl create $paused "$config" "$@" >/tmp/create 2>&1
    rc=$?
    cd "$dir" || return
    section create </tmp/create
    [ ! -f /tmp/assign ] || section assign </tmp/assign
    if [ "$rc" -ne 0 ]; then
        say "end-of-domain create-failed $rc"
    else
        say "running"
        xl list | section list
        [ ! -f stream ] || stream &
        [ ! -f shake ] || shake &
        if [ -f mem-set ]; then
            xl mem-set "$(domain)" "$(cat mem-set)" 2>&1 | section mem-set
            [ "$goal" = watch ] || unpause
        fi
        if [ -f unbind ]; then
            name=pci-$(domain)-0
            echo "$name" >"/sys/bus/xen-backend/devices/$name/driver/unbind"
            unpause
        fi
        [ ! -f record ] || start_record
        relay=
        [ ! -f relay ] || { sh /bed/work/xen-configs/relay-console.sh "$(cat relay)" & relay=$!; }
        if [ "$goal" = probe ]; then
            wait_for "$(cat seconds)" probed
        elif [ "$goal" = watch ]; then
            look before
            unpause
            wait_for "$(cat seconds)" shut_down
            look after
            compare before
            compare after
        elif [ -f pattern ]; then
            wait_for "$(cat seconds)" printed
        elif [ "$goal" = save ]; then
            save_and_restore
            wait_for "$(cat seconds)" shut_down
        else
            wait_for "$(cat seconds)" shut_down
        fi
        # The last lines take a moment.
        [ ! -f stream ] || { sleep 2; killall tail; }
        if shut_down; then
            code=$(sed -n 's/.*has shut down, reason code \([013456789][0-9]*\).*/\1/p' /var/log/xen/xl-*.log | head -n 1)
            [ "$goal" = watch ] && xl destroy "$(domain)" 2>&1 | section destroy
            wait_for 20 cleaned_up
            say "end-of-domain shutdown $code"
        else
            say "end-of-domain running"
            [ "$goal" != stay ] || KEPT=$(domain)
            [ "$goal" = probe ] || [ "$goal" = stay ] || xl destroy "$(domain)" 2>&1 | section destroy
        fi
        [ ! -f record ] || send_record
        # The relay ends when the domain is gone.
        [ -z "$relay" ] || { wait_for 20 no_domain && wait "$relay"; }
    fi
    [ "$goal" = probe ] || wait_for 20 no_domain
    [ "$goal" != destroy ] && [ "$goal" != stay ] || send_heap
    send_console
    send_dmesg
    cat /var/log/xen/xl-*.log 2>/dev/null | section xl
    say "finish"
}

xenstored --pid-file=/run/xenstored.pid
xen-init-dom0 >/dev/null
xenconsoled --log=guest --log-dir="$CONSOLE" --pid-file=/run/xenconsoled.pid
xl info 2>&1 | section info
# Xen names the size of its ring when it boots. Without the line, no log is long enough to be called cut.
RING=$(xl dmesg | awk '/Allocated console ring of/ { kib = $(NF - 1) } END { print (kib ? kib : 1048576) * 1024 }')
say "ready"
for dir in /bed/jobs/*/; do
    cd "$dir" || continue
    job
done
say "all done"
sleep 1
poweroff -f
