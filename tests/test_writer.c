/* test_writer.c: which writer a path gets.
 *
 * Why this way: the table is small enough to be written again.
 * Corner cases: the ending alone, in capitals, in the middle.
 * Reference: container/writer.h. Example: "a/b.gguf" is gguf_writer_ops.
 */
#include "support/support.h"

#include "container/writer.h"

static void test_of_path(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        const struct writer_ops *ops;
    } cases[] = {
        { "m.llmq", &llmq_writer_ops },
        { "a/b.gguf", &gguf_writer_ops },
        { "x.safetensors", &safetensors_writer_ops },
        { ".gguf", &gguf_writer_ops },
        { "m.gguf.llmq", &llmq_writer_ops },
        { "m.GGUF", NULL },
        { "m.gguf/", NULL },
        { "gguf", NULL },
        { "", NULL },
        { "m.gguf.bak", NULL },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) assert_ptr_equal(writer_of_path(cases[i].path), cases[i].ops);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_of_path) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
