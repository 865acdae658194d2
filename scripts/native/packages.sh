# Installs packages; follows apt.sh. Given by the caller as variables: PACKAGES (names), WORDS (for apt-get
# install). Nothing of this but the packages stays.
# Exit status 71: the archive has another kernel by now, which the packages go with.
# shellcheck shell=sh
set -eu

kernels=$(ls /lib/modules)
# shellcheck disable=SC2086 # these are words
install_packages $WORDS $PACKAGES
if [ "$(ls /lib/modules)" != "$kernels" ]; then
    echo "vmbake: these packages are for another kernel than $kernels: $(ls /lib/modules)" >&2
    exit 71
fi
rm -rf /var/lib/apt/lists/* /usr/sbin/policy-rc.d /var/cache/ldconfig/aux-cache
# As a base of vmbake has it (tasks/guest/rootfs.py): dpkg leaves out the files, and not the folders and links.
if [ -e /etc/dpkg/dpkg.cfg.d/50-vmbake-size ]; then
    find /usr/share/doc ! -type d ! -name copyright -delete
    find /usr/share/doc /usr/share/locale -mindepth 1 -type d -empty -delete
fi
