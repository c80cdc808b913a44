/* llmq.h: the public C interface of llmq: read models, quantise and dequantise weights, learn and observe their scales,
 * pack codes, write .llmq containers.
 *
 *     struct llmq_error error;
 *     struct llmq_model *model;
 *     struct llmq_tensor_info tensor;
 *     size_t index = 0;
 *     if (llmq_model_open("model.llmq", &model, &error) != LLMQ_OK ||
 *         llmq_model_find(model, "lm_head.weight", &index, &error) != LLMQ_OK ||
 *         llmq_model_tensor(model, index, &tensor, &error) != LLMQ_OK) return complain(error.text);
 *     float *row = malloc(tensor.cols * sizeof *row);
 *     if (llmq_read_rows(model, index, 0, 1, row, &error) != LLMQ_OK) return complain(error.text);      // row 0, decoded
 *     llmq_model_close(model);
 *
 * Link with `pkg-config --cflags --libs llmq`, or find_package(llmq) and the target llmq::llmq.
 *
 * Why this way: the only header that is installed; it includes nothing of llmq's own, so what is inside may change.
 * Reference: NUMERICS.md has the formulas of all formats, FORMAT.md the bytes of the container; both stand beside this
 * file in the source tree.
 *
 * Rules that hold for every function:
 *
 * Shapes. A tensor is seen as rows x cols: cols is the last dim, rows the product of all others; a scalar is 1 x 1.
 * Rows lie one behind the other (row-major) without gaps. Indexes begin at 0. Counts are in what their name says
 * (n_rows, n_tensors); sizes are bytes and are called nbytes.
 *
 * Errors. A function that can fail returns enum llmq_status, gives its results through pointers, and takes a struct
 * llmq_error last, which may be NULL. On failure error->code is the returned status and error->text one sentence that
 * names file, tensor and cause; on success *error is not touched. Result pointers are set to NULL, or left as they
 * were, on failure; contents of an output buffer are then undefined. Nothing is printed, nothing ends the program. A
 * sentence may name an option of the llmq program (--force): here it is the member of the same meaning (replace).
 *
 * Arguments. A NULL where an object or a buffer is needed, an index that is not there and a range that reaches too far
 * are LLMQ_ERR_USAGE. Buffers of a given size are not checked further: they must have the bytes that the function says.
 * They need no alignment beyond that of their type.
 *
 * Ownership. What a function called *_open makes, its *_close frees; close accepts NULL. Strings and arrays inside a
 * filled struct belong to the object they were asked from and live as long as it does; strings of formats are
 * constants. Arguments are copied where they are needed longer than the call.
 *
 * Threads. There is no global state. Two threads may work on different objects at any time, except that llmq_model_open
 * must not run in two threads at once (the JSON library keeps one static pointer). Any number of threads may read from
 * one model and use one llmq_quant; one llmq_writer belongs to one thread at a time.
 *
 * Numbers. The same input gives the same bytes on every processor, and the same as the llmq program writes.
 */
#ifndef LLMQ_H
#define LLMQ_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- version and errors --------------------------------------------------------------------------------------------------------- */

#define LLMQ_VERSION_MAJOR 0
#define LLMQ_VERSION_MINOR 1
#define LLMQ_VERSION_PATCH 0

/* "0.1.0": the version of the library that is linked; the macros above are that of the header. A constant. */
const char *llmq_version(void);

enum llmq_status {
    LLMQ_OK = 0,
    LLMQ_ERR_IO, /* a file call failed; the sentence has the system's reason */
    LLMQ_ERR_DATA, /* a file, or a weight, is malformed: it contradicts itself, is cut off, is NaN */
    LLMQ_ERR_UNSUPPORTED, /* well-formed, but not something this library reads or does */
    LLMQ_ERR_USAGE, /* the caller asked for something wrong */
    LLMQ_ERR_MEMORY, /* an allocation failed */
    LLMQ_ERR_EXISTS, /* an output is in the way, or in use by another run */
    LLMQ_ERR_MISMATCH, /* a checksum is wrong: the file is damaged */
    LLMQ_ERR_CANCELLED /* not given by this interface so far */
};

#define LLMQ_ERROR_TEXT_MAX 1024

struct llmq_error {
    int code; /* enum llmq_status */
    char text[LLMQ_ERROR_TEXT_MAX]; /* one line of UTF-8, NUL-terminated; control characters and invalid bytes of names are written as \xNN */
};

/* ---- formats -------------------------------------------------------------------------------------------------------------------- */

#define LLMQ_GROUP_CHANNEL UINT32_MAX /* one group a row */
#define LLMQ_GROUP_TENSOR (UINT32_MAX - 1) /* one group in all */
#define LLMQ_GROUP_SQUARE (UINT32_MAX - 2) /* 128 x 128 weights of a matrix */

/* One format that this library quantises to. */
struct llmq_format_info {
    const char *name; /* "mxfp4" */
    const char *summary; /* one line */
    uint32_t bits; /* of a code, 1 .. 16; 0 for blocks of GGUF */
    uint32_t default_group; /* weights that share a scale, or LLMQ_GROUP_CHANNEL */
    const char *default_scale; /* "e8m0", "bf16", "f16", "f32" */
    int zero_point; /* 1: there is a plane of zero points */
};

/* How many formats there are. */
size_t llmq_format_count(void);

/* Format number index, 0 .. llmq_format_count() - 1. */
enum llmq_status llmq_format(size_t index, struct llmq_format_info *format, struct llmq_error *error);

/* ---- models: what is in a file -------------------------------------------------------------------------------------------------- */

/* An opened model: a .llmq file or one shard of a set (the others are found beside it), a .safetensors file, a model
 * folder as Hugging Face tools write it, or the index file in one. */
