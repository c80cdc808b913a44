/* autoalpha.c: see autoalpha.h.
 *
 * Drawing: for each sample: pass PLAIN -> outputs kept; pass CODED at the current alphas -> inputs kept, loss; every other alpha on the kept inputs
 * Why this way: a linear is asked to run and does not know which pass it is in; the model's code is written once.
 * Corner cases: see autoalpha.h; a linear that the model runs more than once a sample is judged by its last run, one that it does not run loses nothing.
 * Reference: see autoalpha.h. Worked number: a grid 0 .. 1 by .1 and 32 samples: 32 plain passes, 32 coded ones, 320 other codings of every linear.
 */
#include "smoothquant/autoalpha.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "smoothquant/qdq8.h"
#include "smoothquant/smooth_cache.h"
#include "smoothquant/smooth_panel.h"

enum pass { PASS_PLAIN, PASS_CODED, PASS_BLOCK };

/* Numbers that a pass has left: n_tokens rows of `width`. */
struct trace {
    float *values;
    uint64_t n_tokens, width;
    size_t capacity;
    bool is_there;
};

/* A linear or a block, of which what went in and what came out is kept. */
struct probe {
    struct trace plain, input, coded; /* output of PLAIN, input and output of CODED */
};

/* An alpha of the grid, or the start alpha beside it. */
struct choice {
    size_t index; /* n_grid: not of the grid */
    double alpha;
};

struct autoalpha_hook {
    const struct autoalpha_model *model;
    const struct autoalpha_settings *settings;
    struct autoalpha_result *result;
    enum pass pass;
    uint64_t sample;
    bool *tuned; /* [n_linears] */
    size_t *first; /* [n_groups]: its first member, n_linears where there is none or it is left out */
    struct choice *now; /* [n_groups] */
    float **x, **wmax; /* [n_groups]: absmax of the first member's input, column maxima of all members */
    float *cache; /* factors of all groups and alphas, or NULL */
    size_t *cache_at; /* [n_groups]: where a group's begin */
    struct probe *linears, *blocks;
    double *sums; /* as result->losses */
    float *s, *inverse, *w, *acts, *y; /* of one linear */
    double *panel;
    smooth_panel_add *add;
    size_t acts_capacity, y_capacity;
    size_t max_in, max_weights;
};

struct autoalpha_settings autoalpha_settings_default(void)
{
    return (struct autoalpha_settings){
        .alpha_max = 1.0, .alpha_step = 0.1, .shared_criterion = SMOOTH_MAX, .init_alpha = 0.5, .n_samples = 32, .power = 0.5
    };
}

/* ---- memory --------------------------------------------------------------------------------------------------------------------- */

static enum status no_memory(struct err *err)
{
    return err_set(err, ERR_MEMORY, "out of memory for tuning alphas");
}

static enum status reserve(float **values, size_t *capacity, uint64_t a, uint64_t b, struct err *err)
{
    uint64_t n, nbytes;
    if (!size_mul(a, b, &n) || !size_mul(n, sizeof **values, &nbytes) || nbytes > SIZE_MAX / 2) return no_memory(err);
    if (*values && n <= *capacity) return OK;
    free(*values);
    *capacity = 0;
    *values = malloc((size_t)nbytes + 1);
    if (!*values) return no_memory(err);
    *capacity = (size_t)n;
    return OK;
}

static enum status keep(struct trace *trace, const float *values, uint64_t n_tokens, uint64_t width, struct err *err)
{
    enum status status = reserve(&trace->values, &trace->capacity, n_tokens, width, err);
    if (status != OK) return status;
    if (n_tokens && width) memcpy(trace->values, values, (size_t)(n_tokens * width) * sizeof *values);
    trace->n_tokens = n_tokens;
    trace->width = width;
    trace->is_there = true;
    return OK;
}

static void forget(struct probe *probes, size_t n)
{
    for (size_t i = 0; i < n; i++) probes[i].plain.is_there = probes[i].input.is_there = probes[i].coded.is_there = false;
}

