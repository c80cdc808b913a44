/* learn_case.c: see learn_case.h.
 *
 * Drawing: a row of JSON -> struct learn_case.
 * Why this way: see learn_case.h.
 * Corner cases: an Inf scale and its losses compare by their bits, as all others do.
 * Reference: header of tests/oracle_learn.py. Worked number: "3f800000" is 1.
 */
#include "support/learn_case.h"

#include "support/support.h"

#include <cjson/cJSON.h>

#include "number/half.h"

static const char *text_of(const cJSON *item, const char *key)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, key));
    if (!text) fail_msg("learn.json: a case lacks '%s'", key);
    return text;
}

static double number_of(const cJSON *item, const char *key)
{
    const cJSON *number = cJSON_GetObjectItemCaseSensitive(item, key);
    if (!cJSON_IsNumber(number)) fail_msg("learn.json: a case lacks '%s'", key);
    return number->valuedouble;
}

/* Index of text among names, which end with NULL. */
static int index_of(const char *text, const char *const *names)
{
    for (int i = 0; names[i]; i++)
        if (strcmp(text, names[i]) == 0) return i;
    fail_msg("learn.json: unknown word '%s'", text);
    return 0;
}

static float *floats_of(const char *hex, size_t *n)
{
    *n = strlen(hex) / 8;
    if (*n == 0) return NULL;
    float *out = calloc(*n, sizeof *out);
    assert_non_null(out);
    for (size_t i = 0; i < *n; i++) {
        char digits[9] = { 0 };
        memcpy(digits, hex + 8 * i, 8);
        out[i] = f32_from_bits((uint32_t)strtoul(digits, NULL, 16));
    }
    return out;
}

static void parse(const cJSON *item, struct learn_case *golden)
{
    static const char *const methods[] = { "best", "search", "descent", NULL }, *const starts[] = { "max", "3sd", "klj", "constant", NULL };
    size_t n_weights;
    *golden = (struct learn_case){ .name = text_of(item, "name"), .rule = learn_rule_find(text_of(item, "rule")) };
    golden->params = learn_defaults(golden->rule);
    golden->params.method = (enum learn_method)index_of(text_of(item, "method"), methods);
    golden->params.start = (enum learn_start)index_of(text_of(item, "start"), starts);
    golden->params.rounding = rounding_find(text_of(item, "rounding"));
    golden->params.stored = scale_type_find(text_of(item, "stored"));
    golden->code_min = (int32_t)number_of(item, "code_min");
    golden->code_max = (int32_t)number_of(item, "code_max");
    golden->x = floats_of(text_of(item, "x"), &golden->n);
    golden->weight = floats_of(text_of(item, "w"), &n_weights);
    golden->scale = (uint32_t)number_of(item, "scale");
    golden->zero = (int32_t)number_of(item, "zero");
    golden->loss = strtoull(text_of(item, "loss"), NULL, 16);
    golden->start_loss = strtoull(text_of(item, "start_loss"), NULL, 16);
    golden->judged = (uint32_t)number_of(item, "judged");
    if (cJSON_HasObjectItem(item, "span")) golden->span = (size_t)number_of(item, "span");
}

size_t learn_cases(const char *list, void (*check)(const struct learn_case *golden))
{
    char *text = read_file(tests_path("golden/learn.json"), NULL);
    cJSON *tree = cJSON_Parse(text);
    const cJSON *items = cJSON_GetObjectItemCaseSensitive(tree, list), *item;
    size_t count = 0;
    cJSON_ArrayForEach(item, items)
    {
        struct learn_case golden;
        parse(item, &golden);
        check(&golden);
        free(golden.x);
        free(golden.weight);
        count++;
    }
    cJSON_Delete(tree);
    free(text);
    return count;
}

static uint64_t bits_of(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

void learn_case_check(const struct learn_case *golden, const struct learned *learned)
{
    if (f32_bits(learned->scale) != golden->scale)
        fail_msg("%s: scale %08x (loss %g), not %08x", golden->name, f32_bits(learned->scale), learned->loss, golden->scale);
    if (learned->zero != golden->zero) fail_msg("%s: zero point %d, not %d", golden->name, learned->zero, golden->zero);
    if (bits_of(learned->loss) != golden->loss) fail_msg("%s: loss %a is not the oracle's", golden->name, learned->loss);
    if (bits_of(learned->start_loss) != golden->start_loss) fail_msg("%s: first loss %a is not the oracle's", golden->name, learned->start_loss);
    if (learned->judged != golden->judged) fail_msg("%s: %u scales judged, not %u", golden->name, learned->judged, golden->judged);
}
