#!/bin/sh
# The ACPI power button shuts the guest down.

. /usr/lib/virtproof/lib.sh

open_power_button && has_button=yes
# What `ready` waits for: from then on no press is lost.
: > /run/guest/button
[ -n "$has_button" ] && await_power_button && exec poweroff
