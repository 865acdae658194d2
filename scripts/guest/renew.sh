# Makes the copy of a machine one of its own. Runs after wake.sh, with MACHINE_ID, NAME, HOST_KEY and
# HOST_KEY_PUBLIC set before it. The lease is left: QEMU's own network gives every machine the same.
# shellcheck shell=sh
set -eu

printf '%s\n' "$MACHINE_ID" > /etc/machine-id
[ ! -f /var/lib/dbus/machine-id ] || [ -L /var/lib/dbus/machine-id ] ||
    printf '%s\n' "$MACHINE_ID" > /var/lib/dbus/machine-id
head -c 512 /dev/urandom > /var/lib/systemd/random-seed
rm -f /var/lib/systemd/credential.secret

old=$(cat /proc/sys/kernel/hostname)
printf '%s\n' "$NAME" | tee /etc/hostname > /proc/sys/kernel/hostname
sed -i "s/\\<$old\\>/$NAME/g" /etc/hosts

rm -f /etc/ssh/ssh_host_*
(umask 077 && printf '%s\n' "$HOST_KEY" > /etc/ssh/ssh_host_ed25519_key)
printf '%s\n' "$HOST_KEY_PUBLIC" > /etc/ssh/ssh_host_ed25519_key.pub
# The connection that this came over stays.
kill -HUP "$(cat /run/sshd.pid)" 2> /dev/null || systemctl --no-block try-restart ssh.service

# Its files lie in a folder named after the machine-id.
systemctl --no-block try-restart systemd-journald.service
