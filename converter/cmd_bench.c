/* cmd_bench.c: the command bench: speed of the kernels on data that stays in cache, GB/s of BF16 input.
 *
 * Drawing: 256 K Gaussian-like weights, 64 x 4096 -> codec_encode again and again for --seconds -> the best run of each kernel set.
 * Formula: GB/s = 2 bytes * weights / seconds of the fastest run / 10^9.
 * Why this way: the fastest run is the one the machine disturbed least; all sets run the same calls, and their bytes are compared on the way.
 * Corner cases: formats without --format: a representative list.
 * Reference: design.md 4. Worked number: 262144 weights in 131 us are 4 GB/s.
 */
#include <stdlib.h>
#include <string.h>

#include "base/digest.h"
#include "converter/app.h"
#include "converter/print.h"
#include "converter/progress.h"
#include "layout/codec.h"
#include "number/half.h"

enum { ROWS = 64, COLS = 4096, WEIGHTS = ROWS * COLS };

static const char *const default_formats[] = { "mxfp4:rule=floor",
                                               "mxfp4:rule=even",
                                               "mxfp4",
                                               "mxfp6_e2m3",
                                               "mxfp8_e4m3",
                                               "mxint8",
                                               "int4",
                                               "int4:rule=mse",
                                               "uint4",
                                               "int8",
                                               "nvfp4",
                                               "q8_0",
                                               "q4_0",
                                               "q4_k",
                                               "q6_k",
                                               "iq4_xs",
                                               "q4_k:rule=mse" };

struct bench {
    const struct app *app;
    uint8_t *source, *planes[CODEC_PLANES_MAX];
    struct codec_scratch scratch;
    struct group_scale given[ROWS]; /* of squares, which are observed first; that is not measured */
    double seconds;
    bool json, first;
};

/* Sum of twelve uniform numbers, sigma 0.02: the shape of trained weights. */
static void fill(uint8_t *source)
{
    uint64_t state = 88172645463325252u;
    for (size_t i = 0; i < WEIGHTS; i++) {
        float sum = -6.0f;
        for (int k = 0; k < 12; k++) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            sum += (float)(state >> 40) * 0x1p-24f;
        }
        uint16_t stored = f32_to_bf16(sum * 0.02f);
        memcpy(source + 2 * i, &stored, 2);
    }
}

static double best_seconds(const struct bench *bench, const struct quant *quant, const struct kernels *kernels, bool measured)
{
    struct measure measure = { 0 };
    struct codec_fault fault;
    struct codec_tile tile = {
        .source = bench->source, .dtype = dtype_find("BF16", 4), .n_rows = ROWS, .n_cols = COLS, .measure = measured ? &measure : NULL
    };
    for (uint32_t k = 0; k < CODEC_PLANES_MAX; k++) tile.planes[k] = bench->planes[k];
    static const float matrix = 0.0001f;
    if (quant->tensor_scale) tile.tensor_scales = &matrix;
    tile.matrix_rows = ROWS;
    if (codec_spans(quant, ROWS, COLS)) tile.given = bench->given;
    tile.given_cols = quant_groups_per_row(quant, COLS);
    double best = 1e9, start = clock_seconds();
    do {
        double before = clock_seconds();
        codec_encode(quant, kernels, &tile, &bench->scratch, &fault);
        double took = clock_seconds() - before;
        if (took < best) best = took;
    } while (clock_seconds() - start < bench->seconds / 2);
    return best;
}

static void run_set(struct bench *bench, const char *text, const struct quant *quant, const struct kernels *kernels, uint64_t *reference)
{
    double plain = 2e-9 * WEIGHTS / best_seconds(bench, quant, kernels, false);
    double measured = 2e-9 * WEIGHTS / best_seconds(bench, quant, kernels, true);
    struct plane planes[CODEC_PLANES_MAX];
    const struct shape shape = { ROWS, COLS, 1 };
    codec_planes(quant, &shape, planes);
    uint64_t digest = digest64(bench->planes[0], (size_t)plane_nbytes(&planes[0]));
    bool same = *reference == 0 || *reference == digest;
    *reference = digest;
    if (bench->json)
        printf("%s\n{\"format\":\"%s\",\"kernels\":\"%s\",\"gb_per_s\":%.3f,\"gb_per_s_measured\":%.3f,\"same_bytes\":%s}", bench->first ? "" : ",",
               text, kernels->name, plain, measured, same ? "true" : "false");
    else printf("%-22s %-9s %8.2f %10.2f  %s\n", text, kernels->name, plain, measured, same ? "same bytes" : "BYTES DIFFER");
    bench->first = false;
    fflush(stdout);
}

