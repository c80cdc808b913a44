/* tokenizer.c: encodes texts with the parts that the readers have filled; see tokenizer.h.
 *
 * Formula: ids = front + for each piece between names: merges of the words of the piece, and the id of each name.
 * Why this way: see tokenizer_self.h.
 * Corner cases: a text is checked as UTF-8 once, at its beginning, everything behind it decodes without checks. Names inside of what another name took are
 * not found. Where a model's front is also written in the text it is there twice, as in the reference.
 * Reference: see tokenizer.h. Worked number: front <s>: "" becomes the one id of <s>.
 */
#include "smoothquant/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "smoothquant/tokenizer_self.h"
#include "smoothquant/unicode.h"

#define STEPS_BASE UINT64_C(1000000)
#define STEPS_PER_BYTE UINT64_C(4096)
#define SPACE_MARK 0x2581u

/* ---- making ----------------------------------------------------------------------------------------------------------------------- */

enum status tokenizer_add_name(struct tokenizer *tokenizer, const struct added_token *token, bool normalized, struct err *err)
{
    if (token->id < 0 || (uint32_t)token->id >= TOKENIZER_IDS_MAX) return err_set(err, ERR_DATA, "an added token has the id %d", (int)token->id);
    if ((uint32_t)token->id >= tokenizer->n_ids) tokenizer->n_ids = (uint32_t)token->id + 1;
    return added_add(normalized ? &tokenizer->normalized : &tokenizer->raw, token, err);
}

int32_t tokenizer_find(const struct tokenizer *tokenizer, const char *text, size_t n)
{
    const int32_t id = vocab_find(&tokenizer->names, text, n);
    if (id >= 0) return id;
    const int32_t in_merges = vocab_find(&tokenizer->bpe.vocab, text, n);
    return in_merges >= 0 && (uint32_t)in_merges < tokenizer->bpe.n_real ? in_merges : -1;
}

enum status tokenizer_complete(struct tokenizer *tokenizer, struct err *err)
{
    added_close_set(&tokenizer->raw);
    added_close_set(&tokenizer->normalized);
    if (tokenizer->n_ids < tokenizer->bpe.n_real) tokenizer->n_ids = tokenizer->bpe.n_real;
    if (tokenizer->n_ids == 0) return err_set(err, ERR_DATA, "it has no tokens");
    for (size_t i = 0; i < tokenizer->n_front; i++)
        if (tokenizer->front[i] < 0 || (uint32_t)tokenizer->front[i] >= tokenizer->n_ids)
            return err_set(err, ERR_DATA, "token %d, which begins a text, is not below %u", (int)tokenizer->front[i], tokenizer->n_ids);
    if (tokenizer->bos >= 0 && (uint32_t)tokenizer->bos >= tokenizer->n_ids)
        return err_set(err, ERR_DATA, "the token that begins a text is %d, not below %u", (int)tokenizer->bos, tokenizer->n_ids);
    return OK;
}

void tokenizer_close(struct tokenizer *tokenizer)
{
    if (!tokenizer) return;
    added_free(&tokenizer->raw);
    added_free(&tokenizer->normalized);
    step_list_free(&tokenizer->normalizer);
    step_list_free(&tokenizer->cuts);
    bpe_free(&tokenizer->bpe);
    vocab_free(&tokenizer->names);
    free(tokenizer);
}

/* ---- encoding --------------------------------------------------------------------------------------------------------------------- */

struct tokenizer_run {
    const struct tokenizer *tokenizer;
    struct step_work normalizing, cutting;
    struct bpe_work bpe;
    struct id_list out;
};

static enum status take_word(void *context, const char *text, size_t n, bool is_first, struct err *err)
{
    struct tokenizer_run *run = context;
    (void)is_first;
    return bpe_encode(&run->tokenizer->bpe, &run->bpe, text, n, &run->out, err);
}

/* A piece without any name in it: whole words. */
static enum status take_plain(void *context, const char *text, size_t n, bool is_first, struct err *err)
{
    struct tokenizer_run *run = context;
    return step_run(&run->tokenizer->cuts, &run->cutting, text, n, is_first, take_word, run, err);
}

/* Gives what lies between the names of set to take and adds the names' ids. */
static enum status part(struct tokenizer_run *run, const struct added_set *set, const char *text, size_t n, bool is_first, step_take *take,
                        struct err *err)
{
    struct added_match match;
    size_t used = 0, from = 0;
    enum status status = OK;
    while (status == OK && added_find(set, text, n, from, used, &match)) {
        if (match.start > used) status = take(run, text + used, match.start - used, is_first && used == 0, err);
        if (status == OK) status = id_list_add(&run->out, match.token->id, err);
        used = match.end;
        from = match.next;
    }
    return status == OK && used < n ? take(run, text + used, n - used, is_first && used == 0, err) : status;
}

static enum status take_normalized(void *context, const char *text, size_t n, bool is_first, struct err *err)
{
    struct tokenizer_run *run = context;
    return part(run, &run->tokenizer->normalized, text, n, is_first, take_plain, err);
}

static enum status take_raw(void *context, const char *text, size_t n, bool is_first, struct err *err)
{
    struct tokenizer_run *run = context;
    return step_run(&run->tokenizer->normalizer, &run->normalizing, text, n, is_first, take_normalized, run, err);
}

