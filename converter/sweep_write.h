/* sweep_write.h: a sweep's table as CSV, as JSON, and as a few lines for people.
 *
 *   format,group_size,scale_rule,alpha,scope,name,...        one line a row, RFC 4180        {"rows":[{"format":"int4",...},...]}
 *
 * Why this way: both are written from one list of columns, so a row has the same members in both; scripts/sweep.sh and SWEEP.md name them.
 * Corner cases: what was not measured is empty in CSV and null in JSON; infinite decibels are inf and null; a skipped variant is one row of scope total
 * with its reason and bpw nan. No clock enters, so the same sweep gives the same bytes.
 * Reference: RFC 4180, RFC 8259, SWEEP.md. Worked number: a name with a comma and a quote, a",b, is written "a"",b".
 */
#ifndef LLMQ_CONVERTER_SWEEP_WRITE_H
#define LLMQ_CONVERTER_SWEEP_WRITE_H

#include <stdio.h>

#include "base/io.h"
#include "converter/sweep_table.h"

/* Where text goes: a file of an output set, or a stream. */
struct sweep_sink {
    struct outfile *file; /* NULL: stream */
    FILE *stream;
    uint64_t offset;
};

enum status sweep_write_csv(struct sweep_sink *sink, const struct sweep_table *table, struct err *err);
enum status sweep_write_json(struct sweep_sink *sink, const struct sweep_table *table, struct err *err);

/* Totals, a line a variant. */
void sweep_print(FILE *out, const struct sweep_table *table);

#endif