struct llmq_model;

/* Opens the model at path for reading. Structure and checksums of headers and indexes are checked here, those of the
 * weights when they are read. Memory: about 500 bytes a tensor. The files stay open until llmq_model_close. Not in two
 * threads at once. */
enum llmq_status llmq_model_open(const char *path, struct llmq_model **model, struct llmq_error *error);

/* Closes the files and frees everything that was asked from the model. NULL is allowed. No other thread may use the
 * model any more. */
void llmq_model_close(struct llmq_model *model);

/* LLMQ_ERR_DATA naming the file when one of the files has changed since it was opened (size, times or inode). Worth
 * asking after the last read of a file without checksums. */
enum llmq_status llmq_model_check_unchanged(struct llmq_model *model, struct llmq_error *error);

/* The model file's own metadata as the text of one JSON object of strings, or NULL when it has none. */
const char *llmq_model_metadata(const struct llmq_model *model);

/* Sentence number index about oddities that were found while opening ("ignored stray file x.safetensors"); NULL behind
 * the last one. */
const char *llmq_model_note(const struct llmq_model *model, size_t index);

/* One tensor. */
struct llmq_tensor_info {
    const char *name; /* unique in the model; UTF-8 without control characters */
    const char
        *dtype; /* of the plain weights, as safetensors spells it: "BF16", "F16", "F32", "I64", ...; for a quantised tensor that of its source */
    const char *role; /* what it is in the model: "q", "down", "norm", ...; "other" when the file does not say */
    const uint64_t *dims; /* rank of them, outermost first */
    uint32_t rank; /* 0 .. 64; 0 is a scalar */
    uint64_t rows, cols;
    uint64_t nbytes; /* of a kept tensor: its plain bytes, what llmq_read_bytes reads; 0 for a quantised one */
    uint32_t n_planes; /* see llmq_model_plane */
    /* quantised tensors; format is NULL for a kept one, the others then NULL and 0 */
    const char *format; /* "int4" */
    uint32_t group; /* weights a group, 1 .. 32768, or one of the LLMQ_GROUP_ numbers; 0 when this library does not know the format's family */
    const char *scale; /* how scales are stored: "e8m0", "bf16", "f16", "f32" */
    const char *scale_rule, *rounding; /* how it was quantised, "" when the file does not say */
};

/* How many tensors the model has; they are numbered in storage order, so reading them in that order is sequential. 0
 * for NULL. */
size_t llmq_model_tensor_count(const struct llmq_model *model);

/* Tensor number index. */
enum llmq_status llmq_model_tensor(const struct llmq_model *model, size_t index, struct llmq_tensor_info *tensor, struct llmq_error *error);

/* Sets *index to the number of the tensor called name. Constant time. LLMQ_ERR_USAGE when there is none. */
enum llmq_status llmq_model_find(const struct llmq_model *model, const char *name, size_t *index, struct llmq_error *error);

/* One plane of a tensor: a matrix of fields of `bits` bits. Field j of a row stands at bits j * bits .. j * bits + bits
 * - 1 of the row, counted from the least significant bit of its first byte; every row begins on a byte, so it has
 * ceil(cols * bits / 8) bytes. Quantised tensors have the planes "codes", "scales" and, for formats with zero points,
 * "zeros", for those with shifts "shifts", for nvfp4 "tensor_scale" (a float a matrix), and
 * "input_scale" (a float a column of each matrix) where inputs are scaled at run time; llmq_read_rows applies them. Kept ones
 * have "data", or two byte planes ("exponent" and "rest", or "high" and "low"; FORMAT.md 3.1). */
struct llmq_plane_info {
    const char *name;
    uint32_t bits; /* 1 .. 64 */
    uint64_t rows, cols;
    uint64_t row_nbytes, nbytes; /* of one row, of all */
    const char *file; /* path of the file that holds it */
    uint64_t
        offset; /* of its first byte in that file when it lies there raw and in one piece, ready to be mapped; 0 when it is compressed, or has no bytes. Mapped bytes are not checked */
};

/* Plane number plane, 0 .. n_planes - 1, of tensor number index. */
enum llmq_status llmq_model_plane(const struct llmq_model *model, size_t index, uint32_t plane, struct llmq_plane_info *info,
                                  struct llmq_error *error);

/* A small file that travels with the model: config.json, tokenizer.json, ... */
struct llmq_blob_info {
    const char *name; /* a plain file name: no '/', no control character */
    uint64_t nbytes;
};

/* How many small files the model has. 0 for NULL. */
size_t llmq_model_blob_count(const struct llmq_model *model);

/* Small file number index. */
enum llmq_status llmq_model_blob(const struct llmq_model *model, size_t index, struct llmq_blob_info *blob, struct llmq_error *error);

/* ---- models: reading ------------------------------------------------------------------------------------------------------------ */

/* Rows first_row .. first_row + n_rows - 1 of a tensor as binary32 into out, n_rows * cols floats. Quantised tensors
 * are decoded (formula of their format: FORMAT.md 4); of kept ones BF16, F16, F8 widen exactly, F64 and integers of 32
 * and 64 bits are rounded once, to nearest even. LLMQ_ERR_UNSUPPORTED for a dtype or format that this library cannot
 * decode, LLMQ_ERR_MISMATCH for damage. A call reads whole tiles (about 262144 weights): reading all rows of a .llmq
 * file one by one decodes each tile again and again. Memory: a few tiles. Thread-safe. */
enum llmq_status llmq_read_rows(struct llmq_model *model, size_t index, uint64_t first_row, uint64_t n_rows, float *out, struct llmq_error *error);

/* Bytes offset .. offset + nbytes - 1 of a kept tensor's plain bytes (little-endian elements of its dtype, row-major),
 * whatever planes they are stored in. LLMQ_ERR_USAGE for a quantised tensor. Thread-safe. */
