/* zip.c: the directory of a zip archive; see zip.h.
 *
 * Formula: the end record is the last place in the final 65,557 bytes with its signature whose comment reaches exactly to the end of the file.
 * Why this way: every offset is compared with the size of the source before it is used; the directory is read once, a local header once an entry.
 * Corner cases: see zip.h. An end record whose numbers are all ones needs the zip64 record; where both are there they must not contradict.
 * Reference: see zip.h. Worked number: an archive without entries has 22 bytes.
 */
#include "smoothquant/zip.h"

#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "container/shown.h"

#define END_NBYTES 22u
#define COMMENT_MAX 65535u
#define LOCATOR_NBYTES 20u
#define END64_NBYTES 56u
#define CENTRAL_NBYTES 46u
#define LOCAL_NBYTES 30u
#define DIRECTORY_MAX ((uint64_t)64 << 20)
#define ENTRIES_MAX 65536u
#define CHUNK_NBYTES ((size_t)64 * 1024)

static uint64_t little(const uint8_t *bytes, unsigned n)
{
    uint64_t out = 0;
    for (unsigned i = 0; i < n; i++) out |= (uint64_t)bytes[i] << (8 * i);
    return out;
}

uint32_t zip_crc32(uint32_t crc, const uint8_t *bytes, size_t n)
{
    static const uint32_t table[16] = { 0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
                                        0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c };
    crc = ~crc;
    for (size_t i = 0; i < n; i++) {
        crc = table[(crc ^ bytes[i]) & 15] ^ crc >> 4;
        crc = table[(crc ^ (uint32_t)bytes[i] >> 4) & 15] ^ crc >> 4;
    }
    return ~crc;
}

/* Where the directory is, as the end record says. */
struct directory {
    uint64_t offset, nbytes, n_entries;
};

/* Finds the end record; *at is its offset. */
static enum status find_end(const struct stats_source *source, uint64_t *at, uint8_t record[END_NBYTES], struct err *err)
{
    size_t n = (size_t)size_min(source->nbytes, END_NBYTES + COMMENT_MAX);
    uint8_t *tail = malloc(n + 1);
    if (!tail) return err_set(err, ERR_MEMORY, "out of memory");
    enum status status = stats_source_read(source, tail, n, source->nbytes - n, "its end", err);
    bool found = false;
    for (size_t i = n < END_NBYTES ? 0 : n - END_NBYTES + 1; status == OK && i > 0 && !found; i--) {
        const uint8_t *place = tail + i - 1;
        found = memcmp(place, "PK\5\6", 4) == 0 && little(place + 20, 2) == n - (i - 1) - END_NBYTES;
        if (!found) continue;
        *at = source->nbytes - n + (i - 1);
        memcpy(record, place, END_NBYTES);
    }
    free(tail);
    if (status == OK && !found) return err_set(err, ERR_DATA, "it begins as a zip file and has no end record: it is truncated");
    return status;
}

static enum status read_end64(const struct stats_source *source, uint64_t end, struct directory *directory, bool *found, struct err *err)
{
    uint8_t locator[LOCATOR_NBYTES], record[END64_NBYTES];
    *found = false;
    if (end < LOCATOR_NBYTES) return OK;
    enum status status = stats_source_read(source, locator, sizeof locator, end - LOCATOR_NBYTES, "its zip64 locator", err);
    if (status != OK || memcmp(locator, "PK\6\7", 4) != 0) return status;
    status = stats_source_read(source, record, sizeof record, little(locator + 8, 8), "its zip64 end record", err);
    if (status != OK) return status;
    if (memcmp(record, "PK\6\6", 4) != 0) return err_set(err, ERR_DATA, "its zip64 locator does not lead to an end record");
    if (little(record + 16, 4) != 0 || little(record + 20, 4) != 0) return err_set(err, ERR_UNSUPPORTED, "it is a zip file of several disks");
    *directory = (struct directory){ little(record + 48, 8), little(record + 40, 8), little(record + 32, 8) };
    *found = true;
    return OK;
}