static enum status run_format(struct bench *bench, const char *text, const struct quant_params *params, struct err *err)
{
    struct quant quant;
    uint64_t reference = 0;
    enum status status = quant_parse(text, params, &quant, err);
    if (status) return status;
    if (codec_scratch_weights(&quant, ROWS, COLS) > WEIGHTS) return err_set(err, ERR_USAGE, "group of '%s' is too large for the benchmark", text);
    bench->scratch.n_weights = codec_scratch_weights(&quant, ROWS, COLS);
    for (size_t i = 0; i < kernels_count(); i++) run_set(bench, text, &quant, kernels_at(i), &reference);
    return OK;
}

static enum status run_all(struct bench *bench, struct err *err)
{
    const struct settings *settings = &bench->app->settings;
    struct quant_params params = { .group = settings->values[SET_GROUP_SIZE],
                                   .scale = settings->values[SET_SCALE_DTYPE],
                                   .rule = settings->values[SET_SCALE_RULE],
                                   .rounding = settings->values[SET_ROUNDING],
                                   .tensor_scale = settings_tensor_scale(settings),
                                   .half_range = settings->values[SET_HALF_RANGE],
                                   .percentile = settings->values[SET_PERCENTILE] };
    if (settings_given(settings, SET_FORMAT)) return run_format(bench, settings_text(settings, SET_FORMAT), &params, err);
    params.where_valid = true;
    enum status status = OK;
    for (size_t i = 0; i < sizeof default_formats / sizeof default_formats[0] && !status; i++)
        status = run_format(bench, default_formats[i], &params, err);
    return status;
}

enum status cmd_bench(struct app *app, struct err *err)
{
    struct bench bench = { .app = app, .json = settings_flag(&app->settings, SET_JSON), .first = true };
    if (app->settings.n_arguments) return err_set(err, ERR_USAGE, "unexpected argument '%s'", app->settings.arguments[0]);
    bench.seconds = (double)settings_number(&app->settings, SET_SECONDS);
    bench.source = malloc(2 * WEIGHTS);
    for (uint32_t k = 0; k < CODEC_PLANES_MAX; k++) bench.planes[k] = calloc(WEIGHTS, 4);
    bench.scratch = (struct codec_scratch){ malloc(WEIGHTS * sizeof(float)), malloc(WEIGHTS * sizeof(float)), malloc(WEIGHTS * sizeof(uint16_t)), 0 };
    bool fine = bench.source && bench.planes[0] && bench.planes[1] && bench.planes[2] && bench.planes[3] && bench.scratch.x && bench.scratch.y &&
                bench.scratch.codes;
    enum status status = fine ? OK : err_set(err, ERR_MEMORY, "out of memory");
    if (fine) {
        fill(bench.source);
        for (size_t i = 0; i < ROWS; i++) bench.given[i] = (struct group_scale){ .value = 0.0001f };
        if (bench.json) printf("{\"input\":\"BF16, %d weights in cache\",\"results\":[", WEIGHTS);
        else printf("%-22s %-9s %8s %10s  GB/s of BF16 input, one thread, in cache\n", "format", "kernels", "encode", "+ measure");
        status = run_all(&bench, err);
        if (bench.json) printf("\n]}\n");
    }
    free(bench.source);
    for (uint32_t k = 0; k < CODEC_PLANES_MAX; k++) free(bench.planes[k]);
    free(bench.scratch.x);
    free(bench.scratch.y);
    free(bench.scratch.codes);
    return status;
}