enum llmq_status llmq_read_bytes(struct llmq_model *model, size_t index, uint64_t offset, size_t nbytes, void *out, struct llmq_error *error);

/* Rows first_row .. first_row + n_rows - 1 of a plane (rows of the plane, not of the tensor) into out, n_rows *
 * row_nbytes bytes, checked against their checksums and decompressed. For quantised tensors these are the codes, scales
 * and zeros that llmq_dequantise_rows takes. Thread-safe. */
enum llmq_status llmq_read_plane(struct llmq_model *model, size_t index, uint32_t plane, uint64_t first_row, uint64_t n_rows, void *out,
                                 struct llmq_error *error);

/* Bytes offset .. offset + nbytes - 1 of small file number index. Thread-safe. */
enum llmq_status llmq_read_blob(struct llmq_model *model, size_t index, uint64_t offset, size_t nbytes, void *out, struct llmq_error *error);

/* ---- quantising in memory ------------------------------------------------------------------------------------------------------- */

/* A format with all its parameters. Never changes after it was made. */
struct llmq_quant;

/* Makes it from a text: the format's name, then, if wanted, ':' and parameters with commas between them:
 *
 *     group=64        weights that share a scale, 1 .. 32768, or channel (one group a row), tensor (one group in all), 128x128 (a square of the matrix), where the format takes it
 *     scale=f16       bf16, f16 or f32; MX and block floating point have e8m0 only
 *     rule=mse        how a scale is chosen: absmax or mse; MX formats: floor, even, ceil, rceil, search; block floating point: floor, search
 *     rounding=away   nearest-even (default), away, up, truncate
 *     half-range=int_max                 symmetric integers: the largest weight goes to the largest code (half: half a code beyond it)
 *     tensor-scale=none                  nvfp4 without the scale of the matrix
 *     sub-block=2  shift-bits=1          bfp-prime
 *     kernel=1  negative-end=full        the lowest code is used too: bfp with 7 magnitude bits, mxint8
 *
 * "mxfp4", "int4:group=64,scale=f16". LLMQ_ERR_USAGE, with what is allowed, for anything else. */
enum llmq_status llmq_quant_open(const char *text, struct llmq_quant **quant, struct llmq_error *error);

/* The one that a quantised tensor of a model was made with; where the file does not name rule or rounding, the format's
 * default. LLMQ_ERR_USAGE for a kept tensor, LLMQ_ERR_UNSUPPORTED for a format that is not in this library's own list
 * (llmq_read_rows may be able to decode it all the same). */
enum llmq_status llmq_quant_of_tensor(const struct llmq_model *model, size_t index, struct llmq_quant **quant, struct llmq_error *error);

/* NULL is allowed. */
void llmq_quant_close(struct llmq_quant *quant);

/* Bytes of the three planes of a matrix of weights. */
struct llmq_sizes {
    uint64_t codes, scales,
        zeros; /* of all rows; zeros is that of shifts for formats that have these, of the one float scale of the matrix for nvfp4, 0 for those with none of them */
    uint64_t codes_row, scales_row, zeros_row; /* of one row of the plane */
};

/* Sizes for n_rows x cols weights, as in FORMAT.md 3.2:
 *
 *     codes_row  = ceil(cols * bits / 8)               codes  = n_rows * codes_row
 *     scales_row = groups * bytes of a scale           scales = n_rows * scales_row        (one scale in all for group=tensor)
 *     zeros_row  = ceil(groups * bits / 8)             zeros  = n_rows * zeros_row         (one zero point in all for group=tensor)
 *
 * with groups = ceil(cols / group), 1 for group=channel and group=tensor. For group=128x128 ceil(n_rows / 128) rows of scales; of shifts there are
 * ceil(cols / sub-block) a row; nvfp4 has one float, the scale of the matrix, in place of zeros (none with
 * tensor-scale=none). int4:group=64, 2 x 100: codes 100, scales 8.
 * n_rows and cols may be 0. LLMQ_ERR_UNSUPPORTED when a size overflows. */
enum llmq_status llmq_quant_sizes(const struct llmq_quant *quant, uint64_t n_rows, uint64_t cols, struct llmq_sizes *sizes, struct llmq_error *error);

/* Quantises n_rows x cols weights at x (NUMERICS.md 3, 4) into the buffers codes, scales and zeros, which have the
 * bytes that llmq_quant_sizes gives; zeros may be NULL when that is 0. Each row is quantised by itself, so a matrix may
 * be worked off in several calls, also in several threads, each with its own rows of the planes; except with
 * group=tensor, group=128x128 and the scale of a matrix (nvfp4), where one call brings the whole matrix. A NaN, an Inf
 * or a scale that is too large for its type is
 * LLMQ_ERR_DATA with row and column. Memory: below 3 MB. Thread-safe. */
enum llmq_status llmq_quantise_rows(const struct llmq_quant *quant, const float *x, uint64_t n_rows, uint64_t cols, void *codes, void *scales,
                                    void *zeros, struct llmq_error *error);

/* The reverse: n_rows x cols weights into out, weight = value(code) * scale or (code - zero) * scale (FORMAT.md 4).
 * Planes as llmq_quantise_rows or llmq_read_plane gives them; any codes and scales are decoded, also such as no encoder
 * writes. zeros may be NULL for formats without zero points, shifts or scale of the matrix. Allocates nothing. Thread-safe. */
enum llmq_status llmq_dequantise_rows(const struct llmq_quant *quant, const void *codes, const void *scales, const void *zeros, uint64_t n_rows,
                                      uint64_t cols, float *out, struct llmq_error *error);

/* ---- tensors of any rank, along any axis, with computed or given scales ---------------------------------------------------------- */

