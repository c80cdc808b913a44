/* zip.h: zip archives whose entries are stored as they are, which is what torch.save writes; read only.
 *
 *   [local header 30 + name + extra | data] ... | central directory 46 + name + extra + comment, an entry each | end 22 + comment
 *   zip64: sizes and offsets of 0xffffffff stand in the extra field 1; counts and the directory's place in a record named by a locator before the end
 *
 * Why this way: the central directory is the truth, as for unzip; a local header only says where the data begins and must agree in name and method.
 * Corner cases: compressed and encrypted entries, several disks, data that reaches into the directory, a name twice, more than 2^16 entries or 64 MiB
 * of directory are refused; the checksum of an entry is compared before its bytes are used; bytes before the first entry are allowed.
 * Reference: PKWARE APPNOTE 6.3. Worked number: CRC-32 of "123456789" is cbf43926.
 */
#ifndef LLMQ_SMOOTHQUANT_ZIP_H
#define LLMQ_SMOOTHQUANT_ZIP_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "smoothquant/stats_kind.h"

struct zip_entry {
    const char *name; /* NUL-terminated, no NUL inside */
    uint64_t offset, nbytes; /* of the data in the source */
    uint32_t crc;
    bool is_checked;
};

/* A zeroed struct is empty. */
struct zip {
    struct zip_entry *entries; /* in the order of the directory */
    size_t n_entries;
    struct name_table names;
    char *text; /* of all names */
};

/* Reads the directory. On failure *zip is empty. */
enum status zip_open(const struct stats_source *source, struct zip *zip, struct err *err);
void zip_close(struct zip *zip);

/* The entry with this name, or NULL. */
struct zip_entry *zip_find(struct zip *zip, const char *name);

/* ERR_MISMATCH when the data's checksum is another than the directory says; looks once. */
enum status zip_check(const struct stats_source *source, struct zip_entry *entry, struct err *err);

uint32_t zip_crc32(uint32_t crc, const uint8_t *bytes, size_t n); /* begins with crc 0 */

#endif
