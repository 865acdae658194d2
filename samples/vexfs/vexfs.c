// SPDX-License-Identifier: GPL-2.0-only
/*
 * vexfs: a small filesystem in memory with a hard limit.
 *
 * Names live in the dentry cache and data in the page cache, neither of which is ever dropped
 * before the file is deleted. What vexfs adds is accounting: each object costs one block, and each
 * file as many blocks as its size needs, holes included. A write therefore fails with ENOSPC when
 * it extends a file, and never later, not even through mmap.
 *
 * A block is a page. A file's blocks are recorded in i_blocks, under its inode lock.
 */
#include <linux/fs.h>
#include <linux/fs_context.h>
#include <linux/fs_parser.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pagemap.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/statfs.h>
#include <linux/uio.h>

#include "compat.h"

#ifndef VEXFS_VERSION
#error "Build with make: Kbuild defines VEXFS_VERSION"
#endif

#define VEXFS_MAGIC 0x56455846 /* "VEXF" */
#define VEXFS_DEFAULT_MODE 0755
#define VEXFS_SECTOR_SHIFT (PAGE_SHIFT - 9) /* i_blocks counts 512 bytes */

struct vexfs_super {
	struct super_block *sb;
	struct list_head mounted; /* in vexfs_mounted */
	umode_t mode;             /* of the root directory */
	spinlock_t lock;          /* for the two below */
	u64 limit_blocks;
	u64 used_blocks;
};

static LIST_HEAD(vexfs_mounted);
static DEFINE_MUTEX(vexfs_mounted_lock);

static const struct inode_operations vexfs_dir_iops;
static const struct inode_operations vexfs_file_iops;
static const struct file_operations vexfs_file_fops;

static struct vexfs_super *vexfs_super(const struct super_block *sb)
{
	return sb->s_fs_info;
}

/* ---- accounting ------------------------------------------------------------------------- */

/* Take `most` blocks, or as many of them as are free; nothing if that is less than `least`. */
static u64 vexfs_take(struct vexfs_super *vs, u64 least, u64 most)
{
	u64 taken;

	spin_lock(&vs->lock);
	taken = min(most, vs->limit_blocks - vs->used_blocks);
	if (taken < least)
		taken = 0;
	vs->used_blocks += taken;
	spin_unlock(&vs->lock);
	return taken;
}

static void vexfs_give_back(struct vexfs_super *vs, u64 blocks)
{
	spin_lock(&vs->lock);
	vs->used_blocks -= blocks;
	spin_unlock(&vs->lock);
}

static u64 vexfs_blocks_for(loff_t size)
{
	return ((u64)size + PAGE_SIZE - 1) >> PAGE_SHIFT;
}

static u64 vexfs_blocks_of(const struct inode *inode)
{
	return inode->i_blocks >> VEXFS_SECTOR_SHIFT;
}

/*
 * Before a file grows: reserve blocks up to the size `most`, or as far as there is room.
 * Returns the size that is reserved, or -ENOSPC, with nothing reserved, if it is below `least`.
 */
static loff_t vexfs_reserve(struct inode *inode, loff_t least, loff_t most)
{
	u64 have = vexfs_blocks_of(inode);
	u64 need = max(have, vexfs_blocks_for(least)) - have;
	u64 want = max(have, vexfs_blocks_for(most)) - have;
	u64 taken = want ? vexfs_take(vexfs_super(inode->i_sb), need, want) : 0;

	if (taken < need)
		return -ENOSPC;
	inode->i_blocks += taken << VEXFS_SECTOR_SHIFT;
	return taken < want ? (loff_t)((have + taken) << PAGE_SHIFT) : most;
}

/* After a file's size changed, or should have: give back what its size doesn't need. */
static void vexfs_settle(struct inode *inode)
{
	u64 excess = vexfs_blocks_of(inode) - vexfs_blocks_for(i_size_read(inode));

	vexfs_give_back(vexfs_super(inode->i_sb), excess);
	inode->i_blocks -= excess << VEXFS_SECTOR_SHIFT;
}

/* ---- inodes ----------------------------------------------------------------------------- */

/* Set the times that `which` (ATTR_ATIME, ...) names to now. */
static void vexfs_stamp(struct inode *inode, unsigned int which)
{
	struct iattr now = { .ia_valid = which };

	now.ia_atime = now.ia_mtime = now.ia_ctime = current_time(inode);
	setattr_copy(&nop_mnt_idmap, inode, &now);
}

