/* test_calibrate.c: stopping and going on, states that belong elsewhere or cannot be written, failures among many threads, bins, experts without tokens. */
#include "smoothquant/calibrate.h"
#include "support/live.h"
#include "support/support.h"

#include <errno.h>
#include <math.h>
#include <stdatomic.h>

#include "smoothquant/stats_kind.h"

enum { N_IDS = 300, LAYERS = 3 };

struct setting {
    struct live live;
    int32_t ids[N_IDS];
    struct windows windows;
    struct calibrate_options options;
    volatile sig_atomic_t stop;
    atomic_uint_fast64_t seen; /* tokens that went through layers */
    uint64_t stop_after;
    char *dir;
};

static void count(void *context, uint64_t n)
{
    struct setting *s = context;
    if (atomic_fetch_add(&s->seen, n) + n >= s->stop_after) s->stop = 2;
}

static void open_setting(struct setting *s)
{
    static const uint64_t starts[] = { 0, 100, 140, 300 };
    struct err err;
    *s = (struct setting){ .stop_after = UINT64_MAX };
    s->dir = temp_dir();
    live_open(&s->live, NULL);
    live_ids(s->ids, N_IDS, 258);
    assert_ok(windows_make(s->ids, starts, 3, 16, 1, 0, &s->windows, &err));
    s->options = (struct calibrate_options){ .io = &io_system,
                                             .gemm = s->live.options.gemm,
                                             .n_workers = 1,
                                             .max_ram = 64u << 20,
                                             .stop = &s->stop,
                                             .spill_dir = "/tmp",
                                             .model = s->live.model,
                                             .container = s->live.container,
                                             .source = s->live.options.source,
                                             .key = "k",
                                             .progress = count,
                                             .context = s };
}

static void close_setting(struct setting *s)
{
    windows_free(&s->windows);
    live_close(&s->live);
    temp_dir_remove(s->dir);
}

static void assert_same(const struct stats_set *a, const struct stats_set *b)
{
    assert_int_equal(a->n_entries, b->n_entries);
    assert_int_equal(a->n_aliases, b->n_aliases);
    for (size_t i = 0; i < a->n_entries; i++) {
        const struct stats_entry *x = &a->entries[i], *y = &b->entries[i];
        assert_string_equal(x->name, y->name);
        assert_memory_equal(x->counts, y->counts, x->n_mat * sizeof *x->counts);
        for (size_t f = 0; f < STATS_FIELD_COUNT; f++)
            for (uint64_t j = 0; x->values[f] && j < x->n_mat * x->n_in; j++) assert_true((float)x->values[f][j] == (float)y->values[f][j]);
    }
}

/* Stopped in every layer in turn, and taken up again: the same numbers, and no files left. */
static void test_resume(void **state)
{
    (void)state;
    struct setting s;
    struct err err;
    struct stats_set *whole, *set;
    size_t first;
    open_setting(&s);
    const char *path = strdup(temp_path(s.dir, "s.safetensors"));
    assert_ok(calibrate_run(&s.options, &s.windows, &whole, NULL, &err));
    assert_int_equal(whole->n_entries, 4 * LAYERS);
    assert_int_equal(whole->n_aliases, 3 * LAYERS);
    s.options.state = path;
    for (size_t layer = 0; layer < LAYERS; layer++) {
        char activations[600];
        snprintf(activations, sizeof activations, "%s.activations", path);
        s.seen = 0;
        s.stop = 0;
        s.stop_after = layer * N_IDS + 50;
        s.options.resume = false;
        assert_refused(calibrate_run(&s.options, &s.windows, &set, NULL, &err), ERR_CANCELLED, "stopped");
        assert_null(set);
        assert_int_equal(file_exists(path), layer > 0);
        assert_int_equal(file_exists(activations), layer > 0);
        s.options.resume = true;
        s.stop = 0;
        s.stop_after = UINT64_MAX;
        if (layer > 0) {
            s.options.key = "another";
            assert_refused(calibrate_run(&s.options, &s.windows, &set, NULL, &err), ERR_MISMATCH, "another model, other tokens");
            assert_true(file_exists(path) && file_exists(activations));
            s.options.key = "k";
        }
        assert_ok(calibrate_run(&s.options, &s.windows, &set, &first, &err));
        assert_int_equal(first, layer);
        assert_same(whole, set);
        assert_false(file_exists(path) || file_exists(activations));
        stats_close(set);
    }
    stats_close(whole);
    free((char *)(uintptr_t)path);
    close_setting(&s);
}

static ssize_t (*real_pwrite)(int fd, const void *buf, size_t nbytes, off_t offset);
static atomic_int writes_left;

static ssize_t few_writes(int fd, const void *buf, size_t nbytes, off_t offset)
{
    if (atomic_fetch_sub(&writes_left, 1) > 0) return real_pwrite(fd, buf, nbytes, offset);
    errno = ENOSPC;
    return -1;
}

