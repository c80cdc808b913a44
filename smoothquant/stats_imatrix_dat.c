/* stats_imatrix_dat.c: the importance matrix of llama.cpp before GGUF ("legacy .dat").
 *
 *   i32 n_entries | entries | last chunk i32 | length i32, dataset          little-endian; the last three may be missing
 *   entry: i32 length, name | i32 n_calls | i32 n_values | n_values * f32   value = mean(x^2) * n_calls
 *   read:  in_sum2 = value * chunk, counts = n_calls * chunk                chunk = 512 tokens: the file does not say
 *   write: n_calls = ceil(largest count / chunk), value = in_sum2 * n_calls / count, one rounding to F32
 *
 * Why this way: with a chunk of a power of two both ways are exact, so that .dat -> .safetensors -> .gguf -> .dat gives the same bytes.
 * Corner cases: experts lie side by side in n_values, and the file does not say how many: they are read as one matrix (stats_split divides it);
 * experts no token reached are written as the value 1 * n_calls, which is llama.cpp's "no preference"; n_calls 0 is a count of 0; entries without
 * in_sum2 or counts and entries no token reached are left out.
 * Reference: llama.cpp tools/imatrix (save_imatrix_legacy, load_imatrix_legacy). Worked number: value 22.5, 365 calls: in_sum2 11520, counts
 * 186880, E[x^2] 0.0616438.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "container/shown.h"
#include "number/half.h"
#include "smoothquant/stats_kind.h"

#define ENTRY_NBYTES_MIN 17u /* length, one byte, n_calls, n_values, one value */
#define NAME_PROBED 200u
#define CHUNK_NBYTES ((size_t)64 * 1024)

