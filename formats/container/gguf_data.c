/* gguf_data.c: the weights of GGUF tensors: which format each is, decoding, and stored bytes.
 *
 * Formula: weight (r, c) of a block type: block r * cols / block + c / block of the tensor's bytes, place c % block in it; times the scale of its
 * matrix, tensor NAME.scale beside NAME.weight, where an NVFP4 tensor has one.
 * Why this way: blocks are decoded in pieces of 64 KiB. A scale that belongs to a tensor is a plane of it, not a tensor of its own: whoever changes
 * or moves the one must not leave the other behind.
 * Corner cases: a block type that llmq cannot decode is listed and refused when its weights are read; a scale that is not F32, or not one number a
 * matrix, is refused when the file is opened.
 * Reference: layouts.md 2(f). Worked number: row 1, columns 32 to 63 of Q4_0 with 64 columns is block 3, bytes 54 to 71 of the tensor.
 */
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "container/gguf_self.h"
#include "container/shown.h"
#include "number/ggml.h"

#define PIECE_NBYTES ((size_t)64 * 1024) /* of blocks at a time */
#define BLOCK_MAX 256 /* weights in a block */
#define WEIGHT_ENDING ".weight"
#define SCALE_ENDING ".scale"

/* ---- formats ---------------------------------------------------------------------------------------------------------------------- */

/* How the blocks of each ggml type are coded; number i is that of the table of types. Who made them, and by what rule, no file says. */
static enum status fill_quants(struct gguf *self, struct err *err)
{
    enum status status = OK;
    for (size_t i = 0; i < ggml_type_count() && i < GGUF_QUANTS_MAX && !status; i++) {
        const struct format *format = format_of_block(ggml_type_at(i));
        if (!format) continue;
        status = quant_parse(format->name, NULL, &self->quants[i], err);
        self->quants[i].blocks = true;
        self->quants[i].tensor_scale = false;
        self->quants[i].rule = RULE_COUNT;
    }
    return status;
}

static const struct quant *find_quant(const struct gguf *self, const struct gguf_type *type)
{
    for (size_t i = 0; i < ggml_type_count() && i < GGUF_QUANTS_MAX; i++) {
        const struct ggml_type *row = ggml_type_at(i);
        if (row->id == type->id && self->quants[i].format && row->elements == type->block && row->bytes == type->block_nbytes)
            return &self->quants[i];
    }
    return NULL;
}

/* The number of tensor NAME.scale beside NAME.weight; SIZE_MAX when there is none. */
static size_t find_scale(const struct name_table *names, const char *name)
{
    char scale[GGUF_NAME_MAX + sizeof SCALE_ENDING];
    const size_t n = strlen(name), n_ending = strlen(WEIGHT_ENDING);
    if (n < n_ending || n > GGUF_NAME_MAX || strcmp(name + n - n_ending, WEIGHT_ENDING) != 0) return SIZE_MAX;
    memcpy(scale, name, n - n_ending);
    memcpy(scale + n - n_ending, SCALE_ENDING, sizeof SCALE_ENDING);
    return name_table_find(names, scale);
}

static enum status take_scale(struct gguf *self, size_t weight, size_t scale, struct err *err)
{
    struct tensor *tensor = &self->base.tensors[weight];
    const struct tensor *stored = &self->base.tensors[scale];
    const uint64_t n = tensor_shape(tensor).n_matrices;
    if (strcmp(stored->dtype->name, "F32") != 0 || stored->n_weights != n)
        return err_set(err, ERR_DATA, "tensor '%s' is no F32 scale for the %llu matri%s of '%s'", shown_str(stored->name).text, (unsigned long long)n,
                       n == 1 ? "x" : "ces", shown_str(tensor->name).text);
    self->scales[weight] = (struct gguf_scale){ stored->offset, stored->nbytes, stored->file };
    tensor->quant = &self->two_level;
    tensor->stored_nbytes += stored->nbytes;
    return OK;
}

/* Takes tensors without a name out of the list. */
static void close_gaps(struct gguf *self)
{
    size_t n = 0;
    for (size_t i = 0; i < self->base.n_tensors; i++) {
        if (!self->base.tensors[i].name) continue;
        self->base.tensors[n] = self->base.tensors[i];
        self->entries[n] = self->entries[i];
        self->scales[n++] = self->scales[i];
    }
    self->base.n_tensors = n;
}

