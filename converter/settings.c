/* settings.c: the table and its parser.
 *
 * Drawing: argv -> row by name -> check by type -> values[row].
 * Why this way: see settings.h.
 * Corner cases: "--name=value" and "--name value"; "--" ends options; sizes take K, M, G (1024-based) and decimals: 1.5G; a flag takes no value; an
 * option given twice: the last one counts, except --rule and --keep, which collect.
 * Reference: POSIX utility conventions, GNU long options. Worked number: --max-ram 1.5K is 1536.
 */
#include "converter/settings.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define WRITES (CMD_CONVERT | CMD_DEQUANTIZE | CMD_EXTRACT | CMD_STATS | CMD_SMOOTH | CMD_CALIBRATE)
#define PLANS (CMD_CONVERT | CMD_PLAN)
#define SMOOTHS (PLANS | CMD_SMOOTH)
#define RUNS (CMD_CALIBRATE | CMD_EVAL)

const struct setting settings_table[SET_COUNT] = {
    [SET_IN] = { "in", SETTING_TEXT, "PATH", NULL, 0, 0, SMOOTHS | CMD_SWEEP | CMD_DEQUANTIZE | CMD_COMPARE | RUNS, false,
                 "model to read: a .safetensors, .llmq or .gguf file, a model.safetensors.index.json, or a model folder" },
    [SET_OUT] = { "out", SETTING_TEXT, "PATH", NULL, 0, 0, PLANS | WRITES, false,
                  "output: convert writes a .llmq file, or a .gguf file when the model came from one (without it NAME.FORMAT.llmq in the current "
                  "folder); dequantize and extract .safetensors or a folder/; stats and calibrate .safetensors, .gguf or .dat" },
    [SET_AGAINST] = { "against", SETTING_TEXT, "PATH", NULL, 0, 0, CMD_COMPARE | CMD_EVAL, false,
                      "model to compare with; for eval the reference of KL divergence" },
    [SET_FORMAT] = { "format", SETTING_TEXT, "FORMAT", NULL, 0, 0, SMOOTHS | CMD_BENCH, true,
                     "number format of the linear layers, with parameters inline if wanted: int4:group=64,scale=f16 (llmq formats lists all)" },
    [SET_GROUP_SIZE] = { "group-size", SETTING_TEXT, "N|channel|tensor|128x128", NULL, 0, 0, SMOOTHS | CMD_BENCH, true,
                         "weights that share a scale along the input axis; channel is one group a row, 128x128 a square of the matrix" },
    [SET_SCALE_RULE] = { "scale-rule", SETTING_TEXT, "RULE", NULL, 0, 0, SMOOTHS | CMD_BENCH, true,
                         "how scales are chosen: absmax, mse for integers, floats and codebooks; minmax, percentile, mse-hist, histogram-pro, 3sd, "
                         "kl-j (a range is observed), tqt, lsq, pact (the scale is learned) for integers; floor, even, ceil, rceil, search for MX; "
                         "floor, search for block floating point; reference (ggml's bytes) or mse for GGUF's types" },
    [SET_PERCENTILE] = { "percentile", SETTING_TEXT, "P", NULL, 0, 0, SMOOTHS | CMD_SWEEP | CMD_BENCH, true,
                         "share of the weights, 0 to 100, that scale rule percentile keeps in range (99.99 without it)" },
    [SET_SCALE_DTYPE] = { "scale-dtype", SETTING_TEXT, "bf16|f16|f32", NULL, 0, 0, SMOOTHS | CMD_SWEEP | CMD_BENCH, true,
                          "type of the stored scales of integers, floats and codebooks" },
    [SET_ROUNDING] = { "rounding", SETTING_CHOICE, "nearest-even|away|up|truncate", "nearest-even", 0, 0, SMOOTHS | CMD_SWEEP | CMD_BENCH, true,
                       "rounding of the codes" },
    [SET_HALF_RANGE] = { "half-range", SETTING_CHOICE, "half|int_max", "half", 0, 0, SMOOTHS | CMD_SWEEP | CMD_BENCH, true,
                         "largest weight of a group of symmetric integers: half a code beyond the largest code, or on it" },
    [SET_RULE] = { "rule", SETTING_LIST, "PATTERN=FORMAT", NULL, 0, 0, SMOOTHS | CMD_SWEEP, false,
                   "format for the tensors that match: an exact name, a glob, re:REGEX or role:ROLE; FORMAT may be keep; may be repeated, the first "
                   "match wins" },
    [SET_KEEP] = { "keep", SETTING_LIST, "PATTERN", NULL, 0, 0, SMOOTHS | CMD_SWEEP, false,
                   "keep the tensors that match bit for bit; may be repeated" },
    [SET_RECIPE] = { "recipe", SETTING_TEXT, "FILE", NULL, 0, 0, SMOOTHS | CMD_SWEEP, false, "YAML file with settings and rules" },
    [SET_IMATRIX] = { "imatrix", SETTING_TEXT, "FILE", NULL, 0, 0, PLANS | CMD_SWEEP, true,
                      "activation statistics (llama.cpp's imatrix, .dat or .gguf, or llmq's own) that weigh the errors of weights where scales are "
                      "searched" },
    [SET_SMOOTH] = { "smooth", SETTING_TEXT, "FILE|gain", NULL, 0, 0, SMOOTHS | CMD_SWEEP, true,
                     "activation statistics (llmq's own, llama.cpp's imatrix, act_scales or an AWQ cache) by which channels are scaled, into the "
                     "layer before, so that weights lose less; gain: without a file, from the norms (experimental)" },
    [SET_ALPHA] = { "alpha", SETTING_TEXT, "A|auto", NULL, 0, 0, SMOOTHS, true,
                    "migration strength, 0 to 1; auto: searched for each group through the format itself, never worse than none (without it 0.45 "
                    "for groups of up to 64 weights, 0.35 for longer ones, auto for MX formats)" },
    [SET_SMOOTH_FAMILY] = { "smooth-family", SETTING_CHOICE, "sq|awq|duo|any", "sq", 0, 0, SMOOTHS | CMD_SWEEP, true,
                            "how a factor is made of activations x and weights w: x^a / w^(1-a), x^a, x^a / (mean w)^(1-a); any: auto tries all" },
    [SET_SMOOTH_STAT] = { "smooth-stat", SETTING_TEXT, "rms|absmax|mean|pctl:P|gain", NULL, 0, 0, SMOOTHS | CMD_SWEEP, true,
                          "which statistic of a channel is x (rms, or absmax where the file has no sums of squares)" },
    [SET_SMOOTH_LOSS] = { "smooth-loss", SETTING_CHOICE, "diag|gram|sample|w8a8", "diag", 0, 0, SMOOTHS | CMD_SWEEP, true,
                          "what auto minimises: error weighted by E[x^2]; exact output error by the Gram matrix; output error on sampled tokens; "
                          "the 8-bit loss of the reference's AutoAlpha" },
    [SET_SHARED_CRITERION] = { "shared-criterion", SETTING_CHOICE, "joint|mean|min|max", "joint", 0, 0, SMOOTHS | CMD_SWEEP, true,
                               "how layers that share an input agree on one alpha: least sum of errors, least mean of relative ones, least or "
                               "largest of their own" },
    [SET_ALPHA_MIN] = { "alpha-min", SETTING_REAL, "A", "0", 0, 1, SMOOTHS | CMD_SWEEP, true, "least alpha that auto tries" },
    [SET_ALPHA_MAX] = { "alpha-max", SETTING_REAL, "A", "1", 0, 1, SMOOTHS | CMD_SWEEP, true, "largest alpha that auto tries" },
    [SET_ALPHA_STEP] = { "alpha-step", SETTING_REAL, "A", "0.05", 0, 1, SMOOTHS | CMD_SWEEP, true, "step between them" },
    [SET_INIT_ALPHA] = { "init-alpha", SETTING_REAL, "A", "0.5", 0, 1, SMOOTHS | CMD_SWEEP, true,
                         "alpha of groups that auto cannot judge for want of statistics" },
    [SET_DO_BLOCKWISE] = { "do-blockwise", SETTING_FLAG, NULL, NULL, 0, 0, SMOOTHS | CMD_SWEEP, true, "auto: one alpha for all groups of a layer" },
    [SET_N_SAMPLES] = { "n-samples", SETTING_COUNT, "N", "256", 1, 1 << 20, SMOOTHS | CMD_SWEEP, true,
                        "sampled tokens that losses sample and w8a8 use" },
    [SET_SMOOTH_REFINE] = { "smooth-refine", SETTING_COUNT, "N", "0", 0, 8, SMOOTHS | CMD_SWEEP, true,
                            "auto: how often the step around the best is halved" },
    [SET_SMOOTH_REDUCE] = { "smooth-reduce", SETTING_CHOICE, "geomean|max", "geomean", 0, 0, SMOOTHS | CMD_SWEEP, true,
                            "how query heads that share a value head agree on a factor" },
    [SET_SMOOTH_CLAMP] = { "smooth-clamp", SETTING_TEXT, "LOW", "1e-4", 0, 0, SMOOTHS | CMD_SWEEP, true,
                           "least factor, relative to the geometric mean of its group; its inverse is the largest" },
    [SET_SMOOTH_GROUPS] = { "smooth-groups", SETTING_TEXT, "KIND,...", NULL, 0, 0, SMOOTHS | CMD_SWEEP, true,
                            "only these kinds: norm (N, N1), updown (U), relu (R), vo (V, VG), mla (M), gated (G); without it all" },
    [SET_SMOOTH_MAP] = { "smooth-map", SETTING_TEXT, "FILE", NULL, 0, 0, SMOOTHS | CMD_SWEEP | RUNS, true,
                         "architecture map to use instead of those in configs/arch" },
    [SET_FOLDING] = { "folding", SETTING_CHOICE, "on|off", "on", 0, 0, SMOOTHS, true,
                      "off: change no layer before, store all factors beside the weights, to be applied at run time" },
    [SET_SMOOTH_RUNTIME] = { "smooth-runtime", SETTING_FLAG, NULL, NULL, 0, 0, PLANS, true,
                             "store factors beside weights whose scales cannot be folded into a layer before (.llmq output)" },
    [SET_SMOOTH_CHECK] = { "smooth-check", SETTING_COUNT, "N", NULL, 1, 65536, SMOOTHS, true,
                           "run the model on N tokens before and after migration, before anything is written: its logits must be the same" },
    [SET_SMOOTH_RECIPE] = { "smooth-recipe", SETTING_TEXT, "FILE", NULL, 0, 0, SMOOTHS, true,
                            "replay the migration of a recipe, without statistics" },
    [SET_SMOOTH_RECIPE_OUT] = { "smooth-recipe-out", SETTING_TEXT, "FILE", NULL, 0, 0, SMOOTHS, false,
                                "write the migration as a recipe (JSON, factors in FILE.safetensors)" },
    [SET_SMOOTH_INC_JSON] = { "smooth-inc-json", SETTING_TEXT, "FILE", NULL, 0, 0, SMOOTHS, false,
                              "write the factors and 8-bit scales of each linear layer with the fields of the reference's JSON" },
    [SET_INVERSE] = { "inverse", SETTING_TEXT, "FILE", NULL, 0, 0, CMD_SMOOTH, false, "undo the migration of this recipe" },
    [SET_NVFP4_SCALE] = { "nvfp4-scale", SETTING_CHOICE, "fused|tensor|none", "fused", 0, 0, SMOOTHS | CMD_SWEEP | CMD_BENCH, true,
                          "NVFP4 with a float scale of each matrix beside the scales of groups: q, k and v of a layer, and gate and up, have it in "
                          "common, or "
                          "each its own; or without (as llama.cpp's own quantiser)" },
    [SET_NO_FALLBACK] = { "no-fallback", SETTING_FLAG, NULL, NULL, 0, 0, PLANS | CMD_SWEEP, true,
                          "refuse, instead of naming another format, where a row is no multiple of the format's block" },
    [SET_ALLOW_REQUANTIZE] = { "allow-requantize", SETTING_FLAG, NULL, NULL, 0, 0, PLANS | CMD_SWEEP, true,
                               "quantise tensors again that are quantised already, to another format" },
    [SET_FILE_TYPE] = { "gguf-file-type", SETTING_COUNT, "N", NULL, 0, 1023, PLANS, true,
                        "GGUF output: the number in general.file_type; without it that of the type most weights have" },
    [SET_NONFINITE] = { "nonfinite", SETTING_CHOICE, "error|zero|clamp|keep", "error", 0, 0, PLANS | CMD_SWEEP, true,
                        "NaN and Inf in a weight: refuse, set to 0, let Inf take the extreme code, or keep the tensor unquantised" },
    [SET_COMPRESS] = { "compress", SETTING_CHOICE, "none|default|max", "default", 0, 0, PLANS, true,
                       "none: all planes raw; default: scales and kept 16-bit tensors through zstd; max: the codes too" },
    [SET_SPLIT_SIZE] = { "split-max-size", SETTING_BYTES, "SIZE", "0", 0, UINT64_MAX, SMOOTHS | CMD_DEQUANTIZE, true,
                         "start a new output file before one grows beyond this size; 0: one file (safetensors: 5 GB)" },
    [SET_ALIGN] = { "align", SETTING_BYTES, "SIZE", "4096", 64, 1 << 21, SMOOTHS | CMD_SWEEP, true, "alignment of large raw planes, a power of two" },
    [SET_MEASURE] = { "measure", SETTING_CHOICE, "on|off", "on", 0, 0, CMD_CONVERT, true, "measure the error of every tensor on the way" },
    [SET_DTYPE] = { "dtype", SETTING_CHOICE, "source|f32|bf16|f16", "source", 0, 0, CMD_DEQUANTIZE | CMD_EXTRACT, false,
                    "type of decoded tensors; source is the one each had before, F32 where that was F64 or F8" },
    [SET_RAW] = { "raw", SETTING_FLAG, NULL, NULL, 0, 0, CMD_EXTRACT, false,
                  "write the stored planes (codes, scales, zeros) as bytes instead of decoded weights" },
    [SET_TENSORS] = { "tensors", SETTING_FLAG, NULL, NULL, 0, 0, CMD_INSPECT, false, "list every tensor" },
    [SET_SCAN] = { "scan", SETTING_FLAG, NULL, NULL, 0, 0, CMD_INSPECT, false, "read all weights: NaN, Inf, zeros, ranges per tensor" },
    [SET_SECONDS] = { "seconds", SETTING_COUNT, "N", "1", 1, 60, CMD_BENCH, false, "time spent on each measurement" },
    [SET_EXPERTS] = { "experts", SETTING_COUNT, "N", NULL, 1, 1 << 20, CMD_STATS, false,
                      "experts of a stack that a legacy imatrix has side by side in one row, so that they become matrices" },
    [SET_TEXT] = { "text", SETTING_TEXT, "FILE", NULL, 0, 0, RUNS, false,
                   "text to run the model on, through its own tokenizer: .txt is one document, .jsonl and .json hold several" },
    [SET_TOKENS] = { "tokens", SETTING_TEXT, "FILE", NULL, 0, 0, RUNS, false,
                     "token ids to run the model on: a text with one document a line, or .npy" },
    [SET_SELF] = { "self", SETTING_TEXT, "NxL", NULL, 0, 0, CMD_CALIBRATE, false,
                   "no text at all: N documents of L tokens that the model writes itself, the same every time" },
    [SET_SAMPLES] = { "samples", SETTING_COUNT, "N", "32", 1, 1 << 24, CMD_CALIBRATE, false, "windows of the text that are used, the first N" },
    [SET_SEQ] = { "seq", SETTING_COUNT, "N", "512", 2, 1 << 20, RUNS | CMD_SWEEP, false,
                  "tokens of a window; windows do not overlap and never cross documents" },
    [SET_SKIP_FIRST] = { "skip-first", SETTING_COUNT, "N", "0", 0, 1 << 20, CMD_CALIBRATE, false,
                         "leave the first N tokens of every window out of the statistics" },
    [SET_COLLECT] = { "collect", SETTING_TEXT, "hist,gram,sample=N", NULL, 0, 0, CMD_CALIBRATE, false,
                      "besides counts, maxima and sums: histograms, Gram matrices, N sampled rows of every input" },
    [SET_SEQUENTIAL] = { "sequential", SETTING_TEXT, "FORMAT", NULL, 0, 0, CMD_CALIBRATE, false,
                         "every layer sees what the layers before it give after quantisation to FORMAT" },
    [SET_LOGITS] = { "logits", SETTING_TEXT, "FILE.npy", NULL, 0, 0, CMD_EVAL, false, "write the logits of every token, F32 [tokens, vocabulary]" },
    [SET_RESUME] = { "resume", SETTING_FLAG, NULL, NULL, 0, 0, CMD_CALIBRATE | CMD_SWEEP, false,
                     "go on where an interrupted run stopped: behind the last layer, or tensor, that it finished" },
    [SET_THREADS] = { "threads", SETTING_COUNT, "N", "0", 0, 1024, CMD_ALL, true, "worker threads; 0: one per processor" },
    [SET_MAX_RAM] = { "max-ram", SETTING_BYTES, "SIZE", "32M", 8u << 20, UINT64_MAX, CMD_ALL, true,
                      "memory to stay under, besides the index of tensors; at least 8M; calibrate and eval: 1G without it" },
    [SET_FORCE] = { "force", SETTING_FLAG, NULL, NULL, 0, 0, PLANS | CMD_SWEEP | CMD_EVAL | WRITES, false, "replace an existing output" },
    [SET_JSON] = { "json", SETTING_FLAG, NULL, NULL, 0, 0, CMD_ALL & ~CMD_SWEEP, false, "results as one JSON object on stdout" },
    [SET_QUIET] = { "quiet", SETTING_FLAG, NULL, NULL, 0, 0, CMD_ALL, false, "no progress, no notes" },
    [SET_PROGRESS] = { "progress", SETTING_CHOICE, "auto|bar|plain|jsonl|none", "auto", 0, 0, CMD_ALL, false,
                       "how progress is shown on stderr; auto: a bar on a terminal, plain lines elsewhere" },
    [SET_FORMATS] = { "formats", SETTING_TEXT, "A,B,...", NULL, 0, 0, CMD_SWEEP, false,
                      "formats to compare, each with parameters inline if wanted: int4,mxfp4,nf4:scale=f16" },
    [SET_GROUP_SIZES] = { "group-sizes", SETTING_TEXT, "N,M,...", NULL, 0, 0, CMD_SWEEP, false,
                          "group sizes for each format: numbers, channel, tensor, 128x128; without it each format's own" },
    [SET_SCALE_RULES] = { "scale-rules", SETTING_TEXT, "A,B,...", NULL, 0, 0, CMD_SWEEP, false,
                          "scale rules for each; without it each format's own" },
    [SET_ALPHAS] = { "alphas", SETTING_TEXT, "A,B,...", NULL, 0, 0, CMD_SWEEP, false,
                     "migration strengths for each, 0 to 1 or auto, with --smooth; 0 is none; without it --smooth's own" },
    [SET_TENSORS_OF] = { "tensors", SETTING_TEXT, "PATTERN", NULL, 0, 0, CMD_SWEEP, false,
                         "measure only the tensors that match: an exact name, a glob, re:REGEX or role:ROLE" },
    [SET_SAMPLE] = { "sample", SETTING_TEXT, "SHARE", NULL, 0, 0, CMD_SWEEP, false,
                     "measure this share of the tiles of each tensor, always the same ones: 0.1 is a tenth; hashes are left out" },
    [SET_EVAL_TEXT] = { "eval-text", SETTING_TEXT, "FILE", NULL, 0, 0, CMD_SWEEP, false,
                        "judge each variant by perplexity on this text, and by KL divergence from the model as it is" },
    [SET_EVAL_TOKENS] = { "eval-tokens", SETTING_TEXT, "FILE", NULL, 0, 0, CMD_SWEEP, false, "the same with token ids: a document a line, or .npy" },
    [SET_HISTOGRAM] = { "histogram", SETTING_TEXT, "TENSOR", NULL, 0, 0, CMD_SWEEP, false,
                        "tensor whose codes and scales the report counts; without it the one with most of the error" },
    [SET_REPORT] = { "report", SETTING_TEXT, "FILE", NULL, 0, 0, CMD_SWEEP | CMD_CONVERT, false, "write the results as one HTML file" },
    [SET_CSV] = { "csv", SETTING_TEXT, "FILE", NULL, 0, 0, CMD_SWEEP, false,
                  "write the results as CSV, a row a tensor, role and total; - is stdout" },
    [SET_SWEEP_JSON] = { "json", SETTING_TEXT, "FILE", NULL, 0, 0, CMD_SWEEP, false, "write the same rows as JSON; - is stdout" },
    [SET_HASHES] = { "hashes", SETTING_FLAG, NULL, NULL, 0, 0, CMD_INSPECT, false,
                     "with --json: read all tensors for the hash of their codes and scales, as sweep lists it" },
    [SET_TARGET_BPW] = { "target-bpw", SETTING_TEXT, "BITS", NULL, 0, 0, PLANS, false,
                         "choose a format for each linear layer, so that the file has at most so many bits for each weight of the model and the "
                         "error is least" },
    [SET_TARGET_SIZE] = { "target-size", SETTING_BYTES, "SIZE", NULL, 1, UINT64_MAX, PLANS, false, "the same with the size of the file: 4.2G" },
    [SET_CANDIDATES] = { "candidates", SETTING_TEXT, "A,B,...", "int3,int4,mxfp4,int8", 0, 0, PLANS, false,
                         "formats to choose from under --target-bpw or --target-size" },
    [SET_FREE_FUSED] = { "free-fused", SETTING_FLAG, NULL, NULL, 0, 0, PLANS, false,
                         "let q, k and v of a layer, or gate and up, have different formats under --target-bpw or --target-size" },
    [SET_RECIPE_OUT] = { "recipe-out", SETTING_TEXT, "FILE", NULL, 0, 0, PLANS, false, "write what was chosen as a recipe for --recipe" },
};

