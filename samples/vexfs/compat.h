/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What changed in the kernel's filesystem interface between 6.1 and 7.3, so that vexfs.c can be
 * written for the newest one. Include it last.
 */
#ifndef VEXFS_COMPAT_H
#define VEXFS_COMPAT_H

#include <linux/version.h>

/* 6.3: ID-mapped mounts got a type of their own. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
#define mnt_idmap user_namespace
#define nop_mnt_idmap init_user_ns
#endif

/* 6.5: new name. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 5, 0)
#define filemap_splice_read generic_file_splice_read
#endif

/* 6.15: mkdir may return another dentry than the one it was given; NULL: it did not. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 15, 0)
#define VEXFS_MKDIR_RESULT int
#define vexfs_mkdir_result(error) (error)
#else
#define VEXFS_MKDIR_RESULT struct dentry *
#define vexfs_mkdir_result(error) ERR_PTR(error)
#endif

/* 6.19: dentries that live without a user are marked; before, an extra reference kept them. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 19, 0)
#define d_make_persistent(dentry, inode) d_instantiate(dget(dentry), inode)
#define vexfs_kill_dentries_and_super kill_litter_super
#else
#define vexfs_kill_dentries_and_super kill_anon_super
#endif

/* 7.3: create is no longer told of O_EXCL. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(7, 3, 0)
#define VEXFS_CREATE_EXCL , bool excl
#else
#define VEXFS_CREATE_EXCL
#endif

#endif
