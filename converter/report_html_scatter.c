/* report_html_scatter.c: see report_html_scatter.h.
 *
 * Drawing: grid and ticks -> line of the model as it was read -> line of the front -> marks -> names.
 * Why this way: names are placed one after the other at the first of eight places around their mark that is free, so the picture is the same each time.
 * Corner cases: at most NAMES_MAX names; a name that finds no place is left out, the tables have it.
 * Reference: report_html_scatter.h.
 */
#include "converter/report_html_scatter.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "converter/report_html_axis.h"
#include "converter/report_html_style.h"

enum { NAMES_MAX = 64, BOXES_MAX = 512, LINE_HEIGHT = 14 };

static const double letter_width = 6.7;

struct box {
    double left, top, right, bottom;
};

struct canvas {
    const char *size; /* class */
    double width, height, left, top, right, bottom; /* of the whole; of the plot's edges */
};

static const struct canvas canvases[] = {
    { "large", 1136, 480, 46, 34, 1128, 434 },
    { "small", 358, 400, 36, 34, 352, 356 },
};

struct plot {
    struct html *html;
    const struct view *view;
    const struct view_measure *measure;
    const bool *front;
    const struct canvas *canvas;
    struct axis x, y;
    struct box boxes[BOXES_MAX];
    size_t n_boxes;
};

/* ---- marks -------------------------------------------------------------------------------------------------------------------------- */

/* Paths around (0, 0), of about the same area. */
static const char *const shapes[] = {
    "m-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z", /* circle */
    "m-4 -4h8v8h-8z", /* square */
    "m0 -5.6l5.6 5.6l-5.6 5.6l-5.6 -5.6z", /* diamond */
    "m0 -5.4l5.4 9.4h-10.8z", /* triangle */
    "m0 5.4l5.4 -9.4h-10.8z", /* and on its head */
    "m-1.8 -5.2h3.6v3.4h3.4v3.6h-3.4v3.4h-3.6v-3.4h-3.4v-3.6h3.4z", /* plus */
    "m-5.2 0l2.6 -4.5h5.2l2.6 4.5l-2.6 4.5h-5.2z", /* hexagon */
};

static void mark_path(struct html *html, unsigned style, bool filled, double x, double y)
{
    const unsigned n_shapes = sizeof shapes / sizeof shapes[0];
    const unsigned colour = style % STYLE_COLOURS;
    html_put(html, "<path class=\"mark%s\" style=\"stroke:var(--k%u)%s", filled ? " on" : "", colour, filled ? ";fill:var(--k" : "");
    if (filled) html_put(html, "%u)", colour);
    html_put(html, "\" d=\"M%.1f %.1f%s\"", x, y, shapes[style % n_shapes]);
}

void scatter_legend(struct html *html, const struct view *view)
{
    html_put(html, "<ul class=\"legend\">");
    for (unsigned style = 0; style < view->n_formats; style++) {
        size_t v = 0;
        while (v < view->table->n_variants && (view->styles[v] != style || !view->totals[v])) v++;
        if (v == view->table->n_variants) continue;
        html_put(html, "<li><svg width=\"14\" height=\"14\" viewBox=\"-7 -7 14 14\" aria-hidden=\"true\">");
        mark_path(html, style, true, 0.0, 0.0);
        html_put(html, "/></svg>");
        html_text(html, view->table->variants[v].format);
        html_put(html, "</li>");
    }
    html_put(html, "<li class=\"soft\">filled: on the front, nothing has both fewer bits and less %s</li></ul>\n",
             view->main ? view->main->name : "error");
}

/* ---- names beside marks ------------------------------------------------------------------------------------------------------------- */

static bool meets(const struct plot *plot, const struct box *box)
{
    for (size_t k = 0; k < plot->n_boxes; k++) {
        const struct box *other = &plot->boxes[k];
        if (box->left < other->right && other->left < box->right && box->top < other->bottom && other->top < box->bottom) return true;
    }
    const struct canvas *canvas = plot->canvas;
    return box->left < canvas->left || box->right > canvas->right + 6 || box->top < canvas->top - 8 || box->bottom > canvas->bottom;
}

static void take(struct plot *plot, const struct box *box)
{
    if (plot->n_boxes < BOXES_MAX) plot->boxes[plot->n_boxes++] = *box;
}

static bool has_point(const struct plot *plot, size_t v, double *x, double *y)
{
    const struct sweep_row *total = plot->view->totals[v];
    if (!total || !isfinite(total->bpw) || !isfinite(plot->measure->of(total))) return false;
    *x = axis_pixel(&plot->x, total->bpw);
    *y = axis_pixel(&plot->y, plot->measure->of(total));
    return true;
}