static void free_probes(struct probe *probes, size_t n)
{
    for (size_t i = 0; probes && i < n; i++) {
        free(probes[i].plain.values);
        free(probes[i].input.values);
        free(probes[i].coded.values);
    }
    free(probes);
}

/* ---- factors -------------------------------------------------------------------------------------------------------------------- */

static uint64_t group_width(const struct autoalpha_hook *hook, size_t group)
{
    return hook->model->linears[hook->first[group]].n_in;
}

static void make_scales(const struct autoalpha_hook *hook, size_t group, double alpha, float *s)
{
    const uint64_t n = group_width(hook, group);
    if (alpha >= 0.0) smooth_cal_scale(hook->x[group], hook->wmax[group], n, alpha, SMOOTH_WEIGHT_MIN, s);
    for (uint64_t j = 0; alpha < 0.0 && j < n; j++) s[j] = 1.0f;
}

/* The factors of a group at an alpha; they stay until the next call. */
static const float *scales_of(struct autoalpha_hook *hook, size_t group, struct choice choice)
{
    if (hook->cache && choice.index < hook->result->n_grid) return hook->cache + hook->cache_at[group] + choice.index * group_width(hook, group);
    make_scales(hook, group, choice.alpha, hook->s);
    return hook->s;
}

/* ---- linears -------------------------------------------------------------------------------------------------------------------- */

/* y = W x + bias for all tokens, eight at a time: the panel's rows are tokens, its vectors the rows of W. */
static void multiply(const struct autoalpha_hook *hook, const struct autoalpha_linear *linear, const float *w, const float *x, uint64_t n_tokens,
                     float *y)
{
    for (uint64_t t = 0; t < n_tokens; t += SMOOTH_PANEL) {
        const uint64_t count = size_min(n_tokens - t, SMOOTH_PANEL);
        smooth_panel_load(hook->panel, NULL, x + t * linear->n_in, NULL, count, linear->n_in);
        for (uint64_t i = 0; i < linear->n_out; i += SMOOTH_VECTORS) {
            double sums[SMOOTH_VECTORS][SMOOTH_PANEL];
            const uint64_t n_rows = size_min(linear->n_out - i, SMOOTH_VECTORS);
            smooth_panel_times(hook->add, hook->panel, w + i * linear->n_in, n_rows, linear->n_in, sums);
            for (uint64_t k = 0; k < count * n_rows; k++) {
                const uint64_t row = i + k % n_rows;
                const double sum = sums[k % n_rows][k / n_rows];
                y[(t + k / n_rows) * linear->n_out + row] = (float)(linear->bias ? sum + (double)linear->bias[row] : sum);
            }
        }
    }
}

/* Linear( QDQ8(x / s), QDQ8(W s) ). */
static enum status run_coded(struct autoalpha_hook *hook, size_t l, struct choice choice, const float *x, uint64_t n_tokens, float *y,
                             struct err *err)
{
    const struct autoalpha_linear *linear = &hook->model->linears[l];
    const uint64_t n = linear->n_in;
    const float *s = scales_of(hook, linear->group, choice);
    float low = HUGE_VALF, high = -HUGE_VALF;
    enum status status = reserve(&hook->acts, &hook->acts_capacity, n_tokens, n, err);
    if (status != OK) return status;
    for (uint64_t j = 0; j < n; j++) {
        hook->inverse[j] = 1.0f / s[j];
        low = fminf(low, linear->in_min[j] * hook->inverse[j]);
        high = fmaxf(high, linear->in_max[j] * hook->inverse[j]);
    }
    for (uint64_t i = 0; i < n_tokens * n; i++) hook->acts[i] = x[i] * hook->inverse[i % n];
    for (uint64_t i = 0; i < linear->n_out * n; i++) hook->w[i] = linear->w[i] * s[i % n];
    const struct qdq_params params = qdq_act_params(low, high, 8);
    qdq_apply(&params, hook->acts, n_tokens * n, hook->acts);
    qdq_weight_linear(hook->w, linear->n_out, n, 8, QDQ_SYM, hook->w, NULL);
    multiply(hook, linear, hook->w, hook->acts, n_tokens, y);
    return OK;
}

