/* ggml.c: the table of ggml's block types.
 *
 *   id 2 -> Q4_0, id 12 -> Q4_K, "q4_k" -> Q4_K
 *
 * Why this way: a row stands beside the functions it names, in the file of its family; here is only their order.
 * Corner cases: types we do not read (IQ1 to IQ3, Q8_1, Q8_K, ids taken out of ggml) have no row; integers and F64 are plain dtypes of
 * layout/dtype.c.
 * Reference: layouts.md 2(f). Worked number: 21 rows.
 */
#include "number/ggml.h"

static const struct ggml_type *const types[] = {
    &ggml_f32,  &ggml_f16,  &ggml_bf16,   &ggml_q4_0,   &ggml_q4_1,  &ggml_q5_0,  &ggml_q5_1,  &ggml_q8_0,  &ggml_q2_k, &ggml_q3_k, &ggml_q4_k,
    &ggml_q5_k, &ggml_q6_k, &ggml_iq4_nl, &ggml_iq4_xs, &ggml_tq1_0, &ggml_tq2_0, &ggml_mxfp4, &ggml_nvfp4, &ggml_q1_0, &ggml_q2_0,
};

size_t ggml_type_count(void)
{
    return sizeof types / sizeof types[0];
}

const struct ggml_type *ggml_type_at(size_t index)
{
    return types[index];
}

static char upper(char c)
{
    return c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
}

/* The format's name is the type's in small letters: one comparison serves both. */
static bool same_name(const char *a, const char *b)
{
    while (*a && upper(*a) == upper(*b)) a++, b++;
    return upper(*a) == upper(*b);
}

const struct ggml_type *ggml_type_find(const char *name)
{
    for (size_t i = 0; i < ggml_type_count(); i++)
        if (same_name(types[i]->name, name)) return types[i];
    return NULL;
}

const struct ggml_type *ggml_type_by_id(uint32_t id)
{
    for (size_t i = 0; i < ggml_type_count(); i++)
        if (types[i]->id == id) return types[i];
    return NULL;
}
