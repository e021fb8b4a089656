#!/bin/sh
# Says when all that was asked for runs. sshd writes its process id once it listens.

. /usr/lib/virtproof/lib.sh

read_parameters
until [ -e /run/guest/button ] && { [ "$p_sshd" = off ] || [ -s /run/sshd.pid ]; }; do
    usleep 20000
done
read -r first < /proc/1/comm
say "init $first"
say ready