enum status autoalpha_linear_run(struct autoalpha_hook *hook, size_t l, const float *x, uint64_t n_tokens, float *y, struct err *err)
{
    if (l >= hook->model->n_linears) return err_set(err, ERR_USAGE, "there is no linear %zu", l);
    const struct autoalpha_linear *linear = &hook->model->linears[l];
    struct probe *probe = &hook->linears[l];
    if (hook->pass == PASS_PLAIN || !hook->tuned[l]) {
        multiply(hook, linear, linear->w, x, n_tokens, y);
        return hook->pass == PASS_PLAIN && hook->tuned[l] ? keep(&probe->plain, y, n_tokens, linear->n_out, err) : OK;
    }
    enum status status = run_coded(hook, l, hook->now[linear->group], x, n_tokens, y, err);
    if (status == OK && hook->pass == PASS_CODED) status = keep(&probe->input, x, n_tokens, linear->n_in, err);
    if (status == OK && hook->pass == PASS_CODED) status = keep(&probe->coded, y, n_tokens, linear->n_out, err);
    return status;
}

enum status autoalpha_block_enter(struct autoalpha_hook *hook, size_t block, const float *x, uint64_t n_tokens, uint64_t n_x, struct err *err)
{
    if (block >= hook->model->n_blocks) return err_set(err, ERR_USAGE, "there is no block %zu", block);
    if (!hook->settings->do_blockwise || hook->pass != PASS_CODED) return OK;
    return keep(&hook->blocks[block].input, x, n_tokens, n_x, err);
}

enum status autoalpha_block_leave(struct autoalpha_hook *hook, size_t block, const float *y, uint64_t n_tokens, uint64_t n_y, struct err *err)
{
    if (block >= hook->model->n_blocks) return err_set(err, ERR_USAGE, "there is no block %zu", block);
    if (!hook->settings->do_blockwise || hook->pass == PASS_BLOCK) return OK;
    struct probe *probe = &hook->blocks[block];
    return keep(hook->pass == PASS_PLAIN ? &probe->plain : &probe->coded, y, n_tokens, n_y, err);
}

/* ---- losses --------------------------------------------------------------------------------------------------------------------- */

static double loss_of(const struct autoalpha_settings *settings, const float *plain, const float *coded, uint64_t n)
{
    double most = 0.0, sum = 0.0;
    for (uint64_t i = 0; i < n; i++) most = fmax(most, fabs((double)plain[i]));
    most = fmax(most, 1e-5);
    for (uint64_t i = 0; i < n; i++) {
        const double d = fabs((double)plain[i] / most - (double)coded[i] / most);
        sum += settings->power == 0.5 ? sqrt(d) : d * d;
    }
    return sum;
}

/* Loss of an output, each sequence by itself. */
static enum status judge(const struct autoalpha_hook *hook, const struct trace *plain, const float *coded, uint64_t n_tokens, double *loss,
                         struct err *err)
{
    const uint64_t n_sequences = hook->model->n_sequences ? hook->model->n_sequences : 1, part = plain->n_tokens / n_sequences * plain->width;
    *loss = 0.0;
    if (!plain->is_there) return OK;
    if (plain->n_tokens != n_tokens || n_tokens % n_sequences)
        return err_set(err, ERR_USAGE, "%" PRIu64 " tokens where there were %" PRIu64 ", of %" PRIu64 " sequences", n_tokens, plain->n_tokens,
                       n_sequences);
    for (uint64_t q = 0; q < n_sequences; q++) *loss += loss_of(hook->settings, plain->values + q * part, coded + q * part, part);
    return OK;
}

