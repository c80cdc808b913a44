/* test_report_html.c: the page of a made-up table: what must be in it, what must never be, and that it appears whole or not at all.
 *
 * Drawing: made_table -> report_html_write -> bytes of the page -> counted and searched.
 * Why this way: how it looks and sorts is the browser test's; here stands what no look can promise: escapes, every row, every hash, no address.
 * Corner cases: hostile names; nothing measured; no variants; one; a variant that was not finished; more rows than a page holds; a full disk.
 * Reference: report_html.h. Worked number: 12 variants of 16 layers of 8 tensors: 1536 rows of tensors with a hash each.
 */
#include "support/support.h"

#include <errno.h>
#include <math.h>
#include <unistd.h>

#include "converter/report_html.h"
#include "converter/report_html_axis.h"
#include "converter/report_html_out.h"
#include "converter/report_html_view.h"
#include "support/made_table.h"

/* The next place of what; not by strstr, whose sanitized form measures the page each time. */
static const char *find(const char *at, const char *what)
{
    const size_t n = strlen(what);
    for (; (at = strchr(at, what[0])) != NULL; at++)
        if (strncmp(at, what, n) == 0) return at;
    return NULL;
}

static size_t count(const char *page, const char *what)
{
    size_t n = 0;
    for (const char *at = page; (at = find(at, what)) != NULL; at += strlen(what)) n++;
    return n;
}

static void assert_has(const char *page, const char *what)
{
    if (!find(page, what)) fail_msg("the page lacks '%s'", what);
}

static void assert_lacks(const char *page, const char *what)
{
    const char *at = find(page, what);
    if (at) fail_msg("the page has '%s': %.80s", what, at);
}

/* The page of a table; the caller frees it. */
static char *page_of(const struct sweep_table *table, size_t *nbytes)
{
    char *dir = temp_dir();
    struct err err;
    const char *path = temp_path(dir, "page.html");
    assert_ok(report_html_write(&io_system, path, false, table, &err));
    char *page = read_file(path, nbytes);
    temp_dir_remove(dir);
    assert_int_equal(strlen(page), *nbytes);
    return page;
}

/* What holds of every page. */
static void check_page(const char *page)
{
    static const char *const never[] = { "://",  " src=\"",    "url(", "@import", "<link rel=\"stylesheet", "nan", "-nan",
                                         "<img", "onerror=\"", "\x01", "\xff" };
    static const char *const paired[] = { "details", "section", "table",  "tbody", "thead", "tr",   "th",   "td",    "svg",   "title",
                                          "desc",    "text",    "figure", "div",   "dl",    "dt",   "dd",   "ul",    "li",    "p",
                                          "h2",      "h3",      "code",   "bdi",   "main",  "body", "html", "style", "script" };
    for (size_t k = 0; k < sizeof never / sizeof never[0]; k++) assert_lacks(page, never[k]);
    for (size_t k = 0; k < sizeof paired / sizeof paired[0]; k++) {
        char plain[16], with[16], end[16];
        snprintf(plain, sizeof plain, "<%s>", paired[k]);
        snprintf(with, sizeof with, "<%s ", paired[k]);
        snprintf(end, sizeof end, "</%s>", paired[k]);
        if (count(page, plain) + count(page, with) != count(page, end)) fail_msg("<%s> and </%s> do not pair", paired[k], paired[k]);
    }
    assert_int_equal(count(page, "<script"), 1);
    assert_int_equal(count(page, "role=\"img\""), count(page, "<desc id="));
    assert_has(page, "default-src 'none'");
    assert_true(strncmp(page, "<!DOCTYPE html>\n", 16) == 0);
    assert_true(strcmp(page + strlen(page) - 8, "</html>\n") == 0);
}