/* Every write fails once, with all behind it: an error comes out, nobody waits for ever. */
static void test_full_disk(void **state)
{
    (void)state;
    struct setting s;
    struct err err;
    struct stats_set *set = NULL;
    struct io_calls calls = io_system;
    open_setting(&s);
    real_pwrite = io_system.pwrite;
    calls.pwrite = few_writes;
    s.options.io = &calls;
    s.options.n_workers = 4;
    s.options.gram = true;
    char *path = strdup(temp_path(s.dir, "s.safetensors"));
    s.options.state = path;
    enum status status = ERR_IO;
    for (int n = 0; n < 1000 && status != OK; n += n < 10 ? 1 : 7) {
        writes_left = n;
        status = calibrate_run(&s.options, &s.windows, &set, NULL, &err);
        if (status != OK && status != ERR_IO) fail_msg("status %d: %s", (int)status, err.text);
    }
    assert_int_equal(status, OK);
    stats_close(set);
    free(path);
    close_setting(&s);
}

struct failing {
    struct weight_source under;
    size_t tensor;
};

static enum status refuse(void *context, size_t tensor, uint64_t row, uint64_t n_rows, uint64_t col, uint64_t n_cols, float *out, struct err *err)
{
    const struct failing *f = context;
    if (tensor == f->tensor) return err_set(err, ERR_DATA, "tensor %zu is damaged", tensor);
    return f->under.read(f->under.context, tensor, row, n_rows, col, n_cols, out, err);
}

static enum status overflow(void *context, size_t tensor, uint64_t row, uint64_t n_rows, uint64_t col, uint64_t n_cols, float *out, struct err *err)
{
    const struct failing *f = context;
    enum status status = f->under.read(f->under.context, tensor, row, n_rows, col, n_cols, out, err);
    for (uint64_t i = 0; i < n_rows * n_cols && tensor == f->tensor; i++) out[i] = 1e38f;
    return status;
}

static void test_bad_weights(void **state)
{
    (void)state;
    struct setting s;
    struct err err;
    struct stats_set *set = NULL;
    open_setting(&s);
    struct failing failing = { s.options.source, s.live.model->layers[1].o.weight.tensor };
    s.options.n_workers = 4;
    s.options.source = (struct weight_source){ refuse, &failing };
    assert_refused(calibrate_run(&s.options, &s.windows, &set, NULL, &err), ERR_DATA, "is damaged");
    assert_null(set);
    s.options.source.read = overflow;
    failing.tensor = s.live.model->layers[1].experts[0].up.weight.tensor;
    assert_int_equal(calibrate_run(&s.options, &s.windows, &set, NULL, &err), ERR_DATA); /* Inf or NaN among the activations */
    s.options.source = failing.under;
    s.options.max_ram = 7u << 20;
    assert_refused(calibrate_run(&s.options, &s.windows, &set, NULL, &err), ERR_MEMORY, "--max-ram");
    s.options.max_ram = 64u << 20;
    s.options.skip_first = 16;
    assert_refused(calibrate_run(&s.options, &s.windows, &set, NULL, &err), ERR_USAGE, "no token is left");
    close_setting(&s);
}

/* Bins of the histogram: 8 an octave, by the bits of the number. */
static void test_histogram(void **state)
{
    (void)state;
    struct setting s;
    struct err err;
    struct stats_set *set;
    open_setting(&s);
    s.options.hist = true;
    s.options.n_sample = 1000; /* more than there are: all */
    assert_ok(calibrate_run(&s.options, &s.windows, &set, NULL, &err));
    for (size_t i = 0; i < set->n_entries; i++) {
        const struct stats_entry *e = &set->entries[i];
        uint64_t total = 0, top = 0;
        double largest = 0.0;
        for (uint64_t b = 0; b < STATS_HIST_BINS; b++) {
            total += e->hist[b];
            if (e->hist[b]) top = b;
        }
        for (uint64_t j = 0; j < e->n_in; j++) largest = fmax(largest, e->values[STATS_ABSMAX][j]);
        assert_true(total == N_IDS * e->n_in && e->n_sample == N_IDS && e->counts[0] == N_IDS);
        const float at = (float)largest;
        uint32_t bits;
        memcpy(&bits, &at, sizeof bits);
        assert_int_equal(top, bits >> 20);
    }
    assert_int_equal(calibrate_tokens(&s.windows, 0), N_IDS);
    assert_int_equal(calibrate_tokens(&s.windows, 1), N_IDS - s.windows.n);
    stats_close(set);
    close_setting(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_resume), cmocka_unit_test(test_full_disk), cmocka_unit_test(test_bad_weights),
                                        cmocka_unit_test(test_histogram) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
