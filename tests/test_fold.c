/* test_fold.c: factors of a group, and what they make of tensors: norms take the rounding, weights the remainder; every placement on plain indices.
 *
 * Drawing: group, s, gain -> fold_factors_make -> products g' * factor against g; sides -> folds_add -> fold_apply against loops over (matrix, row, column).
 * Why this way: expected values come from the definitions, in binary64, place by place.
 * Corner cases: factors of 1, zero gains, gains that vanish in their type, squared ReLU, stacks of which one matrix takes part, channels outside.
 * Reference: smoothquant/fold.h. Worked number: gain 1.5 in BF16, s 1.7: stored 0.8828125, columns 1.69911504.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "smoothquant/fold.h"

#include "support/support.h"

enum { N = 96 };

static const struct smooth_side norm = { .run = N, .step = N, .n_mats = 1 };

static struct err err;

/* In [0, 1). */
static float rand_float(uint64_t *state)
{
    return (float)(test_random(state) >> 40) / 0x1p24f;
}

static float stored(const struct dtype *dtype, float x)
{
    uint8_t bytes[4];
    float y;
    dtype->narrow(&x, 1, bytes);
    dtype->widen(bytes, 1, &y);
    return y;
}

static struct smooth_group group_of(struct smooth_side *producer, uint64_t n)
{
    return (struct smooth_group){ .n = n, .share_heads = 1, .share_run = 1, .producers = producer, .n_producers = 1 };
}

static void worked_number(void **state)
{
    (void)state;
    struct smooth_side side = norm;
    struct smooth_group group = group_of(&side, 1);
    float s = 1.7f, gain = 1.5f, consumer, producer, other;
    struct fold_factors out = { &consumer, &producer, &other, 0.0, 0 };
    fold_factors_make(&group, &s, &gain, dtype_find("BF16", 4), &out);
    assert_true(consumer == 1.69911504f);
    assert_true(stored(dtype_find("BF16", 4), gain * producer) == 0.8828125f);
    assert_true(out.n_dead == 0 && out.deviation < 0x1p-23);
}

/* The norm as the pipeline writes it times the columns' factor is the gain; the bias follows the columns. */
static void norms_keep_the_function(void **state)
{
    (void)state;
    static const char *const types[] = { "BF16", "F16", "F32" };
    uint64_t seed = 5;
    for (size_t t = 0; t < 3; t++)
        for (int plus_one = 0; plus_one < 2; plus_one++) {
            const struct dtype *dtype = dtype_find(types[t], strlen(types[t]));
            struct smooth_side side = norm;
            side.plus_one = plus_one;
            struct smooth_group group = group_of(&side, N);
            float s[N], gain[N], consumers[N], producers[N], others[N];
            for (size_t j = 0; j < N; j++) {
                s[j] = (float)exp2((double)rand_float(&seed) * 6.0 - 3.0);
                gain[j] = stored(dtype, rand_float(&seed) * 2.0f + 0.01f);
            }
            struct fold_factors out = { consumers, producers, others, 0.0, 0 };
            fold_factors_make(&group, s, gain, dtype, &out);
            struct fold fold = { .cols = producers, .n_rows = 1, .n_cols = N, .n_mats = 1, .n_sets = 1, .plus_one = plus_one };
            float written[N];
            memcpy(written, gain, sizeof gain);
            fold_apply(&fold, &(struct tile){ 0, 1, 0, N }, written);
            for (size_t j = 0; j < N; j++) {
                const double before = (double)gain[j] + plus_one, after = (double)stored(dtype, written[j]) + plus_one;
                const double error = fabs(after * (double)consumers[j] / before - 1.0);
                assert_true(error <= (t == 2 || plus_one ? 0x1p-21 : 0x1p-23));
                assert_true(fabs((double)others[j] * (double)consumers[j] - 1.0) < 0x1p-23);
                assert_true(fabs((double)consumers[j] / (double)s[j] - 1.0) < (plus_one ? 0.2 : 0.01));
            }
        }
}

static void dead_channels_stay(void **state)
{
    (void)state;
    struct smooth_side side = norm;
    struct smooth_group group = group_of(&side, 4);
    const float s[4] = { 2.0f, 4.0f, 3.0f, 1.0f }, gain[4] = { 0.0f, 1.0f, 0x1p-14f, 5.0f };
    float consumers[4], producers[4], others[4];
    struct fold_factors out = { consumers, producers, others, 0.0, 0 };
    fold_factors_make(&group, s, gain, dtype_find("F16", 3), &out);
    assert_int_equal(out.n_dead, 1);
    assert_true(consumers[0] == 1.0f && producers[0] == 1.0f && others[0] == 1.0f);
    assert_true(consumers[1] == 4.0f && producers[1] == 0.25f);
    assert_true(consumers[3] == 1.0f && producers[3] == 1.0f);
}

