/* made_table.c: see made_table.h.
 *
 * Formula: squared error of a tensor = weights * 4^(0.3 - bits) * (1 + group / 512) * (1 + 0.08 |layer - middle|) * factor of the role.
 * Why this way: shaped like real models: more error in few bits and large groups, in the outer layers, and in the matrices that write back.
 * Corner cases: see made_table.h.
 * Reference: made_table.h.
 */
#include "support/made_table.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/support.h"

const char made_hostile_name[] = "<img src=x onerror=\"alert('1')\">&amp;</title></script><script>alert(2)</script>\x01\xff\xe2\x80\xae"
                                 "gnp.\xf0\x9f\x90\xa2"
                                 "é";

struct made_format {
    const char *format, *group_size;
    double bits, scale_bits;
    int group;
};

static const struct made_format formats[] = {
    { "int4", "32", 4, 16, 32 }, { "int4", "64", 4, 16, 64 },   { "int4", "128", 4, 16, 128 }, { "int3", "32", 3, 16, 32 },
    { "int3", "64", 3, 16, 64 }, { "int3", "128", 3, 16, 128 }, { "mxfp4", "32", 4, 8, 32 },   { "nvfp4", "16", 4, 8, 16 },
    { "int2", "32", 2, 16, 32 }, { "bfp16", "16", 8, 8, 16 },   { "int8", "64", 8, 16, 64 },   { "mxfp6_e2m3", "32", 6, 8, 32 },
};

static const struct {
    const char *role, *part;
    uint64_t n;
    double factor;
} roles[] = {
    { "q", "self_attn.q_proj", 1 << 20, 1.0 }, { "k", "self_attn.k_proj", 1 << 18, 1.1 },   { "v", "self_attn.v_proj", 1 << 18, 0.9 },
    { "o", "self_attn.o_proj", 1 << 20, 1.6 }, { "gate", "mlp.gate_proj", 1 << 21, 1.0 },   { "up", "mlp.up_proj", 1 << 21, 1.0 },
    { "down", "mlp.down_proj", 1 << 21, 2.6 }, { "norm", "input_layernorm", 1 << 10, 0.0 },
};

enum { N_ROLES = sizeof roles / sizeof roles[0] };

static char *copy(const char *text)
{
    char *out = strdup(text);
    assert_non_null(out);
    return out;
}

static char *tensor_name(const struct made *made, size_t layer, size_t role)
{
    char name[128];
    if (made->hostile && layer == 0 && role == 6) return copy(made_hostile_name);
    snprintf(name, sizeof name, "model.layers.%zu.%s.weight", layer, roles[role].part);
    return copy(name);
}

static void finish_row(struct sweep_row *row)
{
    row->bpw = row->n_weights ? (double)row->bits / (double)row->n_weights : (double)NAN;
    row->mse = row->n_measured ? row->sum_dd / (double)row->n_measured : 0.0;
    row->sqnr_db = row->sum_dd > 0.0 ? 10.0 * log10(row->sum_xx / row->sum_dd) : HUGE_VAL;
    row->wsqnr_db = row->sum_wdd > 0.0 ? 10.0 * log10(row->sum_wxx / row->sum_wdd) : (double)NAN;
    row->max_error = row->n_measured ? 4.0 * sqrt(row->mse) : 0.0;
    row->clipped = row->n_measured ? row->mse / 10.0 : (double)NAN;
}

static void add_row(struct sweep_row *total, const struct sweep_row *row)
{
    total->n_weights += row->n_weights;
    total->n_measured += row->n_measured;
    total->bits += row->bits;
    total->plane_bits += row->plane_bits;
    total->sum_dd += row->sum_dd;
    total->sum_xx += row->sum_xx;
    total->sum_wdd += row->sum_wdd;
    total->sum_wxx += row->sum_wxx;
}

