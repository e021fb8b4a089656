#!/bin/sh
# What cloud-init does in a guest that has it: takes name, users and keys from the seed disk the first
# time it sees the disk's instance id, and makes the SSH host keys new then (ssh_deletekeys). For an
# instance that is known everything stays as it is.

. /usr/lib/virtproof/lib.sh

seed=/run/guest/seed
known=/var/lib/virtproof/instance-id

# Takes a user from $1, a folder of the seed.
take_user() {
    user=${1##*/}
    add_user "$user"
    # add_user left $home, $uid and $gid.
    mkdir -p "$home/.ssh"
    touch "$home/.ssh/authorized_keys"
    # Keys that are there already stay, as cloud-init leaves them.
    while read -r key; do
        grep -qxF -e "$key" "$home/.ssh/authorized_keys" || printf '%s\n' "$key" >> "$home/.ssh/authorized_keys"
    done < "$1/keys"
    chmod 0700 "$home/.ssh"
    chmod 0600 "$home/.ssh/authorized_keys"
    chown -R "$uid:$gid" "$home/.ssh"
    if [ -e "$1/sudo" ]; then
        rule=/etc/sudoers.d/virtproof-$user
        echo "$user ALL=(ALL:ALL) NOPASSWD: ALL" > "$rule.new"
        chmod 0440 "$rule.new"
        mv "$rule.new" "$rule"
    fi
}

# Finds or makes a user. `*` as password: none fits, yet the account is not locked for sshd.
add_user() {
    next=1000
    while IFS=: read -r name _ uid gid _ home _; do
        [ "$name" = "$1" ] && return
        [ "$uid" -ge "$next" ] && [ "$uid" -lt 60000 ] && next=$((uid + 1))
    done < /etc/passwd
    uid=$next gid=$next home=/home/$1
    echo "$1:x:$gid:" >> /etc/group
    echo "$1:*:20000:0:99999:7:::" >> /etc/shadow
    mkdir -p "$home"
    chown "$uid:$gid" "$home"
    echo "$1:x:$uid:$gid:$1:$home:/bin/sh" >> /etc/passwd
}

if find_disk virtproof-seed; then
    mkdir -p $seed
    tar -xf "$disk" -C $seed
    # What cloud-init's NoCloud takes when the seed names none.
    new=nocloud old=''
    [ -s $seed/instance-id ] && read -r new < $seed/instance-id
    [ -s $known ] && read -r old < $known
    if [ "$new" != "$old" ]; then
        read -r host < $seed/hostname
        echo "$host" > /etc/hostname
        printf '127.0.0.1 localhost\n127.0.1.1 %s\n::1 localhost\n' "$host" > /etc/hosts
        for folder in $seed/users/*; do
            [ -d "$folder" ] && take_user "$folder"
        done
        rm -f /etc/ssh/ssh_host_*
    fi
fi

# The public half is written last, so without it there is no usable pair.
if [ ! -s /etc/ssh/ssh_host_ed25519_key.pub ]; then
    rm -f /etc/ssh/ssh_host_*
    ssh-keygen -q -t ed25519 -N '' -C '' -f /etc/ssh/ssh_host_ed25519_key
fi
# The instance counts as known when all of that is on disk.
if [ -n "$new" ] && [ "$new" != "$old" ]; then
    sync
    echo "$new" > $known.new
    mv $known.new $known
    sync
fi