static enum status take_scales(struct gguf *self, const struct name_table *names, struct err *err)
{
    enum status status = OK;
    for (size_t i = 0; i < self->base.n_tensors && !status; i++) {
        const struct tensor *tensor = &self->base.tensors[i];
        size_t scale = tensor->quant && tensor->quant->format->tensor_scale ? find_scale(names, tensor->name) : SIZE_MAX;
        if (scale == SIZE_MAX || self->base.tensors[scale].quantised) continue;
        status = take_scale(self, i, scale, err);
    }
    for (size_t i = 0; i < self->base.n_tensors && !status; i++)
        if (self->scales[i].nbytes) self->base.tensors[find_scale(names, names->names[i])].name = NULL;
    if (!status) close_gaps(self);
    return status;
}

enum status gguf_find_quants(struct gguf *self, struct err *err)
{
    struct container *base = &self->base;
    struct name_table names = { 0 };
    bool two_level = false;
    size_t number = 0;
    enum status status = fill_quants(self, err);
    for (size_t i = 0; i < base->n_tensors && !status; i++) {
        struct tensor *tensor = &base->tensors[i];
        if (!tensor->quantised) continue;
        tensor->quant = self->entries[i]->type->decodable ? find_quant(self, self->entries[i]->type) : NULL;
        if (!tensor->quant) continue;
        tensor->format = tensor->quant->format->name;
        if (!tensor->quant->format->tensor_scale) continue;
        self->two_level = *tensor->quant;
        self->two_level.tensor_scale = two_level = true;
    }
    if (status || !two_level) return status;
    self->scales = calloc(base->n_tensors, sizeof *self->scales);
    if (!self->scales) return err_set(err, ERR_MEMORY, "out of memory");
    for (size_t i = 0; i < base->n_tensors && !status; i++) {
        status = name_table_add(&names, base->tensors[i].name, &number, err);
        if (!status && number != i) status = err_set(err, ERR_DATA, "tensor '%s' is there twice", shown_str(base->tensors[i].name).text);
    }
    if (!status) status = take_scales(self, &names, err);
    name_table_free(&names);
    return status;
}

/* ---- plain bytes ------------------------------------------------------------------------------------------------------------------ */

enum status gguf_read_plain(struct container *container, size_t index, uint64_t offset, size_t nbytes, void *buf, struct err *err)
{
    const struct tensor *tensor = &container->tensors[index];
    return file_read(&container->files[tensor->file], buf, nbytes, tensor->offset + offset, err);
}

/* ---- decoding --------------------------------------------------------------------------------------------------------------------- */

/* A run of weights that lie one behind the other, and where they go. */
struct run {
    const struct file *file;
    const struct gguf_type *type;
    ggml_decode *decode;
    uint8_t *piece; /* PIECE_NBYTES */
    uint64_t offset; /* in the file, of the block with the first weight */
    size_t skip; /* weights of that block before the first one */
    uint64_t n_weights;
    float *out;
};

/* Decodes n_blocks of run->piece and hands on what the run wants of them. */
static void decode_piece(struct run *run, size_t n_blocks)
{
    size_t block = run->type->block, b = 0;
    float edge[BLOCK_MAX];
    while (b < n_blocks) {
        const uint8_t *at = run->piece + b * run->type->block_nbytes;
        size_t whole = run->skip ? 0 : (size_t)size_min(n_blocks - b, run->n_weights / block), n = whole * block;
        if (whole > 0) {
            run->decode(at, whole, run->out);
        } else {
            run->decode(at, 1, edge);
            n = (size_t)size_min(block - run->skip, run->n_weights);
            memcpy(run->out, edge + run->skip, n * sizeof *edge);
            whole = 1;
        }
        run->skip = 0;
        run->n_weights -= n;
        run->out += n;
        b += whole;
    }
}

static enum status decode_run(struct run *run, struct err *err)
{
    size_t block = run->type->block, n_most = PIECE_NBYTES / run->type->block_nbytes;
    while (run->n_weights > 0) {
        size_t n_blocks = (size_t)size_min(size_ceil_div(run->n_weights + run->skip, block), n_most), nbytes = n_blocks * run->type->block_nbytes;
        enum status status = file_read(run->file, run->piece, nbytes, run->offset, err);
        if (status != OK) return status;
        run->offset += nbytes;
        decode_piece(run, n_blocks);
    }
    return OK;
}

/* Whole rows are one run, parts of rows a run each. */
static enum status decode_rows(const struct run *first, const struct tensor *tensor, uint64_t row, uint64_t n_rows, uint64_t col, uint64_t n_cols,
                               struct err *err)
{
    uint64_t cols = tensor_cols(tensor);
    enum status status = OK;
    if (n_cols == cols) {
        n_cols *= n_rows; /* of a buffer that is there */
        n_rows = 1;
    }
    for (uint64_t r = 0; r < n_rows && status == OK; r++) {
        struct run run = *first;
        uint64_t weight = (row + r) * cols + col; /* below n_weights */
        run.offset = tensor->offset + weight / run.type->block * run.type->block_nbytes;
        run.skip = (size_t)(weight % run.type->block);
        run.n_weights = n_cols;
        run.out += r * n_cols;
        status = decode_run(&run, err);
    }
    return status;
}

