/* test_quality.c: the quality table: every format on made-up and real weights, compared with tests/golden/quality.csv to the last digit.
 *
 * Drawing: format x weights -> codec_encode -> planes -> "format,weights,hash,sqnr_db,bits_per_weight".
 * Why this way: a change of any bit of any format shows as a changed line of a file in review. The weights come from integers alone
 * (support/weights.h), the real ones from the bundled model, so every machine and compiler must make the same table.
 * Corner cases: LLMQ_WRITE_QUALITY=1 writes the file instead (scripts/quality.sh), for changes that are meant. A sum without error is "inf". The hash
 * is XXH3-64 over all planes as they are stored, one behind the other in their order. No tails: the rows have 1024 or 256 weights.
 * Reference: NUMERICS.md. Worked number: 32-bit floats of any weights: SQNR inf, 32 bits a weight.
 */
#include "support/support.h"

#include <math.h>

#include "base/digest.h"
#include "container/container.h"
#include "layout/codec.h"
#include "number/kernel.h"
#include "number/metric.h"
#include "support/weights.h"

enum { WEIGHTS = 1 << 16, COLS = 1024, REAL_ROWS = 128, REAL_COLS = 256, PLANES_NBYTES = WEIGHTS * 4 + 4096, TABLE_NBYTES = 1 << 17 };

/* Tensors of the bundled model, rows 0 .. 127, columns 0 .. 255 of each. */
static const struct {
    const char *label, *name;
} reals[] = {
    { "llama-q", "model.layers.0.self_attn.q_proj.weight" },
    { "llama-up", "model.layers.1.mlp.up_proj.weight" },
    { "llama-down", "model.layers.2.mlp.down_proj.weight" },
};

enum { N_REALS = sizeof reals / sizeof reals[0], N_SETS = WEIGHTS_KINDS + N_REALS };

static struct weight_set {
    const char *label;
    size_t rows, cols;
    float x[WEIGHTS];
} sets[N_SETS];

static void read_real(struct container *model, size_t index, float *x)
{
    struct err err;
    const struct tensor *tensor = &model->tensors[index];
    const uint64_t row_nbytes = tensor_cols(tensor) * tensor->dtype->bits / 8;
    uint8_t row[REAL_COLS * 4];
    for (size_t r = 0; r < REAL_ROWS; r++) {
        assert_ok(container_read(model, index, r * row_nbytes, REAL_COLS * tensor->dtype->bits / 8, row, &err));
        tensor->dtype->widen(row, REAL_COLS, x + r * REAL_COLS);
    }
}

static int make_weights(void **state)
{
    (void)state;
    struct err err;
    struct container *model;
    for (int kind = 0; kind < WEIGHTS_KINDS; kind++) {
        struct weight_set *set = &sets[kind];
        set->label = weights_name((enum weights_kind)kind);
        set->rows = WEIGHTS / COLS;
        set->cols = COLS;
        weights_make((enum weights_kind)kind, (uint64_t)kind + 1, WEIGHTS, set->x);
    }
    assert_ok(container_open(&io_system, tests_path("data/tiny-llama/model.safetensors"), &model, &err));
    for (size_t i = 0; i < N_REALS; i++) {
        struct weight_set *set = &sets[WEIGHTS_KINDS + i];
        set->label = reals[i].label;
        set->rows = REAL_ROWS;
        set->cols = REAL_COLS;
        read_real(model, container_find(model, reals[i].name), set->x);
    }
    container_close(model);
    return 0;
}

/* Encodes a set as one tile; planes lie one behind the other in bytes. Returns their bytes. */
static size_t encode(const struct quant *quant, const struct weight_set *set, uint8_t *bytes, struct measure *measure)
{
    static float x[WEIGHTS], y[WEIGHTS];
    static uint16_t codes[WEIGHTS];
    const struct kernels *kernels = kernels_select(NULL);
    const struct codec_scratch scratch = { x, y, codes, WEIGHTS };
    const struct shape shape = { set->rows, set->cols, 1 };
    struct plane planes[CODEC_PLANES_MAX];
    struct codec_fault fault;
    struct range range = { 0 };
    struct codec_tile tile = { .source = (const uint8_t *)(const void *)set->x,
                               .dtype = dtype_find("F32", 3),
                               .n_rows = set->rows,
                               .n_cols = set->cols,
                               .matrix_rows = set->rows };
    const uint32_t n_planes = codec_planes(quant, &shape, planes);
    size_t at = 0;
    for (uint32_t i = 0; i < n_planes; i++) {
        assert_int_equal(plane_tile_count(&planes[i]), 1);
        tile.planes[i] = bytes + at;
        at += (size_t)plane_nbytes(&planes[i]);
        assert_true(at <= PLANES_NBYTES);
    }
    assert_true(codec_observe_range(kernels, &tile, &scratch, &range, &fault));
    const float scale = quant->tensor_scale ? quant->format->family->tensor_scale(range) : 1.0f;
    if (quant->tensor_scale) tile.tensor_scales = &scale;
    tile.measure = measure;
    assert_true(codec_encode(quant, kernels, &tile, &scratch, &fault));
    codec_store_whole(quant, &shape, NULL, tile.tensor_scales, tile.planes);
    return at;
}

/* Appends a line to the table. */
static size_t add_row(const struct quant *quant, const struct weight_set *set, char *table, size_t at)
{
    static uint8_t bytes[PLANES_NBYTES];
    struct measure measure = { 0 };
    const size_t nbytes = encode(quant, set, bytes, &measure);
    const int length = snprintf(table + at, TABLE_NBYTES - at, "%s,%s,%016llx,%.4f,%.4f\n", quant->format->name, set->label,
                                (unsigned long long)digest64(bytes, nbytes), measure_sqnr_db(&measure),
                                quant_bits_per_weight(quant, set->cols, set->rows * set->cols));
    assert_true(length > 0 && at + (size_t)length < TABLE_NBYTES);
    return at + (size_t)length;
}

static size_t make_table(char *table)
{
    size_t at = (size_t)snprintf(table, TABLE_NBYTES, "format,weights,hash,sqnr_db,bits_per_weight\n");
    for (size_t i = 0; i < format_count(); i++) {
        struct err err;
        struct quant quant;
        assert_ok(quant_parse(format_at(i)->name, NULL, &quant, &err));
        for (size_t k = 0; k < N_SETS; k++) at = add_row(&quant, &sets[k], table, at);
    }
    return at;
}

/* Prints the first lines that differ; returns how many do. */
static size_t count_differences(const char *made, const char *kept)
{
    size_t n = 0;
    while (*made || *kept) {
        const size_t a = strcspn(made, "\n"), b = strcspn(kept, "\n");
        if ((a != b || memcmp(made, kept, a) != 0) && n++ < 10) printf("made: %.*s\nkept: %.*s\n", (int)a, made, (int)b, kept);
        made += made[a] ? a + 1 : a;
        kept += kept[b] ? b + 1 : b;
    }
    return n;
}

static void test_table(void **state)
{
    (void)state;
    static char table[TABLE_NBYTES];
    const size_t nbytes = make_table(table);
    const char *path = tests_path("golden/quality.csv");
    if (getenv("LLMQ_WRITE_QUALITY")) {
        write_file(path, table, nbytes);
        return;
    }
    char *kept = read_file(path, NULL);
    const size_t n = count_differences(table, kept);
    free(kept);
    if (n) fail_msg("%zu lines of tests/golden/quality.csv differ; scripts/quality.sh writes it anew if the change is meant", n);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_table) };
    return cmocka_run_group_tests(tests, make_weights, NULL);
}