/* 4 query heads on 2 value heads of 3: factors of value channel (k, d) go to consumer channels of both its heads. */
static void heads_share(void **state)
{
    (void)state;
    struct smooth_side side = { .along_rows = true, .run = 6, .step = 6, .n_mats = 1 };
    struct smooth_group group = group_of(&side, 12);
    group.share_heads = 2;
    group.share_run = 3;
    float s[12], consumers[12], producers[6], others[6];
    for (size_t h = 0; h < 4; h++)
        for (size_t d = 0; d < 3; d++) s[h * 3 + d] = exp2f((float)(h / 2 * 3 + d) - 2.0f);
    struct fold_factors out = { consumers, producers, others, 0.0, 0 };
    fold_factors_make(&group, s, NULL, dtype_find("F32", 3), &out);
    for (size_t j = 0; j < 12; j++) assert_true(consumers[j] == s[j]);
    for (size_t p = 0; p < 6; p++) assert_true(producers[p] == exp2f(2.0f - (float)p));
}

static void squared_relu_takes_the_root(void **state)
{
    (void)state;
    struct smooth_side side = norm;
    side.root = true;
    struct smooth_group group = group_of(&side, 1);
    const float s = 4.0f;
    float consumer, producer, other;
    struct fold_factors out = { &consumer, &producer, &other, 0.0, 0 };
    fold_factors_make(&group, &s, NULL, dtype_find("F32", 3), &out);
    assert_true(consumer == 4.0f && producer == 0.5f && other == 0.5f);
}

/* ---- placements --------------------------------------------------------------------------------------------------------------------- */

struct placement {
    const char *what;
    uint64_t mats, rows, cols; /* of the tensor; rows of a matrix */
    struct smooth_side side;
    uint64_t n;
};

static const struct placement placements[] = {
    { "columns of a matrix", 1, 4, 6, { .run = 6, .step = 6, .n_mats = 1 }, 6 },
    { "rows of a matrix", 1, 5, 3, { .along_rows = true, .run = 5, .step = 5, .n_mats = 1 }, 5 },
    { "last rows", 1, 12, 2, { .along_rows = true, .first = 8, .run = 4, .step = 4, .n_mats = 1 }, 4 },
    { "v interleaved by head", 1, 18, 2, { .along_rows = true, .first = 6, .run = 3, .step = 9, .n_mats = 1 }, 6 },
    { "odd columns", 1, 3, 8, { .first = 1, .run = 1, .step = 2, .n_mats = 1 }, 4 },
    { "all matrices of a stack, columns", 3, 2, 4, { .run = 4, .step = 4, .n_mats = 3 }, 4 },
    { "one matrix of a stack, columns", 3, 2, 4, { .run = 4, .step = 4, .mat = 1, .n_mats = 1 }, 4 },
    { "one matrix of a stack, rows", 3, 4, 2, { .along_rows = true, .run = 4, .step = 4, .mat = 2, .n_mats = 1 }, 4 },
    { "all matrices of a stack, rows", 2, 4, 2, { .along_rows = true, .run = 4, .step = 4, .n_mats = 2 }, 4 },
};

static struct container one_tensor(struct tensor *tensor, uint64_t dims[3], const struct placement *place)
{
    dims[0] = place->mats;
    dims[1] = place->rows;
    dims[2] = place->cols;
    *tensor = (struct tensor){
        .name = "w", .dims = place->mats > 1 ? dims : dims + 1, .rank = place->mats > 1 ? 3 : 2, .n_weights = place->mats * place->rows * place->cols
    };
    return (struct container){ .tensors = tensor, .n_tensors = 1 };
}

static void every_placement(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof placements / sizeof placements[0]; k++) {
        const struct placement *place = &placements[k];
        struct tensor tensor;
        uint64_t dims[3];
        struct container container = one_tensor(&tensor, dims, place);
        struct folds folds;
        float factors[16], x[128];
        for (size_t j = 0; j < 16; j++) factors[j] = exp2f((float)j + 1.0f);
        for (size_t i = 0; i < 128; i++) x[i] = 1.0f;
        assert_ok(folds_make(1, &folds, &err));
        assert_ok(folds_add(&folds, &container, &place->side, factors, place->n, &err));
        fold_apply(folds.of[0], &(struct tile){ 0, place->mats * place->rows, 0, place->cols }, x);
        for (uint64_t m = 0; m < place->mats; m++)
            for (uint64_t r = 0; r < place->rows; r++)
                for (uint64_t c = 0; c < place->cols; c++) {
                    float wanted = 1.0f;
                    const uint64_t at = place->side.along_rows ? r : c;
                    for (uint64_t j = 0; j < place->n; j++)
                        if (m >= place->side.mat && m < place->side.mat + place->side.n_mats &&
                            at == place->side.first + j / place->side.run * place->side.step + j % place->side.run)
                            wanted *= factors[j];
                    if (x[(m * place->rows + r) * place->cols + c] != wanted)
                        fail_msg("%s: matrix %d row %d column %d", place->what, (int)m, (int)r, (int)c);
                }
        folds_free(&folds);
    }
}