/* The row of this name that one of the commands takes; without such a row one of another command. */
static const struct setting *find(const char *name, size_t nbytes, uint32_t commands)
{
    const struct setting *other = NULL;
    for (size_t i = 0; i < SET_COUNT; i++) {
        const struct setting *row = &settings_table[i];
        if (strlen(row->name) != nbytes || memcmp(row->name, name, nbytes) != 0) continue;
        if (row->commands & commands) return row;
        other = row;
    }
    return other;
}

/* ---- values --------------------------------------------------------------------------------------------------------------------- */

static bool parse_bytes(const char *text, uint64_t *out)
{
    char *end;
    double value = strtod(text, &end);
    double unit = *end == 'K' || *end == 'k' ? 0x1p10 : *end == 'M' || *end == 'm' ? 0x1p20 : *end == 'G' || *end == 'g' ? 0x1p30 : 1.0;
    if (end == text || strspn(text, "0123456789.") != (size_t)(end - text) || (unit > 1.0 ? end[1] : end[0]) != '\0') return false;
    if (!(value * unit < 0x1p63)) return false;
    *out = (uint64_t)(value * unit);
    return true;
}

static bool parse_count(const char *text, uint64_t *out)
{
    if (strspn(text, "0123456789") != strlen(text) || *text == '\0' || strlen(text) > 18) return false;
    *out = strtoull(text, NULL, 10);
    return true;
}