static uint32_t little(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

/* ---- reading ---------------------------------------------------------------------------------------------------------------------- */

/* No magic: a possible number of entries, then a name of printable bytes. */
static bool probe(const struct stats_source *source, const uint8_t *head, size_t n_head)
{
    if (n_head < 4 + ENTRY_NBYTES_MIN) return false;
    uint32_t n_entries = little(head), n_name = little(head + 4);
    if (n_entries == 0 || n_entries > STATS_ENTRIES_MAX || n_entries > source->nbytes / ENTRY_NBYTES_MIN) return false;
    if (n_name == 0 || n_name > NAME_PROBED || n_name > n_head - 8) return false;
    for (uint32_t i = 0; i < n_name; i++)
        if (head[8 + i] <= 32 || head[8 + i] >= 127) return false;
    return true;
}

struct cursor {
    const struct stats_source *source;
    uint64_t at;
    uint8_t *bytes; /* CHUNK_NBYTES */
};

/* A count or length from low to high. */
static enum status take_i32(struct cursor *cursor, const char *what, uint32_t low, uint32_t high, uint32_t *out, struct err *err)
{
    uint8_t bytes[4];
    enum status status = stats_source_read(cursor->source, bytes, sizeof bytes, cursor->at, what, err);
    if (status != OK) return status;
    *out = little(bytes);
    if (*out < low || *out > high) return err_set(err, ERR_DATA, "%s is %lld, not from %u to %u", what, (long long)(int32_t)*out, low, high);
    cursor->at += sizeof bytes;
    return OK;
}

static enum status take_name(struct cursor *cursor, char **name, struct err *err)
{
    uint32_t n = 0;
    enum status status = take_i32(cursor, "the length of its name", 1, STATS_NAME_MAX, &n, err);
    if (status != OK) return status;
    char *copy = malloc((size_t)n + 1);
    if (!copy) return err_set(err, ERR_MEMORY, "out of memory for statistics");
    status = stats_source_read(cursor->source, copy, n, cursor->at, "its name", err);
    copy[status == OK ? n : 0] = '\0';
    if (status == OK && strlen(copy) != n) status = err_set(err, ERR_DATA, "its name has a NUL");
    if (status != OK) {
        free(copy);
        return status;
    }
    cursor->at += n;
    *name = copy;
    return OK;
}

static enum status take_values(struct cursor *cursor, struct stats_entry *entry, struct err *err)
{
    double *out = entry->values[STATS_SUM2];
    for (uint64_t at = 0; at < entry->n_in;) {
        size_t part = (size_t)size_min(entry->n_in - at, CHUNK_NBYTES / 4);
        enum status status = stats_source_read(cursor->source, cursor->bytes, part * 4, cursor->at, "its values", err);
        if (status != OK) return status;
        for (size_t i = 0; i < part; i++) out[at + i] = (double)f32_from_bits(little(cursor->bytes + 4 * i)) * STATS_CHUNK_DEFAULT;
        at += part;
        cursor->at += part * 4;
    }
    return OK;
}

static enum status take_body(struct cursor *cursor, const char *name, struct stats_set *set, struct err *err)
{
    uint32_t n_calls = 0, n_values = 0;
    size_t index = 0;
    enum status status = take_i32(cursor, "its number of calls", 0, INT32_MAX, &n_calls, err);
    if (status == OK) status = take_i32(cursor, "its number of values", 1, INT32_MAX, &n_values, err);
    if (status == OK && n_values > (cursor->source->nbytes - cursor->at) / 4)
        status =
            err_set(err, ERR_DATA, "it claims %u values, %llu bytes follow", n_values, (unsigned long long)(cursor->source->nbytes - cursor->at));
    if (status == OK) status = stats_add(set, name, 1, n_values, &index, err);
    if (status != OK) return status;
    struct stats_entry *entry = &set->entries[index];
    status = stats_make_field(set, entry, STATS_SUM2, err);
    if (status == OK) status = stats_make_counts(set, entry, err);
    if (status == OK) entry->counts[0] = (uint64_t)n_calls * STATS_CHUNK_DEFAULT;
    return status == OK ? take_values(cursor, entry, err) : status;
}

static enum status take_entry(struct cursor *cursor, uint32_t number, struct stats_set *set, struct err *err)
{
    char *name = NULL;
    enum status status = take_name(cursor, &name, err);
    if (status != OK) return err_wrap(err, status, "entry number %u", number);
    status = take_body(cursor, name, set, err);
    if (status != OK) status = err_wrap(err, status, "entry '%s'", shown_str(name).text);
    free(name);
    return status;
}

/* What stands behind the entries. */
static enum status take_trailer(struct cursor *cursor, struct stats_set *set, struct err *err)
{
    uint32_t chunks = 0, n = 0;
    if (cursor->at == cursor->source->nbytes) return OK;
    enum status status = take_i32(cursor, "the number of chunks behind the entries", 0, INT32_MAX, &chunks, err);
    if (status != OK) return status;
    set->chunk_count = chunks;
    if (cursor->at == cursor->source->nbytes) return OK;
    status = take_i32(cursor, "the length of the dataset's name", 0, 4096, &n, err);
    if (status == OK) status = stats_source_read(cursor->source, cursor->bytes, n, cursor->at, "the dataset's name", err);
    if (status == OK) status = stats_add_dataset(set, (const char *)cursor->bytes, n, err);
    cursor->at += n;
    if (status == OK && cursor->at != cursor->source->nbytes)
        status = err_set(err, ERR_DATA, "%llu bytes follow the dataset's name", (unsigned long long)(cursor->source->nbytes - cursor->at));
    return status;
}

static enum status read_set(const struct stats_source *source, struct stats_set *set, struct err *err)
{
    struct cursor cursor = { .source = source, .bytes = malloc(CHUNK_NBYTES) };
    uint32_t n = 0;
    if (!cursor.bytes) return err_set(err, ERR_MEMORY, "out of memory for statistics");
    enum status status = take_i32(&cursor, "its number of entries", 1, STATS_ENTRIES_MAX, &n, err);
    for (uint32_t i = 0; i < n && status == OK; i++) status = take_entry(&cursor, i, set, err);
    if (status == OK) status = take_trailer(&cursor, set, err);
    if (status == OK) status = stats_add_pair(set, "names", "gguf", err);
    set->chunk_size = STATS_CHUNK_DEFAULT;
    free(cursor.bytes);
    return status;
}

/* ---- writing ---------------------------------------------------------------------------------------------------------------------- */

static uint64_t largest_count(const struct stats_entry *entry)
{
    uint64_t most = 0;
    for (uint64_t m = 0; entry->counts && m < entry->n_mat; m++) most = size_max(most, entry->counts[m]);
    return most;
}

static bool can_hold(const struct stats_entry *entry)
{
    return entry->values[STATS_SUM2] && largest_count(entry) > 0;
}

static uint64_t other_fields(const struct stats_entry *entry)
{
    uint64_t n = (uint64_t)(entry->hist != NULL) + (entry->gram != NULL) + (entry->sample != NULL);
    for (size_t f = 0; f < STATS_FIELD_COUNT; f++) n += f != STATS_SUM2 && entry->values[f] != NULL;
    return n;
}

static enum status put_entry(const struct stats_set *set, const char *name, const struct stats_entry *entry, struct stats_out *out, struct err *err)
{
    uint64_t chunk = set->chunk_size ? set->chunk_size : STATS_CHUNK_DEFAULT, n_calls = size_ceil_div(largest_count(entry), chunk);
    uint64_t n_values = entry->n_mat * entry->n_in;
    if (n_calls > INT32_MAX || n_values > INT32_MAX)
        return err_set(err, ERR_UNSUPPORTED, "entry '%s' has %llu calls, %llu values: a .dat file holds 2^31-1", shown_str(name).text,
                       (unsigned long long)n_calls, (unsigned long long)n_values);
    stats_put_u32(out, (uint32_t)strlen(name));
    stats_put(out, name, strlen(name));
    stats_put_u32(out, (uint32_t)n_calls);
    stats_put_u32(out, (uint32_t)n_values);
    for (uint64_t i = 0; i < n_values; i++) {
        uint64_t count = entry->counts[i / entry->n_in];
        float value = (float)(count ? entry->values[STATS_SUM2][i] * (double)n_calls / (double)count : (double)n_calls);
        if (!isfinite(value)) return err_set(err, ERR_UNSUPPORTED, "entry '%s': in_sum2 of a channel is beyond F32", shown_str(name).text);
        stats_put_f32(out, value);
    }
    return out->status;
}

static void put_trailer(const struct stats_set *set, struct stats_out *out)
{
    if (set->chunk_count == UINT64_MAX && set->n_datasets == 0) return;
    stats_put_u32(out, set->chunk_count > INT32_MAX ? 0 : (uint32_t)set->chunk_count);
    if (set->n_datasets == 0) return;
    stats_put_u32(out, (uint32_t)strlen(set->datasets[0]));
    stats_put(out, set->datasets[0], strlen(set->datasets[0]));
}

static enum status write_set(const struct stats_set *set, struct stats_out *out, struct stats_left *left, struct err *err)
{
    uint64_t n = 0;
    enum status status = OK;
    for (size_t i = 0; i < set->n_entries; i++) {
        bool held = can_hold(&set->entries[i]);
        n += held;
        left->n_entries += !held;
        left->n_fields += held ? other_fields(&set->entries[i]) : 0;
    }
    for (size_t i = 0; i < set->n_aliases; i++) n += can_hold(&set->entries[set->aliases[i].entry]);
    if (n == 0) return err_set(err, ERR_UNSUPPORTED, "no entry has both in_sum2 and counts, which is what a .dat file holds");
    left->n_pairs = set->n_pairs + (set->n_datasets > 1 ? set->n_datasets - 1 : 0);
    stats_put_u32(out, (uint32_t)n);
    for (size_t i = 0; i < set->n_entries && status == OK; i++)
        if (can_hold(&set->entries[i])) status = put_entry(set, set->entries[i].name, &set->entries[i], out, err);
    for (size_t i = 0; i < set->n_aliases && status == OK; i++) {
        const struct stats_entry *entry = &set->entries[set->aliases[i].entry];
        if (can_hold(entry)) status = put_entry(set, set->aliases[i].name, entry, out, err);
    }
    if (status == OK) put_trailer(set, out);
    return status;
}

const struct stats_kind stats_kind_imatrix_dat = {
    .name = "imatrix-dat",
    .extension = ".dat",
    .description = "llama.cpp's importance matrix before GGUF: in_sum2 and one count an entry",
    .probe = probe,
    .read = read_set,
    .write = write_set,
};
