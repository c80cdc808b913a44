/* cmd_formats.c: the command formats: lists the rows of the format table.
 *
 * Drawing: NAME  BITS/WEIGHT  GROUP  SCALES  RULES  SUMMARY, one row a format.
 * Why this way: the table is the documentation.
 * Corner cases: bits per weight are those of the defaults, scales, zero points and shifts included; of channels, those of rows of 4096 weights.
 * Reference: number/format.h. Worked number: mxfp4 4.25 = 4 + 8/32.
 */
#include <string.h>

#include "converter/app.h"
#include "converter/print.h"
#include "number/format.h"

enum { COLS = 4096 }; /* of the rows that the bits of a weight are told for, where a group is a row */

static struct quant defaults_of(const struct format *format)
{
    struct quant quant = { 0 };
    quant_parse(format->name, NULL, &quant, NULL);
    return quant;
}

static double default_bits(const struct format *format)
{
    const struct quant quant = defaults_of(format);
    return quant_bits_per_weight(&quant, COLS, COLS * COLS);
}

/* The default group: a number, or a word, in JSON with its quotes. */
static const char *default_group(const struct format *format, bool json, char out[16])
{
    const struct quant quant = defaults_of(format);
    quant_group_json(&quant, out);
    if (json || out[0] != '"') return out;
    out[strlen(out) - 1] = '\0';
    return out + 1;
}

/* Names of the set bits, with a separator; quote is put around each. */
static void print_names(uint32_t mask, unsigned count, const char *(*name)(unsigned), const char *quote, const char *separator)
{
    bool first = true;
    for (unsigned i = 0; i < count; i++)
        if (mask >> i & 1u) {
            printf("%s%s%s%s", first ? "" : separator, quote, name(i), quote);
            first = false;
        }
}

static const char *rule_name(unsigned i)
{
    return scale_rule_name((enum scale_rule)i);
}

static const char *scale_name(unsigned i)
{
    return scale_type_name((enum scale_type)i);
}

static const char *truth(bool value)
{
    return value ? "true" : "false";
}

static void print_json(void)
{
    printf("{\"formats\":[");
    for (size_t i = 0; i < format_count(); i++) {
        const struct format *format = format_at(i);
        char group[16];
        printf("%s\n{\"name\":\"%s\",\"family\":\"%s\",\"element\":", i ? "," : "", format->name, format->family->name);
        print_json_string(stdout, format->elem ? format->elem->name : NULL);
        printf(",\"bits\":");
        if (format->elem) printf("%u", format->elem->bits);
        else printf("null");
        printf(",\"gguf_type\":");
        print_json_string(stdout, format->block ? format->block->name : NULL);
        printf(",\"bits_per_weight\":");
        print_json_number(stdout, default_bits(format));
        printf(",\"group\":%s,\"channel\":%s,\"tensor\":%s,\"128x128\":%s,\"zero_point\":%s,\"sub_block\":%u,\"shift_bits\":%u,\"scale_dtypes\":[",
               default_group(format, true, group), truth(format->group_kinds >> GROUP_CHANNEL & 1u), truth(format->group_kinds >> GROUP_TENSOR & 1u),
               truth(format->group_kinds >> GROUP_SQUARE & 1u), truth(format->zero_point), format->sub_block, format->shift_bits);
        print_names(format->scale_types, SCALE_TYPE_COUNT, scale_name, "\"", ",");
        printf("],\"scale_rules\":[");
        print_names(format->rules, RULE_COUNT, rule_name, "\"", ",");
        printf("],\"default_scale_rule\":\"%s\",\"default_scale_dtype\":\"%s\",\"summary\":", scale_rule_name(format->default_rule),
               scale_type_name(format->default_scale));
        print_json_string(stdout, format->summary);
        printf("}");
    }
    printf("\n]}\n");
}

enum status cmd_formats(struct app *app, struct err *err)
{
    if (app->settings.n_arguments) return err_set(err, ERR_USAGE, "unexpected argument '%s'", app->settings.arguments[0]);
    if (settings_flag(&app->settings, SET_JSON)) {
        print_json();
        return OK;
    }
    printf("%-12s %7s %7s  %-15s %s\n", "format", "bits/w", "group", "scales", "what it is");
    for (size_t i = 0; i < format_count(); i++) {
        const struct format *format = format_at(i);
        char group[16];
        printf("%-12s %7.3f %7s  ", format->name, default_bits(format), default_group(format, false, group));
        print_names(format->scale_types, SCALE_TYPE_COUNT, scale_name, "", ",");
        printf("%*s %s; scale rules ", format->scale_types & (format->scale_types - 1) ? 4 : 11, "", format->summary);
        print_names(format->rules, RULE_COUNT, rule_name, "", ", ");
        printf(" (%s)\n", scale_rule_name(format->default_rule));
    }
    printf(
        "\nGroups: any size from 1 to %u weights along the input axis; integers, floats and codebooks also channel and tensor, floats 128x128; the "
        "formats of GGUF those they have. Bits of channels are those of rows of %d weights.\n"
        "Parameters inline: int4:group=64,scale=f16,rule=mse,rounding=away; int4:half-range=int_max; int4:rule=percentile,percentile=99.9; "
        "mx6:sub-block=2,shift-bits=1; bfp16:kernel=1; "
        "mxint8:negative-end=full\n",
        GROUP_MAX, COLS);
    return OK;
}
