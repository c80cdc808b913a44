/* report.c: see report.h.
 *
 * Drawing, one tensor a line:   NAME  ROLE  SHAPE  FORMAT  GROUP  READS  CODES+SCALES+ZEROS (bytes)  BITS/WEIGHT  SQNR  WHO DECIDED
 * Formula: bits per weight = 8 * plane bytes / weights.
 * Why this way: see report.h.
 * Corner cases: a tensor without weights has no bits per weight.
 * Reference: report.h. Worked number: mxfp4 with groups of 32: 4.25 bits per weight.
 */
#include "converter/report.h"

#include <string.h>

#include "converter/budget.h"
#include "converter/print.h"
#include "converter/progress.h"
#include "converter/smooth_report.h"

enum { NAME_WIDTH = 44 };

static uint64_t planes_nbytes(const struct out_tensor *out)
{
    uint64_t total = 0;
    for (uint32_t k = 0; k < out->n_planes; k++) total += plane_nbytes(&out->planes[k].plane);
    return total;
}

static double bits_per_weight(uint64_t nbytes, uint64_t n_weights)
{
    return n_weights ? 8.0 * (double)nbytes / (double)n_weights : 0.0;
}

static const char *origin_of(const struct verdict *verdict)
{
    return verdict->rule ? verdict->rule->origin : "default";
}

static void total_measure(const struct plan *plan, const struct result *result, struct measure *total)
{
    *total = (struct measure){ 0 };
    for (size_t i = 0; i < plan->n_tensors; i++) measure_add(total, &result->measures[i]);
}

/* "45056+2816": bytes of each plane, codes first. Returns out. */
static const char *show_planes(const struct out_tensor *planned, char *out, size_t out_size)
{
    size_t used = 0;
    out[0] = '\0';
    for (uint32_t k = 0; k < planned->n_planes && used < out_size; k++)
        used += (size_t)snprintf(out + used, out_size - used, "%s%llu", k ? "+" : "", (unsigned long long)plane_nbytes(&planned->planes[k].plane));
    return out;
}

/* ---- text ----------------------------------------------------------------------------------------------------------------------- */

static void text_tensor(FILE *out, const struct plan *plan, size_t i, const struct result *result)
{
    const struct plan_entry *entry = &plan->entries[i];
    const struct tensor *tensor = plan_tensor(plan, i);
    const struct out_tensor *planned = &plan->outs[i];
    char name[NAME_WIDTH + 1], dims[64], bytes[96], db[16], reason[192];
    uint64_t nbytes = planes_nbytes(planned);
    const char *group = planned->group ? planned->group : "";
    bool obeyed =
        entry->verdict.rule && entry->verdict.rule->keep == entry->verdict.keep && entry->fate != FATE_CARRY; /* else for a reason of its own */
    if (obeyed) snprintf(reason, sizeof reason, "%s '%.50s'", origin_of(&entry->verdict), entry->verdict.rule->text);
    else snprintf(reason, sizeof reason, "%s", entry->verdict.reason);
    fprintf(out, "  %-*s %-9s %-16s %-11s %-7.*s %u %18s %6.2f", NAME_WIDTH, show_name(tensor->name, name, NAME_WIDTH), planned->role,
            show_dims(tensor, dims, sizeof dims), planned->format ? planned->format : "keep",
            (int)(strlen(group) > 2 && group[0] == '"' ? strlen(group) - 2 : strlen(group)), group[0] == '"' ? group + 1 : group, entry->n_reads,
            show_planes(planned, bytes, sizeof bytes), bits_per_weight(nbytes, tensor->n_weights));
    if (entry->fallback_from)
        snprintf(reason + strlen(reason), sizeof reason - strlen(reason), "; not %s: rows of %llu", entry->fallback_from->name,
                 (unsigned long long)tensor_cols(tensor));
    if (result) fprintf(out, " %7s", result->measures[i].n ? show_db(measure_sqnr_db(&result->measures[i]), db) : "");
    fprintf(out, "  %s\n", reason);
}