static bool by_block(const struct autoalpha_hook *hook, size_t l)
{
    return hook->settings->do_blockwise && hook->model->linears[l].block != AUTOALPHA_NONE;
}

static struct choice grid_choice(const struct autoalpha_hook *hook, size_t index)
{
    return (struct choice){ index, hook->result->grid[index] };
}

/* One linear at every alpha of the grid; at the present one the pass has run it already. */
static enum status judge_linear(struct autoalpha_hook *hook, size_t l, struct err *err)
{
    const struct autoalpha_linear *linear = &hook->model->linears[l];
    const struct probe *probe = &hook->linears[l];
    const uint64_t n_tokens = probe->input.n_tokens;
    double *losses = hook->sums + l * hook->result->n_grid, loss = 0.0;
    if (!hook->tuned[l] || by_block(hook, l) || !probe->input.is_there) return OK;
    enum status status = reserve(&hook->y, &hook->y_capacity, n_tokens, linear->n_out, err);
    for (size_t a = 0; a < hook->result->n_grid && status == OK; a++) {
        const bool ran = hook->now[linear->group].index == a;
        if (!ran) status = run_coded(hook, l, grid_choice(hook, a), probe->input.values, n_tokens, hook->y, err);
        if (status == OK) status = judge(hook, &probe->plain, ran ? probe->coded.values : hook->y, n_tokens, &loss, err);
        losses[a] += loss;
    }
    return status;
}

/* Sets all groups of a block to an alpha; *had is the one they had, of the grid's size where they differ. */
static void set_block(struct autoalpha_hook *hook, size_t block, const struct choice *choice)
{
    for (size_t l = 0; l < hook->model->n_linears; l++)
        if (hook->tuned[l] && hook->model->linears[l].block == block) hook->now[hook->model->linears[l].group] = *choice;
}

/* The alpha that all groups of a block have; n_grid when they differ, or it is none of the grid; n_grid + 1 for a block without groups. */
static size_t alpha_of_block(const struct autoalpha_hook *hook, size_t block)
{
    const size_t none = hook->result->n_grid + 1;
    size_t index = none;
    for (size_t l = 0; l < hook->model->n_linears; l++) {
        if (!hook->tuned[l] || hook->model->linears[l].block != block) continue;
        const size_t own = hook->now[hook->model->linears[l].group].index;
        if (index != none && own != index) return hook->result->n_grid;
        index = own;
    }
    return index;
}

static enum status run_block(struct autoalpha_hook *hook, size_t block, double *loss, struct err *err)
{
    const struct probe *probe = &hook->blocks[block];
    enum status status = reserve(&hook->y, &hook->y_capacity, probe->plain.n_tokens, probe->plain.width, err);
    hook->pass = PASS_BLOCK;
    if (status == OK)
        status =
            hook->model->forward_block(hook->model->context, hook->sample, block, probe->input.values, probe->input.n_tokens, hook, hook->y, err);
    return status == OK ? judge(hook, &probe->plain, hook->y, probe->plain.n_tokens, loss, err) : status;
}

/* One block at every alpha of the grid. */
static enum status judge_block(struct autoalpha_hook *hook, size_t block, struct choice *kept, struct err *err)
{
    const struct autoalpha_model *model = hook->model;
    const struct probe *probe = &hook->blocks[block];
    const size_t n_grid = hook->result->n_grid, present = alpha_of_block(hook, block);
    enum status status = OK;
    if (present > n_grid || !probe->input.is_there || !probe->plain.is_there) return OK;
    memcpy(kept, hook->now, model->n_groups * sizeof *kept);
    for (size_t a = 0; a < n_grid && status == OK; a++) {
        const struct choice choice = grid_choice(hook, a);
        double loss = 0.0;
        set_block(hook, block, &choice);
        if (a == present) status = judge(hook, &probe->plain, probe->coded.values, probe->coded.n_tokens, &loss, err);
        else status = run_block(hook, block, &loss, err);
        for (size_t l = 0; l < model->n_linears; l++)
            if (hook->tuned[l] && model->linears[l].block == block) hook->sums[l * n_grid + a] += loss;
    }
    memcpy(hook->now, kept, model->n_groups * sizeof *kept);
    return status;
}