static enum status find_directory(const struct stats_source *source, struct directory *directory, struct err *err)
{
    uint8_t record[END_NBYTES] = { 0 };
    uint64_t end = 0;
    bool is64 = false;
    enum status status = find_end(source, &end, record, err);
    if (status == OK) status = read_end64(source, end, directory, &is64, err);
    if (status != OK) return status;
    if (!is64) {
        if (little(record + 4, 4) != 0) return err_set(err, ERR_UNSUPPORTED, "it is a zip file of several disks");
        *directory = (struct directory){ little(record + 16, 4), little(record + 12, 4), little(record + 10, 2) };
    }
    if (directory->offset > end || directory->nbytes > end - directory->offset)
        return err_set(err, ERR_DATA, "its directory of %llu bytes at %llu reaches beyond the end record at %llu",
                       (unsigned long long)directory->nbytes, (unsigned long long)directory->offset, (unsigned long long)end);
    if (directory->nbytes > DIRECTORY_MAX || directory->n_entries > ENTRIES_MAX)
        return err_set(err, ERR_UNSUPPORTED, "its directory has %llu bytes, %llu entries: more than the limit", (unsigned long long)directory->nbytes,
                       (unsigned long long)directory->n_entries);
    if (directory->n_entries > directory->nbytes / CENTRAL_NBYTES)
        return err_set(err, ERR_DATA, "it claims %llu entries, its directory has %llu bytes", (unsigned long long)directory->n_entries,
                       (unsigned long long)directory->nbytes);
    return OK;
}

/* ---- entries ---------------------------------------------------------------------------------------------------------------------- */

/* The sizes of an entry; those that are all ones stand in the extra field 1, in this order. */
struct sizes {
    uint64_t raw, stored, local;
};

static enum status read_extra(const uint8_t *extra, size_t n, struct sizes *sizes, struct err *err)
{
    uint64_t *const wide[] = { &sizes->raw, &sizes->stored, &sizes->local };
    for (size_t at = 0; at + 4 <= n;) {
        size_t id = (size_t)little(extra + at, 2), length = (size_t)little(extra + at + 2, 2);
        at += 4;
        if (length > n - at) return err_set(err, ERR_DATA, "its extra field is cut");
        for (size_t i = 0, used = 0; id == 1 && i < 3; i++) {
            if (*wide[i] != UINT32_MAX) continue;
            if (used + 8 > length) return err_set(err, ERR_DATA, "its zip64 sizes are missing");
            *wide[i] = little(extra + at + used, 8);
            used += 8;
        }
        if (id == 1) return OK;
        at += length;
    }
    for (size_t i = 0; i < 3; i++)
        if (*wide[i] == UINT32_MAX) return err_set(err, ERR_DATA, "its zip64 sizes are missing");
    return OK;
}

/* Sets the offset of the data; the local header must agree. */
static enum status read_local(const struct stats_source *source, const struct directory *directory, uint64_t local, struct zip_entry *entry,
                              struct err *err)
{
    uint8_t head[LOCAL_NBYTES];
    char name[256];
    size_t n = strlen(entry->name);
    enum status status = stats_source_read(source, head, sizeof head, local, "its local header", err);
    if (status != OK) return status;
    if (memcmp(head, "PK\3\4", 4) != 0 || little(head + 8, 2) != 0 || little(head + 26, 2) != n || n >= sizeof name)
        return err_set(err, ERR_DATA, "its local header contradicts the directory");
    status = stats_source_read(source, name, n, local + LOCAL_NBYTES, "its local name", err);
    if (status != OK) return status;
    if (memcmp(name, entry->name, n) != 0) return err_set(err, ERR_DATA, "its local header has another name");
    entry->offset = local + LOCAL_NBYTES + n + little(head + 28, 2);
    if (entry->offset > directory->offset || entry->nbytes > directory->offset - entry->offset)
        return err_set(err, ERR_DATA, "its %llu bytes at %llu reach into the directory", (unsigned long long)entry->nbytes,
                       (unsigned long long)entry->offset);
    return OK;
}