/* A tensor in memory, row-major without gaps, and the axis that its scales go by. It is quantised as a matrix of rows x cols:
 *
 *     group=N, MX, BFP, 128x128, blocks   groups run along the axis: the axis is swapped with the last one, then rows x cols as everywhere
 *     group=channel                       a scale for each index of the axis: the axis is moved to the front, rows = dims[axis], cols = all others
 *     group=tensor                        the axis does not count
 *
 * So a weight [out, in] has axis 1 for groups and axis 0 for channels. Planes are those of that matrix. Counterpart of axis, group_size and qscheme. */
struct llmq_view {
    const uint64_t *dims; /* rank of them, outermost first; NULL for a scalar */
    uint32_t rank; /* 0 .. 64 */
    int32_t axis; /* -rank .. rank - 1; 0 or -1 for a scalar */
};

/* What a view becomes. */
struct llmq_view_sizes {
    uint64_t rows, cols; /* of the matrix */
    uint64_t n_scales; /* how many scales there are, row by row of the plane; 0 for blocks */
    uint64_t n_zeros; /* how many zero points or shifts, 0 for formats without */
    struct llmq_sizes planes; /* bytes, as llmq_quant_sizes gives them */
};

/* LLMQ_ERR_USAGE for an axis that is not there and, of blocks, a length along it that is no whole blocks;
 * LLMQ_ERR_UNSUPPORTED when a size overflows. */
enum llmq_status llmq_view_measure(const struct llmq_quant *quant, const struct llmq_view *view, struct llmq_view_sizes *sizes,
                                   struct llmq_error *error);

/* What the caller has decided instead of the scale rule; members that are NULL or 0 leave it to the library. */
struct llmq_given {
    const float
        *scales; /* n_scales of them. Rounded to the format's scale type first (e8m0: must be a power of two). Positive and finite, in range of
                            the type; codebooks take any finite number. bfp and bfp-prime: 2^(exponent - 127), mxint8 the scale X of OCP */
    const int32_t *zeros; /* with scales: n_zeros zero points (0 .. largest code) or shifts (0 .. 2^shift-bits - 1); NULL: all 0 */
    const float *tensor_scale; /* nvfp4: the one scale of the matrix, positive and finite */
    int32_t code_min,
        code_max; /* with scales, integer formats: the least and the largest code to be used (quant_min, quant_max); both 0: all codes */
};

/* Quantises the tensor x to planes: code = clamp(R(x / s) + z, code_min, code_max) (NUMERICS.md 4), elements of MX and
 * floats likewise. given may be NULL: then the bytes are those of llmq_quantise_rows, and of the program, for that
 * matrix. Counterpart of ScaledRealQuantizeFunction and NonScaledRealQuantizeFunction. A NaN or Inf weight and a scale
 * too large for its type are LLMQ_ERR_DATA with row and column of the matrix; given values out of range, given scales
 * for blocks (which have them inside) and for rule=reference are LLMQ_ERR_USAGE. Memory: up to two copies of x.
 * Thread-safe. */
enum llmq_status llmq_quantise(const struct llmq_quant *quant, const struct llmq_view *view, const float *x, const struct llmq_given *given,
                               void *codes, void *scales, void *zeros, struct llmq_error *error);

/* Planes to the tensor out. Counterpart of DeQuantizeFunction. */
enum llmq_status llmq_dequantise(const struct llmq_quant *quant, const struct llmq_view *view, const void *codes, const void *scales,
                                 const void *zeros, float *out, struct llmq_error *error);

/* y = llmq_dequantise(llmq_quantise(x)); y may be x. Counterpart of ScaledFakeQuantizeFunction,
 * NonScaledFakeQuantizeFunction, BFPQuantizer and MXQuantizer (whose defaults are bfp16, mxint8 and rule=floor). */
enum llmq_status llmq_fake_quantise(const struct llmq_quant *quant, const struct llmq_view *view, const float *x, const struct llmq_given *given,
                                    float *y, struct llmq_error *error);

/* The same for formats with shifts of sub-blocks (bfpprimeN, mx9, mx6, mx4) under rule=floor, but a weight that rounds to 2^m, m magnitude bits, keeps
 * that value, which no code can hold: BFPPrimeQuantDequantFunction on a CPU. y is not x. LLMQ_ERR_USAGE for other formats. */
enum llmq_status llmq_fake_quantise_unsaturated(const struct llmq_quant *quant, const struct llmq_view *view, const float *x, float *y,
                                                struct llmq_error *error);

/* The backward of all of them, straight through: dx = g, n numbers; dx may be g. */
enum llmq_status llmq_straight_through(const float *g, size_t n, float *dx, struct llmq_error *error);

/* Planes as numbers: n_scales scales to values, n_zeros zero points or shifts to points, the scale of the matrix to
 * tensor_scale, each of which may be NULL, and rows * cols codes to codes_out, of integers as their value, of other
 * elements as their bits. What is written here may be given again (shifts are not part of values). Blocks have no
 * numbers: LLMQ_ERR_USAGE. */
enum llmq_status llmq_planes_read(const struct llmq_quant *quant, const struct llmq_view *view, const void *codes, const void *scales,
                                  const void *zeros, int32_t *codes_out, float *values, int32_t *points, float *tensor_scale,
                                  struct llmq_error *error);

/* ---- casts to one element ------------------------------------------------------------------------------------------------------- */

/* Elements by name: e4m3 (fp8_e4m3), e5m2, e3m2, e2m3, e2m1 (fp4), mxint8 (code * 2^-6), int2 .. int8, uint2 .. uint8,
 * nf4 and the other codebooks, and f16 (float16), bf16 (bfloat16). Sets *bits to the bits of a code. LLMQ_ERR_USAGE for
 * an unknown name, as in the functions below. */