static struct sweep_row tensor_row(const struct made *made, size_t v, size_t layer, size_t role, const char *name)
{
    const struct made_format *format = &formats[v];
    const double n = (double)roles[role].n, middle = (double)(made->n_layers - 1) / 2.0;
    struct sweep_row row = { .variant = (uint32_t)v,
                             .scope = SWEEP_TENSOR,
                             .name = name,
                             .role = roles[role].role,
                             .layer = (uint32_t)layer,
                             .n_weights = roles[role].n,
                             .perplexity = (double)NAN,
                             .kl = (double)NAN };
    const bool kept = roles[role].factor == 0.0;
    row.format = kept ? "keep" : format->format;
    row.bits = row.plane_bits = (uint64_t)(n * (kept ? 16.0 : format->bits + format->scale_bits / format->group));
    if (!kept) {
        row.n_measured = row.n_weights;
        row.sum_xx = n;
        row.sum_dd =
            n * exp2(2.0 * (0.3 - format->bits)) * (1.0 + format->group / 512.0) * (1.0 + 0.08 * fabs((double)layer - middle)) * roles[role].factor;
    }
    row.sum_wdd = made->weighted && !kept ? 0.8 * row.sum_dd : 0.0;
    row.sum_wxx = made->weighted ? row.sum_xx : 0.0;
    snprintf(row.hash, sizeof row.hash, "%08x%08x%08x%08x", (unsigned)v * 2654435761u, (unsigned)layer * 40503u, (unsigned)role, 0xc0ffeeu);
    finish_row(&row);
    return row;
}

static void make_rows(const struct made *made, struct sweep_table *table, size_t v, char **names)
{
    struct sweep_variant *variant = &table->variants[v];
    struct sweep_row by_role[N_ROLES], total = { 0 };
    variant->first_row = table->n_rows;
    memset(by_role, 0, sizeof by_role);
    for (size_t layer = 0; layer < made->n_layers; layer++)
        for (size_t role = 0; role < N_ROLES; role++) {
            struct sweep_row row = tensor_row(made, v, layer, role, names[layer * N_ROLES + role]);
            table->rows[table->n_rows++] = row;
            add_row(&by_role[role], &row);
            add_row(&total, &row);
        }
    for (size_t role = 0; role <= N_ROLES; role++) {
        struct sweep_row row = role < N_ROLES ? by_role[role] : total;
        row.variant = (uint32_t)v;
        row.scope = role < N_ROLES ? SWEEP_ROLE : SWEEP_TOTAL;
        row.name = row.role = role < N_ROLES ? roles[role].role : "total";
        row.format = variant->format;
        row.layer = SWEEP_NO_LAYER;
        row.perplexity = row.kl = (double)NAN;
        if (role == N_ROLES) row.bits += 80000;
        finish_row(&row);
        if (role == N_ROLES && made->perplexity) {
            row.kl = 1.7 * row.sum_dd / row.sum_xx;
            row.perplexity = 8.25 * exp(row.kl);
        }
        table->rows[table->n_rows++] = row;
    }
    variant->n_rows = table->n_rows - variant->first_row;
}

static void make_variants(const struct made *made, struct sweep_table *table)
{
    table->n_variants = made->n_variants + (made->n_variants > 1 ? 2 : 0);
    table->variants = calloc(table->n_variants, sizeof *table->variants);
    assert_non_null(table->variants);
    for (size_t v = 0; v < table->n_variants; v++) {
        struct sweep_variant *variant = &table->variants[v];
        char settings[128];
        const bool skipped = v >= made->n_variants;
        const char *format = skipped ? "mxfp4" : formats[v].format, *group = skipped ? (v == made->n_variants ? "64" : "128") : formats[v].group_size;
        snprintf(settings, sizeof settings, "--format %s --group-size %s --scale-rule absmax", format, group);
        variant->format = copy(format);
        variant->group_size = copy(group);
        variant->scale_rule = copy(strncmp(format, "mx", 2) == 0 ? "floor" : "absmax");
        variant->settings = copy(settings);
        if (skipped) variant->skipped = copy("format mxfp4 has groups of 32");
    }
}

