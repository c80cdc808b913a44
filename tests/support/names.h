/* names.h: the shipped map of names, open for a group of tests.
 *
 * Why this way: the tests of the map and of its users need the same one.
 * Corner cases: a map that does not open fails the group.
 * Reference: configs/names.yaml. Worked number: cmocka_run_group_tests(tests, open_map, close_map).
 */
#ifndef LLMQ_TESTS_NAMES_H
#define LLMQ_TESTS_NAMES_H

#include "smoothquant/name_map.h"
#include "support/support.h"

static struct err err;
static struct name_map *map;

static int open_map(void **state)
{
    (void)state;
    return name_map_open(&io_system, tests_path("../configs/names.yaml"), &map, &err) == OK ? 0 : -1;
}

static int close_map(void **state)
{
    (void)state;
    name_map_close(map);
    return 0;
}

#endif