enum llmq_status llmq_element_bits(const char *element, uint32_t *bits, struct llmq_error *error);

/* codes[i] = the code of clamp(fl(x[i] / scale), -max, max), n of them; scale 0: none. rounding NULL: nearest-even
 * ("away", "up", "truncate"; codebooks, f16 and bf16 know nearest-even only). Inf saturates (f16 and bf16 are plain
 * IEEE casts and keep it); a NaN gives the NaN code of the element and is LLMQ_ERR_DATA where there is none; -0 keeps
 * its sign. Counterpart of QuantE4M3Function and QuantE5M2Function. */
enum llmq_status llmq_element_encode(const char *element, const char *rounding, float scale, const float *x, size_t n, uint16_t *codes,
                                     struct llmq_error *error);

/* x[i] = fl(value(codes[i]) * scale); scale 0: none. Any code is decoded, of its low bits. Counterpart of
 * DequantE4M3Function and DequantE5M2Function (which then round to f16: llmq_element_cast to "f16"). */
enum llmq_status llmq_element_decode(const char *element, float scale, const uint16_t *codes, size_t n, float *x, struct llmq_error *error);

/* There and back: y[i] = decode(encode(x[i])); y may be x. */
enum llmq_status llmq_element_cast(const char *element, const char *rounding, float scale, const float *x, size_t n, float *y,
                                   struct llmq_error *error);

/* The rounding ("nearest-even", ..; a constant) that a numeric code of another tool stands for, and back. vocabulary
 * "onnx": 0 away, 1 up, 2 nearest-even (rounding_mode of the BFP and MX operators); "torch": 2 up, 3 away, 8
 * nearest-even (round_mode, rounding_key). Any other code, and a rounding without one, is LLMQ_ERR_USAGE. */
enum llmq_status llmq_rounding_of_code(const char *vocabulary, int32_t code, const char **rounding, struct llmq_error *error);
enum llmq_status llmq_code_of_rounding(const char *vocabulary, const char *rounding, int32_t *code, struct llmq_error *error);

/* ---- multiplier quantisers (ApproxQuantizer, MinMaxQuant) ----------------------------------------------------------------------- */

/* Integers -int_max .. int_max by a factor that multiplies (NUMERICS_LEARNED.md 6). */
struct llmq_approx {
    uint32_t bits; /* 2 .. 16 */
    int32_t int_max; /* 2^(bits-1) - 1 */
    float factor; /* scale_factor = int_max / minmax */
};

/* For a range of +-minmax (>= 0; 0: factor 1), as PACTQuant has it with alpha; and MinMaxQuant: minmax = max|x| of n
 * finite weights. As a scale rule of the converter's integer formats this is half-range=int_max. */
enum llmq_status llmq_approx_for_range(uint32_t bits, float minmax, struct llmq_approx *approx, struct llmq_error *error);
enum llmq_status llmq_approx_minmax(uint32_t bits, const float *x, size_t n, struct llmq_approx *approx, struct llmq_error *error);

/* q = RNE(clip(fl(x * factor), -int_max, int_max)) as floats, and x = fl(q / factor); outputs may be inputs. */
enum llmq_status llmq_approx_quantize(const struct llmq_approx *approx, const float *x, size_t n, float *q, struct llmq_error *error);
enum llmq_status llmq_approx_dequantize(const struct llmq_approx *approx, const float *q, size_t n, float *x, struct llmq_error *error);

/* dL/dx = g * factor from g = dL/dq; masked: 0 where |x * factor| > int_max (x may be NULL otherwise). dx may be g. */
enum llmq_status llmq_approx_backward(const struct llmq_approx *approx, int masked, const float *x, const float *g, size_t n, float *dx,
                                      struct llmq_error *error);

/* ---- packing orders ------------------------------------------------------------------------------------------------------------- */

/* How codes of b bits become bytes. In all orders unused bits are 0, and words of 32 bits are little-endian. */
enum llmq_order {
    LLMQ_ORDER_STREAM =
        0, /* code i at bits i*b of a little-endian bit stream: planes of llmq, compressed-tensors, MLX, plain int4 words, fp4, fp6; b 1 .. 32 */
    LLMQ_ORDER_WORDS, /* the same, ending on a whole word of 32 bits: GPTQ */
    LLMQ_ORDER_AWQ, /* 4 bits: nibble i of each word is code [0,2,4,6,1,3,5,7][i] of its 8; the last word is filled with 0 */
    LLMQ_ORDER_HALVES_16, /* 4 bits: byte j of 16 codes has code j low and j + 8 high: NVFP4 of GGUF */
    LLMQ_ORDER_HALVES_32, /* .. of 32 codes j and j + 16: Q4_0, IQ4_NL, MXFP4 of GGUF */
    LLMQ_ORDER_HALVES_64, /* .. of 64 codes j and j + 32: Q4_K of GGUF */
    LLMQ_ORDER_MX_FP6, /* 6 bits: 4 codes in 3 bytes: their upper two bits, the first in the highest, then the low nibbles of 0, 1 and of 2, 3, even ones high */
    LLMQ_ORDER_COUNT
};

struct llmq_packing {
    enum llmq_order order;
    uint32_t bits; /* of a code */
    int is_signed; /* 1: codes are -2^(bits-1) .. 2^(bits-1) - 1 in two's complement; 0: 0 .. 2^bits - 1 */
    int64_t offset; /* added to a code before it is packed, subtracted after: 2^(bits-1) for compressed-tensors, which then packs unsigned */
};

/* Bytes of n codes: of whole units of the order. Unpacking needs as many. LLMQ_ERR_USAGE for bits that the order does
 * not have. */