/* Multiplies rows by the scale of their matrix. */
static enum status scale_rows(const struct gguf *self, size_t index, uint64_t row, uint64_t n_rows, uint64_t n_cols, float *out, struct err *err)
{
    const struct tensor *tensor = &self->base.tensors[index];
    const struct gguf_scale *scale = &self->scales[index];
    const uint64_t rows = tensor_rows(tensor) / tensor_shape(tensor).n_matrices;
    float value = 1.0f;
    for (uint64_t r = 0; r < n_rows; r++) {
        if (r == 0 || (row + r) % rows == 0) {
            uint8_t bytes[4];
            enum status status = file_read(&self->base.files[scale->file], bytes, sizeof bytes, scale->offset + (row + r) / rows * 4, err);
            if (status != OK) return status;
            ggml_f32.decode(bytes, 1, &value);
        }
        for (uint64_t c = 0; c < n_cols; c++) out[r * n_cols + c] *= value;
    }
    return OK;
}

enum status gguf_read_f32(struct container *container, size_t index, uint64_t row, uint64_t n_rows, uint64_t col, uint64_t n_cols, float *out,
                          struct err *err)
{
    const struct gguf *self = gguf_self(container);
    const struct tensor *tensor = &container->tensors[index];
    const struct gguf_entry *entry = tensor->quantised;
    struct run run = { .file = &container->files[tensor->file], .type = entry->type, .out = out };
    if (!tensor->quant) return err_set(err, ERR_UNSUPPORTED, "its type %s cannot be decoded", entry->type->name);
    run.decode = tensor->quant->format->block->decode;
    run.piece = malloc(PIECE_NBYTES);
    if (!run.piece) return err_set(err, ERR_MEMORY, "out of memory for %zu bytes", PIECE_NBYTES);
    enum status status = decode_rows(&run, tensor, row, n_rows, col, n_cols, err);
    free(run.piece);
    return status == OK && tensor->quant->tensor_scale ? scale_rows(self, index, row, n_rows, n_cols, out, err) : status;
}

/* ---- planes ----------------------------------------------------------------------------------------------------------------------- */

enum status gguf_read_plane(struct container *container, size_t index, uint32_t plane, uint64_t offset, size_t nbytes, void *buf, struct err *err)
{
    const struct gguf *self = gguf_self(container);
    const struct tensor *tensor = &container->tensors[index];
    if (plane == 0) return file_read(&container->files[tensor->file], buf, nbytes, tensor->offset + offset, err);
    return file_read(&container->files[self->scales[index].file], buf, nbytes, self->scales[index].offset + offset, err);
}

/* ---- padding ---------------------------------------------------------------------------------------------------------------------- */

/* Bytes from end on to the next multiple of the alignment, or the end of the file, are zero. */
static enum status check_padding(const struct gguf *self, uint32_t part, uint64_t end, struct err *err)
{
    const struct file *file = &self->base.files[part];
    uint8_t piece[512];
    uint64_t stop = end;
    size_align(end, self->headers[part].alignment, &stop);
    stop = size_min(stop, file->nbytes);
    while (end < stop) {
        const size_t n = (size_t)size_min(sizeof piece, stop - end);
        enum status status = file_read(file, piece, n, end, err);
        for (size_t i = 0; i < n && status == OK; i++)
            if (piece[i]) status = err_set(err, ERR_DATA, "byte %llu belongs to no tensor and is not zero", (unsigned long long)(end + i));
        if (status != OK) return err_wrap(err, status, "'%s'", shown_path(path_base(file->path)).text);
        end += n;
    }
    return OK;
}

enum status gguf_check_padding(const struct container *container, struct err *err)
{
    const struct gguf *self = gguf_self(container);
    enum status status = OK;
    for (size_t i = 0; i < container->n_files && status == OK; i++) status = check_padding(self, (uint32_t)i, self->headers[i].infos_end, err);
    for (size_t i = 0; i < container->n_tensors && status == OK; i++) {
        const struct tensor *tensor = &container->tensors[i];
        status = check_padding(self, tensor->file, tensor->offset + self->entries[i]->nbytes, err);
        if (status == OK && self->scales && self->scales[i].nbytes)
            status = check_padding(self, self->scales[i].file, self->scales[i].offset + self->scales[i].nbytes, err);
    }
    return status;
}
