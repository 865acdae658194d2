"""Machines under QEMU: accelerators, command lines, QMP, disk images, snapshots."""
