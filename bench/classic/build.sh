#!/usr/bin/env bash
# The pipeline that vmbake replaces, as it is usually written: boot the base, let cloud-init install
# everything in it, poll for SSH, compile in the guest, copy, gzip, sha256sum. For comparison only.
#
#   build.sh BASE.qcow2 SOURCE-DIR VARIANT WORK-DIR OUTPUT-DIR [PACKAGE…]
#
# CLASSIC_ACCEL (tcg), CLASSIC_MEMORY (2048 MiB) and CLASSIC_CPUS (2) set the machine. The fixed
# sleep is that pipeline's own.
set -euo pipefail

base=$1 source=$2 variant=$3 work=$4 output=$5
shift 5
packages=(build-essential linux-headers-cloud-amd64 curl git cargo rustc "$@")
image=$work/build.qcow2 final=$output/vexfs-$variant.qcow2

mkdir -p "$work" "$output"

# Base image
cp "$base" "$image"

# Cloud-init
ssh-keygen -q -t ed25519 -N '' -f "$work/key"
{
    echo "#cloud-config"
    echo "locale: C.UTF-8"
    echo "users:"
    echo "  - name: vexfs"
    echo "    sudo: 'ALL=(ALL) NOPASSWD:ALL'"
    echo "    shell: /bin/bash"
    echo "    ssh_authorized_keys: ['$(cat "$work/key.pub")']"
    echo "package_update: true"
    echo "packages:"
    printf '  - %s\n' "${packages[@]}"
    echo "write_files:"
    echo "  - path: /etc/vexfs/vexfs.conf"
    echo "    content: |"
    echo "      MOUNT_POINT=/mnt/vexfs"
    echo "      LOG_LEVEL=info"
    echo "  - path: /etc/modules-load.d/vexfs.conf"
    echo "    content: vexfs"
    echo "  - path: /etc/systemd/system/vexfs.service"
    echo "    content: |"
    echo "      [Unit]"
    echo "      Description=VexFS"
    echo "      [Service]"
    echo "      Type=oneshot"
    echo "      RemainAfterExit=yes"
    echo "      ExecStart=/usr/bin/mkdir -p /mnt/vexfs"
    echo "      [Install]"
    echo "      WantedBy=multi-user.target"
    echo "runcmd:"
    echo "  - [systemctl, enable, vexfs.service]"
} > "$work/user-data"
printf 'instance-id: classic-%s\nlocal-hostname: vexfs\n' "$variant" > "$work/meta-data"
cloud-localds "$work/seed.iso" "$work/user-data" "$work/meta-data"

# The source. Debian's cloud kernel has no 9p, so an ISO takes the place of virtfs.
genisoimage -quiet -R -V SOURCE -o "$work/source.iso" "$source"

# Build VM
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
qemu-system-x86_64 -machine q35 -accel "${CLASSIC_ACCEL:-tcg}" \
    -m "${CLASSIC_MEMORY:-2048}" -smp "${CLASSIC_CPUS:-2}" -display none \
    -serial "file:$work/console.log" \
    -drive "file=$image,if=virtio,format=qcow2" \
    -drive "file=$work/seed.iso,if=virtio,format=raw,readonly=on" \
    -drive "file=$work/source.iso,if=virtio,format=raw,readonly=on" \
    -nic "user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:$port-:22" &
vm=$!
trap 'kill "$vm" 2> /dev/null || true' EXIT

in_guest() {
    ssh -F none -i "$work/key" -p "$port" -o BatchMode=yes -o ConnectTimeout=5 \
        -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR \
        -o ServerAliveInterval=15 -o ServerAliveCountMax=20 vexfs@127.0.0.1 "$@"
}

until in_guest true; do
    kill -0 "$vm" # QEMU died: no more waiting
    sleep 5
done
in_guest 'cloud-init status --wait > /dev/null || [ $? -eq 2 ]; ls /var/lib/cloud/instance/boot-finished'

# VexFS
in_guest 'bash -eux' << 'BUILD'
sudo mount -o ro /dev/vdc /mnt
cp -R /mnt ~/vexfs
chmod -R u+w ~/vexfs
cd ~/vexfs
make vm-build
sudo install -D -m 0644 vexfs.ko "/lib/modules/$(uname -r)/extra/vexfs/vexfs.ko"
sudo depmod
cargo build --release
sudo install -m 0755 target/release/vexctl /usr/local/bin/
sudo modprobe vexfs
vexctl --version
sync
BUILD
in_guest 'sudo poweroff' || true
wait "$vm"
trap - EXIT

# Image
cp "$image" "$final"
gzip -c "$final" > "$final.gz"
sha256sum "$final" > "$final.sha256"
sha256sum "$final.gz" > "$final.gz.sha256"