static struct inode *vexfs_new_inode(struct super_block *sb, const struct inode *dir,
				     umode_t mode, dev_t dev)
{
	struct inode *inode;

	if (!vexfs_take(vexfs_super(sb), 1, 1))
		return ERR_PTR(-ENOSPC);
	inode = new_inode(sb);
	if (!inode) {
		vexfs_give_back(vexfs_super(sb), 1);
		return ERR_PTR(-ENOMEM);
	}
	inode->i_ino = get_next_ino();
	inode_init_owner(&nop_mnt_idmap, inode, dir, mode);
	inode->i_mapping->a_ops = &ram_aops;
	mapping_set_gfp_mask(inode->i_mapping, GFP_HIGHUSER);
	mapping_set_unevictable(inode->i_mapping);
	vexfs_stamp(inode, ATTR_ATIME | ATTR_MTIME | ATTR_CTIME);

	switch (mode & S_IFMT) {
	case S_IFREG:
		inode->i_op = &vexfs_file_iops;
		inode->i_fop = &vexfs_file_fops;
		break;
	case S_IFDIR:
		inode->i_op = &vexfs_dir_iops;
		inode->i_fop = &simple_dir_operations;
		inc_nlink(inode); /* its own "." */
		break;
	case S_IFLNK:
		inode->i_op = &simple_symlink_inode_operations;
		break;
	default:
		init_special_inode(inode, mode, dev);
	}
	return inode;
}

/* The last link and the last user are gone: so are the data and what they cost. */
static void vexfs_evict_inode(struct inode *inode)
{
	truncate_inode_pages_final(&inode->i_data);
	clear_inode(inode);
	vexfs_give_back(vexfs_super(inode->i_sb), 1 + vexfs_blocks_of(inode));
}

/* Runs after an RCU grace period: a path walk may be reading the link's target until then. */
static void vexfs_free_inode(struct inode *inode)
{
	if (S_ISLNK(inode->i_mode))
		kfree(inode->i_link);
	free_inode_nonrcu(inode);
}

/* ---- directories ------------------------------------------------------------------------ */

static int vexfs_add(struct inode *dir, struct dentry *dentry, umode_t mode, dev_t dev)
{
	struct inode *inode = vexfs_new_inode(dir->i_sb, dir, mode, dev);

	if (IS_ERR(inode))
		return PTR_ERR(inode);
	d_make_persistent(dentry, inode);
	vexfs_stamp(dir, ATTR_MTIME | ATTR_CTIME);
	return 0;
}

static int vexfs_create(struct mnt_idmap *idmap, struct inode *dir, struct dentry *dentry,
			umode_t mode VEXFS_CREATE_EXCL)
{
	return vexfs_add(dir, dentry, mode | S_IFREG, 0);
}

static int vexfs_mknod(struct mnt_idmap *idmap, struct inode *dir, struct dentry *dentry,
		       umode_t mode, dev_t dev)
{
	return vexfs_add(dir, dentry, mode, dev);
}

static VEXFS_MKDIR_RESULT vexfs_mkdir(struct mnt_idmap *idmap, struct inode *dir,
				      struct dentry *dentry, umode_t mode)
{
	int error = vexfs_add(dir, dentry, mode | S_IFDIR, 0);

	if (!error)
		inc_nlink(dir); /* the new directory's ".." */
	return vexfs_mkdir_result(error);
}

static int vexfs_symlink(struct mnt_idmap *idmap, struct inode *dir, struct dentry *dentry,
			 const char *target)
{
	struct inode *inode;
	char *copy = kstrdup(target, GFP_KERNEL_ACCOUNT);

	if (!copy)
		return -ENOMEM;
	inode = vexfs_new_inode(dir->i_sb, dir, S_IFLNK | 0777, 0);
	if (IS_ERR(inode)) {
		kfree(copy);
		return PTR_ERR(inode);
	}
	inode->i_link = copy;
	i_size_write(inode, strlen(copy));
	d_make_persistent(dentry, inode);
	vexfs_stamp(dir, ATTR_MTIME | ATTR_CTIME);
	return 0;
}

static const struct inode_operations vexfs_dir_iops = {
	.lookup = simple_lookup,
	.create = vexfs_create,
	.mkdir = vexfs_mkdir,
	.mknod = vexfs_mknod,
	.symlink = vexfs_symlink,
	.link = simple_link,
	.unlink = simple_unlink,
	.rmdir = simple_rmdir,
	.rename = simple_rename,
};

/* ---- files ------------------------------------------------------------------------------ */

