/* report_page.c: writes a page of a made-up table for the browser test: report_page OUT.html [perplexity] [weighted] [hostile] [one].
 *
 * Why this way: what a browser must stand (hostile names, infinities, many layers) no small model has.
 * Corner cases: see tests/support/made_table.h.
 * Reference: tests/browser/test_browser_report.py.
 */
#include <stdio.h>
#include <string.h>

#include "converter/report_html.h"
#include "support/made_table.h"

int main(int argc, char **argv)
{
    struct made made = { .n_layers = 16, .n_variants = 12 };
    struct err err;
    for (int k = 2; k < argc; k++) {
        made.perplexity |= strcmp(argv[k], "perplexity") == 0;
        made.weighted |= strcmp(argv[k], "weighted") == 0;
        made.hostile |= strcmp(argv[k], "hostile") == 0;
        if (strcmp(argv[k], "one") == 0) made.n_variants = 1;
    }
    if (argc < 2) return 2;
    struct sweep_table *table = made_table(&made);
    const enum status status = report_html_write(&io_system, argv[1], true, table, &err);
    made_table_free(table);
    if (status) fprintf(stderr, "%s\n", err.text);
    return status != OK;
}
