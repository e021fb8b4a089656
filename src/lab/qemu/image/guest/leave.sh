#!/bin/sh
# Says under systemd that a clean shutdown begins; systemd does the rest itself.

. /usr/lib/virtproof/lib.sh

say going down
