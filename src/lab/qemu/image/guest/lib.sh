# What the guest's scripts share. Programs are started sparingly: each costs an emulated processor
# some ten milliseconds, so the shell's own `read` and `case` do what they can.

PATH=/usr/sbin:/usr/bin
export PATH

# A line on the console that the host knows.
say() {
    echo "virtproof-guest: $*" > /dev/console
}

# Reads the kernel's command line into p_root, p_install, p_init, p_agent, p_hooks and p_sshd.
read_parameters() {
    p_root='' p_install='' p_init=busybox p_agent=on p_hooks=on p_sshd=on
    read -r line < /proc/cmdline
    for word in $line; do
        case $word in
            virtproof.root=*) p_root=${word#*=} ;;
            virtproof.install) p_install=yes ;;
            virtproof.init=*) p_init=${word#*=} ;;
            virtproof.agent=*) p_agent=${word#*=} ;;
            virtproof.hooks=*) p_hooks=${word#*=} ;;
            virtproof.sshd=*) p_sshd=${word#*=} ;;
        esac
    done
}

# Makes the machine-id of the system under $1, once. As systemd does in a virtual machine
# (machine-id(5)), from the firmware's UUID if there is one, so that a guest without a disk of its own
# keeps it over boots.
make_machine_id() {
    [ -s "$1/etc/machine-id" ] && return
    uuid=''
    read -r uuid 2> /dev/null < /sys/class/dmi/id/product_uuid
    case $uuid in
        00000000-0000-0000-0000-000000000000) uuid='' ;;
        ????????-????-????-????-????????????) ;;
        *) uuid='' ;;
    esac
    if [ -z "$uuid" ]; then
        read -r uuid < /proc/sys/kernel/random/uuid
    fi
    echo "$uuid" | tr -d - | tr A-F a-f > "$1/etc/machine-id.new"
    mv "$1/etc/machine-id.new" "$1/etc/machine-id"
}

# Finds the virtio disk with this serial and puts its device into $disk.
find_disk() {
    for file in /sys/block/*/serial; do
        # The file ends without a newline, at which `read` fails although it read.
        serial=''
        read -r serial 2> /dev/null < "$file" || :
        if [ "$serial" = "$1" ]; then
            disk=${file%/serial}
            disk=/dev/${disk##*/}
            return 0
        fi
    done
    return 1
}

# Opens the ACPI power button as descriptor 3, and fails if there is none. Only presses after this are
# seen: the kernel keeps events for those who have the device open.
open_power_button() {
    for name in /sys/class/input/event*/device/name; do
        read -r text 2> /dev/null < "$name" || continue
        if [ "$text" = 'Power Button' ]; then
            event=${name%/device/name}
            exec 3< "/dev/input/${event##*/}"
            return
        fi
    done
    return 1
}

# Returns when the button is pressed: it has one key, so its first event (24 bytes, input_event) is a
# press of that.
await_power_button() {
    dd of=/dev/null bs=24 count=1 <&3 2> /dev/null
}