/* One entry of the directory; *used is its length. text takes the name. */
static enum status read_entry(const struct stats_source *source, const struct directory *directory, const uint8_t *bytes, size_t n, char *text,
                              struct zip_entry *entry, size_t *used, struct err *err)
{
    if (n < CENTRAL_NBYTES || memcmp(bytes, "PK\1\2", 4) != 0) return err_set(err, ERR_DATA, "its directory is damaged");
    size_t n_name = (size_t)little(bytes + 28, 2), n_extra = (size_t)little(bytes + 30, 2);
    *used = CENTRAL_NBYTES + n_name + n_extra + (size_t)little(bytes + 32, 2);
    if (*used > n) return err_set(err, ERR_DATA, "its directory ends inside an entry");
    memcpy(text, bytes + CENTRAL_NBYTES, n_name);
    text[n_name] = '\0';
    if (n_name == 0 || n_name > 255 || strlen(text) != n_name) return err_set(err, ERR_DATA, "the name '%s' of an entry", shown(text, n_name).text);
    struct sizes sizes = { little(bytes + 24, 4), little(bytes + 20, 4), little(bytes + 42, 4) };
    enum status status = read_extra(bytes + CENTRAL_NBYTES + n_name, n_extra, &sizes, err);
    if (status == OK && little(bytes + 10, 2) != 0)
        status = err_set(err, ERR_UNSUPPORTED, "it is compressed (method %u)", (unsigned)little(bytes + 10, 2));
    if (status == OK && (bytes[8] & 1)) status = err_set(err, ERR_UNSUPPORTED, "it is encrypted");
    if (status == OK && sizes.raw != sizes.stored) status = err_set(err, ERR_DATA, "it is stored, in two sizes");
    *entry = (struct zip_entry){ .name = text, .nbytes = sizes.stored, .crc = (uint32_t)little(bytes + 16, 4) };
    if (status == OK) status = read_local(source, directory, sizes.local, entry, err);
    return status == OK ? OK : err_wrap(err, status, "entry '%s'", shown(text, n_name).text);
}

static enum status read_entries(const struct stats_source *source, const struct directory *directory, const uint8_t *bytes, struct zip *zip,
                                struct err *err)
{
    size_t n = (size_t)directory->nbytes, at = 0, text = 0;
    for (uint64_t i = 0; i < directory->n_entries; i++) {
        struct zip_entry *entry = &zip->entries[zip->n_entries];
        size_t used = 0, index = 0;
        enum status status = read_entry(source, directory, bytes + at, n - at, zip->text + text, entry, &used, err);
        if (status == OK) status = name_table_add(&zip->names, entry->name, &index, err);
        if (status != OK) return status;
        if (index != zip->n_entries) return err_set(err, ERR_DATA, "entry '%s' is there twice", shown_str(entry->name).text);
        text += strlen(entry->name) + 1;
        at += used;
        zip->n_entries++;
    }
    return at == n ? OK : err_set(err, ERR_DATA, "%zu bytes follow the entries of its directory", n - at);
}

enum status zip_open(const struct stats_source *source, struct zip *zip, struct err *err)
{
    struct directory directory = { 0 };
    *zip = (struct zip){ 0 };
    enum status status = find_directory(source, &directory, err);
    if (status != OK) return status;
    uint8_t *bytes = malloc((size_t)directory.nbytes + 1);
    zip->text = malloc((size_t)directory.nbytes + 1); /* an entry has 46 bytes besides its name */
    zip->entries = calloc((size_t)directory.n_entries + 1, sizeof *zip->entries);
    if (!bytes || !zip->text || !zip->entries) status = err_set(err, ERR_MEMORY, "out of memory");
    if (status == OK) status = stats_source_read(source, bytes, (size_t)directory.nbytes, directory.offset, "its directory", err);
    if (status == OK) status = read_entries(source, &directory, bytes, zip, err);
    free(bytes);
    if (status != OK) zip_close(zip);
    return status;
}

void zip_close(struct zip *zip)
{
    if (!zip) return;
    name_table_free(&zip->names);
    free(zip->entries);
    free(zip->text);
    *zip = (struct zip){ 0 };
}

struct zip_entry *zip_find(struct zip *zip, const char *name)
{
    size_t index = name_table_find(&zip->names, name);
    return index == SIZE_MAX ? NULL : &zip->entries[index];
}

enum status zip_check(const struct stats_source *source, struct zip_entry *entry, struct err *err)
{
    uint32_t crc = 0;
    if (entry->is_checked) return OK;
    uint8_t *bytes = malloc(CHUNK_NBYTES);
    enum status status = bytes ? OK : err_set(err, ERR_MEMORY, "out of memory");
    for (uint64_t at = 0; at < entry->nbytes && status == OK;) {
        size_t n = (size_t)size_min(entry->nbytes - at, CHUNK_NBYTES);
        status = stats_source_read(source, bytes, n, entry->offset + at, "its data", err);
        if (status == OK) crc = zip_crc32(crc, bytes, n);
        at += n;
    }
    free(bytes);
    entry->is_checked = status == OK;
    if (status == OK && crc != entry->crc)
        return err_set(err, ERR_MISMATCH, "entry '%s': its checksum is %08x, the directory says %08x", shown_str(entry->name).text, crc, entry->crc);
    return status;
}
