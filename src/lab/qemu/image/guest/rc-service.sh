#!/bin/sh
# OpenRC's rc-service(8), for the one service that is stopped and started here: the guest agent, which
# init would start again at once.

stopped=/run/guest/agent-stopped

if [ "$1" != qemu-guest-agent ]; then
    echo "rc-service: service \`$1' does not exist" >&2
    exit 1
fi
case $2 in
    stop)
        [ -p $stopped ] || mkfifo $stopped || exit
        # Its end closes the port, of which the host learns.
        killall qemu-ga
        ;;
    start)
        [ -p $stopped ] || exit 0
        # The agent's wrapper waits at its other end, or is about to.
        echo > $stopped
        rm $stopped
        ;;
    *)
        echo "rc-service: cannot $2" >&2
        exit 1
        ;;
esac
