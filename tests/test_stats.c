/* test_stats.c: the set in memory: adding, finding, checking, deriving, sorting, dividing, merging.
 *
 * Formula: x = 3, -4, 0 in one channel: in_sum2 25, in_sumabs 7, counts 3, rms 2.886751345948129, mean |x| 2.3333333333333335.
 * Why this way: numbers by hand; merged values are compared exactly, in every order of the files.
 * Corner cases: the cap of memory, a name that is there twice, overflow of counts and sums, shapes that differ, fields that one side lacks.
 * Reference: smoothquant/STATS.md; the project's smoothing notes 6b.
 */
#include "support/support.h"

#include <math.h>

#include "smoothquant/stats.h"
#include "smoothquant/stats_kind.h"
#include "smoothquant/stats_merge.h"

static struct err err;

/* An entry with in_sum2 (and in_absmax) = from, from + 1, ... and counts. */
static struct stats_entry *add(struct stats_set *set, const char *name, uint64_t n_mat, uint64_t n_in, double from, uint64_t count)
{
    size_t index = 0;
    assert_ok(stats_add(set, name, n_mat, n_in, &index, &err));
    struct stats_entry *entry = &set->entries[index];
    assert_ok(stats_make_field(set, entry, STATS_SUM2, &err));
    assert_ok(stats_make_field(set, entry, STATS_ABSMAX, &err));
    assert_ok(stats_make_counts(set, entry, &err));
    for (uint64_t i = 0; i < n_mat * n_in; i++) entry->values[STATS_SUM2][i] = entry->values[STATS_ABSMAX][i] = from + (double)i;
    for (uint64_t m = 0; m < n_mat; m++) entry->counts[m] = count;
    return entry;
}

static struct stats_set *new_set(void)
{
    struct stats_set *set = stats_new(0);
    assert_non_null(set);
    return set;
}

static void test_derive(void **state)
{
    (void)state;
    struct stats_set *set = new_set();
    size_t index = 0;
    double out[2] = { -1, -1 };
    assert_ok(stats_add(set, "w", 2, 1, &index, &err));
    struct stats_entry *entry = &set->entries[index];
    assert_false(stats_derive(entry, STATS_RMS, 0, out));
    assert_ok(stats_make_field(set, entry, STATS_SUM2, &err));
    assert_false(stats_derive(entry, STATS_RMS, 0, out)); /* no counts */
    assert_ok(stats_make_counts(set, entry, &err));
    assert_ok(stats_make_field(set, entry, STATS_SUMABS, &err));
    assert_ok(stats_make_field(set, entry, STATS_MIN, &err));
    assert_false(stats_derive(entry, STATS_ABS_MAX, 0, out));
    assert_ok(stats_make_field(set, entry, STATS_MAX, &err));
    entry->values[STATS_SUM2][0] = 25;
    entry->values[STATS_SUMABS][0] = 7;
    entry->values[STATS_MIN][0] = -4;
    entry->values[STATS_MAX][0] = 3;
    entry->counts[0] = 3;
    assert_true(stats_derive(entry, STATS_RMS, 0, out) && out[0] == 2.886751345948129);
    assert_true(stats_derive(entry, STATS_MEAN_ABS, 0, out) && out[0] == 7.0 / 3.0);
    assert_true(stats_derive(entry, STATS_ABS_MAX, 0, out) && out[0] == 4.0);
    assert_false(stats_derive(entry, STATS_RMS, 1, out)); /* an expert without tokens */
    assert_false(stats_derive(entry, STATS_ABS_MAX, 1, out));
    assert_int_equal(stats_missing(entry), 1);
    assert_string_equal(stats_derived_name(STATS_ABS_MAX), "absmax");
    stats_close(set);
}

