/* forward_weights.c: see forward_weights.h.
 *
 * Drawing: outputs 3 .. 9 of a part with run 4, step 12, first 8:  3 | 4 5 6 7 | 8  ->  places 11 | 20 .. 23 | 32: three pieces, each one read.
 * Why this way: see forward_weights.h. Plain tensors are read in pieces of 64 KiB through a buffer on the stack and widened.
 * Corner cases: columns of a plain tensor are read row by row; a transposed part is read in strips of inputs and turned.
 * Reference: forward_weights.h. Worked number: 512 rows of 11008 BF16 columns, all of them: one contiguous read of 11 MB, widened 32768 at a time.
 */
#include "smoothquant/forward_weights.h"

#include <stdlib.h>
#include <string.h>

enum { PIECE_NBYTES = 65536 };

/* n elements of a plain tensor from element `first` on. */
static enum status read_plain(struct container *container, size_t index, uint64_t first, uint64_t n, float *out, struct err *err)
{
    const struct dtype *dtype = container->tensors[index].dtype;
    const size_t size = dtype->bits / 8;
    uint8_t stored[PIECE_NBYTES];
    while (n > 0) {
        const size_t now = n < PIECE_NBYTES / size ? (size_t)n : PIECE_NBYTES / size;
        enum status status = container_read(container, index, first * size, now * size, stored, err);
        if (status != OK) return status;
        dtype->widen(stored, now, out);
        first += now;
        out += now;
        n -= now;
    }
    return OK;
}

static enum status read_container(void *context, size_t index, uint64_t row, uint64_t n_rows, uint64_t col, uint64_t n_cols, float *out,
                                  struct err *err)
{
    struct container *container = context;
    const struct tensor *tensor = &container->tensors[index];
    const uint64_t cols = tensor_cols(tensor);
    char shown[200];
    if (tensor->quantised) return container_read_f32(container, index, row, n_rows, col, n_cols, out, err);
    if (!tensor->dtype->widen || tensor->dtype->bits < 8)
        return err_set(err, ERR_UNSUPPORTED, "tensor '%s' is %s, which cannot be decoded",
                       err_name(tensor->name, strlen(tensor->name), shown, sizeof shown), tensor->dtype->name);
    if (n_cols == cols) return read_plain(container, index, row * cols, n_rows * cols, out, err);
    enum status status = OK;
    for (uint64_t r = 0; r < n_rows && status == OK; r++)
        status = read_plain(container, index, (row + r) * cols + col, n_cols, out + r * n_cols, err);
    return status;
}

struct weight_source weight_source_container(struct container *container)
{
    return (struct weight_source){ read_container, container };
}

/* Outputs of the part that lie one behind the other from output `out` on. */
static uint64_t run_of(const struct weight_part *part, uint64_t out, uint64_t n_out, uint64_t *place)
{
    const uint64_t left = part->step == part->run ? n_out : part->run - out % part->run;
    *place = part->first + out / part->run * part->step + out % part->run;
    return left < n_out ? left : n_out;
}

static enum status load_vector(const struct weight_source *source, const struct weight_part *part, uint64_t out, uint64_t n_out, float *to,
                               struct err *err)
{
    for (uint64_t n; n_out > 0; out += n, n_out -= n, to += n) {
        uint64_t place;
        n = run_of(part, out, n_out, &place);
        enum status status = source->read(source->context, part->tensor, part->base, 1, place, n, to, err);
        if (status != OK) return status;
    }
    return OK;
}

static enum status load_rows(const struct weight_source *source, const struct weight_part *part, uint64_t out, uint64_t n_out, uint64_t in,
                             uint64_t n_in, float *to, struct err *err)
{
    for (uint64_t n; n_out > 0; out += n, n_out -= n, to += n * n_in) {
        uint64_t place;
        n = run_of(part, out, n_out, &place);
        enum status status = source->read(source->context, part->tensor, part->base + place, n, in, n_in, to, err);
        if (status != OK) return status;
    }
    return OK;
}

static enum status load_transposed(const struct weight_source *source, const struct weight_part *part, uint64_t out, uint64_t n_out, uint64_t in,
                                   uint64_t n_in, float *to, struct err *err)
{
    enum { STRIP = 16 };
    float *strip = malloc((size_t)n_out * STRIP * sizeof *strip);
    enum status status = strip ? OK : err_set(err, ERR_MEMORY, "out of memory");
    for (uint64_t i = 0; i < n_in && status == OK; i += STRIP) {
        const uint64_t rows = n_in - i < STRIP ? n_in - i : STRIP;
        uint64_t done = 0, n;
        for (; done < n_out && status == OK; done += n) {
            uint64_t place;
            n = run_of(part, out + done, n_out - done, &place);
            status = source->read(source->context, part->tensor, part->base + in + i, rows, place, n, strip, err);
            for (uint64_t j = 0; status == OK && j < n; j++)
                for (uint64_t r = 0; r < rows; r++) to[(done + j) * n_in + i + r] = strip[r * n + j];
        }
    }
    free(strip);
    return status;
}

enum status weight_load(const struct weight_source *source, const struct weight_part *part, uint64_t out, uint64_t n_out, uint64_t in, uint64_t n_in,
                        float *to, struct err *err)
{
    if (part->is_vector) return load_vector(source, part, out, n_out, to, err);
    if (part->transposed) return load_transposed(source, part, out, n_out, in, n_in, to, err);
    return load_rows(source, part, out, n_out, in, n_in, to, err);
}