static enum status check_text(const char *text, size_t n, struct err *err)
{
    for (size_t at = 0, length; at < n; at += length) {
        length = utf8_length(text + at, n - at);
        if (length == 0) return err_set(err, ERR_DATA, "byte %zu: no valid UTF-8", at);
    }
    return OK;
}

struct tokenizer_run *tokenizer_run_open(const struct tokenizer *tokenizer)
{
    struct tokenizer_run *run = calloc(1, sizeof *run);
    if (run) run->tokenizer = tokenizer;
    return run;
}

void tokenizer_run_close(struct tokenizer_run *run)
{
    if (!run) return;
    step_work_free(&run->normalizing);
    step_work_free(&run->cutting);
    bpe_work_free(&run->bpe);
    free(run->out.ids);
    free(run);
}

enum status tokenizer_run_encode(struct tokenizer_run *run, const char *text, size_t n, bool with_bos, const int32_t **ids, size_t *n_ids,
                                 struct err *err)
{
    const struct tokenizer *tokenizer = run->tokenizer;
    run->out.n = 0;
    run->normalizing.pattern.steps = run->cutting.pattern.steps = STEPS_BASE + STEPS_PER_BYTE * (uint64_t)n;
    enum status status = check_text(text, n, err);
    for (size_t i = 0; with_bos && i < tokenizer->n_front && status == OK; i++) status = id_list_add(&run->out, tokenizer->front[i], err);
    if (status == OK) status = part(run, &tokenizer->raw, text, n, true, take_raw, err);
    *ids = status == OK ? run->out.ids : NULL;
    *n_ids = status == OK ? run->out.n : 0;
    return status;
}

enum status tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t n, bool with_bos, int32_t **ids, size_t *n_ids,
                             struct err *err)
{
    const int32_t *made = NULL;
    *ids = NULL;
    *n_ids = 0;
    struct tokenizer_run *run = tokenizer_run_open(tokenizer);
    enum status status = run ? tokenizer_run_encode(run, text, n, with_bos, &made, n_ids, err) : err_set(err, ERR_MEMORY, "out of memory for tokens");
    if (status == OK) {
        *ids = run->out.ids;
        run->out.ids = NULL;
    }
    tokenizer_run_close(run);
    if (status != OK || *ids) return status;
    *ids = malloc(sizeof **ids);
    return *ids ? OK : err_set(err, ERR_MEMORY, "out of memory for tokens");
}

static enum status take_text(void *context, const char *text, size_t n, bool is_first, struct err *err)
{
    (void)is_first;
    (void)err;
    text_add_bytes(context, text, n);
    return OK;
}

enum status tokenizer_normalize(const struct tokenizer *tokenizer, const char *text, size_t n, struct text *out, struct err *err)
{
    struct step_work work = { 0 };
    work.pattern.steps = STEPS_BASE;
    enum status status = step_run(&tokenizer->normalizer, &work, text, n, true, take_text, out, err);
    step_work_free(&work);
    return status == OK ? text_ok(out, "an added token", err) : status;
}

/* ---- questions -------------------------------------------------------------------------------------------------------------------- */

bool tokenizer_adds_bos(const struct tokenizer *tokenizer)
{
    return tokenizer->n_front > 0;
}

int32_t tokenizer_bos(const struct tokenizer *tokenizer)
{
    return tokenizer->bos;
}

uint32_t tokenizer_vocab(const struct tokenizer *tokenizer)
{
    return tokenizer->n_ids;
}

struct piece {
    char *out;
    size_t capacity, n;
};

static void put(struct piece *piece, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++, piece->n++)
        if (piece->n < piece->capacity) piece->out[piece->n] = bytes[i];
}

static void put_code(const struct tokenizer *tokenizer, struct piece *piece, const char *text, size_t length)
{
    const uint32_t code = unicode_decode(text, length);
    const int byte = tokenizer->spells_bytes ? step_byte_of(code) : -1;
    if (byte >= 0) put(piece, &(char){ (char)byte }, 1);
    else if (!tokenizer->spells_bytes && code == SPACE_MARK) put(piece, " ", 1);
    else put(piece, text, length);
}

/* The byte of a token <0xXX> that stands for a byte, or -1. */
static int byte_of(const struct bpe *bpe, int32_t id, size_t n)
{
    for (int byte = 0; bpe->has_bytes && n == 6 && byte < 256; byte++)
        if (bpe->byte_ids[byte] == id) return byte;
    return -1;
}

size_t tokenizer_piece(const struct tokenizer *tokenizer, int32_t id, char *out, size_t capacity)
{
    struct piece piece = { out, capacity, 0 };
    size_t n = 0;
    if (id < 0) return 0;
    if (vocab_has(&tokenizer->names, (uint32_t)id)) {
        const char *text = vocab_text(&tokenizer->names, (uint32_t)id, &n);
        put(&piece, text, n);
    } else if ((uint32_t)id < tokenizer->bpe.n_real && vocab_has(&tokenizer->bpe.vocab, (uint32_t)id)) {
        const char *text = vocab_text(&tokenizer->bpe.vocab, (uint32_t)id, &n);
        const int byte = byte_of(&tokenizer->bpe, id, n);
        if (byte >= 0) put(&piece, &(char){ (char)byte }, 1);
        for (size_t at = 0; byte < 0 && at < n; at += unicode_length(text[at])) put_code(tokenizer, &piece, text + at, unicode_length(text[at]));
    }
    return piece.n;
}
