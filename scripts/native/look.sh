# Says what a disk is that vmbake did not make: kernel=, which is the one that its boot loader takes, as it was
# installed, of several the newest. Exit status 73: it can't be filled natively, the last line says why.
# shellcheck shell=sh
set -eu

unsupported() {
    echo "vmbake: $1" >&2
    exit 73
}

for program in apt-get dpkg cloud-init systemctl; do
    command -v "$program" > /dev/null || unsupported "there is no $program in it"
done
architecture=$(dpkg --print-architecture)
[ "$architecture" = amd64 ] || unsupported "its packages are for $architecture, not amd64"
kernel=$(
    cd /boot 2> /dev/null || exit 0
    for file in vmlinuz-*; do
        [ ! -d "/lib/modules/${file#vmlinuz-}" ] || echo "${file#vmlinuz-}"
    done | sort -V | tail -n 1
)
[ "$kernel" ] || unsupported "there is no kernel with its modules in it (/boot/vmlinuz-*, /lib/modules)"
echo "kernel=$kernel"
