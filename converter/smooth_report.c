/* smooth_report.c: see smooth_report.h.
 *
 * Drawing: head line; a line a migrated group; reasons with counts. JSON: {"arch", "statistic", "groups": [..], "left": [..], "refused": [..]}
 * Formula: the gain in dB is 10 log10(identity loss / loss).
 * Why this way: see smooth_report.h.
 * Corner cases: see smooth_report.h.
 * Reference: smooth_report.h. Worked number: loss 1 -> 0.5 is +3.01 dB.
 */
#include "converter/smooth_report.h"

#include <math.h>
#include <string.h>

#include "converter/print.h"
#include "converter/smooth.h"

enum { ID_WIDTH = 46 };

/* ---- text ------------------------------------------------------------------------------------------------------------------------- */

static const char *kind_of(const struct smooth_outcome *outcome)
{
    return outcome->group->n_producers ? smooth_kind_name(outcome->group->kind) : "-";
}

/* "0.45 sq", "auto 0.30 sq", "auto none", "given". */
static const char *show_alpha(const struct smooth_outcome *outcome, char *out, size_t out_size)
{
    if (outcome->given) snprintf(out, out_size, "given");
    else if (outcome->searched && !isfinite(outcome->alpha)) snprintf(out, out_size, "auto none");
    else snprintf(out, out_size, "%s%.4g %s", outcome->searched ? "auto " : "", outcome->alpha, smooth_family_name(outcome->family));
    return out;
}

static void text_outcome(FILE *out, const struct smooth_outcome *outcome)
{
    char name[ID_WIDTH + 1], alpha[40], loss[48] = "";
    if (isfinite(outcome->loss) && outcome->identity_loss > 0.0)
        snprintf(loss, sizeof loss, "%.4g -> %.4g (%+.2f dB)", outcome->identity_loss, outcome->loss,
                 10.0 * log10(outcome->identity_loss / outcome->loss));
    fprintf(out, "  %-*s %-3s %7llu  %-14s %-34s %7llu %5llu  %s\n", ID_WIDTH, show_name(outcome->group->id, name, ID_WIDTH), kind_of(outcome),
            (unsigned long long)outcome->group->n, show_alpha(outcome, alpha, sizeof alpha), loss, (unsigned long long)outcome->n_clipped,
            (unsigned long long)outcome->n_dead, outcome->fate == SMOOTH_STORED ? "stored" : "folded");
}

/* One reason, told at its first group. */
static void text_left(FILE *out, const struct smoothing *smoothing, size_t index)
{
    const struct smooth_outcome *outcome = &smoothing->outcomes[index];
    char name[ID_WIDTH + 1];
    size_t n = 0;
    for (size_t i = 0; i < smoothing->n_outcomes; i++)
        if (smoothing->outcomes[i].fate == SMOOTH_LEFT && strcmp(smoothing->outcomes[i].why, outcome->why) == 0) {
            if (i < index) return;
            n++;
        }
    fprintf(out, "  left: %s%s: %s\n", show_name(outcome->group->id, name, ID_WIDTH), n > 1 ? " and others" : "", outcome->why);
}

static void text_refused(FILE *out, const struct smooth_groups *groups, size_t index)
{
    const struct smooth_refusal *refusal = &groups->refusals[index];
    char name[ID_WIDTH + 1];
    size_t n = 0;
    for (size_t i = 0; i < groups->n_refusals; i++)
        if (strcmp(groups->refusals[i].why, refusal->why) == 0) {
            if (i < index) return;
            n++;
        }
    fprintf(out, "  not foldable: %s%s: %s\n", show_name(refusal->id, name, ID_WIDTH), n > 1 ? " and others" : "", refusal->why);
}