static int vexfs_setattr(struct mnt_idmap *idmap, struct dentry *dentry, struct iattr *attr)
{
	struct inode *inode = d_inode(dentry);
	int error;

	if (!(attr->ia_valid & ATTR_SIZE))
		return simple_setattr(idmap, dentry, attr);
	if (vexfs_reserve(inode, attr->ia_size, attr->ia_size) < 0)
		return -ENOSPC;
	error = simple_setattr(idmap, dentry, attr);
	vexfs_settle(inode);
	return error;
}

/* Write what there is room for: at the limit a write is short, and the next one fails. */
static ssize_t vexfs_write_iter(struct kiocb *iocb, struct iov_iter *from)
{
	struct inode *inode = file_inode(iocb->ki_filp);
	loff_t end;
	ssize_t done;

	inode_lock(inode);
	done = generic_write_checks(iocb, from);
	if (done > 0) {
		end = vexfs_reserve(inode, iocb->ki_pos + 1, iocb->ki_pos + done);
		if (end < 0) {
			done = end;
		} else {
			iov_iter_truncate(from, end - iocb->ki_pos);
			done = __generic_file_write_iter(iocb, from);
			vexfs_settle(inode);
		}
	}
	inode_unlock(inode);
	return done;
}

static const struct inode_operations vexfs_file_iops = {
	.setattr = vexfs_setattr,
};

static const struct file_operations vexfs_file_fops = {
	.llseek = generic_file_llseek,
	.read_iter = generic_file_read_iter,
	.write_iter = vexfs_write_iter,
	.mmap = generic_file_mmap,
	.fsync = noop_fsync,
	.splice_read = filemap_splice_read,
	.splice_write = iter_file_splice_write,
};

/* ---- mounts ----------------------------------------------------------------------------- */

static int vexfs_statfs(struct dentry *dentry, struct kstatfs *buf)
{
	struct vexfs_super *vs = vexfs_super(dentry->d_sb);
	int error = simple_statfs(dentry, buf);

	spin_lock(&vs->lock);
	buf->f_blocks = vs->limit_blocks;
	buf->f_bfree = buf->f_bavail = vs->limit_blocks - vs->used_blocks;
	spin_unlock(&vs->lock);
	return error;
}

static int vexfs_show_options(struct seq_file *m, struct dentry *root)
{
	struct vexfs_super *vs = vexfs_super(root->d_sb);

	seq_printf(m, ",size=%lluk,mode=%03o", vs->limit_blocks << (PAGE_SHIFT - 10), vs->mode);
	return 0;
}

static const struct super_operations vexfs_super_ops = {
	.evict_inode = vexfs_evict_inode,
	.free_inode = vexfs_free_inode,
	.statfs = vexfs_statfs,
	.show_options = vexfs_show_options,
};

enum { OPT_SIZE, OPT_MODE };

static const struct fs_parameter_spec vexfs_parameters[] = {
	fsparam_string("size", OPT_SIZE),
	fsparam_u32oct("mode", OPT_MODE),
	{}
};

static int vexfs_parse_param(struct fs_context *fc, struct fs_parameter *param)
{
	struct vexfs_super *vs = fc->s_fs_info;
	struct fs_parse_result result;
	char *rest;
	u64 size;
	int opt = fs_parse(fc, vexfs_parameters, param, &result);

	switch (opt) {
	case OPT_SIZE:
		size = memparse(param->string, &rest);
		if (*rest || !size)
			return invalfc(fc, "size=%s: expected bytes, or a number with k, m or g",
				       param->string);
		vs->limit_blocks = (size >> PAGE_SHIFT) + !!(size & ~PAGE_MASK);
		return 0;
	case OPT_MODE:
		vs->mode = result.uint_32 & S_IALLUGO;
		return 0;
	default:
		return opt;
	}
}

static int vexfs_fill_super(struct super_block *sb, struct fs_context *fc)
{
	struct vexfs_super *vs = vexfs_super(sb);
	struct inode *root;

	sb->s_maxbytes = MAX_LFS_FILESIZE;
	sb->s_blocksize = PAGE_SIZE;
	sb->s_blocksize_bits = PAGE_SHIFT;
	sb->s_magic = VEXFS_MAGIC;
	sb->s_op = &vexfs_super_ops;
	sb->s_time_gran = 1;

	root = vexfs_new_inode(sb, NULL, S_IFDIR | vs->mode, 0);
	if (IS_ERR(root))
		return PTR_ERR(root);
	sb->s_root = d_make_root(root);
	if (!sb->s_root)
		return -ENOMEM;

	vs->sb = sb;
	mutex_lock(&vexfs_mounted_lock);
	list_add_tail(&vs->mounted, &vexfs_mounted);
	mutex_unlock(&vexfs_mounted_lock);
	return 0;
}

