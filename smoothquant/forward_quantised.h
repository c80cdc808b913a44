/* forward_quantised.h: weights as they are after a conversion to some format: encoded and decoded on their way to the forward pass.
 *
 *   source --rows--> Q(rows), with the functions a conversion calls, for the projections of layers; everything else as the source has it
 *
 * Why this way: --sequential calibration sees the errors of the layers before without any file being written.
 * Corner cases: routers, norms, embeddings and the head are not quantised; formats with one scale for a whole tensor are refused; a scale of a matrix is
 * made of all of it, looked up once; rows of the tensor are quantised along its last dim, as the converter does.
 * Reference: smooth_target.h. Worked number: none needed.
 */
#ifndef LLMQ_SMOOTHQUANT_FORWARD_QUANTISED_H
#define LLMQ_SMOOTHQUANT_FORWARD_QUANTISED_H

#include "number/format.h"
#include "smoothquant/arch_model.h"

struct quantised_weights;

/* quant, model, source and container must outlive *out. ERR_UNSUPPORTED for a format that cannot be made row by row. */
enum status quantised_weights_open(const struct quant *quant, const struct arch_model *model, const struct weight_source *source,
                                   const struct container *container, struct quantised_weights **out, struct err *err);
struct weight_source quantised_weights_source(struct quantised_weights *weights);
void quantised_weights_close(struct quantised_weights *weights); /* NULL allowed */

#endif