/* ---- tuning --------------------------------------------------------------------------------------------------------------------- */

/* Every group's alpha by what was summed so far. */
static enum status choose(struct autoalpha_hook *hook, struct err *err)
{
    const struct autoalpha_model *model = hook->model;
    const size_t n_grid = hook->result->n_grid;
    bool *members = malloc((model->n_linears + 1) * sizeof *members);
    if (!members) return no_memory(err);
    for (size_t g = 0; g < model->n_groups; g++) {
        if (hook->first[g] == model->n_linears) continue;
        for (size_t l = 0; l < model->n_linears; l++) members[l] = hook->tuned[l] && model->linears[l].group == g;
        const size_t best =
            smooth_criterion_pick(hook->settings->shared_criterion, hook->sums, n_grid, model->n_linears, members, NULL, hook->result->grid, n_grid);
        if (best < n_grid) hook->now[g] = grid_choice(hook, best);
    }
    free(members);
    return OK;
}

static enum status tune_sample(struct autoalpha_hook *hook, struct choice *kept, struct err *err)
{
    const struct autoalpha_model *model = hook->model;
    forget(hook->linears, model->n_linears);
    forget(hook->blocks, model->n_blocks);
    hook->pass = PASS_PLAIN;
    enum status status = model->forward(model->context, hook->sample, hook, err);
    hook->pass = PASS_CODED;
    if (status == OK) status = model->forward(model->context, hook->sample, hook, err);
    for (size_t l = 0; l < model->n_linears && status == OK; l++) status = judge_linear(hook, l, err);
    for (size_t b = 0; b < model->n_blocks && status == OK && hook->settings->do_blockwise; b++) status = judge_block(hook, b, kept, err);
    return status;
}

static enum status tune(struct autoalpha_hook *hook, struct err *err)
{
    const uint64_t n = size_min(hook->settings->n_samples, hook->model->n_samples), period = n >= 4 ? n / 4 : size_max(n, 1);
    struct choice *kept = malloc((hook->model->n_groups + 1) * sizeof *kept);
    enum status status = kept ? OK : no_memory(err);
    for (uint64_t i = 0; i < n && status == OK; i++) {
        hook->sample = i;
        status = tune_sample(hook, kept, err);
        if (status == OK && ((i + 1) % period == 0 || i + 1 == n)) status = choose(hook, err);
    }
    hook->result->n_samples = n;
    free(kept);
    return status;
}

/* ---- setting up ----------------------------------------------------------------------------------------------------------------- */

static enum status check(const struct autoalpha_model *model, const struct autoalpha_settings *settings, struct err *err)
{
    if (settings->shared_criterion != SMOOTH_MIN && settings->shared_criterion != SMOOTH_MAX && settings->shared_criterion != SMOOTH_MEAN)
        return err_set(err, ERR_USAGE, "AutoAlpha has the criteria min, max and mean");
    if (!(settings->init_alpha <= 1.0)) return err_set(err, ERR_USAGE, "a start alpha of %g: wanted at most 1", settings->init_alpha);
    if (settings->do_blockwise && !model->forward_block) return err_set(err, ERR_USAGE, "blockwise tuning needs a model whose blocks run alone");
    for (size_t l = 0; l < model->n_linears; l++) {
        const struct autoalpha_linear *linear = &model->linears[l];
        if ((linear->group != AUTOALPHA_NONE && linear->group >= model->n_groups) ||
            (linear->block != AUTOALPHA_NONE && linear->block >= model->n_blocks))
            return err_set(err, ERR_USAGE, "linear %zu is of a group or a block that is not there", l);
    }
    return OK;
}