enum llmq_status llmq_packed_nbytes(const struct llmq_packing *packing, uint64_t n, uint64_t *nbytes, struct llmq_error *error);

/* n codes into the bytes that llmq_packed_nbytes says, and back. A code (with its offset) that does not fit in its bits
 * is LLMQ_ERR_USAGE with its number. Thread-safe, allocates nothing. */
enum llmq_status llmq_pack(const struct llmq_packing *packing, const int64_t *codes, uint64_t n, void *out, struct llmq_error *error);
enum llmq_status llmq_unpack(const struct llmq_packing *packing, const void *bytes, uint64_t n, int64_t *codes, struct llmq_error *error);

/* The same down the columns of a matrix of rows x cols codes into a matrix of words [words of a column, cols], as
 * GPTQ's qweight (order WORDS) and the zero points of compressed-tensors lie: word r of column n at out + 4 * (r * cols
 * + n). Order WORDS or AWQ; rows * bits is filled up to whole words. */
enum llmq_status llmq_pack_columns(const struct llmq_packing *packing, const int64_t *codes, uint64_t rows, uint64_t cols, void *out,
                                   struct llmq_error *error);
enum llmq_status llmq_unpack_columns(const struct llmq_packing *packing, const void *bytes, uint64_t rows, uint64_t cols, int64_t *codes,
                                     struct llmq_error *error);

/* ---- learned scales: TQT, LSQ, PACT --------------------------------------------------------------------------------------------- */

/* Which weights share a parameter: weight i has parameter (i / inner) mod count; n must be a multiple of count * inner.
 * Per tensor: count 1, inner n. */
struct llmq_channels {
    uint64_t count, inner;
};

/* Those of the axis of a view: count = dims[axis], inner = the product of the dims behind it. */
enum llmq_status llmq_channels_of(const struct llmq_view *view, struct llmq_channels *channels, struct llmq_error *error);

/* Integer codes: code_min .. code_max of at most 16 bits, code_min < code_max, zero point in between (0 is always
 * allowed). */
struct llmq_codes {
    int32_t code_min, code_max, zero;
    const char *rounding; /* NULL: "nearest-even" */
};

/* In all functions below: n weights x, outputs of n may be their inputs, gradients: from g = dL/dy, dL/dx goes to dx
 * (may be NULL) and that of the parameters to an array of channels->count. channels NULL: per tensor. Scales must be
 * positive and finite. Formulas: NUMERICS_LEARNED.md. */

/* LSQQuantize: y = (clip(R(x / s) + z) - z) * s, dL/ds = grad_factor * sum g tau. The original adds 2^-23 to s first;
 * that is the caller's to do. */
enum llmq_status llmq_lsq_forward(const struct llmq_codes *codes, const float *scales, const struct llmq_channels *channels, const float *x, size_t n,
                                  float *y, struct llmq_error *error);
enum llmq_status llmq_lsq_backward(const struct llmq_codes *codes, const float *scales, const struct llmq_channels *channels, float grad_factor,
                                   const float *x, const float *g, size_t n, float *dx, float *dscales, struct llmq_error *error);

/* The scale to start from, 2 mean|x| / sqrt(code_max), and 1 / sqrt(n code_max) with n the weights of the whole tensor;
 * code_max >= 1, n >= 1. */
enum llmq_status llmq_lsq_start(const float *x, size_t n, int32_t code_max, float *scale, struct llmq_error *error);
enum llmq_status llmq_lsq_grad_factor(uint64_t n, int32_t code_max, float *grad_factor, struct llmq_error *error);

/* TQTQuantize: s = 2^ceil(log_threshold) / D with the domain D = 2^(bits-1), codes -D .. D - 1; dL/dlog_threshold = ln
 * 2 * s * sum g tau. bits 2 .. 16, rounding NULL: nearest-even. A threshold whose scale is 0 or Inf is LLMQ_ERR_USAGE.
 * */
enum llmq_status llmq_tqt_scale(uint32_t bits, float log_threshold, float *scale, struct llmq_error *error);
enum llmq_status llmq_tqt_forward(uint32_t bits, const char *rounding, const float *log_thresholds, const struct llmq_channels *channels,
                                  const float *x, size_t n, float *y, struct llmq_error *error);
enum llmq_status llmq_tqt_backward(uint32_t bits, const char *rounding, const float *log_thresholds, const struct llmq_channels *channels,
                                   const float *x, const float *g, size_t n, float *dx, float *dlog_thresholds, struct llmq_error *error);

/* A threshold to start from, of n >= 1 finite weights; start "3sd" or "kl-j"; log_threshold is its log2 (of a threshold
 * of 0: that of 2^-23). */
enum llmq_status llmq_tqt_start(const char *start, uint32_t bits, const float *x, size_t n, float *threshold, float *log_threshold,
                                struct llmq_error *error);

/* PACTQuant: y = q alpha / int_max, q = RNE(clip(x int_max / alpha, -int_max, int_max)); |alpha| counts. with_step 0:
 * only clipped weights pull, g sgn(x); 1: with the step's own dependence on alpha, sum g tau / int_max. bits 2 .. 16,
 * alphas finite. The original starts from alpha = 2.2. */
enum llmq_status llmq_pact_forward(uint32_t bits, const float *alphas, const struct llmq_channels *channels, const float *x, size_t n, float *y,
                                   struct llmq_error *error);
enum llmq_status llmq_pact_backward(uint32_t bits, int with_step, const float *alphas, const struct llmq_channels *channels, const float *x,
                                    const float *g, size_t n, float *dx, float *dalphas, struct llmq_error *error);

