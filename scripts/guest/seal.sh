# Removes what identifies this build and this machine. Goes on from install.sh in the same shell; in a
# build VM freeze.sh follows.
# The list follows virt-sysprep's operations as far as they apply to a fresh cloud image.
# shellcheck shell=sh
set -eu

# What would write again, or has files open: removed under it, they would stay on the disk as orphans.
cd /
systemctl stop rsyslog.service syslog.socket unattended-upgrades.service cron.service \
    systemd-timesyncd.service systemd-resolved.service systemd-logind.service \
    apt-daily.timer apt-daily-upgrade.timer 2> /dev/null || true

# The build's way in, and what it brought.
userdel --force --remove vmbake 2> /dev/null || true
rm -rf /etc/sudoers.d/90-cloud-init-users /var/tmp/vmbake
rm -f /root/.ssh/authorized_keys /home/*/.ssh/authorized_keys
rm -f /root/.*_history /home/*/.*_history /root/.lesshst /root/.wget-hsts

# Who this machine is.
# shellcheck disable=SC2154 # install.sh started it
wait "$clean"
# What cloud-init writes where systemd runs; elsewhere it removes the file, and a root that is mounted
# read-only at first could not get a new one.
echo uninitialized > /etc/machine-id
chmod 444 /etc/machine-id
# With that a boot is the first one of a machine, and in older systems somebody at the console is then asked for
# language, time zone and a password, and waited for.
mkdir -p /etc/systemd/system
ln -sf /dev/null /etc/systemd/system/systemd-firstboot.service
rm -f /etc/ssh/ssh_host_*
rm -f /var/lib/dbus/machine-id /var/lib/systemd/random-seed /var/lib/systemd/credential.secret
rm -rf /var/lib/cloud /var/lib/dhcp/* /var/lib/NetworkManager/* /var/lib/systemd/network/*
rm -f /etc/netplan/50-cloud-init.yaml /etc/network/interfaces.d/50-cloud-init \
    /etc/systemd/network/10-cloud-init-*.network /etc/udev/rules.d/70-persistent-net.rules
rm -f /etc/hostname
[ -L /etc/resolv.conf ] || : > /etc/resolv.conf
rm -f /var/lib/systemd/timesync/clock /var/lib/systemd/timers/*

# What it has seen.
rm -rf /var/log/journal/* /var/log/installer /var/log/apt /var/log/unattended-upgrades/*
find /var/log -type f -not -name vexfs.log -delete
[ ! -e /var/log/vexfs.log ] || : > /var/log/vexfs.log
systemd-tmpfiles --create --prefix=/var/log 2> /dev/null || true
rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/* /var/cache/apt/*.bin /var/cache/debconf/*-old
rm -f /var/lib/dpkg/*-old /etc/passwd- /etc/shadow- /etc/group- /etc/gshadow- /etc/subuid- /etc/subgid-
rm -rf /tmp/* /tmp/.[!.]* /var/tmp/* /var/crash/* /var/mail/* /var/spool/mail/*

# Removed packages whose settings are left are listed, too; they are not installed (ii).
dpkg-query -W -f '${db:Status-Abbrev}package=${binary:Package} ${Version}\n' | sed -n 's/^ii //p'