/* up stands behind a norm and before down: columns and rows, in tiles of any shape; a set for all matrices becomes a set for each. */
static void groups_meet(void **state)
{
    (void)state;
    const struct placement place = { "", 2, 3, 4, { 0 }, 0 };
    const struct smooth_side all = { .run = 4, .step = 4, .n_mats = 2 }, second = { .run = 4, .step = 4, .mat = 1, .n_mats = 1 },
                             rows = { .along_rows = true, .run = 3, .step = 3, .n_mats = 1 };
    const float a[4] = { 2, 4, 8, 16 }, b[4] = { 0.5f, 1, 1, 2 }, r[3] = { 1, 3, 1 };
    struct tensor tensor;
    uint64_t dims[3];
    struct container container = one_tensor(&tensor, dims, &place);
    struct folds folds;
    assert_ok(folds_make(1, &folds, &err));
    assert_ok(folds_add(&folds, &container, &all, a, 4, &err));
    assert_ok(folds_add(&folds, &container, &second, b, 4, &err));
    assert_ok(folds_add(&folds, &container, &rows, r, 3, &err));
    for (uint64_t row = 0; row < 6; row++)
        for (uint64_t col = 0; col < 4; col++) {
            float x = 1.0f;
            fold_apply(folds.of[0], &(struct tile){ row, 1, col, 1 }, &x);
            assert_true(x == a[col] * (row >= 3 ? b[col] : 1.0f) * (row == 1 ? 3.0f : 1.0f));
        }
    folds_free(&folds);
}

static void refuses_what_lies_outside(void **state)
{
    (void)state;
    const struct placement place = { "", 2, 3, 4, { 0 }, 0 };
    static const struct {
        struct smooth_side side;
        uint64_t n;
    } bad[] = {
        { { .run = 5, .step = 5, .n_mats = 2 }, 5 },
        { { .first = 1, .run = 4, .step = 4, .n_mats = 2 }, 4 },
        { { .run = 4, .step = 4, .mat = 2, .n_mats = 1 }, 4 },
        { { .run = 4, .step = 4, .mat = 1, .n_mats = 2 }, 4 },
        { { .run = 4, .step = 4, .n_mats = 0 }, 4 },
        { { .along_rows = true, .run = 7, .step = 7, .n_mats = 1 }, 7 }, /* rows go on through the matrices, as those of heads do */
        { { .along_rows = true, .run = 4, .step = 4, .mat = 1, .n_mats = 1 }, 4 },
    };
    const float factors[8] = { 1, 1, 1, 1, 1, 1, 1, 1 };
    struct tensor tensor;
    uint64_t dims[3];
    struct container container = one_tensor(&tensor, dims, &place);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct folds folds;
        assert_ok(folds_make(1, &folds, &err));
        assert_refused(folds_add(&folds, &container, &bad[i].side, factors, bad[i].n, &err), ERR_DATA, "no place");
        folds_free(&folds);
    }
}

static void one_changes_no_bit(void **state)
{
    (void)state;
    float ones[4] = { 1, 1, 1, 1 }, x[4] = { NAN, -0.0f, 0x1p-149f, 3e38f }, before[4];
    for (int plus_one = 0; plus_one < 2; plus_one++) {
        const struct fold fold = {
            .rows = plus_one ? NULL : ones, .cols = ones, .n_rows = 1, .n_cols = 4, .n_mats = 1, .n_sets = 1, .plus_one = plus_one
        };
        memcpy(before, x, sizeof x);
        fold_apply(&fold, &(struct tile){ 0, 1, 0, 4 }, x);
        assert_memory_equal(x, before, sizeof x);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(worked_number), cmocka_unit_test(norms_keep_the_function),     cmocka_unit_test(dead_channels_stay),
        cmocka_unit_test(heads_share),   cmocka_unit_test(squared_relu_takes_the_root), cmocka_unit_test(every_placement),
        cmocka_unit_test(groups_meet),   cmocka_unit_test(refuses_what_lies_outside),   cmocka_unit_test(one_changes_no_bit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