static void test_sweep_page(void **state)
{
    (void)state;
    for (int k = 0; k < 8; k++) {
        const struct made made = { .n_layers = 16, .n_variants = 12, .perplexity = k & 1, .weighted = k & 2, .hostile = k & 4 };
        struct sweep_table *table = made_table(&made);
        size_t nbytes, again_nbytes;
        char *page = page_of(table, &nbytes), *again = page_of(table, &again_nbytes);
        assert_true(nbytes == again_nbytes && memcmp(page, again, nbytes) == 0);
        check_page(page);
        for (size_t r = 0; r < table->n_rows; r++)
            if (table->rows[r].scope == SWEEP_TENSOR && !find(page, table->rows[r].hash)) fail_msg("no hash of row %zu", r);
        assert_int_equal(count(page, "class=\"hash\">"), 12 * (1 + 16 * 8));
        assert_int_equal(count(page, "format mxfp4 has groups of 32"), 2);
        assert_int_equal(count(page, "<h3>Layers and roles</h3>"), 12);
        assert_int_equal(count(page, "weighted SQNR, dB</th>") != 0, made.weighted);
        assert_int_equal(count(page, "Perplexity against size</h3>"), made.perplexity);
        assert_int_equal(count(page, "KL divergence against size</h3>"), made.perplexity);
        assert_int_equal(count(page, "Weighted error against size</h3>"), made.weighted);
        assert_int_equal(count(page, ">Error against size</h3>"), 1);
        assert_has(page, table->input_digest);
        assert_has(page, "16,32,64,128");
        free(page);
        free(again);
        made_table_free(table);
    }
}

static void test_hostile_names(void **state)
{
    (void)state;
    const struct made made = { .n_layers = 2, .n_variants = 2, .hostile = true };
    struct sweep_table *table = made_table(&made);
    size_t nbytes;
    char *page = page_of(table, &nbytes);
    static const char spelt[] =
        "&lt;img src=x onerror=&quot;alert(&#39;1&#39;)&quot;&gt;&amp;amp;&lt;/title&gt;&lt;/script&gt;&lt;script&gt;alert(2)&lt;/script&gt;"
        "\\x01\\xff\\u{202e}gnp.\xf0\x9f\x90\xa2\xc3\xa9";
    assert_int_equal(count(page, spelt), 2 * 2 + 1 + 1); /* worst and all, of two variants; histograms; a setting */
    assert_int_equal(count(page, "onerror"), 6);
    assert_lacks(page, "\xe2\x80\xae");
    assert_has(page, "<title>sweep of &lt;b&gt;&amp;&quot;&#39;.safetensors</title>");
    free(page);
    made_table_free(table);
}

static void test_one_conversion(void **state)
{
    (void)state;
    const struct made made = { .n_layers = 3, .n_variants = 1 };
    struct sweep_table *table = made_table(&made);
    size_t nbytes;
    char *page = page_of(table, &nbytes);
    check_page(page);
    assert_lacks(page, "against size</h3>"); /* a plot of one point says nothing */
    assert_has(page, "<details class=\"variant\" id=\"v0\" open>");
    assert_has(page, "<h2>Tensors</h2>");
    assert_lacks(page, "front</span>");
    free(page);
    made_table_free(table);
}

static void test_little_to_show(void **state)
{
    (void)state;
    const struct made made = { .n_layers = 2, .n_variants = 3 };
    struct sweep_table *table = made_table(&made);
    size_t nbytes;
    const size_t n_rows = table->n_rows, n_variants = table->n_variants;
    table->variants[1].n_rows -= 1; /* no total: interrupted */
    for (size_t r = table->variants[0].first_row; r < table->variants[1].first_row; r++) { /* without error */
        table->rows[r].sum_dd = table->rows[r].mse = table->rows[r].max_error = 0.0;
        table->rows[r].sqnr_db = HUGE_VAL;
    }
    char *page = page_of(table, &nbytes);
    check_page(page);
    assert_has(page, "not finished");
    assert_has(page, "\xe2\x88\x9e");
    free(page);
    for (size_t r = 0; r < n_rows; r++) { /* everything is kept */
        struct sweep_row *row = &table->rows[r];
        row->n_measured = 0;
        row->sum_dd = row->sum_xx = 0.0;
        row->mse = row->sqnr_db = row->max_error = row->clipped = (double)NAN;
    }
    page = page_of(table, &nbytes);
    check_page(page);
    assert_lacks(page, "Layers and roles");
    free(page);
    table->n_rows = table->n_variants = table->n_histograms = 0;
    page = page_of(table, &nbytes);
    check_page(page);
    free(page);
    table->n_rows = n_rows;
    table->n_variants = n_variants;
    table->n_histograms = 3;
    made_table_free(table);
}