static enum status make_arrays(struct autoalpha_hook *hook, struct err *err)
{
    const struct autoalpha_model *model = hook->model;
    struct autoalpha_result *result = hook->result;
    const size_t n_linears = model->n_linears, n_groups = model->n_groups;
    result->grid = calloc(SMOOTH_ALPHAS_MAX + 1, sizeof *result->grid);
    if (!result->grid) return no_memory(err);
    enum status status =
        smooth_grid(hook->settings->alpha_min, hook->settings->alpha_max, hook->settings->alpha_step, result->grid, &result->n_grid, err);
    if (status != OK) return status;
    result->alphas = calloc(n_groups + 1, sizeof *result->alphas);
    result->scales = calloc(n_groups + 1, sizeof *result->scales);
    result->losses = hook->sums = calloc(n_linears * result->n_grid + 1, sizeof *hook->sums);
    hook->tuned = calloc(n_linears + 1, sizeof *hook->tuned);
    hook->first = calloc(n_groups + 1, sizeof *hook->first);
    hook->now = calloc(n_groups + 1, sizeof *hook->now);
    hook->x = calloc(n_groups + 1, sizeof *hook->x);
    hook->wmax = calloc(n_groups + 1, sizeof *hook->wmax);
    hook->cache_at = calloc(n_groups + 1, sizeof *hook->cache_at);
    hook->linears = calloc(n_linears + 1, sizeof *hook->linears);
    hook->blocks = calloc(model->n_blocks + 1, sizeof *hook->blocks);
    const bool done = result->alphas && result->scales && hook->sums && hook->tuned && hook->first && hook->now && hook->x && hook->wmax &&
                      hook->cache_at && hook->linears && hook->blocks;
    return done ? OK : no_memory(err);
}

static bool takes_part(const struct autoalpha_hook *hook, size_t group)
{
    return group != AUTOALPHA_NONE && (hook->settings->folding || !hook->model->group_has_stats || hook->model->group_has_stats[group]);
}

/* Which linears are tuned, what is known of their groups. */
static enum status find_groups(struct autoalpha_hook *hook, struct err *err)
{
    const struct autoalpha_model *model = hook->model;
    for (size_t g = 0; g < model->n_groups; g++) hook->first[g] = model->n_linears;
    for (size_t l = 0; l < model->n_linears; l++) {
        const struct autoalpha_linear *linear = &model->linears[l];
        const size_t g = linear->group;
        hook->tuned[l] = takes_part(hook, g);
        hook->max_in = (size_t)size_max(hook->max_in, linear->n_in);
        if (!hook->tuned[l]) continue;
        hook->max_weights = (size_t)size_max(hook->max_weights, linear->n_in * linear->n_out);
        if (hook->first[g] == model->n_linears) {
            hook->first[g] = l;
            hook->x[g] = malloc(((size_t)linear->n_in + 1) * sizeof(float));
            hook->wmax[g] = calloc((size_t)linear->n_in + 1, sizeof(float));
            if (!hook->x[g] || !hook->wmax[g]) return no_memory(err);
            for (uint64_t j = 0; j < linear->n_in; j++) hook->x[g][j] = fmaxf(fabsf(linear->in_min[j]), fabsf(linear->in_max[j]));
        }
        if (linear->n_in != group_width(hook, g))
            return err_set(err, ERR_USAGE, "members of group %zu have %" PRIu64 " and %" PRIu64 " inputs", g, group_width(hook, g), linear->n_in);
        smooth_wmax_add(linear->w, linear->n_out, linear->n_in, hook->wmax[g]);
    }
    return OK;
}