void smooth_report_text(FILE *out, const struct plan *plan)
{
    const struct smoothing *smoothing = plan->smoothing;
    if (!smoothing) return;
    size_t n_left = smoothing->n_outcomes - smoothing->n_folded - smoothing->n_stored;
    double deviation = 0.0;
    fprintf(out, "migration    architecture %s, statistic %s%s\n", smoothing->arch ? smoothing->arch : "unknown", smoothing->stat,
            smoothing->options.gain ? " (experimental: the gain knows nothing of the activations)" : "");
    fprintf(out, "  %-*s %-3s %7s  %-14s %-34s %7s %5s\n", ID_WIDTH, "group", "", "inputs", "alpha", "loss", "clipped", "dead");
    for (size_t i = 0; i < smoothing->n_outcomes; i++) {
        const struct smooth_outcome *outcome = &smoothing->outcomes[i];
        if (outcome->fate == SMOOTH_LEFT) continue;
        text_outcome(out, outcome);
        if (outcome->deviation > deviation) deviation = outcome->deviation;
    }
    for (size_t i = 0; i < smoothing->n_outcomes; i++)
        if (smoothing->outcomes[i].fate == SMOOTH_LEFT) text_left(out, smoothing, i);
    for (size_t i = 0; i < smoothing->groups.n_refusals; i++) text_refused(out, &smoothing->groups, i);
    fprintf(out, "groups       %zu folded, %zu stored for run time, %zu left, %zu not foldable; the function changes by at most %.2g of a channel\n",
            smoothing->n_folded, smoothing->n_stored, n_left, smoothing->groups.n_refusals, deviation);
    if (smoothing->check.n_tokens)
        fprintf(out, "check        %llu tokens before and after: logits differ by at most %.3g, KL divergence %.3g\n",
                (unsigned long long)smoothing->check.n_tokens, smoothing->check.largest, smoothing->check.kl);
}

/* ---- JSON ------------------------------------------------------------------------------------------------------------------------- */

static void json_number(FILE *out, const char *key, double value)
{
    fprintf(out, ",\"%s\":", key);
    if (isfinite(value)) print_json_number(out, value);
    else fputs("null", out);
}

static void json_outcome(FILE *out, const struct smooth_outcome *outcome)
{
    fputs("{\"id\":", out);
    print_json_string(out, outcome->group->id);
    fprintf(out, ",\"kind\":\"%s\",\"fate\":\"%s\",\"channels\":%llu,\"family\":\"%s\",\"searched\":%s,\"identity\":%s",
            outcome->group->n_producers ? smooth_kind_name(outcome->group->kind) : "S", outcome->fate == SMOOTH_STORED ? "stored" : "folded",
            (unsigned long long)outcome->group->n, outcome->given ? "given" : smooth_family_name(outcome->family),
            outcome->searched ? "true" : "false", outcome->identity ? "true" : "false");
    json_number(out, "alpha", outcome->alpha);
    json_number(out, "identity_loss", outcome->identity_loss);
    json_number(out, "loss", outcome->loss);
    json_number(out, "deviation", outcome->deviation);
    fprintf(out, ",\"clipped\":%llu,\"dead\":%llu}", (unsigned long long)outcome->n_clipped, (unsigned long long)outcome->n_dead);
}

static void json_reason(FILE *out, const char *id, const char *why, bool first)
{
    fputs(first ? "\n{\"id\":" : ",\n{\"id\":", out);
    print_json_string(out, id);
    fputs(",\"why\":", out);
    print_json_string(out, why);
    fputc('}', out);
}

void smooth_report_json(FILE *out, const struct plan *plan)
{
    const struct smoothing *smoothing = plan->smoothing;
    size_t n = 0;
    if (!smoothing) return;
    fputs(",\"smoothing\":{\"arch\":", out);
    print_json_string(out, smoothing->arch);
    fputs(",\"statistic\":", out);
    print_json_string(out, smoothing->stat);
    fputs(",\"groups\":[", out);
    for (size_t i = 0; i < smoothing->n_outcomes; i++) {
        if (smoothing->outcomes[i].fate == SMOOTH_LEFT) continue;
        fputs(n++ ? ",\n" : "\n", out);
        json_outcome(out, &smoothing->outcomes[i]);
    }
    fputs("],\"left\":[", out);
    n = 0;
    for (size_t i = 0; i < smoothing->n_outcomes; i++)
        if (smoothing->outcomes[i].fate == SMOOTH_LEFT) json_reason(out, smoothing->outcomes[i].group->id, smoothing->outcomes[i].why, n++ == 0);
    fputs("],\"refused\":[", out);
    for (size_t i = 0; i < smoothing->groups.n_refusals; i++)
        json_reason(out, smoothing->groups.refusals[i].id, smoothing->groups.refusals[i].why, i == 0);
    fputc(']', out);
    if (smoothing->check.n_tokens) {
        fprintf(out, ",\"check\":{\"tokens\":%llu,\"equal\":%s", (unsigned long long)smoothing->check.n_tokens,
                smoothing->check.equal ? "true" : "false");
        json_number(out, "largest", smoothing->check.largest);
        json_number(out, "kl", smoothing->check.kl);
        fputc('}', out);
    }
    fputc('}', out);
}