static bool is_choice(const char *choices, const char *text)
{
    size_t nbytes = strcspn(text, "|");
    if (text[nbytes]) return false;
    for (const char *at = choices; at; at = strchr(at, '|') ? strchr(at, '|') + 1 : NULL)
        if (strncmp(at, text, nbytes) == 0 && (at[nbytes] == '|' || at[nbytes] == '\0') && nbytes) return true;
    return false;
}

/* Digits and a point, perhaps an exponent. */
static bool parse_real(const char *text, double *out)
{
    char *end;
    *out = strtod(text, &end);
    return end != text && *end == '\0' && strspn(text, "0123456789.e-") == strlen(text) && *out < HUGE_VAL;
}

static enum status check_real(const struct setting *row, const char *text, struct err *err)
{
    double value;
    if (!parse_real(text, &value)) return err_set(err, ERR_USAGE, "--%s '%s' is not a number", row->name, text);
    if (value < (double)row->min || value > (double)row->max)
        return err_set(err, ERR_USAGE, "--%s '%s' is not between %llu and %llu", row->name, text, (unsigned long long)row->min,
                       (unsigned long long)row->max);
    return OK;
}

static enum status check_number(const struct setting *row, const char *text, struct err *err)
{
    uint64_t value;
    bool fine = row->type == SETTING_BYTES ? parse_bytes(text, &value) : parse_count(text, &value);
    if (!fine)
        return err_set(err, ERR_USAGE, "--%s '%s' is not %s", row->name, text,
                       row->type == SETTING_BYTES ? "a size like 64M or 1.5G" : "a whole number");
    if (value < row->min && row->type == SETTING_BYTES && row->min >= 1u << 20)
        return err_set(err, ERR_USAGE, "--%s '%s' is less than %lluM", row->name, text, (unsigned long long)(row->min >> 20));
    if (value < row->min || value > row->max)
        return err_set(err, ERR_USAGE, "--%s '%s' is not between %llu and %llu", row->name, text, (unsigned long long)row->min,
                       (unsigned long long)row->max);
    if (row == &settings_table[SET_ALIGN] && (value & (value - 1)) != 0) return err_set(err, ERR_USAGE, "--align '%s' is not a power of two", text);
    return OK;
}

