#!/bin/sh
# The kernel's helper for modules on demand: inserts NAME, for which it may say `fs-NAME`, and what it
# needs. Each line of the list is a name and its modules in order.

list=/run/guest/modules/on-demand
for wanted; do
    case $wanted in
        -*) continue ;;
    esac
    wanted=${wanted#fs-}
    while read -r name modules; do
        [ "$name" = "$wanted" ] || continue
        for module in $modules; do
            [ -d "/sys/module/$module" ] || /usr/bin/insmod "${list%/*}/$module.ko"
        done
    done < $list
done