static void test_sample(void **state)
{
    (void)state;
    const struct made made = { .n_layers = 1, .n_variants = 2 };
    struct sweep_table *table = made_table(&made);
    size_t nbytes;
    table->sample = 0.1;
    for (size_t r = 0; r < table->n_rows; r++) table->rows[r].hash[0] = '\0';
    char *page = page_of(table, &nbytes);
    check_page(page);
    assert_has(page, "10.0 % of the tiles of each tensor");
    assert_lacks(page, "class=\"hash\"");
    free(page);
    made_table_free(table);
}

static void test_too_many_rows(void **state)
{
    (void)state;
    const struct made made = { .n_layers = 700, .n_variants = 5 };
    struct sweep_table *table = made_table(&made);
    size_t nbytes;
    char *page = page_of(table, &nbytes);
    check_page(page);
    assert_int_equal(count(page, "<details class=\"variant\""), 3);
    assert_has(page, "The tensors of 2 more variants are left out to keep this page below 20000 rows");
    assert_has(page, "further layers are left out");
    assert_int_equal(count(page, "<a href=\"#v"), 3); /* the others have nowhere to lead */
    free(page);
    made_table_free(table);
}

/* ---- files -------------------------------------------------------------------------------------------------------------------------- */

static size_t writes_left;

static ssize_t full_pwrite(int fd, const void *buf, size_t nbytes, off_t offset)
{
    if (writes_left == 0) {
        errno = ENOSPC;
        return -1;
    }
    writes_left--;
    return pwrite(fd, buf, nbytes, offset);
}

static void test_files(void **state)
{
    (void)state;
    const struct made made = { .n_layers = 16, .n_variants = 12 };
    struct sweep_table *table = made_table(&made);
    char *dir = temp_dir();
    const char *path = temp_path(dir, "page.html"), *partial = temp_path(dir, "page.html.partial");
    struct err err;
    struct io_calls full = io_system;
    full.pwrite = full_pwrite;
    for (size_t n = 0; n < 4; n++) {
        writes_left = n;
        assert_refused(report_html_write(&full, path, false, table, &err), ERR_IO, "No space left");
        assert_false(file_exists(path) || file_exists(partial));
    }
    assert_ok(report_html_write(&io_system, path, false, table, &err));
    assert_refused(report_html_write(&io_system, path, false, table, &err), ERR_EXISTS, "exists");
    assert_ok(report_html_write(&io_system, path, true, table, &err));
    assert_false(file_exists(partial));
    temp_dir_remove(dir);
    made_table_free(table);
}

/* ---- parts -------------------------------------------------------------------------------------------------------------------------- */

/* Front by the definition: nobody has at most as many bits and at most as much error, and one of them less. */
static void test_front(void **state)
{
    (void)state;
    uint64_t seed = 5;
    for (int round = 0; round < 200; round++) {
        const struct made made = { .n_layers = 1, .n_variants = 12 };
        struct sweep_table *table = made_table(&made);
        struct view view;
        struct err err;
        for (size_t r = 0; r < table->n_rows; r++) {
            table->rows[r].bpw = (double)(test_random(&seed) % 8);
            table->rows[r].sum_xx = 1.0;
            table->rows[r].sum_dd = (double)(test_random(&seed) % 8) / 64.0;
        }
        assert_ok(view_make(table, &view, &err));
        for (size_t v = 0; v < 12; v++) {
            bool beaten = false;
            for (size_t w = 0; w < 12; w++) {
                const double bits = view.totals[w]->bpw - view.totals[v]->bpw, error = view.totals[w]->sum_dd - view.totals[v]->sum_dd;
                beaten |= bits <= 0.0 && error <= 0.0 && (bits < 0.0 || error < 0.0 || w < v);
            }
            assert_int_equal(view.front[v], !beaten);
        }
        assert_false(view.front[12] || view.front[13]);
        view_free(&view);
        made_table_free(table);
    }
}

