/* report_html_heat.c: see report_html_heat.h.
 *
 * Drawing: rows of tensors -> cells (layer, role) in order -> sums -> classes h0 .. h8 between the best and the worst cell.
 * Why this way: cells are sorted and added up in one walk, so layers may have any numbers.
 * Corner cases: cells without error (SQNR infinite) take the lightest class and an infinity sign; one class for all where all are equal.
 * Reference: report_html_heat.h.
 */
#include "converter/report_html_heat.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "converter/report_html_style.h"

enum { CELL_WIDTH = 42, CELL_HEIGHT = 20, HEAD = 22, SIDE = 34 };

/* One tensor, and then all of the same layer and role. Tensors of no layer have layer 0, the others their number + 1. */
struct cell {
    uint64_t layer;
    size_t role;
    double sum_dd, sum_xx;
    uint64_t n_measured;
};

struct heat {
    const char *roles[HEAT_ROLES_MAX];
    size_t n_roles;
    struct cell *cells;
    size_t n_cells;
    size_t n_layers; /* rows */
    bool cut_roles;
    bool cut_layers;
    double best, worst; /* SQNR of cells, finite ones */
};

static bool is_measured(const struct sweep_row *row)
{
    return row->scope == SWEEP_TENSOR && row->n_measured > 0;
}

static size_t role_number(const struct heat *heat, const char *role)
{
    size_t k = 0;
    while (k < heat->n_roles && strcmp(heat->roles[k], role) != 0) k++;
    return k;
}

static int by_place(const void *a, const void *b)
{
    const struct cell *x = a, *y = b;
    if (x->layer != y->layer) return x->layer < y->layer ? -1 : 1;
    return x->role < y->role ? -1 : x->role > y->role;
}

static double cell_db(const struct cell *cell)
{
    if (cell->n_measured == 0) return (double)NAN;
    if (cell->sum_dd == 0.0) return HUGE_VAL;
    return cell->sum_xx > 0.0 ? 10.0 * log10(cell->sum_xx / cell->sum_dd) : -HUGE_VAL;
}

static void find_roles(struct heat *heat, const struct sweep_row *rows, size_t n_rows)
{
    for (size_t r = 0; r < n_rows; r++) {
        if (!is_measured(&rows[r]) || role_number(heat, rows[r].role) < heat->n_roles) continue;
        if (heat->n_roles < HEAT_ROLES_MAX) heat->roles[heat->n_roles++] = rows[r].role;
        else heat->cut_roles = true;
    }
}

/* Cells of the same place become one; layers beyond the largest number of rows go. */
static void add_up(struct heat *heat)
{
    size_t n = 0;
    for (size_t k = 0; k < heat->n_cells; k++) {
        const struct cell *cell = &heat->cells[k];
        if (n > 0 && by_place(&heat->cells[n - 1], cell) == 0) {
            heat->cells[n - 1].sum_dd += cell->sum_dd;
            heat->cells[n - 1].sum_xx += cell->sum_xx;
            heat->cells[n - 1].n_measured += cell->n_measured;
            continue;
        }
        if (n == 0 || heat->cells[n - 1].layer != cell->layer) {
            if (heat->n_layers == HEAT_LAYERS_MAX) {
                heat->cut_layers = true;
                break;
            }
            heat->n_layers++;
        }
        heat->cells[n++] = *cell;
    }
    heat->n_cells = n;
}

static void find_ends(struct heat *heat)
{
    heat->best = -HUGE_VAL;
    heat->worst = HUGE_VAL;
    for (size_t k = 0; k < heat->n_cells; k++) {
        const double db = cell_db(&heat->cells[k]);
        if (!isfinite(db)) continue;
        heat->best = fmax(heat->best, db);
        heat->worst = fmin(heat->worst, db);
    }
}

static bool heat_make(struct heat *heat, const struct sweep_row *rows, size_t n_rows)
{
    find_roles(heat, rows, n_rows);
    heat->cells = malloc(n_rows * sizeof *heat->cells + 1);
    if (!heat->cells) return false;
    for (size_t r = 0; r < n_rows; r++) {
        const struct sweep_row *row = &rows[r];
        const size_t role = role_number(heat, row->role);
        if (row->scope != SWEEP_TENSOR || role == heat->n_roles) continue;
        struct cell *cell = &heat->cells[heat->n_cells++];
        *cell = (struct cell){ .layer = row->layer == SWEEP_NO_LAYER ? 0 : (uint64_t)row->layer + 1, .role = role };
        if (!is_measured(row)) continue;
        cell->sum_dd = row->sum_dd;
        cell->sum_xx = row->sum_xx;
        cell->n_measured = row->n_measured;
    }
    qsort(heat->cells, heat->n_cells, sizeof *heat->cells, by_place);
    add_up(heat);
    find_ends(heat);
    return true;
}

/* ---- drawing ------------------------------------------------------------------------------------------------------------------------ */

static unsigned class_of(const struct heat *heat, double db)
{
    if (db > heat->best || heat->best - heat->worst < 1e-9) return db < heat->worst ? STYLE_HEATS - 1 : 0;
    const double share = (heat->best - fmax(db, heat->worst)) / (heat->best - heat->worst);
    return (unsigned)fmin(STYLE_HEATS - 1, floor(share * STYLE_HEATS));
}

static void put_layer(struct html *html, const struct cell *cell)
{
    if (cell->layer) html_put(html, "%llu", (unsigned long long)(cell->layer - 1));
    else html_put(html, "–");
}

