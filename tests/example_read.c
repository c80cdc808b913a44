/* example_read.c: reads one tensor of a model by name and prints its shape and first values, with nothing but llmq.h.
 *
 *   example_read m.llmq model.norm.weight  ->  model.norm.weight: BF16 [64], kept: 1.0078125 0.99609375 ...
 *
 * Build: cc example_read.c $(pkg-config --cflags --libs llmq).  Why this way, corner cases, reference: llmq.h. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "llmq.h"

static int print_tensor(struct llmq_model *model, const char *name, struct llmq_error *error)
{
    struct llmq_tensor_info tensor;
    size_t index;
    if (llmq_model_find(model, name, &index, error) || llmq_model_tensor(model, index, &tensor, error)) return 1;
    uint64_t n_rows = tensor.rows < 4 ? tensor.rows : 4;
    float *weights = malloc(n_rows * tensor.cols * sizeof *weights + 1);
    int failed = !weights || llmq_read_rows(model, index, 0, n_rows, weights, error);
    if (!failed) {
        printf("%s: %s [", tensor.name, tensor.dtype);
        for (uint32_t i = 0; i < tensor.rank; i++) printf(i ? ", %" PRIu64 : "%" PRIu64, tensor.dims[i]);
        printf("], %s:", tensor.format ? tensor.format : "kept");
        for (uint64_t i = 0; i < n_rows * tensor.cols && i < 8; i++) printf(" %.9g", (double)weights[i]);
        printf("\n");
    }
    free(weights);
    return failed;
}

int main(int argc, char **argv)
{
    struct llmq_error error = { 0, "out of memory" };
    struct llmq_model *model = NULL;
    if (argc != 3) return fprintf(stderr, "usage: example_read MODEL TENSOR\n"), 2;
    int failed = llmq_model_open(argv[1], &model, &error) || print_tensor(model, argv[2], &error);
    if (failed) fprintf(stderr, "%s\n", error.text);
    llmq_model_close(model);
    return failed;
}