static void test_labels(void **state)
{
    (void)state;
    const struct made made = { .n_layers = 1, .n_variants = 8 };
    struct sweep_table *table = made_table(&made);
    struct view view;
    struct err err;
    char label[VIEW_LABEL_MAX];
    assert_ok(view_make(table, &view, &err));
    assert_string_equal(view_label(&view, 1, label), "int4 64");
    assert_string_equal(view_label(&view, 7, label), "nvfp4");
    assert_string_equal(view_full_label(&view, 7, label), "nvfp4, group 16, absmax");
    assert_int_equal(view.styles[0], view.styles[2]);
    assert_int_equal(view.styles[3], 1);
    assert_int_equal(view.n_skipped, 2);
    view_free(&view);
    table->variants[0].alpha = 0.5;
    assert_ok(view_make(table, &view, &err));
    assert_string_equal(view_label(&view, 0, label), "int4 32 α 0.5");
    view_free(&view);
    table->variants[0].alpha = (double)NAN;
    table->variants[0].alpha_text = strdup("auto");
    assert_ok(view_make(table, &view, &err));
    assert_string_equal(view_label(&view, 0, label), "int4 32 α auto");
    assert_string_equal(view_label(&view, 1, label), "int4 64 α 0");
    view_free(&view);
    free(table->variants[0].alpha_text);
    table->variants[0].alpha_text = NULL;
    made_table_free(table);
}

static void test_axes(void **state)
{
    (void)state;
    static const double ends[][2] = { { 3.1, 8.4 }, { 0.0, 1.0 },     { 5.0, 5.0 },   { -2.0, -1.0 }, { 1e-9, 3.0 },
                                      { 0.5, 0.6 }, { 8.25, 8.2501 }, { 1e12, 9e12 }, { 0.0, 0.0 } };
    for (size_t k = 0; k < sizeof ends / sizeof ends[0]; k++)
        for (int log = 0; log < 2; log++) {
            const struct axis axis = axis_make(ends[k][0], ends[k][1], log, 100.0, 0.0, 6);
            assert_true(axis.n_ticks >= 2 && axis.n_ticks <= AXIS_TICKS_MAX);
            for (size_t t = 0; t < axis.n_ticks; t++) {
                const double pixel = axis_pixel(&axis, axis.ticks[t]);
                assert_true(pixel > -0.01 && pixel < 100.01);
                assert_true(t == 0 || axis.ticks[t] > axis.ticks[t - 1]);
            }
            assert_true(axis_pixel(&axis, ends[k][0]) <= 100.0 && axis_pixel(&axis, ends[k][1]) >= 0.0);
        }
    const struct axis axis = axis_make(3.1, 8.4, false, 0.0, 1.0, 6);
    assert_true(axis.n_ticks == 6 && axis.ticks[0] == 3.0 && axis.ticks[5] == 8.0 && axis.digits == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sweep_page),     cmocka_unit_test(test_hostile_names), cmocka_unit_test(test_one_conversion),
        cmocka_unit_test(test_little_to_show), cmocka_unit_test(test_sample),        cmocka_unit_test(test_too_many_rows),
        cmocka_unit_test(test_files),          cmocka_unit_test(test_front),         cmocka_unit_test(test_labels),
        cmocka_unit_test(test_axes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