static void put_cell(struct html *html, const struct heat *heat, const struct cell *cell, int y)
{
    const int x = SIDE + (int)cell->role * CELL_WIDTH, width = CELL_WIDTH - 2, height = CELL_HEIGHT - 2;
    const double db = cell_db(cell);
    if (isnan(db)) {
        html_put(html, "<rect class=\"kept\" x=\"%d.5\" y=\"%d.5\" width=\"%d\" height=\"%d\"/>", x, y, width - 1, height - 1);
        return;
    }
    const unsigned heat_class = class_of(heat, db);
    html_put(html, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"var(--h%u)\"/><text class=\"cell %s\" x=\"%d\" y=\"%d\">", x, y, width,
             height, heat_class, heat_class > 5 ? "deep" : "pale", x + width / 2, y + 13);
    html_fixed(html, db, 1);
    html_put(html, "</text>");
}

static void put_heads(struct html *html, const struct heat *heat)
{
    for (size_t k = 0; k < heat->n_roles; k++) {
        html_put(html, "<text class=\"mid\" x=\"%d\" y=\"14\">", SIDE + (int)k * CELL_WIDTH + CELL_WIDTH / 2 - 1);
        char head[10];
        snprintf(head, sizeof head, strlen(heat->roles[k]) < 7 ? "%s" : "%.5s…", heat->roles[k]);
        html_text(html, head);
        html_put(html, "<title>");
        html_text(html, heat->roles[k]);
        html_put(html, "</title></text>");
    }
    html_put(html, "\n");
}

static void put_cells(struct html *html, const struct heat *heat)
{
    int y = HEAD - CELL_HEIGHT;
    for (size_t k = 0; k < heat->n_cells; k++) {
        const struct cell *cell = &heat->cells[k];
        if (k == 0 || cell->layer != heat->cells[k - 1].layer) {
            y += CELL_HEIGHT;
            html_put(html, "%s<text class=\"end\" x=\"%d\" y=\"%d\">", k ? "\n" : "", SIDE - 8, y + 13);
            put_layer(html, cell);
            html_put(html, "</text>");
        }
        put_cell(html, heat, cell, y);
    }
}

static void put_extreme(struct html *html, const struct heat *heat, const char *what, double db)
{
    for (size_t k = 0; k < heat->n_cells; k++) {
        const struct cell *cell = &heat->cells[k];
        if (!(cell_db(cell) <= db && cell_db(cell) >= db)) continue;
        html_put(html, " %s: ", what);
        html_text(html, heat->roles[cell->role]);
        html_put(html, cell->layer ? " of layer " : " outside layers");
        if (cell->layer) put_layer(html, cell);
        html_put(html, ", ");
        html_fixed(html, db, 1);
        html_put(html, " dB.");
        return;
    }
}

static void put_scale(struct html *html, const struct heat *heat)
{
    if (!isfinite(heat->best)) return;
    html_put(html, "<div class=\"scale\" aria-hidden=\"true\"><span>");
    html_fixed(html, heat->best, 1);
    html_put(html, " dB</span><svg width=\"%d\" height=\"10\">", 16 * STYLE_HEATS);
    for (int k = 0; k < STYLE_HEATS; k++) html_put(html, "<rect x=\"%d\" width=\"16\" height=\"10\" fill=\"var(--h%d)\"/>", 16 * k, k);
    html_put(html, "</svg><span>");
    html_fixed(html, heat->worst, 1);
    html_put(html, " dB, most error</span></div>\n");
}

static void put_caption(struct html *html, const struct heat *heat)
{
    html_put(html, "<figcaption>SQNR in dB of each layer (down) and role (across)%s%s%s</figcaption>\n",
             heat->n_cells && heat->cells[0].layer == 0 ? "; – is outside layers" : "", heat->cut_roles ? "; further roles are left out" : "",
             heat->cut_layers ? "; further layers are left out" : "");
}

enum status heat_figure(struct html *html, const struct view *view, size_t v, struct err *err)
{
    const struct sweep_variant *variant = &view->table->variants[v];
    struct heat heat = { 0 };
    char label[VIEW_LABEL_MAX];
    if (!heat_make(&heat, &view->table->rows[variant->first_row], variant->n_rows)) return err_set(err, ERR_MEMORY, "out of memory for the report");
    if (heat.n_roles) {
        const int width = SIDE + (int)heat.n_roles * CELL_WIDTH, height = HEAD + (int)heat.n_layers * CELL_HEIGHT;
        const unsigned id = html->n_ids++;
        html_put(html,
                 "<figure><h3>Layers and roles</h3>\n<div class=\"wide\" tabindex=\"0\" role=\"group\" aria-label=\"map of layers and roles\">");
        html_put(
            html,
            "<svg class=\"heat\" style=\"max-width:none\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" role=\"img\" aria-labelledby=\"p%ut\" "
            "aria-describedby=\"p%ud\"><title id=\"p%ut\">SQNR by layer and role, ",
            width, height, width, height, id, id, id);
        html_text(html, view_full_label(view, v, label));
        html_put(html, "</title><desc id=\"p%ud\">%zu layers by %zu roles.", id, heat.n_layers, heat.n_roles);
        put_extreme(html, &heat, "Most error", heat.worst);
        put_extreme(html, &heat, "Least error", heat.best);
        html_put(html, "</desc>\n");
        put_heads(html, &heat);
        put_cells(html, &heat);
        html_put(html, "\n</svg></div>\n");
        put_scale(html, &heat);
        put_caption(html, &heat);
        html_put(html, "</figure>\n");
    }
    free(heat.cells);
    return OK;
}
