/* print.h: results on stdout: JSON written as it goes, sentences about tensors.
 *
 * Why this way: reports of 100 000 tensors are streamed, never built in memory.
 * Corner cases: names are escaped; numbers that JSON lacks (Inf, NaN) are written as null; the decimal point is always a point.
 * Reference: RFC 8259.
 */
#ifndef LLMQ_CONVERTER_PRINT_H
#define LLMQ_CONVERTER_PRINT_H

#include <stdint.h>
#include <stdio.h>

#include "container/container.h"

void print_json_string(FILE *out, const char *string); /* with its quotes; NULL is null */
void print_json_number(FILE *out, double value);
void print_json_dims(FILE *out, const struct tensor *tensor); /* [4096, 11008] */

/* "4096 x 11008", "scalar"; at most out_size - 1 characters. Returns out. */
const char *show_dims(const struct tensor *tensor, char *out, size_t out_size);

/* A name for a table: escaped, and cut in the middle to width characters. Returns out, which has at least width + 1 bytes. */
const char *show_name(const char *name, char *out, size_t width);

/* "19.03", "inf", "-inf". Returns out, at least 16 bytes. */
const char *show_db(double db, char *out);

#endif