static void text_totals(FILE *out, const struct plan *plan)
{
    char a[24], b[24], c[24];
    double share = plan->source_nbytes ? 100.0 * (double)plan->quantised_source_nbytes / (double)plan->source_nbytes : 0.0;
    fprintf(out, "quantised    %llu of %zu tensors, %.2f %% of the weight bytes; %.3f bits per weight in them, %.3f over all weights\n",
            (unsigned long long)plan->n_quantised, plan->n_tensors, share, bits_per_weight(plan->quantised_plane_nbytes, plan->n_quantised_weights),
            bits_per_weight(plan->plane_nbytes, plan->n_weights));
    if (plan->n_fallbacks)
        fprintf(out, "fallbacks    %llu tensors have rows that are no multiple of the block of the format asked for\n",
                (unsigned long long)plan->n_fallbacks);
    if (plan->n_carried)
        fprintf(out, "moved        %llu tensors that were quantised already, %llu groups as they were\n", (unsigned long long)plan->n_carried,
                (unsigned long long)plan->n_carried_groups);
    if (plan->n_fused_sets)
        fprintf(out, "fused        %llu tensors in %llu sets of q, k, v or gate, up share the scale of their matrices (--nvfp4-scale)\n",
                (unsigned long long)plan->n_fused, (unsigned long long)plan->n_fused_sets);
    if (plan->weighing.path)
        fprintf(out, "importance   %llu of %llu tensors, %llu experts without data; %llu tensors heed it\n",
                (unsigned long long)plan->weighing.n_tensors, (unsigned long long)plan->weighing.n_of,
                (unsigned long long)plan->weighing.n_experts_without, (unsigned long long)plan->weighing.n_heeding);
    fprintf(out, "bytes        source %s, planes %s, file%s %s%s (%llu bytes)\n", show_bytes(plan->source_nbytes, a),
            show_bytes(plan->plane_nbytes, b), plan->size.n_files > 1 ? "s" : "", plan->size.exact ? "" : "at most ",
            show_bytes(plan->size.nbytes, c), (unsigned long long)plan->size.nbytes);
    fprintf(out, "reads        %s in all\n", show_bytes(plan->read_nbytes, a));
    fprintf(out, "disk         %s and 3 %% to spare\n", show_bytes(plan->size.nbytes, a));
    fprintf(out, "memory       %s of %s, %u thread%s%s, %u tiles a job, index %s\n", show_bytes(plan->ram_nbytes, a), show_bytes(plan->max_ram, b),
            plan->n_workers, plan->n_workers == 1 ? "" : "s", plan->n_workers < plan->n_threads_asked ? " (fewer than asked: --max-ram)" : "",
            plan->options.tiles_per_job, show_bytes(plan->index_nbytes, c));
}

static void text_result(FILE *out, const struct plan *plan, const struct result *result)
{
    char a[24], b[24], db[16];
    struct measure total;
    total_measure(plan, result, &total);
    if (total.n)
        fprintf(out, "error        SQNR %s dB over the quantised weights, MSE %.6g, largest %.6g\n", show_db(measure_sqnr_db(&total), db),
                measure_mse(&total), total.max_d);
    fprintf(out, "done         %s in %.2f s (%s/s)\n", show_bytes(result->out_nbytes, a), result->seconds,
            show_bytes(result->seconds > 0 ? (uint64_t)((double)plan->source_nbytes / result->seconds) : 0, b));
}

static void text_budget(FILE *out, const struct budget_report *budget)
{
    if (!budget) return;
    fprintf(out, "target       %llu bytes, %.4f bits per weight of the file; predicted %s%llu, %.4f\n", (unsigned long long)budget->target_nbytes,
            budget->target_bpw, budget->exact_size ? "" : "at most ", (unsigned long long)budget->predicted_nbytes, budget->predicted_bpw);
    fprintf(out, "choice       %zu sets:", budget->n_items);
    for (size_t k = 0; k < budget->n_uses; k++)
        fprintf(out, "%s %llu tensors %s", k ? "," : "", (unsigned long long)budget->uses[k].n_tensors, budget->uses[k].name);
    fprintf(out, "; error %.6g%s", budget->error, budget->weighted ? " (weighed)" : "");
    if (budget->exact) fprintf(out, ", proven least\n");
    else fprintf(out, ", at most %.3f %% above the least\n", budget->bound > 0.0 ? 100.0 * (budget->error / budget->bound - 1.0) : 100.0);
}

void report_text(FILE *out, const struct plan *plan, const struct result *result)
{
    fprintf(out, "%s -> %s\n", plan->container->path, plan->out_path);
    fprintf(out, "  %-*s %-9s %-16s %-11s %-7s r %18s %6s%s  decided by\n", NAME_WIDTH, "tensor", "role", "shape", "format", "group",
            "bytes of planes", "bits/w", result ? "    SQNR" : "");
    for (size_t i = 0; i < plan->n_tensors; i++) text_tensor(out, plan, i, result);
    smooth_report_text(out, plan);
    text_totals(out, plan);
    text_budget(out, plan->budget);
    if (result) text_result(out, plan, result);
}

