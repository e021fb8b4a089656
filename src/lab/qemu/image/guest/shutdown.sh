#!/bin/sh
# shutdown(8) as the guest agent calls it: -P off, -r restart, -H halt; times and messages are ignored.

for word; do
    case $word in
        -r) exec /usr/bin/reboot ;;
        -H) exec /usr/bin/halt ;;
    esac
done
exec /usr/bin/poweroff
