/* smooth_cache.h: whether so many bytes may be kept in memory: the counterpart of the reference's enough_memo_store_scale.
 *
 *   room = min( MemAvailable, limit - (usage - inactive file pages) of each cgroup above the process, max_ram )        fits: nbytes <= room
 *
 * Why this way: MemAvailable alone is that of the host, a container is killed long before; a budget that the user set counts whatever there is. Pages of
 * files that were read once count as usage of a cgroup and are given back on demand: a converter that streams a model fills its cgroup with them.
 * Corner cases: what cannot be read sets no limit (all unreadable: only max_ram does); a limit "max" is none; usage above the limit is room 0.
 * Reference: proc(5), cgroup v2 memory.max, memory.current, memory.stat, cgroup v1 memory.limit_in_bytes. Worked number: MemAvailable 8 GiB, limit 2 GiB, usage 1.5
 * GiB, max_ram 0: room 512 MiB.
 */
#ifndef LLMQ_SMOOTHQUANT_SMOOTH_CACHE_H
#define LLMQ_SMOOTHQUANT_SMOOTH_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/io.h"

/* Bytes that may still be taken; max_ram 0: no budget. root is put before the paths, "" for the system's own. UINT64_MAX: nothing sets a limit. */
uint64_t smooth_cache_room(const struct io_calls *io, const char *root, uint64_t max_ram);

/* True when nbytes fit into that room of the system. */
bool smooth_cache_fits(uint64_t nbytes, uint64_t max_ram);

#endif