/* ---- JSON ----------------------------------------------------------------------------------------------------------------------- */

static void json_planes(FILE *out, const struct out_tensor *planned)
{
    fputs("\"planes\":[", out);
    for (uint32_t k = 0; k < planned->n_planes; k++) {
        const struct out_plane *plane = &planned->planes[k];
        fprintf(out, "%s{\"name\":\"%s\",\"bits\":%u,\"nbytes\":%llu,\"raw\":%s}", k ? "," : "", plane->plane.name, plane->plane.bits,
                (unsigned long long)plane_nbytes(&plane->plane), plane->mapped ? "true" : "false");
    }
    fputc(']', out);
}

static void json_measure(FILE *out, const struct measure *measure)
{
    fputs("\"mse\":", out);
    print_json_number(out, measure_mse(measure));
    fputs(",\"sqnr_db\":", out);
    print_json_number(out, measure_sqnr_db(measure));
    fputs(",\"max_error\":", out);
    print_json_number(out, measure->max_d);
    fputs(",\"cosine\":", out);
    print_json_number(out, measure_cosine(measure));
}

static const char *const fates[] = { [FATE_KEEP] = "keep", [FATE_CARRY] = "carry", [FATE_QUANTISE] = "quantise", [FATE_CAST] = "cast" };

static void json_tensor(FILE *out, const struct plan *plan, size_t i, const struct result *result)
{
    const struct plan_entry *entry = &plan->entries[i];
    const struct tensor *tensor = plan_tensor(plan, i);
    const struct out_tensor *planned = &plan->outs[i];
    uint64_t nbytes = planes_nbytes(planned);
    fprintf(out, "%s\n{\"name\":", i ? "," : "");
    print_json_string(out, tensor->name);
    fputs(",\"role\":", out);
    print_json_string(out, planned->role);
    fputs(",\"shape\":", out);
    print_json_dims(out, tensor);
    fprintf(out, ",\"dtype\":\"%s\",\"format\":", tensor->dtype->name);
    print_json_string(out, planned->format ? planned->format : "keep");
    fprintf(out, ",\"fate\":\"%s\",\"fallback_from\":", fates[entry->fate]);
    print_json_string(out, entry->fallback_from ? entry->fallback_from->name : NULL);
    if (planned->format) {
        fprintf(out, ",\"group\":%s,\"scale_rule\":", planned->group);
        print_json_string(out, planned->scale_rule);
        if (planned->percentile) fprintf(out, ",\"percentile\":%s", planned->percentile);
        fprintf(out, ",\"rounding\":\"%s\",\"scale\":\"%s\"", planned->rounding, planned->scale);
    }
    fputs(",\"decided_by\":", out);
    print_json_string(out, origin_of(&entry->verdict));
    fputs(",\"rule\":", out);
    print_json_string(out, entry->verdict.rule ? entry->verdict.rule->text : NULL);
    fputs(",\"reason\":", out);
    print_json_string(out, entry->verdict.reason);
    fprintf(out, ",\"reads\":%u,\"source_nbytes\":%llu,\"nbytes\":%llu,\"bits_per_weight\":", entry->n_reads, (unsigned long long)tensor->nbytes,
            (unsigned long long)nbytes);
    print_json_number(out, bits_per_weight(nbytes, tensor->n_weights));
    fputc(',', out);
    json_planes(out, planned);
    if (result && result->measures[i].n) {
        fputc(',', out);
        json_measure(out, &result->measures[i]);
    }
    fputc('}', out);
}

