# Brings a machine that goes on from a checkpoint into the present: its clock, its random numbers.
# NOW (seconds since 1970) and ENTROPY (hexadecimal) are set before this.
# shellcheck shell=sh
set -eu

date -u -s "@$NOW" > /dev/null
# Mixed in, and used at once: RNDRESEEDCRNG of linux/random.h. Newer kernels do as much by themselves
# when they notice that they were copied (vmgenid), but Debian's cloud kernel 6.1 has no driver for it.
printf %s "$ENTROPY" | perl -e '
    open(my $random, "+>", "/dev/urandom") or die;
    syswrite($random, pack("H*", <STDIN>)) && ioctl($random, 0x5207, 0) or die "no new entropy: $!\n"'