static enum status check(const struct setting *row, const char *text, struct err *err)
{
    if (row->type == SETTING_BYTES || row->type == SETTING_COUNT) return check_number(row, text, err);
    if (row->type == SETTING_REAL) return check_real(row, text, err);
    if (row->type == SETTING_CHOICE && !is_choice(row->argument, text))
        return err_set(err, ERR_USAGE, "--%s '%s' is none of %s", row->name, text, row->argument);
    if (row->type == SETTING_FLAG && strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
        return err_set(err, ERR_USAGE, "--%s '%s' is neither true nor false", row->name, text);
    if (row->type != SETTING_FLAG && *text == '\0') return err_set(err, ERR_USAGE, "--%s needs a value that is not empty", row->name);
    return OK;
}

/* ---- the command line ----------------------------------------------------------------------------------------------------------- */

/* Letters to insert, remove or replace to turn the n letters of a into b; neighbours that changed places count as one. */
static size_t distance(const char *a, size_t n, const char *b)
{
    enum { LONGEST = 24 };
    size_t rows[3][LONGEST + 1], m = strlen(b); /* the last three rows of the table, rows[i % 3][j]: first i letters of a, first j of b */
    if (n > LONGEST || m > LONGEST) return LONGEST;
    for (size_t j = 0; j <= m; j++) rows[0][j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t *row = rows[i % 3], *above = rows[(i - 1) % 3], *second = rows[(i + 1) % 3];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t least = above[j - 1] + (a[i - 1] != b[j - 1]);
            if (above[j] + 1 < least) least = above[j] + 1;
            if (row[j - 1] + 1 < least) least = row[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && second[j - 2] + 1 < least) least = second[j - 2] + 1;
            row[j] = least;
        }
    }
    return rows[n % 3][m];
}

