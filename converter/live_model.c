/* live_model.c: see live_model.h.
 *
 * Drawing: see live_model.h.
 * Why this way: see live_model.h. Spills go to $TMPDIR, else /var/tmp, which by custom is a disk, unlike /tmp.
 * Corner cases: see live_model.h.
 * Reference: see live_model.h. Worked number: none needed.
 */
#include "converter/live_model.h"

#include <stdlib.h>
#include <string.h>

#include "base/pool.h"

enum status live_arch_open(const struct app *app, struct container *container, struct arch **arch, struct err *err)
{
    char *dir = NULL, shown[200];
    enum status status = app_config_path(app, "arch", &dir, err);
    if (status == OK) status = arch_open(app->io, dir, settings_text(&app->settings, SET_SMOOTH_MAP), container, arch, err);
    free(dir);
    return status == OK ? OK : err_wrap(err, status, "'%s'", err_name(container->path, strlen(container->path), shown, sizeof shown));
}

enum status live_model_open(const struct app *app, const char *path, struct live_model *live, struct err *err)
{
    char shown[200];
    *live = (struct live_model){ 0 };
    enum status status = container_open(app->io, path, &live->container, err);
    if (status == OK) status = live_arch_open(app, live->container, &live->arch, err);
    if (status != OK) return status;
    status = arch_model_open(live->arch, live->container, &live->model, err);
    return status == OK ? OK : err_wrap(err, status, "'%s'", err_name(path, strlen(path), shown, sizeof shown));
}

void live_model_close(struct live_model *live)
{
    arch_model_close(live->model);
    arch_close(live->arch);
    container_close(live->container);
    *live = (struct live_model){ 0 };
}

/* A tokenizer may know more tokens than the model has. */
static enum status check_ids(const struct token_docs *docs, size_t vocab, struct err *err)
{
    for (uint64_t i = 0; i < docs->starts[docs->n_docs]; i++)
        if ((size_t)docs->ids[i] >= vocab) return err_set(err, ERR_DATA, "the tokenizer makes token %d, the model has %zu", (int)docs->ids[i], vocab);
    return OK;
}

static enum status read_text(const struct app *app, const struct live_model *live, const char *path, struct token_docs *docs, size_t *n_lead,
                             struct err *err)
{
    struct tokenizer *tokenizer = NULL;
    int32_t *lead = NULL;
    enum status status = tokenizer_of_container(live->container, &tokenizer, err);
    if (status == OK) status = tokenizer_encode(tokenizer, "", 0, true, &lead, n_lead, err);
    if (status == OK) status = tokens_read_text(app->io, path, tokenizer, docs, err);
    if (status == OK) status = check_ids(docs, live->model->vocab, err);
    free(lead);
    tokenizer_close(tokenizer);
    return status;
}

enum status live_model_tokens(const struct app *app, const struct live_model *live, struct token_docs *docs, size_t *n_lead, struct err *err)
{
    const char *text = settings_text(&app->settings, SET_TEXT), *tokens = settings_text(&app->settings, SET_TOKENS);
    *n_lead = 0;
    if (text && tokens) return err_set(err, ERR_USAGE, "either --text or --tokens");
    if (text) return read_text(app, live, text, docs, n_lead, err);
    if (tokens) return tokens_read_ids(app->io, tokens, (uint32_t)live->model->vocab, docs, err);
    return err_set(err, ERR_USAGE, "on which tokens? --text FILE or --tokens FILE");
}

uint64_t live_max_ram(const struct app *app)
{
    return settings_given(&app->settings, SET_MAX_RAM) ? settings_number(&app->settings, SET_MAX_RAM) : (uint64_t)1 << 30;
}

unsigned live_workers(const struct app *app)
{
    const uint64_t asked = settings_number(&app->settings, SET_THREADS);
    return asked ? (unsigned)asked : pool_cpu_count();
}

struct gemm live_gemm(const struct app *app)
{
    const char *wanted = getenv("LLMQ_GEMM");
    const struct gemm gemm = gemm_select(wanted);
    if (wanted && *wanted && strcmp(wanted, gemm.name) != 0) app_note(app, "LLMQ_GEMM=%s: not here, using %s", wanted, gemm.name);
    return gemm;
}

const char *live_spill_dir(void)
{
    const char *dir = getenv("TMPDIR");
    return dir && *dir ? dir : "/var/tmp";
}
