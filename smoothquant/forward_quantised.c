/* forward_quantised.c: see forward_quantised.h.
 *
 * Drawing: wanted rows and columns -> whole rows (whole bands of 128 for square groups) -> smooth_target_run -> the wanted ones.
 * Why this way: see forward_quantised.h.
 * Corner cases: see forward_quantised.h.
 * Reference: smooth_target.h. Worked number: rows 100 .. 130 under groups 128x128: rows 0 .. 255 are quantised.
 */
#include "smoothquant/forward_quantised.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "smoothquant/smooth_target.h"

struct quantised_weights {
    const struct quant *quant;
    const struct container *container;
    struct weight_source source;
    bool *is_quantised; /* of every tensor */
    float **maxima; /* of every tensor: largest |w| of each matrix, NULL before it is asked for */
    pthread_mutex_t mutex;
};

static void mark(struct quantised_weights *w, const struct model_linear *linear)
{
    if (weight_there(&linear->weight)) w->is_quantised[linear->weight.tensor] = true;
}

static void mark_mlp(struct quantised_weights *w, const struct model_mlp *mlp)
{
    mark(w, &mlp->gate);
    mark(w, &mlp->up);
    mark(w, &mlp->down);
}

static void mark_all(struct quantised_weights *w, const struct arch_model *model)
{
    for (size_t l = 0; l < model->n_layers; l++) {
        const struct model_layer *layer = &model->layers[l];
        const struct model_linear *const linears[] = { &layer->q, &layer->k, &layer->v, &layer->o };
        for (size_t i = 0; i < 4; i++) mark(w, linears[i]);
        for (size_t e = 0; e < layer->n_experts; e++) mark_mlp(w, &layer->experts[e]);
        if (layer->has_shared) mark_mlp(w, &layer->shared);
    }
}

enum status quantised_weights_open(const struct quant *quant, const struct arch_model *model, const struct weight_source *source,
                                   const struct container *container, struct quantised_weights **out, struct err *err)
{
    *out = NULL;
    if (smooth_target_rows(quant) == 0 && !quant->tensor_scale)
        return err_set(err, ERR_UNSUPPORTED, "a format with one scale for the whole tensor cannot be made while layers run");
    struct quantised_weights *w = calloc(1, sizeof *w);
    if (!w) return err_set(err, ERR_MEMORY, "out of memory");
    pthread_mutex_init(&w->mutex, NULL);
    w->quant = quant;
    w->container = container;
    w->source = *source;
    w->is_quantised = calloc(container->n_tensors + 1, sizeof *w->is_quantised);
    w->maxima = calloc(container->n_tensors + 1, sizeof *w->maxima);
    if (!w->is_quantised || !w->maxima) {
        quantised_weights_close(w);
        return err_set(err, ERR_MEMORY, "out of memory");
    }
    mark_all(w, model);
    *out = w;
    return OK;
}

void quantised_weights_close(struct quantised_weights *w)
{
    if (!w) return;
    for (size_t i = 0; w->maxima && i < w->container->n_tensors; i++) free(w->maxima[i]);
    pthread_mutex_destroy(&w->mutex);
    free(w->maxima);
    free(w->is_quantised);
    free(w);
}

/* Largest |w| of every matrix of a tensor. */
static enum status find_maxima(struct quantised_weights *w, size_t tensor, struct err *err)
{
    const struct tensor *t = &w->container->tensors[tensor];
    const struct shape shape = tensor_shape(t);
    const uint64_t rows = shape_matrix_rows(&shape);
    float *maxima = calloc((size_t)shape.n_matrices, sizeof *maxima), *row = malloc((size_t)shape.cols * sizeof *row);
    enum status status = maxima && row ? OK : err_set(err, ERR_MEMORY, "out of memory");
    for (uint64_t r = 0; r < shape.rows && status == OK; r++) {
        status = w->source.read(w->source.context, tensor, r, 1, 0, shape.cols, row, err);
        for (uint64_t j = 0; status == OK && j < shape.cols; j++) maxima[r / rows] = fmaxf(maxima[r / rows], fabsf(row[j]));
    }
    free(row);
    if (status == OK) w->maxima[tensor] = maxima;
    else free(maxima);
    return status;
}

static enum status maximum_of(struct quantised_weights *w, size_t tensor, uint64_t matrix, float *out, struct err *err)
{
    enum status status = OK;
    *out = -1.0f;
    if (!w->quant->tensor_scale) return OK;
    pthread_mutex_lock(&w->mutex);
    if (!w->maxima[tensor]) status = find_maxima(w, tensor, err);
    if (status == OK) *out = w->maxima[tensor][matrix];
    pthread_mutex_unlock(&w->mutex);
    return status;
}

/* Rows [row, row + n_rows) of one matrix, quantised, into out [n_rows][cols]. */
static enum status quantise(struct quantised_weights *w, size_t tensor, uint64_t row, uint64_t n_rows, uint64_t cols, float *in, float *out,
                            struct err *err)
{
    const struct shape shape = tensor_shape(&w->container->tensors[tensor]);
    const char *name = w->container->tensors[tensor].name;
    struct smooth_target *target = NULL;
    float amax;
    char shown[200];
    enum status status = w->source.read(w->source.context, tensor, row, n_rows, 0, cols, in, err);
    if (status == OK) status = maximum_of(w, tensor, row / shape_matrix_rows(&shape), &amax, err);
    if (status == OK) status = smooth_target_open(w->quant, n_rows, cols, &target, err);
    if (status == OK && !smooth_target_run(target, in, n_rows, NULL, amax, out))
        status = err_set(err, ERR_DATA, "a weight is not finite, or a scale overflows");
    smooth_target_close(target);
    return status == OK ? OK : err_wrap(err, status, "tensor '%s'", err_name(name, strlen(name), shown, sizeof shown));
}

static enum status read_quantised(void *context, size_t tensor, uint64_t row, uint64_t n_rows, uint64_t col, uint64_t n_cols, float *out,
                                  struct err *err)
{
    struct quantised_weights *w = context;
    if (!w->is_quantised[tensor]) return w->source.read(w->source.context, tensor, row, n_rows, col, n_cols, out, err);
    const struct shape shape = tensor_shape(&w->container->tensors[tensor]);
    const uint64_t unit = size_max(1, smooth_target_rows(w->quant)), rows = size_max(1, shape_matrix_rows(&shape));
    enum status status = OK;
    for (uint64_t at = row; at < row + n_rows && status == OK;) {
        /* bands begin at the first row of a matrix */
        const uint64_t matrix = at / rows * rows, first = matrix + (at - matrix) / unit * unit, end = size_min(row + n_rows, matrix + rows);
        const uint64_t last = size_min(matrix + size_ceil_div(end - matrix, unit) * unit, matrix + rows), n = last - first;
        float *in = malloc((size_t)(2 * n * shape.cols) * sizeof *in), *done = in + n * shape.cols;
        status = in ? quantise(w, tensor, first, n, shape.cols, in, done, err) : err_set(err, ERR_MEMORY, "out of memory");
        for (uint64_t r = at; status == OK && r < end; r++)
            memcpy(out + (r - row) * n_cols, done + (r - first) * shape.cols + col, (size_t)n_cols * sizeof *out);
        free(in);
        at = end;
    }
    return status;
}

struct weight_source quantised_weights_source(struct quantised_weights *weights)
{
    return (struct weight_source){ read_quantised, weights };
}
