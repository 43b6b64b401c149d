/* tests/support/sysfs_tree.h - a tree of files and links out of a recording of tests/data/sysfs. */
#ifndef SLUICE_TESTS_SUPPORT_SYSFS_TREE_H
#define SLUICE_TESTS_SUPPORT_SYSFS_TREE_H

#include "io/status.h"

/* Make the tree of tests/data/sysfs/NAME.txt in `dir`. Links are as they were: relative. */
enum status sysfs_tree_make(const char *dir, const char *name, struct err *err);

/* One more file in a tree, or another text in one that is there. */
enum status sysfs_tree_file(const char *dir, const char *path, const char *text, struct err *err);

#endif
