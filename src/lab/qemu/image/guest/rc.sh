#!/bin/sh
# Brings the system up on its root, before any service: identity, name, network.

. /usr/lib/virtproof/lib.sh

busybox mount -t tmpfs -o mode=1777,nosuid,nodev tmp /tmp

make_machine_id ''
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