static void make_histograms(struct sweep_table *table, size_t n)
{
    table->histograms = calloc(n, sizeof *table->histograms);
    assert_non_null(table->histograms);
    for (size_t k = 0; k < n; k++) {
        struct sweep_histogram *histogram = &table->histograms[table->n_histograms++];
        const size_t n_codes = (size_t)1 << (int)formats[k].bits;
        *histogram = (struct sweep_histogram){
            .variant = (uint32_t)k, .n_codes = n_codes, .n_scale_bins = 24, .scale_log2_low = -12.0, .scale_log2_step = 0.25
        };
        histogram->codes = calloc(n_codes, sizeof *histogram->codes);
        histogram->code_values = calloc(n_codes, sizeof *histogram->code_values);
        histogram->scales = calloc(histogram->n_scale_bins, sizeof *histogram->scales);
        assert_true(histogram->codes && histogram->code_values && histogram->scales);
        for (size_t c = 0; c < n_codes; c++) {
            const double x = (double)c - (double)n_codes / 2.0;
            histogram->code_values[c] = x;
            histogram->codes[c] = (uint64_t)(1e5 * exp(-0.5 * x * x * 40.0 / ((double)n_codes * (double)n_codes)));
        }
        for (size_t c = 0; c < histogram->n_scale_bins; c++) {
            const double x = ((double)c - 13.0) / 3.5;
            histogram->scales[c] = (uint64_t)(4000.0 * exp(-0.5 * x * x));
            histogram->n_scales += histogram->scales[c];
        }
    }
}

struct sweep_table *made_table(const struct made *made)
{
    struct sweep_table *table = calloc(1, sizeof *table);
    const size_t n_tensors = made->n_layers * N_ROLES;
    assert_non_null(table);
    table->title = copy(made->n_variants > 1 ? "sweep" : "convert");
    table->model = copy(made->hostile ? "models/<b>&\"'.safetensors" : "models/made-up-1b/");
    snprintf(table->input_digest, sizeof table->input_digest, "0123456789abcdef0123456789abcdef");
    table->writer = copy("llmq 0.1.0");
    table->reference_name = copy(made->perplexity ? "a text" : "");
    table->reference_perplexity = made->perplexity ? 8.25 : (double)NAN;
    table->sample = 1.0;
    table->weighted = made->weighted;
    table->seconds = 1.5;
    table->read_nbytes = 2 * (uint64_t)n_tensors << 20;
    make_variants(made, table);
    table->texts = calloc(n_tensors + 1, sizeof *table->texts);
    table->rows = calloc(made->n_variants * (n_tensors + N_ROLES + 1) + 1, sizeof *table->rows);
    assert_true(table->texts && table->rows);
    for (size_t k = 0; k < n_tensors; k++) table->texts[table->n_texts++] = tensor_name(made, k / N_ROLES, k % N_ROLES);
    for (size_t v = 0; v < made->n_variants; v++) make_rows(made, table, v, table->texts);
    table->settings = calloc(3, sizeof *table->settings);
    assert_non_null(table->settings);
    table->settings[table->n_settings++] = (struct sweep_setting){ copy("formats"), copy("int4,int3,mxfp4,nvfp4,int2") };
    table->settings[table->n_settings++] = (struct sweep_setting){ copy("group-sizes"), copy("16,32,64,128") };
    if (made->hostile) table->settings[table->n_settings++] = (struct sweep_setting){ copy("in"), copy(made_hostile_name) };
    table->histogram_tensor = copy(made->hostile ? made_hostile_name : table->texts[made->n_layers > 1 ? N_ROLES + 6 : 6]);
    make_histograms(table, made->n_variants);
    return table;
}

void made_table_free(struct sweep_table *table)
{
    for (size_t k = 0; k < table->n_variants; k++) {
        free(table->variants[k].format);
        free(table->variants[k].group_size);
        free(table->variants[k].scale_rule);
        free(table->variants[k].settings);
        free(table->variants[k].skipped);
    }
    for (size_t k = 0; k < table->n_settings; k++) {
        free(table->settings[k].name);
        free(table->settings[k].value);
    }
    for (size_t k = 0; k < table->n_histograms; k++) {
        free(table->histograms[k].codes);
        free(table->histograms[k].code_values);
        free(table->histograms[k].scales);
    }
    for (size_t k = 0; k < table->n_texts; k++) free(table->texts[k]);
    free(table->title);
    free(table->model);
    free(table->writer);
    free(table->settings);
    free(table->variants);
    free(table->rows);
    free(table->histogram_tensor);
    free(table->histograms);
    free(table->reference_name);
    free(table->texts);
    free(table);
}