/* Keeps the factors of all alphas when there is room. */
static void fill_cache(struct autoalpha_hook *hook)
{
    const size_t n_grid = hook->result->n_grid;
    uint64_t n = 0, nbytes;
    for (size_t g = 0; g < hook->model->n_groups; g++) {
        hook->cache_at[g] = (size_t)n;
        if (hook->first[g] < hook->model->n_linears) n += group_width(hook, g) * n_grid;
    }
    if (!size_mul(n + 1, sizeof *hook->cache, &nbytes) || !smooth_cache_fits(nbytes, hook->settings->max_ram)) return;
    float *cache = malloc((size_t)nbytes);
    for (size_t g = 0; cache && g < hook->model->n_groups; g++)
        for (size_t a = 0; hook->first[g] < hook->model->n_linears && a < n_grid; a++)
            make_scales(hook, g, hook->result->grid[a], cache + hook->cache_at[g] + a * group_width(hook, g));
    hook->cache = cache;
}

static enum status begin(struct autoalpha_hook *hook, struct err *err)
{
    enum status status = make_arrays(hook, err);
    if (status == OK) status = find_groups(hook, err);
    if (status != OK) return status;
    hook->s = malloc((hook->max_in + 1) * sizeof *hook->s);
    hook->inverse = malloc((hook->max_in + 1) * sizeof *hook->inverse);
    hook->w = malloc((hook->max_weights + 1) * sizeof *hook->w);
    hook->panel = malloc((hook->max_in + 1) * SMOOTH_PANEL * sizeof *hook->panel);
    hook->add = smooth_panel_best();
    if (!hook->s || !hook->inverse || !hook->w || !hook->panel) return no_memory(err);
    fill_cache(hook);
    struct choice start = { hook->result->n_grid, hook->settings->init_alpha };
    for (size_t a = 0; a < hook->result->n_grid; a++)
        if (fabs(hook->result->grid[a] - start.alpha) < 1e-9) start = grid_choice(hook, a);
    for (size_t g = 0; g < hook->model->n_groups; g++) hook->now[g] = start;
    return OK;
}

static enum status finish(struct autoalpha_hook *hook, struct err *err)
{
    for (size_t g = 0; g < hook->model->n_groups; g++) {
        hook->result->alphas[g] = (double)NAN;
        if (hook->first[g] == hook->model->n_linears) continue;
        hook->result->alphas[g] = hook->now[g].alpha;
        hook->result->scales[g] = malloc(((size_t)group_width(hook, g) + 1) * sizeof(float));
        if (!hook->result->scales[g]) return no_memory(err);
        make_scales(hook, g, hook->now[g].alpha, hook->result->scales[g]);
    }
    return OK;
}

static void end(struct autoalpha_hook *hook)
{
    for (size_t g = 0; g < hook->model->n_groups; g++) {
        if (hook->x) free(hook->x[g]);
        if (hook->wmax) free(hook->wmax[g]);
    }
    free_probes(hook->linears, hook->model->n_linears);
    free_probes(hook->blocks, hook->model->n_blocks);
    free(hook->tuned);
    free(hook->first);
    free(hook->now);
    free(hook->x);
    free(hook->wmax);
    free(hook->cache);
    free(hook->cache_at);
    free(hook->s);
    free(hook->inverse);
    free(hook->w);
    free(hook->acts);
    free(hook->y);
    free(hook->panel);
}

enum status autoalpha_tune(const struct autoalpha_model *model, const struct autoalpha_settings *settings, struct autoalpha_result *result,
                           struct err *err)
{
    struct autoalpha_hook hook = { .model = model, .settings = settings, .result = result };
    *result = (struct autoalpha_result){ 0 };
    enum status status = check(model, settings, err);
    if (status != OK) return status;
    status = begin(&hook, err);
    if (status == OK) status = tune(&hook, err);
    if (status == OK) status = finish(&hook, err);
    end(&hook);
    return status;
}

void autoalpha_result_free(struct autoalpha_result *result, size_t n_groups)
{
    for (size_t g = 0; result->scales && g < n_groups; g++) free(result->scales[g]);
    free(result->alphas);
    free(result->grid);
    free(result->losses);
    free(result->scales);
    *result = (struct autoalpha_result){ 0 };
}