/* The option of the command that was probably meant: begins the same way, or differs in at most a third of its letters; NULL for none. */
static const struct setting *nearest(const char *name, size_t nbytes, uint32_t command)
{
    const struct setting *best = NULL;
    size_t least = SIZE_MAX;
    for (size_t i = 0; i < SET_COUNT; i++) {
        const struct setting *row = &settings_table[i];
        size_t length = strlen(row->name), away = distance(name, nbytes, row->name);
        if (!(row->commands & command)) continue;
        if (nbytes >= 3 && nbytes < length && memcmp(row->name, name, nbytes) == 0) away = 1;
        if (away < least && away * 3 <= length) {
            best = row;
            least = away;
        }
    }
    return best;
}

static enum status unknown_option(const char *name, size_t nbytes, uint32_t command, struct err *err)
{
    const struct setting *meant = nearest(name, nbytes, command);
    char shown[80];
    err_name(name, nbytes, shown, sizeof shown);
    if (meant) return err_set(err, ERR_USAGE, "unknown option --%s (did you mean --%s?)", shown, meant->name);
    return err_set(err, ERR_USAGE, "unknown option --%s", shown);
}

static bool grow(void **array, size_t n, size_t size)
{
    void *bigger = realloc(*array, (n + 1) * size);
    if (bigger) *array = bigger;
    return bigger != NULL;
}

