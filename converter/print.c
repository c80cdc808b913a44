/* print.c: see print.h.
 *
 * Formula: \u00XX for control characters; %.9g for numbers, which brings every binary32 back.
 * Why this way: see print.h.
 * Corner cases: see print.h.
 * Reference: RFC 8259. Worked number: 0.1f prints as 0.100000001.
 */
#include "converter/print.h"

#include <math.h>
#include <string.h>

#include "base/err.h"

void print_json_string(FILE *out, const char *string)
{
    if (!string) {
        fputs("null", out);
        return;
    }
    fputc('"', out);
    for (const char *p = string; *p; p++) {
        if (*p == '"' || *p == '\\') fprintf(out, "\\%c", *p);
        else if ((unsigned char)*p < 32 || *p == 127) fprintf(out, "\\u%04x", (unsigned)(unsigned char)*p);
        else fputc(*p, out);
    }
    fputc('"', out);
}

void print_json_number(FILE *out, double value)
{
    if (isfinite(value)) fprintf(out, "%.9g", value);
    else fputs("null", out);
}

void print_json_dims(FILE *out, const struct tensor *tensor)
{
    fputc('[', out);
    for (uint32_t i = 0; i < tensor->rank; i++) fprintf(out, "%s%llu", i ? "," : "", (unsigned long long)tensor->dims[i]);
    fputc(']', out);
}

const char *show_dims(const struct tensor *tensor, char *out, size_t out_size)
{
    size_t used = 0;
    if (tensor->rank == 0) snprintf(out, out_size, "scalar");
    for (uint32_t i = 0; i < tensor->rank && used < out_size; i++)
        used += (size_t)snprintf(out + used, out_size - used, "%s%llu", i ? " x " : "", (unsigned long long)tensor->dims[i]);
    return out;
}

const char *show_name(const char *name, char *out, size_t width)
{
    char escaped[512];
    err_name(name, strlen(name), escaped, sizeof escaped);
    size_t n = strlen(escaped);
    if (n <= width) {
        memcpy(out, escaped, n + 1);
        return out;
    }
    size_t head = (width - 3) / 2, tail = width - 3 - head;
    memcpy(out, escaped, head);
    memcpy(out + head, "...", 3);
    memcpy(out + head + 3, escaped + n - tail, tail + 1);
    return out;
}

const char *show_db(double db, char *out)
{
    if (isfinite(db)) snprintf(out, 16, "%.2f", db);
    else snprintf(out, 16, "%s", db > 0 ? "inf" : "-inf");
    return out;
}
