/* live_model.h: what calibrate and eval share: a model that can be run, the documents it is run on, and how that is shown.
 *
 *   --in MODEL -> container -> architecture file -> struct arch_model;   --text or --tokens -> documents
 *
 * Why this way: both commands take the same inputs, and say the same sentences about them.
 * Corner cases: --text needs a tokenizer, of the model itself; exactly one source of tokens; 1 GiB of memory unless --max-ram says otherwise.
 * Reference: smoothquant/forward.h. Worked number: none needed.
 */
#ifndef LLMQ_CONVERTER_LIVE_MODEL_H
#define LLMQ_CONVERTER_LIVE_MODEL_H

#include "converter/app.h"
#include "converter/progress.h"
#include "smoothquant/arch.h"
#include "smoothquant/arch_model.h"
#include "smoothquant/gemm.h"
#include "smoothquant/tokens.h"

struct live_model {
    struct container *container;
    struct arch *arch;
    struct arch_model *model;
};

/* The architecture of an opened model, from configs/arch or --smooth-map; the sentence names the model. */
enum status live_arch_open(const struct app *app, struct container *container, struct arch **arch, struct err *err);

/* Opens the model at path; live_model_close also after a failure. */
enum status live_model_open(const struct app *app, const char *path, struct live_model *live, struct err *err);
void live_model_close(struct live_model *live);

/* The documents of --text or --tokens. *n_lead: tokens in front of each that stand for no text. */
enum status live_model_tokens(const struct app *app, const struct live_model *live, struct token_docs *docs, size_t *n_lead, struct err *err);

/* --max-ram, or 1 GiB; --threads, or all processors; $LLMQ_GEMM or the preferred product of matrices; where spills go. */
uint64_t live_max_ram(const struct app *app);
unsigned live_workers(const struct app *app);
struct gemm live_gemm(const struct app *app);
const char *live_spill_dir(void);

#endif