static enum status add_argument(struct settings *settings, const char *text, struct err *err)
{
    if (!grow((void **)&settings->arguments, settings->n_arguments, sizeof *settings->arguments)) return err_set(err, ERR_MEMORY, "out of memory");
    settings->arguments[settings->n_arguments++] = text;
    return OK;
}

static enum status set_row(struct settings *settings, const struct setting *row, const char *text, struct err *err)
{
    enum setting_id id = (enum setting_id)(row - settings_table);
    enum status status = check(row, text, err);
    if (status) return status;
    if (row->type != SETTING_LIST) {
        settings->values[id] = text;
        return OK;
    }
    if (!grow((void **)&settings->rules, settings->n_rules, sizeof *settings->rules)) return err_set(err, ERR_MEMORY, "out of memory");
    settings->rules[settings->n_rules++] = (struct setting_rule){ id == SET_KEEP, text };
    return OK;
}

static enum status parse_option(struct settings *settings, uint32_t command, int argc, char **argv, int *i, struct err *err)
{
    const char *name = argv[*i] + 2, *equals = strchr(name, '=');
    size_t nbytes = equals ? (size_t)(equals - name) : strlen(name);
    const struct setting *row = find(name, nbytes, command);
    if (!row) return unknown_option(name, nbytes, command, err);
    if (!(row->commands & command)) return err_set(err, ERR_USAGE, "option --%s does not belong to this command", row->name);
    if (row->type == SETTING_FLAG) {
        if (equals) return err_set(err, ERR_USAGE, "--%s takes no value", row->name);
        return set_row(settings, row, "true", err);
    }
    if (equals) return set_row(settings, row, equals + 1, err);
    if (*i + 1 >= argc) return err_set(err, ERR_USAGE, "--%s needs a value: %s", row->name, row->argument);
    return set_row(settings, row, argv[++*i], err);
}