/* How the offline optimiser goes; a member that is NULL or 0, or NULL in place of all, is the rule's default. */
struct llmq_learn_options {
    const char *rounding; /* "nearest-even", .. */
    const char *scale; /* every candidate is judged as stored in this type: "f32", "bf16", "f16" */
    const char *method; /* "best", "search", "descent" */
    const char *start; /* "max", "3sd", "kl-j", "constant" */
    uint32_t steps, patience; /* of one descent */
    float rate; /* of one step */
};

struct llmq_learned {
    float scale; /* as stored; it can be given to llmq_quantise */
    int32_t zero; /* zero point that goes with it */
    double loss, start_loss; /* sum w (y - x)^2 under it, and under the scale of absmax */
    uint32_t judged; /* scales that were tried */
};

/* Learns the scale of a group of n >= 1 finite weights by rule "tqt", "lsq" or "pact", for codes code_min <= 0 <
 * code_max of at most 8 bits (tqt: code_max + 1 a power of two). code_min 0: with the zero point of the whole range.
 * weight NULL, or n importance weights >= 0. LLMQ_ERR_DATA when no scale is in range. */
enum llmq_status llmq_learn(const char *rule, const struct llmq_learn_options *options, const float *x, const float *weight, size_t n,
                            int32_t code_min, int32_t code_max, struct llmq_learned *learned, struct llmq_error *error);

/* ---- observers: ranges, and parameters from ranges ------------------------------------------------------------------------------ */

/* What is quantised to, and how scale and zero point follow from a range. Counterpart of the observers' spec; strings
 * NULL and numbers 0 are the defaults. */
struct llmq_qparams_rule {
    const char *type; /* "int2" .. "int32", "uint2" .. "uint32", "fp8_e4m3", "fp8_e5m2", "fp6_e3m2", "fp6_e2m3", "fp4"; needed */
    int symmetric; /* 1: s = amax / half range; 0: from min to max. Float types are always symmetric */
    int reduce_range; /* codes are halved */
    const char *zero; /* "none" or "int" (NULL), "float", "middle" (symmetric unsigned types) */
    const char *half_range; /* of symmetric integers: "half" (NULL; 127.5 for 8 bits), "int_max" (127) */
    const char *scale; /* "f32" (NULL), "bf16", "f16": the scale is rounded to it before the zero point is computed; "e8m0" (pof2) has no effect */
};

struct llmq_qparams {
    float scale;
    double zero; /* an integer, but for zero="float" */
};

/* UniformScalingObserver.calculate_qparams: parameters of a range (0 is included in it, but for zero="float"; min >
 * max: never observed, scale 1 and zero 0). A NaN is LLMQ_ERR_USAGE, a range too wide for a scale LLMQ_ERR_DATA.
 * NUMERICS_OBSERVERS.md 1. */
enum llmq_status llmq_calculate_qparams(const struct llmq_qparams_rule *rule, float min, float max, struct llmq_qparams *qparams,
                                        struct llmq_error *error);

/* Codes of n finite weights (integers as numbers, float types as bits) under such parameters, and back; NULL rounding:
 * nearest-even. */
enum llmq_status llmq_qparams_encode(const struct llmq_qparams_rule *rule, const struct llmq_qparams *qparams, const char *rounding, const float *x,
                                     size_t n, double *codes, struct llmq_error *error);
enum llmq_status llmq_qparams_decode(const struct llmq_qparams_rule *rule, const struct llmq_qparams *qparams, const double *codes, size_t n,
                                     float *x, struct llmq_error *error);

/* One observer of the library. */
struct llmq_observer_info {
    const char *name; /* "minmax", "percentile", ..; a constant, as all strings here */
    const char *answers[3]; /* classes that it is the counterpart of, NULL behind the last; accepted as names */
    const char *summary;
    uint32_t passes; /* readings of the data that it wants: 0, 1 or 2 */
};

size_t llmq_observer_count(void);
enum llmq_status llmq_observer_describe(size_t index, struct llmq_observer_info *info, struct llmq_error *error);

/* What an observer heeds; it ignores the others. */
struct llmq_observe_options {
    int symmetric; /* 1: bins of |x|; 0: of x */
    uint32_t bins;
    double percentile; /* 0 .. 100 */
    uint32_t start_bin, stride; /* mse-hist */
    uint32_t bits; /* kl-j: 2 .. 16 */
    uint32_t upsample_rate; /* accepted, without effect */
    struct llmq_qparams_rule quantiser; /* mse-hist: what errors are measured with (type NULL: the default, int8); histogram-pro: reduce_range */
};

/* The options that NULL stands for, to change some of them. */
enum llmq_status llmq_observe_defaults(const char *name, struct llmq_observe_options *options, struct llmq_error *error);

enum llmq_granularity { LLMQ_PER_TENSOR = 1, LLMQ_PER_CHANNEL = 2, LLMQ_PER_GROUP = 4 };

/* An observation: init/observe/finish/reset of number/observe.h. One range a slot: the tensor, an index of the axis, or
 * a group along it. */
struct llmq_observer;

/* Begins an observation by name ("minmax", or "PerTensorMinMaxObserver") of tensors of this view; NULL view: per
 * tensor, of any number of weights. Groups: group weights along the axis, -1 for the whole axis; slots in the order of
 * llmq_view's matrix, the last of a row may be shorter. Memory: a slot has its bins. Use by one thread at a time. */
enum llmq_status llmq_observer_open(const char *name, const struct llmq_observe_options *options, const struct llmq_view *view,
                                    enum llmq_granularity granularity, int64_t group, struct llmq_observer **observer, struct llmq_error *error);
void llmq_observer_close(struct llmq_observer *observer); /* NULL is allowed */

/* How many slots there are; 0 for NULL. */
uint64_t llmq_observer_slots(const struct llmq_observer *observer);

/* n weights from the row-major index first on, in rising order in each reading; how they are cut never changes a
 * result. NaN and Inf are dropped. */
