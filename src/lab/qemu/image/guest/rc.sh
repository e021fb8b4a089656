#!/bin/sh
# Brings the system up on its root, before any service: identity, name, network.

. /usr/lib/virtproof/lib.sh

busybox mount -t tmpfs -o mode=1777,nosuid,nodev tmp /tmp

# Made once. As systemd does in a virtual machine (machine-id(5)), from the firmware's UUID if there is
# one, so that a guest without a disk of its own keeps it over boots.
if [ ! -s /etc/machine-id ]; then
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
    echo "$uuid" | tr -d - | tr A-F a-f > /etc/machine-id.new
    mv /etc/machine-id.new /etc/machine-id
fi

/usr/lib/virtproof/seed

if [ -s /etc/hostname ]; then
    hostname -F /etc/hostname
fi
ifconfig lo 127.0.0.1 up
if [ -d /sys/class/net/eth0 ]; then
    # KubeVirt's masquerade binding gives every guest the same address on a network of its own.
    ifconfig eth0 10.0.2.2 netmask 255.255.255.0 up
    route add default gw 10.0.2.1
fi
