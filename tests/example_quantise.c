/* example_quantise.c: quantise a tensor in memory along an axis, look at codes and scales, learn a better scale, pack.
 *
 * Why this way: it uses nothing but llmq.h and the library, as another program would.
 * Corner cases: any call that fails ends the program with its sentence.
 * Reference: llmq.h. Worked number: int4 of 2.6 as the largest of its group: scale 2.6 / 7.5 = 0.346667.
 */
#include "llmq.h"

#include <stdio.h>

static int complain(const struct llmq_error *error)
{
    fprintf(stderr, "%s\n", error->text);
    return 1;
}

int main(void)
{
    const float x[8] = { 0.9f, -0.35f, 0.12f, -1.4f, 0.61f, 0.05f, -0.77f, 2.6f };
    const uint64_t dims[2] = { 1, 8 };
    const struct llmq_view view = { dims, 2, 1 };
    struct llmq_error error;
    struct llmq_quant *quant;
    struct llmq_learned learned;
    unsigned char codes[4], scales[4], words[4];
    int32_t numbers[8];
    int64_t wide[8];
    float scale, y[8];
    if (llmq_quant_open("int4:scale=f32", &quant, &error) != LLMQ_OK ||
        llmq_quantise(quant, &view, x, NULL, codes, scales, NULL, &error) != LLMQ_OK ||
        llmq_planes_read(quant, &view, codes, scales, NULL, numbers, &scale, NULL, NULL, &error) != LLMQ_OK ||
        llmq_learn("lsq", NULL, x, NULL, 8, -8, 7, &learned, &error) != LLMQ_OK)
        return complain(&error);
    const struct llmq_given given = { &learned.scale, NULL, NULL, 0, 0 };
    const struct llmq_packing awq = { LLMQ_ORDER_AWQ, 4, 1, 0 };
    for (int i = 0; i < 8; i++) wide[i] = numbers[i];
    if (llmq_fake_quantise(quant, &view, x, &given, y, &error) != LLMQ_OK || llmq_pack(&awq, wide, 8, words, &error) != LLMQ_OK)
        return complain(&error);
    printf("scale %g, learned %g: loss %g -> %g\n", (double)scale, (double)learned.scale, learned.start_loss, learned.loss);
    for (int i = 0; i < 8; i++) printf("%g -> %d, learned %g\n", (double)x[i], (int)numbers[i], (double)y[i]);
    printf("AWQ word %02x%02x%02x%02x\n", words[3], words[2], words[1], words[0]);
    llmq_quant_close(quant);
    return 0;
}