enum llmq_status llmq_observe(struct llmq_observer *observer, uint64_t first, const float *x, size_t n, struct llmq_error *error);

/* Ends a reading: *again is 1 when the observer wants all weights once more. */
enum llmq_status llmq_observe_next(struct llmq_observer *observer, int *again, struct llmq_error *error);

/* The range of each slot (+Inf, -Inf when nothing was seen); LLMQ_ERR_USAGE while a reading is missing. May be called
 * again. */
enum llmq_status llmq_observe_finish(struct llmq_observer *observer, float *min, float *max, struct llmq_error *error);

/* The histogram of a slot, for observers that have one: *bins of them, counts[bins] and edges[bins + 1], each of which
 * may be NULL. */
enum llmq_status llmq_observe_histogram(struct llmq_observer *observer, uint64_t slot, uint32_t *bins, uint64_t *counts, float *edges,
                                        struct llmq_error *error);

/* reset_min_max_vals: forgets everything. */
enum llmq_status llmq_observe_reset(struct llmq_observer *observer, struct llmq_error *error);

/* Scales of one block of this range. mx (PerBlockMXObserver): byte and scale 2^(byte - 127) by rule floor, even, ceil
 * or rceil for an element; prime (mx6, mx9): the exponent field of amax; bfp (PerBlockBFPObserver, bfp16): byte =
 * shared exponent + 127, scale the step. */
enum llmq_status llmq_mx_block_scale(const char *element, const char *rule, float min, float max, uint32_t *byte, float *scale,
                                     struct llmq_error *error);
enum llmq_status llmq_prime_block_scale(float min, float max, uint32_t *byte, float *scale, struct llmq_error *error);
enum llmq_status llmq_bfp_block_scale(float min, float max, uint32_t *byte, float *scale, struct llmq_error *error);

/* ---- writing a container -------------------------------------------------------------------------------------------------------- */

/* One tensor to be written. */
struct llmq_tensor_spec {
    const char *name; /* unique, 1 .. 65536 bytes of UTF-8 without control characters */
    const uint64_t *dims; /* rank of them, outermost first, each at most 2^53 - 1; NULL for a scalar */
    uint32_t rank; /* 0 .. 64 */
    const char *dtype; /* of the bytes that will be put: "F32" for float, "BF16", "F16", ...; NULL: "F32" */
    const char *role; /* NULL: "other" */
    const struct llmq_quant *quant; /* quantise to this; NULL: keep the bytes as they are. Needed only during llmq_writer_open */
};

/* One small file to be written along. */
struct llmq_blob_spec {
    const char *name; /* a plain file name, unique */
    const void *bytes;
    size_t nbytes;
};

enum llmq_compress {
    LLMQ_COMPRESS_DEFAULT = 0, /* codes raw, ready to be mapped; all else by zstd where that helps */
    LLMQ_COMPRESS_NONE, /* everything raw */
    LLMQ_COMPRESS_MAX /* codes too, at the highest level: smallest, slow */
};

/* Zeroed, or NULL in its place, means the defaults. */
struct llmq_write_options {
    int replace; /* 1: an existing file of this name is replaced; 0: it is LLMQ_ERR_EXISTS */
    enum llmq_compress compress;
    uint32_t align; /* of large raw planes in the file: a power of two, 64 .. 2^21; 0: 4096 */
    uint64_t split_nbytes; /* begin a new file NAME-00001-of-0000N.llmq rather than exceed this; 0: one file */
    const char *metadata; /* text of one JSON object of strings, or NULL */
    const char *program; /* name and version of the program that writes, for people; NULL: "llmq VERSION" */
};

/* A container that is being written. */
struct llmq_writer;

/* Begins the file at path: checks and copies all arguments, checks the free space, creates PATH.partial and writes the
 * small files. Nothing is visible under the final name before llmq_writer_finish. A quantised tensor must have weights
 * and a dtype that is a float (F32, BF16, F16, F64, F8_E4M3, F8_E5M2). Memory: about 1 KB a tensor, and a few tiles. */
enum llmq_status llmq_writer_open(const char *path, const struct llmq_tensor_spec *tensors, size_t n_tensors, const struct llmq_blob_spec *blobs,
                                  size_t n_blobs, const struct llmq_write_options *options, struct llmq_writer **writer, struct llmq_error *error);

/* Appends nbytes of the weights of tensor number index, little-endian elements of its declared dtype, row-major: for a
 * tensor declared as F32 these are rows of float. All tensors are put in the order in which they were declared, the
 * bytes of each in as many pieces as the caller likes; a tensor without weights needs none. Anything else (another
 * tensor's turn, more bytes than it has) is LLMQ_ERR_USAGE. A NaN, an Inf or a scale too large for its type is
 * LLMQ_ERR_DATA with tensor, row and column. Once a call has failed only llmq_writer_close is left. Bytes are held back
 * until a tile (262144 weights) is complete. Where one group reaches over several tiles (group=tensor from two tiles
 * on, group=channel with rows of more than 262144 weights) that is the whole tensor: put it in one piece, and it is not
 * copied. */
enum llmq_status llmq_writer_put(struct llmq_writer *writer, size_t index, const void *bytes, size_t nbytes, struct llmq_error *error);

/* Writes the index, makes everything durable (fsync) and gives the file its name. LLMQ_ERR_USAGE naming the tensor when
 * bytes are missing. The writer must still be closed. */
enum llmq_status llmq_writer_finish(struct llmq_writer *writer, struct llmq_error *error);

/* Frees the writer; without a successful llmq_writer_finish before, the unfinished file is removed. NULL is allowed. */
void llmq_writer_close(struct llmq_writer *writer);

#ifdef __cplusplus
}
#endif

#endif