static void json_totals(FILE *out, const struct plan *plan)
{
    fprintf(out,
            "\"tensors_total\":%zu,\"tensors_quantised\":%llu,\"weights\":%llu,\"weights_quantised\":%llu,\"source_nbytes\":%llu,\"quantised_source_"
            "nbytes\":%llu,",
            plan->n_tensors, (unsigned long long)plan->n_quantised, (unsigned long long)plan->n_weights,
            (unsigned long long)plan->n_quantised_weights, (unsigned long long)plan->source_nbytes,
            (unsigned long long)plan->quantised_source_nbytes);
    fprintf(out, "\"tensors_carried\":%llu,\"groups_carried\":%llu,\"fused_sets\":%llu,\"tensors_fused\":%llu,\"fallbacks\":%llu,",
            (unsigned long long)plan->n_carried, (unsigned long long)plan->n_carried_groups, (unsigned long long)plan->n_fused_sets,
            (unsigned long long)plan->n_fused, (unsigned long long)plan->n_fallbacks);
    fputs("\"quantised_share\":", out);
    print_json_number(out, plan->source_nbytes ? (double)plan->quantised_source_nbytes / (double)plan->source_nbytes : 0.0);
    fputs(",\"bits_per_weight\":", out);
    print_json_number(out, bits_per_weight(plan->quantised_plane_nbytes, plan->n_quantised_weights));
    fputs(",\"bits_per_weight_all\":", out);
    print_json_number(out, bits_per_weight(plan->plane_nbytes, plan->n_weights));
    fprintf(out,
            ",\"plane_nbytes\":%llu,\"file_nbytes\":%llu,\"file_nbytes_exact\":%s,\"files\":%u,\"read_nbytes\":%llu,\"ram_nbytes\":%llu,\"index_"
            "nbytes\":%llu,\"threads\":%u,\"threads_asked\":%u",
            (unsigned long long)plan->plane_nbytes, (unsigned long long)plan->size.nbytes, plan->size.exact ? "true" : "false", plan->size.n_files,
            (unsigned long long)plan->read_nbytes, (unsigned long long)plan->ram_nbytes, (unsigned long long)plan->index_nbytes, plan->n_workers,
            plan->n_threads_asked);
}

static void json_budget(FILE *out, const struct budget_report *budget)
{
    if (!budget) return;
    fprintf(out, ",\"budget\":{\"target_nbytes\":%llu,\"predicted_nbytes\":%llu,\"exact_size\":%s,\"target_bpw\":",
            (unsigned long long)budget->target_nbytes, (unsigned long long)budget->predicted_nbytes, budget->exact_size ? "true" : "false");
    print_json_number(out, budget->target_bpw);
    fputs(",\"predicted_bpw\":", out);
    print_json_number(out, budget->predicted_bpw);
    fputs(",\"error\":", out);
    print_json_number(out, budget->error);
    fputs(",\"bound\":", out);
    print_json_number(out, budget->bound);
    fprintf(out, ",\"proven\":%s,\"weighted\":%s,\"sets\":%zu,\"uses\":[", budget->exact ? "true" : "false", budget->weighted ? "true" : "false",
            budget->n_items);
    for (size_t k = 0; k < budget->n_uses; k++) {
        fprintf(out, "%s{\"format\":", k ? "," : "");
        print_json_string(out, budget->uses[k].name);
        fprintf(out, ",\"tensors\":%llu,\"weights\":%llu}", (unsigned long long)budget->uses[k].n_tensors,
                (unsigned long long)budget->uses[k].n_weights);
    }
    fputs("]}", out);
}

static void json_weighing(FILE *out, const struct weighing *weighing)
{
    if (!weighing->path) return;
    fputs(",\"importance\":{\"file\":", out);
    print_json_string(out, weighing->path);
    fprintf(out, ",\"tensors\":%llu,\"of\":%llu,\"heeding\":%llu,\"experts_without\":%llu,\"nbytes\":%llu}", (unsigned long long)weighing->n_tensors,
            (unsigned long long)weighing->n_of, (unsigned long long)weighing->n_heeding, (unsigned long long)weighing->n_experts_without,
            (unsigned long long)weighing->nbytes);
}

void report_json(FILE *out, const struct plan *plan, const struct result *result)
{
    fputs("{\"in\":", out);
    print_json_string(out, plan->container->path);
    fputs(",\"out\":", out);
    print_json_string(out, plan->out_path);
    fputs(",\"tensors\":[", out);
    for (size_t i = 0; i < plan->n_tensors; i++) json_tensor(out, plan, i, result);
    fputs("\n],", out);
    json_totals(out, plan);
    json_budget(out, plan->budget);
    json_weighing(out, &plan->weighing);
    smooth_report_json(out, plan);
    if (result) {
        struct measure total;
        total_measure(plan, result, &total);
        fprintf(out, ",\"written_nbytes\":%llu,\"seconds\":%.3f", (unsigned long long)result->out_nbytes, result->seconds);
        if (total.n) {
            fputc(',', out);
            json_measure(out, &total);
        }
    }
    fputs("}\n", out);
}