static void test_names(void **state)
{
    (void)state;
    struct stats_set *set = new_set();
    size_t index = 0;
    static const struct {
        const char *name, *part;
    } bad[] = { { "", "empty" }, { "a\nb", "control" }, { "\xff", "UTF-8" } };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) assert_refused(stats_add(set, bad[i].name, 1, 1, &index, &err), ERR_DATA, bad[i].part);
    assert_refused(stats_add(set, "a", 0, 1, &index, &err), ERR_DATA, "no channels");
    assert_refused(stats_add(set, "a", 1, 0, &index, &err), ERR_DATA, "no channels");
    assert_refused(stats_add(set, "a", UINT64_MAX, 2, &index, &err), ERR_UNSUPPORTED, "limit");
    assert_refused(stats_add(set, "a", 4, UINT64_MAX / 2, &index, &err), ERR_UNSUPPORTED, "limit");
    for (unsigned i = 0; i < 1000; i++) {
        char name[16];
        snprintf(name, sizeof name, "w%u", i);
        assert_ok(stats_add(set, name, 1, i + 1, &index, &err));
        assert_int_equal(index, i);
    }
    assert_refused(stats_add(set, "w7", 1, 1, &index, &err), ERR_DATA, "'w7' is there twice");
    assert_ok(stats_add_alias(set, "k", 7, &err));
    assert_refused(stats_add_alias(set, "w8", 7, &err), ERR_DATA, "twice");
    assert_ptr_equal(stats_find(set, "k"), &set->entries[7]);
    assert_int_equal(stats_find(set, "w999")->n_in, 1000);
    assert_null(stats_find(set, "w1000"));
    assert_ok(stats_sort(set, &err));
    assert_string_equal(set->entries[2].name, "w10");
    assert_string_equal(stats_find(set, "k")->name, "w7");
    assert_int_equal(set->aliases[0].entry, stats_find(set, "w7") - set->entries);
    stats_close(set);
}

static void test_memory_has_a_cap(void **state)
{
    (void)state;
    struct stats_set *set = stats_new(1000);
    size_t index = 0;
    assert_non_null(set);
    assert_ok(stats_add(set, "w", 1, 100, &index, &err));
    assert_ok(stats_make_field(set, &set->entries[0], STATS_SUM2, &err));
    assert_int_equal(set->nbytes, 800);
    assert_refused(stats_make_field(set, &set->entries[0], STATS_SUM2, &err), ERR_DATA, "in_sum2 twice");
    assert_refused(stats_make_field(set, &set->entries[0], STATS_SUM, &err), ERR_MEMORY, "'w'");
    assert_refused(stats_make_gram(set, &set->entries[0], &err), ERR_MEMORY, "limit of 1000 bytes");
    stats_drop_field(set, &set->entries[0], STATS_SUM2);
    assert_int_equal(set->nbytes, 0);
    assert_ok(stats_add(set, "huge", 1, (uint64_t)1 << 40, &index, &err));
    assert_refused(stats_make_gram(set, &set->entries[1], &err), ERR_DATA, "overflows");
    assert_refused(stats_make_field(set, &set->entries[1], STATS_SUM, &err), ERR_MEMORY, "'huge'");
    stats_close(set);
}

