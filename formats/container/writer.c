/* writer.c: the table of writers by the endings of their files.
 *
 *   "x.gguf" -> GGUF     "x.llmq" -> llmq     "x.safetensors" -> safetensors     "x" -> none
 *
 * Why this way: a new output container is one row.
 * Corner cases: a name that is nothing but the ending has it too.
 * Reference: writer.h. Example: out/model-q4_k.gguf is written by gguf_write.c.
 */
#include "container/writer.h"

#include <string.h>

static const struct writer_ops *const rows[] = { &llmq_writer_ops, &gguf_writer_ops, &safetensors_writer_ops };

const struct writer_ops *writer_of_path(const char *path)
{
    const size_t n = strlen(path);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const size_t n_ending = strlen(rows[i]->extension);
        if (n >= n_ending && strcmp(path + n - n_ending, rows[i]->extension) == 0) return rows[i];
    }
    return NULL;
}
