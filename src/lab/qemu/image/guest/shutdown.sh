#!/bin/sh
# shutdown(8) as the guest agent calls it: -P off, -r restart, -H halt; times and messages are ignored.

PATH=/usr/sbin:/usr/bin
export PATH
for word; do
    case $word in
        -r) exec reboot ;;
        -H) exec halt ;;
    esac
done
exec poweroff