static void test_check(void **state)
{
    (void)state;
    static const struct {
        enum stats_field field;
        double value;
        const char *part;
    } rows[] = {
        { STATS_SUM2, (double)NAN, "in_sum2 of channel 1 is NaN or Inf" },
        { STATS_SUM2, -1e-300, "in_sum2 of channel 1 is negative" },
        { STATS_SUM, (double)INFINITY, "in_sum of channel 1" },
        { STATS_SUM, -5, NULL },
        { STATS_SUMABS, -1, "negative" },
        { STATS_ABSMAX, -1, "negative" },
        { STATS_SCALE, -1, "negative" },
        { STATS_MIN, -1, NULL },
        { STATS_MIN, 1, "in_min of channel 1 is above in_max" },
        { STATS_MAX, (double)NAN, "NaN" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct stats_set *set = new_set();
        size_t index = 0;
        assert_ok(stats_add(set, "w", 1, 2, &index, &err));
        for (unsigned f = 0; f < STATS_FIELD_COUNT; f++) assert_ok(stats_make_field(set, &set->entries[0], (enum stats_field)f, &err));
        assert_ok(stats_check(&set->entries[0], &err));
        set->entries[0].values[rows[i].field][1] = rows[i].value;
        if (rows[i].part) assert_refused(stats_check(&set->entries[0], &err), ERR_DATA, rows[i].part);
        else assert_ok(stats_check(&set->entries[0], &err));
        stats_close(set);
    }
}

static void test_split(void **state)
{
    (void)state;
    struct stats_set *set = new_set();
    add(set, "e", 1, 12, 1, 7);
    assert_refused(stats_split(set, 0, 5, &err), ERR_DATA, "cannot be divided into 5");
    assert_refused(stats_split(set, 0, 0, &err), ERR_DATA, "into 0");
    assert_ok(stats_split(set, 0, 4, &err));
    assert_int_equal(set->entries[0].n_mat, 4);
    assert_int_equal(set->entries[0].n_in, 3);
    for (unsigned m = 0; m < 4; m++) assert_int_equal(set->entries[0].counts[m], 7);
    assert_true(set->entries[0].values[STATS_SUM2][2 * 3 + 1] == 8.0);
    assert_int_equal(set->nbytes, 2 * 12 * 8 + 4 * 8);
    assert_refused(stats_split(set, 0, 2, &err), ERR_DATA, "4 x 3");
    stats_close(set);
}

static void test_lists(void **state)
{
    (void)state;
    struct stats_set *set = new_set();
    char long_text[5000];
    memset(long_text, 'x', sizeof long_text);
    assert_ok(stats_add_dataset(set, "b", 1, &err));
    assert_ok(stats_add_dataset(set, "a", 1, &err));
    assert_ok(stats_add_dataset(set, "b", 1, &err));
    assert_int_equal(set->n_datasets, 2);
    assert_refused(stats_add_dataset(set, "a\0b", 3, &err), ERR_DATA, "NUL");
    assert_refused(stats_add_dataset(set, "\xc0\x80", 2, &err), ERR_DATA, "UTF-8");
    assert_refused(stats_add_dataset(set, long_text, sizeof long_text, &err), ERR_UNSUPPORTED, "5000 bytes");
    assert_ok(stats_add_pair(set, "k", "1", &err));
    assert_ok(stats_add_pair(set, "k", "2", &err));
    assert_string_equal(stats_pair(set, "k"), "2");
    stats_drop_pair(set, "k");
    assert_null(stats_pair(set, "k"));
    for (unsigned i = 0; i < 100; i++) stats_note(set, "note %u", i);
    assert_int_equal(set->n_notes, 64);
    stats_close(set);
}

/* ---- merging ---------------------------------------------------------------------------------------------------------------------- */

static void test_merge_rules(void **state)
{
    (void)state;
    struct stats_set *a = new_set(), *b = new_set();
    struct stats_lost lost = { 0 };
    struct stats_entry *x = add(a, "w", 1, 2, 25, 3), *y = add(b, "w", 1, 2, 4, 1);
    x->values[STATS_ABSMAX][0] = 4;
    y->values[STATS_ABSMAX][0] = 2;
    assert_ok(stats_make_field(a, x, STATS_MIN, &err));
    assert_ok(stats_make_field(b, y, STATS_MIN, &err));
    x->values[STATS_MIN][0] = -1;
    y->values[STATS_MIN][0] = -3;
    assert_ok(stats_make_field(a, x, STATS_SUM, &err)); /* b lacks it */
    assert_ok(stats_make_hist(a, x, &err));
    assert_ok(stats_make_hist(b, y, &err));
    x->hist[5] = 2;
    y->hist[5] = 3;
    assert_ok(stats_make_gram(a, x, &err));
    assert_ok(stats_make_gram(b, y, &err));
    x->gram[2] = 0.5f;
    y->gram[2] = 0.25f;
    assert_ok(stats_make_sample(a, x, 1, &err));
    assert_ok(stats_make_sample(b, y, 2, &err));
    x->sample[1] = 0x3f80;
    y->sample[3] = 0x4000;
    add(b, "only", 2, 1, 1, 1);
    assert_ok(stats_add_alias(b, "k", 0, &err));
    assert_ok(stats_add_pair(a, "same", "1", &err));
    assert_ok(stats_add_pair(b, "same", "1", &err));
    assert_ok(stats_add_pair(a, "other", "1", &err));
    assert_ok(stats_add_pair(b, "other", "2", &err));
    a->chunk_count = 5;
    b->chunk_count = 7;
    a->chunk_size = b->chunk_size = 512;
    assert_ok(stats_merge(a, b, &lost, &err));
    x = &a->entries[0];
    assert_true(x->values[STATS_SUM2][0] == 29 && x->values[STATS_SUM2][1] == 31 && x->values[STATS_ABSMAX][0] == 4);
    assert_true(x->values[STATS_MIN][0] == -3 && !x->values[STATS_SUM] && x->counts[0] == 4 && x->hist[5] == 5 && x->gram[2] == 0.75f);
    assert_int_equal(x->n_sample, 3);
    assert_true(x->sample[1] == 0x3f80 && x->sample[5] == 0x4000 && x->sample[0] == 0);
    assert_int_equal(lost.n_fields, 1);
    assert_int_equal(lost.n_pairs, 1);
    assert_string_equal(stats_pair(a, "same"), "1");
    assert_null(stats_pair(a, "other"));
    assert_int_equal(stats_find(a, "only")->n_mat, 2);
    assert_ptr_equal(stats_find(a, "k"), &a->entries[0]);
    assert_int_equal(a->chunk_count, 12);
    assert_int_equal(a->chunk_size, 512);
    stats_close(a);
    stats_close(b);
}

static void test_merge_refusals(void **state)
{
    (void)state;
    struct stats_lost lost = { 0 };
    for (unsigned kind = 0; kind < 5; kind++) {
        struct stats_set *a = new_set(), *b = new_set();
        struct stats_entry *x = add(a, "w", 1, 2, 1, 1), *y = add(b, "w", 1, kind == 0 ? 3 : 2, 1, 1);
        const char *part = "1 x 2 channels in one file and 1 x 3";
        if (kind == 1) x->values[STATS_SUM2][0] = y->values[STATS_SUM2][0] = 1.7e308, part = "NaN or Inf";
        if (kind == 2) x->counts[0] = STATS_COUNT_MAX, part = "over 2^53";
        if (kind == 3) {
            assert_ok(stats_make_field(a, x, STATS_SCALE, &err));
            assert_ok(stats_make_field(b, y, STATS_SCALE, &err));
            y->values[STATS_SCALE][1] = 2;
            part = "in_scale differs";
        }
        if (kind == 4) {
            assert_ok(stats_add_alias(a, "k", 0, &err));
            add(b, "k", 1, 2, 1, 1);
            part = "'k' stands for 'w'";
        }
        assert_refused(stats_merge(a, b, &lost, &err), ERR_DATA, part);
        stats_close(a);
        stats_close(b);
    }
}

/* Sums that round: the order of addition shows, and must not depend on the order of the paths. */
static void test_merge_files_in_any_order(void **state)
{
    (void)state;
    static const double values[3] = { 1.0, 0x1p-60, 1e17 };
    static const unsigned orders[6][3] = { { 0, 1, 2 }, { 0, 2, 1 }, { 1, 0, 2 }, { 1, 2, 0 }, { 2, 0, 1 }, { 2, 1, 0 } };
    char *dir = temp_dir(), paths[3][512];
    char *wanted = NULL;
    size_t n_wanted = 0;
    struct stats_left left;
    for (unsigned i = 0; i < 3; i++) {
        struct stats_set *set = new_set();
        add(set, i == 1 ? "b" : "a", 1, 40, values[i], i + 1);
        add(set, "c", 1, 40, values[i], i + 1);
        snprintf(paths[i], sizeof paths[i], "%s/%u.safetensors", dir, i);
        assert_ok(stats_save(&io_system, set, paths[i], false, NULL, 0, &left, NULL, &err));
        stats_close(set);
    }
    for (unsigned k = 0; k < 6; k++) {
        const char *in[3] = { paths[orders[k][0]], paths[orders[k][1]], paths[orders[k][2]] };
        struct stats_set *set = NULL;
        struct stats_lost lost;
        size_t n = 0;
        assert_ok(stats_merge_files(&io_system, in, 3, &set, &lost, &err));
        const char *out = temp_path(dir, "out.safetensors");
        assert_ok(stats_save(&io_system, set, out, true, in, 3, &left, NULL, &err));
        char *bytes = read_file(out, &n);
        if (!wanted) {
            wanted = bytes;
            n_wanted = n;
        } else {
            assert_int_equal(n, n_wanted);
            assert_memory_equal(bytes, wanted, n);
            free(bytes);
        }
        assert_string_equal(set->entries[0].name, "a");
        assert_int_equal(stats_find(set, "c")->counts[0], 6);
        stats_close(set);
    }
    const char *in[1] = { paths[0] };
    struct stats_set *set = NULL;
    assert_ok(stats_open(&io_system, paths[0], 0, &set, NULL, &err));
    assert_refused(stats_save(&io_system, set, paths[0], true, in, 1, &left, NULL, &err), ERR_USAGE, "0.safetensors");
    assert_refused(stats_save(&io_system, set, paths[1], false, in, 1, &left, NULL, &err), ERR_EXISTS, "--force");
    stats_close(set);
    free(wanted);
    temp_dir_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_derive),      cmocka_unit_test(test_names),          cmocka_unit_test(test_memory_has_a_cap),
        cmocka_unit_test(test_check),       cmocka_unit_test(test_split),          cmocka_unit_test(test_lists),
        cmocka_unit_test(test_merge_rules), cmocka_unit_test(test_merge_refusals), cmocka_unit_test(test_merge_files_in_any_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