/* Bytes of UTF-8 that begin a character. */
static size_t letters(const char *text)
{
    size_t n = 0;
    for (; *text; text++) n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

static void put_name(struct plot *plot, size_t v, double x, double y)
{
    static const double around[][2] = { { 1, -0.65 }, { 1, 0 }, { -1, 0.75 }, { -1, 0 }, { 0, -1.2 }, { 0, 1.2 }, { 1, 0.8 }, { -1, -0.8 } };
    char label[VIEW_LABEL_MAX];
    view_label(plot->view, v, label);
    const double width = letter_width * (double)letters(label) + 2.0;
    for (size_t k = 0; k < sizeof around / sizeof around[0]; k++) {
        const double side = around[k][0], middle = y + LINE_HEIGHT * around[k][1];
        const double left = side > 0 ? x + 9 : side < 0 ? x - 9 - width : x - width / 2;
        const struct box box = { left, middle - LINE_HEIGHT / 2.0, left + width, middle + LINE_HEIGHT / 2.0 };
        if (meets(plot, &box)) continue;
        take(plot, &box);
        html_put(plot->html, "<text%s x=\"%.1f\" y=\"%.1f\"%s>", plot->front[v] ? " class=\"name\"" : "",
                 side > 0   ? left
                 : side < 0 ? x - 9
                            : x,
                 middle + 4.0,
                 side > 0   ? ""
                 : side < 0 ? " style=\"text-anchor:end\""
                            : " style=\"text-anchor:middle\"");
        html_text(plot->html, label);
        html_put(plot->html, "</text>");
        return;
    }
}

static void take_marks(struct plot *plot)
{
    double x, y;
    for (size_t v = 0; v < plot->view->table->n_variants; v++)
        if (has_point(plot, v, &x, &y)) take(plot, &(struct box){ x - 6, y - 6, x + 6, y + 6 });
}

static void put_names(struct plot *plot)
{
    size_t left = NAMES_MAX;
    double x, y;
    for (int pass = 0; pass < 2; pass++)
        for (size_t v = 0; v < plot->view->table->n_variants && left; v++)
            if (plot->front[v] == (pass == 0) && has_point(plot, v, &x, &y)) {
                put_name(plot, v, x, y);
                left--;
            }
}

/* ---- the plot ----------------------------------------------------------------------------------------------------------------------- */

static void put_tick(struct html *html, const struct axis *axis, double tick)
{
    if (axis->digits < 0) html_short(html, tick, 3);
    else html_fixed(html, tick, axis->digits);
}

static void put_axes(struct plot *plot)
{
    const struct canvas *canvas = plot->canvas;
    struct html *html = plot->html;
    for (size_t k = 0; k < plot->x.n_ticks; k++) {
        const double x = axis_pixel(&plot->x, plot->x.ticks[k]);
        html_put(html, "<path class=\"grid\" d=\"M%.1f %.0fV%.0f\"/><text class=\"mid\" x=\"%.1f\" y=\"%.0f\">", x, canvas->top, canvas->bottom, x,
                 canvas->bottom + 18);
        put_tick(html, &plot->x, plot->x.ticks[k]);
        html_put(html, "</text>");
    }
    for (size_t k = 0; k < plot->y.n_ticks; k++) {
        const double y = axis_pixel(&plot->y, plot->y.ticks[k]);
        html_put(html, "<path class=\"grid\" d=\"M%.0f %.1fH%.0f\"/><text class=\"end\" x=\"%.0f\" y=\"%.1f\">", canvas->left, y, canvas->right,
                 canvas->left - 8, y + 4);
        put_tick(html, &plot->y, plot->y.ticks[k]);
        html_put(html, "</text>");
    }
    html_put(html, "<text x=\"0\" y=\"14\">%s%s</text><text class=\"end\" x=\"%.0f\" y=\"%.0f\">bits per weight</text>\n", plot->measure->axis,
             plot->y.log ? ", log scale" : "", canvas->right, canvas->height - 4);
}

static double reference_of(const struct plot *plot)
{
    return plot->measure == &view_measures[MEASURE_PERPLEXITY] ? plot->view->table->reference_perplexity : (double)NAN;
}

/* The line of the model as it was read; its name at the end, above or below, where there is room. */
static void put_reference(struct plot *plot)
{
    enum { NAME_WIDTH = 150 };
    static const double places[][2] = { { 0, -1 }, { 1, -1 }, { 0, 1 }, { 1, 1 } }; /* left or right, above or below */
    const struct canvas *canvas = plot->canvas;
    const double reference = reference_of(plot), y = axis_pixel(&plot->y, reference);
    if (!isfinite(reference)) return;
    html_put(plot->html, "<path class=\"level\" d=\"M%.0f %.1fH%.0f\"/>", canvas->left, y, canvas->right);
    for (size_t k = 0; k < sizeof places / sizeof places[0]; k++) {
        const double left = places[k][0] > 0 ? canvas->right - NAME_WIDTH : canvas->left + 6, middle = y + 11 * places[k][1];
        const struct box box = { left, middle - LINE_HEIGHT / 2.0, left + NAME_WIDTH, middle + LINE_HEIGHT / 2.0 };
        if (meets(plot, &box)) continue;
        take(plot, &box);
        html_put(plot->html, "<text x=\"%.0f\" y=\"%.1f\"%s>as it was read: ", places[k][0] > 0 ? canvas->right : left, middle + 4,
                 places[k][0] > 0 ? " class=\"end\"" : "");
        html_fixed(plot->html, reference, 3);
        html_put(plot->html, "</text>\n");
        break;
    }
    take(plot, &(struct box){ canvas->left, y - 1, canvas->right, y + 1 });
}

struct place {
    double x, y;
};

static int by_x(const void *a, const void *b)
{
    const struct place *p = a, *q = b;
    return p->x < q->x ? -1 : p->x > q->x;
}

static void put_front(struct plot *plot)
{
    size_t n = 0;
    struct place *places = malloc((plot->view->table->n_variants + 1) * sizeof *places);
    for (size_t v = 0; places && v < plot->view->table->n_variants; v++)
        if (plot->front[v] && has_point(plot, v, &places[n].x, &places[n].y)) n++;
    if (n > 1) {
        qsort(places, n, sizeof *places, by_x);
        html_put(plot->html, "<path class=\"front\" d=\"");
        for (size_t k = 0; k < n; k++) html_put(plot->html, "%s%.1f %.1f", k ? "L" : "M", places[k].x, places[k].y);
        html_put(plot->html, "\"/>\n");
    }
    free(places);
}

static void put_point(struct html *html, const struct view *view, const struct view_measure *measure, size_t v)
{
    char label[VIEW_LABEL_MAX];
    html_text(html, view_full_label(view, v, label));
    html_put(html, ": ");
    html_fixed(html, view->totals[v]->bpw, 3);
    html_put(html, " bits, %s ", measure->name);
    html_figure(html, measure->of(view->totals[v]), measure->digits);
    html_put(html, "%s", measure->unit);
}

static void put_marks(struct plot *plot)
{
    double x, y;
    for (int pass = 0; pass < 2; pass++) /* those on the front lie above the others */
        for (size_t v = 0; v < plot->view->table->n_variants; v++) {
            if (plot->front[v] != (pass == 1) || !has_point(plot, v, &x, &y)) continue;
            mark_path(plot->html, plot->view->styles[v], plot->front[v], x, y);
            html_put(plot->html, "><title>");
            put_point(plot->html, plot->view, plot->measure, v);
            html_put(plot->html, "</title></path>\n");
        }
}

static void put_description(struct html *html, const struct view *view, const struct view_measure *measure, const bool *front, size_t n)
{
    const char *before = "";
    html_put(html, "%zu variants by bits per weight and %s. On the front: ", n, measure->name);
    for (size_t v = 0; v < view->table->n_variants; v++) {
        if (!front[v]) continue;
        html_put(html, "%s", before);
        put_point(html, view, measure, v);
        before = "; ";
    }
    html_put(html, ".");
}

/* Ends of the bits and of the measure; returns how many variants have both. */
static size_t ranges(const struct view *view, const struct view_measure *measure, double bits[2], double values[2])
{
    size_t n = 0;
    bits[0] = values[0] = HUGE_VAL;
    bits[1] = values[1] = -HUGE_VAL;
    for (size_t v = 0; v < view->table->n_variants; v++) {
        const struct sweep_row *total = view->totals[v];
        if (!total || !isfinite(total->bpw) || !isfinite(measure->of(total))) continue;
        bits[0] = fmin(bits[0], total->bpw);
        bits[1] = fmax(bits[1], total->bpw);
        values[0] = fmin(values[0], measure->of(total));
        values[1] = fmax(values[1], measure->of(total));
        n++;
    }
    return n;
}

void scatter_figure(struct html *html, const struct view *view, const struct view_measure *measure, const bool *front)
{
    double bits[2], values[2];
    const size_t n = ranges(view, measure, bits, values);
    if (n < 2) return;
    html_put(html, "<figure><h3>%s</h3>\n", measure->title);
    for (size_t c = 0; c < sizeof canvases / sizeof canvases[0]; c++) {
        const struct canvas *canvas = &canvases[c];
        struct plot plot = { .html = html, .view = view, .measure = measure, .front = front, .canvas = canvas };
        const double reference = reference_of(&plot), low = isfinite(reference) ? fmin(values[0], reference) : values[0];
        const unsigned id = html->n_ids++;
        plot.x = axis_make(bits[0], bits[1], false, canvas->left, canvas->right, c ? 5 : 9);
        plot.y = axis_make(low, values[1], measure->log, canvas->bottom, canvas->top, c ? 6 : 7);
        html_put(html,
                 "<svg class=\"halo %s\" width=\"%.0f\" height=\"%.0f\" viewBox=\"0 0 %.0f %.0f\" role=\"img\" aria-labelledby=\"p%ut\" "
                 "aria-describedby=\"p%ud\">",
                 canvas->size, canvas->width, canvas->height, canvas->width, canvas->height, id, id);
        html_put(html, "<title id=\"p%ut\">%s</title><desc id=\"p%ud\">", id, measure->title, id);
        put_description(html, view, measure, front, n);
        html_put(html, "</desc>\n");
        put_axes(&plot);
        take_marks(&plot);
        put_reference(&plot);
        put_front(&plot);
        put_marks(&plot);
        put_names(&plot);
        html_put(html, "\n</svg>\n");
    }
    html_put(html, "</figure>\n");
}
