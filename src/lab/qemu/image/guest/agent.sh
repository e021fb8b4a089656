#!/bin/sh
# The guest agent. `rc-service qemu-guest-agent stop` leaves a pipe behind, and whoever starts it again
# opens that: until then this waits there.

stopped=/run/guest/agent-stopped
[ -p $stopped ] && read -r _ < $stopped
exec /usr/sbin/qemu-ga "$@"