enum status settings_parse(struct settings *settings, uint32_t command, int argc, char **argv, bool *help, struct err *err)
{
    bool options = true;
    *settings = (struct settings){ 0 };
    *help = false;
    for (int i = 0; i < argc; i++) {
        enum status status = OK;
        if (options && (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)) *help = true;
        else if (options && strcmp(argv[i], "--") == 0) options = false;
        else if (options && strncmp(argv[i], "--", 2) == 0) status = parse_option(settings, command, argc, argv, &i, err);
        else if (options && argv[i][0] == '-' && argv[i][1]) status = err_set(err, ERR_USAGE, "unknown option %s", argv[i]);
        else status = add_argument(settings, argv[i], err);
        if (status) return status;
    }
    return OK;
}

enum status settings_set_from_recipe(struct settings *settings, const char *name, const char *text, struct err *err)
{
    const struct setting *row = find(name, strlen(name), CMD_ALL);
    if (!row || !row->in_recipe) return err_set(err, ERR_USAGE, "'%s' is no setting of a recipe", name);
    enum status status = check(row, text, err);
    if (status) return status;
    enum setting_id id = (enum setting_id)(row - settings_table);
    if (settings->values[id]) return OK;
    char *copy = strdup(text);
    if (!copy || !grow((void **)&settings->owned, settings->n_owned, sizeof *settings->owned)) {
        free(copy);
        return err_set(err, ERR_MEMORY, "out of memory");
    }
    settings->owned[settings->n_owned++] = copy;
    settings->values[id] = copy;
    settings->from_recipe[id] = true;
    return OK;
}