static int vexfs_get_tree(struct fs_context *fc)
{
	return get_tree_nodev(fc, vexfs_fill_super);
}

/* mount -o remount,size=...: the limit may go anywhere but below what is used. */
static int vexfs_reconfigure(struct fs_context *fc)
{
	struct vexfs_super *vs = vexfs_super(fc->root->d_sb);
	const struct vexfs_super *wanted = fc->s_fs_info;
	bool fits;

	spin_lock(&vs->lock);
	fits = wanted->limit_blocks >= vs->used_blocks;
	if (fits)
		vs->limit_blocks = wanted->limit_blocks;
	spin_unlock(&vs->lock);
	return fits ? 0 : invalfc(fc, "size: more than that is in use");
}

static void vexfs_free_context(struct fs_context *fc)
{
	kfree(fc->s_fs_info);
}

static const struct fs_context_operations vexfs_context_ops = {
	.parse_param = vexfs_parse_param,
	.get_tree = vexfs_get_tree,
	.reconfigure = vexfs_reconfigure,
	.free = vexfs_free_context,
};

static int vexfs_init_fs_context(struct fs_context *fc)
{
	struct vexfs_super *vs = kzalloc(sizeof(*vs), GFP_KERNEL);

	if (!vs)
		return -ENOMEM;
	INIT_LIST_HEAD(&vs->mounted);
	spin_lock_init(&vs->lock);
	vs->mode = VEXFS_DEFAULT_MODE;
	if (fc->purpose == FS_CONTEXT_FOR_RECONFIGURE)
		vs->limit_blocks = vexfs_super(fc->root->d_sb)->limit_blocks;
	else
		vs->limit_blocks = totalram_pages() / 2;
	fc->s_fs_info = vs;
	fc->ops = &vexfs_context_ops;
	return 0;
}

static void vexfs_kill_super(struct super_block *sb)
{
	struct vexfs_super *vs = vexfs_super(sb);

	mutex_lock(&vexfs_mounted_lock);
	list_del_init(&vs->mounted);
	mutex_unlock(&vexfs_mounted_lock);
	vexfs_kill_dentries_and_super(sb);
	WARN_ON_ONCE(vs->used_blocks); /* every inode has given back what it took */
	kfree(vs);
}

static struct file_system_type vexfs_type = {
	.owner = THIS_MODULE,
	.name = "vexfs",
	.init_fs_context = vexfs_init_fs_context,
	.parameters = vexfs_parameters,
	.kill_sb = vexfs_kill_super,
};

/* ---- /proc/fs/vexfs/status and the module ----------------------------------------------- */

/* One line with the version, then one for each filesystem; vexctl reads it. */
static int vexfs_show_status(struct seq_file *m, void *unused)
{
	struct vexfs_super *vs;

	seq_printf(m, "version %s\n", VEXFS_VERSION);
	mutex_lock(&vexfs_mounted_lock);
	list_for_each_entry(vs, &vexfs_mounted, mounted) {
		u64 used, limit;

		spin_lock(&vs->lock);
		used = vs->used_blocks << PAGE_SHIFT;
		limit = vs->limit_blocks << PAGE_SHIFT;
		spin_unlock(&vs->lock);
		seq_printf(m, "mount %u:%u used %llu limit %llu\n", MAJOR(vs->sb->s_dev),
			   MINOR(vs->sb->s_dev), used, limit);
	}
	mutex_unlock(&vexfs_mounted_lock);
	return 0;
}

static int __init vexfs_init(void)
{
	struct proc_dir_entry *dir = proc_mkdir("fs/vexfs", NULL);
	int error = -ENOMEM;

	if (dir && proc_create_single("status", 0444, dir, vexfs_show_status))
		error = register_filesystem(&vexfs_type);
	if (error)
		remove_proc_subtree("fs/vexfs", NULL);
	return error;
}

static void __exit vexfs_exit(void)
{
	unregister_filesystem(&vexfs_type);
	remove_proc_subtree("fs/vexfs", NULL);
	rcu_barrier(); /* vexfs_free_inode may still be due */
}

module_init(vexfs_init);
module_exit(vexfs_exit);

MODULE_DESCRIPTION("A small filesystem in memory with a hard limit");
MODULE_LICENSE("GPL");
MODULE_VERSION(VEXFS_VERSION);
MODULE_ALIAS_FS("vexfs");