void settings_free(struct settings *settings)
{
    for (size_t i = 0; i < settings->n_owned; i++) free(settings->owned[i]);
    free(settings->owned);
    free(settings->rules);
    free(settings->arguments);
    *settings = (struct settings){ 0 };
}

/* ---- reading -------------------------------------------------------------------------------------------------------------------- */

bool settings_given(const struct settings *settings, enum setting_id id)
{
    return settings->values[id] != NULL;
}

const char *settings_text(const struct settings *settings, enum setting_id id)
{
    return settings->values[id] ? settings->values[id] : settings_table[id].preset;
}

bool settings_flag(const struct settings *settings, enum setting_id id)
{
    return settings->values[id] != NULL && strcmp(settings->values[id], "true") == 0;
}

bool settings_is(const struct settings *settings, enum setting_id id, const char *choice)
{
    return strcmp(settings_text(settings, id), choice) == 0;
}

uint64_t settings_number(const struct settings *settings, enum setting_id id)
{
    uint64_t value = 0;
    if (!settings_text(settings, id)) return 0;
    if (settings_table[id].type == SETTING_BYTES) parse_bytes(settings_text(settings, id), &value);
    else parse_count(settings_text(settings, id), &value);
    return value;
}

double settings_real(const struct settings *settings, enum setting_id id)
{
    double value = 0.0;
    if (settings_text(settings, id)) parse_real(settings_text(settings, id), &value);
    return value;
}

const char *settings_tensor_scale(const struct settings *settings)
{
    const char *value = settings->values[SET_NVFP4_SCALE];
    return value && strcmp(value, "fused") == 0 ? "tensor" : value;
}

void settings_print_help(FILE *out, uint32_t command)
{
    for (size_t i = 0; i < SET_COUNT; i++) {
        const struct setting *row = &settings_table[i];
        if (!(row->commands & command)) continue;
        char left[80];
        snprintf(left, sizeof left, "--%s%s%s", row->name, row->argument ? " " : "", row->argument ? row->argument : "");
        fprintf(out, "  %s\n      %s", left, row->help);
        if (row->preset) fprintf(out, " (default %s)", row->preset);
        fprintf(out, "\n");
    }
}
