/* tokenizer_bpe.c: byte-pair encoding of words; see tokenizer_bpe.h.
 *
 * Formula: a heap of pairs ordered by (rank, place); the top is merged if both its symbols still stand, and the pairs on both sides enter.
 * Why this way: O(n log n) for a word of any length; SentencePiece's words can be a whole document. Where a cut between two characters lies in no token,
 * no merge crosses it, so a long word falls apart into short ones with the same result, and short ones are found in a cache.
 * Corner cases: a waiting pair is stale when the pair that now stands at its place merges into another token. A cut is only made between characters that
 * have tokens, so rows of unknown ones stay whole.
 * Reference: see tokenizer_bpe.h. Worked number: "aaa" with (a, a): aa a.
 */
#include "smoothquant/tokenizer_bpe.h"

#include <stdlib.h>
#include <string.h>

#include "base/digest.h"
#include "base/utf8.h"
#include "smoothquant/unicode.h"

#define NONE UINT32_MAX
#define CACHE_SLOTS ((size_t)1 << 14)
#define CACHE_WORD_MAX 40u
#define CACHE_IDS_MAX 12u

struct bpe_symbol {
    uint32_t id; /* NONE: merged away */
    uint32_t before, after; /* NONE at the ends */
};

struct bpe_waiting {
    uint64_t order; /* rank << 32 | place */
    uint32_t id; /* what it merges into */
};

struct bpe_cached {
    uint8_t n_word, n_ids; /* n_word 0: empty */
    char word[CACHE_WORD_MAX];
    int32_t ids[CACHE_IDS_MAX];
};

enum status id_list_add(struct id_list *list, int32_t id, struct err *err)
{
    if (list->n == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 256;
        int32_t *ids = realloc(list->ids, capacity * sizeof *ids);
        if (!ids) return err_set(err, ERR_MEMORY, "out of memory for %zu tokens", capacity);
        list->ids = ids;
        list->capacity = capacity;
    }
    list->ids[list->n++] = id;
    return OK;
}

void bpe_work_free(struct bpe_work *work)
{
    free(work->symbols);
    free(work->heap);
    free(work->cache);
    *work = (struct bpe_work){ 0 };
}

static size_t mix(uint64_t key)
{
    key *= UINT64_C(0x9e3779b97f4a7c15);
    return (size_t)(key ^ key >> 29);
}

static const struct bpe_merge *find_merge(const struct bpe *bpe, uint32_t left, uint32_t right)
{
    const size_t mask = bpe->n_slots - 1;
    if (bpe->n_slots == 0) return NULL;
    for (size_t slot = mix((uint64_t)left << 32 | right) & mask; bpe->merges[slot].left != NONE; slot = (slot + 1) & mask)
        if (bpe->merges[slot].left == left && bpe->merges[slot].right == right) return &bpe->merges[slot];
    return NULL;
}

/* ---- heap ------------------------------------------------------------------------------------------------------------------------- */

static enum status heap_push(struct bpe_work *work, struct bpe_waiting item, struct err *err)
{
    if (work->n_heap == work->heap_capacity) {
        size_t capacity = work->heap_capacity ? work->heap_capacity * 2 : 256;
        struct bpe_waiting *heap = realloc(work->heap, capacity * sizeof *heap);
        if (!heap) return err_set(err, ERR_MEMORY, "out of memory for a word of %zu symbols", work->n_symbols);
        work->heap = heap;
        work->heap_capacity = capacity;
    }
    size_t at = work->n_heap++;
    for (; at > 0 && work->heap[(at - 1) / 2].order > item.order; at = (at - 1) / 2) work->heap[at] = work->heap[(at - 1) / 2];
    work->heap[at] = item;
    return OK;
}

static struct bpe_waiting heap_pop(struct bpe_work *work)
{
    const struct bpe_waiting top = work->heap[0], last = work->heap[--work->n_heap];
    size_t at = 0;
    for (size_t child = 1; child < work->n_heap; child = 2 * at + 1) {
        if (child + 1 < work->n_heap && work->heap[child + 1].order < work->heap[child].order) child++;
        if (work->heap[child].order >= last.order) break;
        work->heap[at] = work->heap[child];
        at = child;
    }
    work->heap[at] = last;
    return top;
}

/* ---- symbols ---------------------------------------------------------------------------------------------------------------------- */

static enum status add_symbol(struct bpe_work *work, uint32_t id, struct err *err)
{
    if (work->n_symbols == work->symbols_capacity) {
        size_t capacity = work->symbols_capacity ? work->symbols_capacity * 2 : 256;
        struct bpe_symbol *symbols = capacity < NONE ? realloc(work->symbols, capacity * sizeof *symbols) : NULL;
        if (!symbols) return err_set(err, ERR_MEMORY, "out of memory for a word of %zu symbols", work->n_symbols);
        work->symbols = symbols;
        work->symbols_capacity = capacity;
    }
    const uint32_t at = (uint32_t)work->n_symbols++;
    work->symbols[at] = (struct bpe_symbol){ id, at ? at - 1 : NONE, NONE };
    if (at) work->symbols[at - 1].after = at;
    return OK;
}

static int32_t character_id(const struct bpe *bpe, const char *text, size_t length)
{
    const uint32_t code = unicode_decode(text, length);
    return code < BPE_SHORT_CODES ? bpe->short_ids[code] : vocab_find(&bpe->vocab, text, length);
}

static bool has_all_bytes(const struct bpe *bpe, const char *text, size_t length)
{
    for (size_t i = 0; bpe->has_bytes && i < length; i++)
        if (bpe->byte_ids[(unsigned char)text[i]] < 0) return false;
    return bpe->has_bytes;
}

static enum status no_token(const char *text, size_t length, struct err *err)
{
    return err_set(err, ERR_DATA, "the tokenizer has no token for U+%04X and none for what is unknown", (unsigned)unicode_decode(text, length));
}

/* The word as symbols. */
static enum status make_symbols(const struct bpe *bpe, struct bpe_work *work, const char *word, size_t n, struct err *err)
{
    bool was_unknown = false;
    enum status status = OK;
    work->n_symbols = 0;
    for (size_t at = 0, length; at < n && status == OK; at += length) {
        length = unicode_length(word[at]);
        const int32_t id = character_id(bpe, word + at, length);
        const bool is_unknown = id < 0 && !has_all_bytes(bpe, word + at, length);
        if (id >= 0) {
            status = add_symbol(work, (uint32_t)id, err);
        } else if (!is_unknown) {
            for (size_t i = 0; i < length && status == OK; i++) status = add_symbol(work, (uint32_t)bpe->byte_ids[(unsigned char)word[at + i]], err);
        } else if (bpe->unknown < 0) {
            status = no_token(word + at, length, err);
        } else if (!was_unknown || !bpe->fuses_unknown) {
            status = add_symbol(work, (uint32_t)bpe->unknown, err);
        }
        was_unknown = is_unknown;
    }
    return status;
}

static enum status wait_for(const struct bpe *bpe, struct bpe_work *work, uint32_t at, struct err *err)
{
    const struct bpe_symbol *symbol = &work->symbols[at];
    if (symbol->after == NONE) return OK;
    const struct bpe_merge *merge = find_merge(bpe, symbol->id, work->symbols[symbol->after].id);
    if (!merge) return OK;
    return heap_push(work, (struct bpe_waiting){ (uint64_t)merge->rank << 32 | at, merge->id }, err);
}

/* Merges the symbol at at with the one after it, if that is still what is waiting. */
static enum status merge_one(const struct bpe *bpe, struct bpe_work *work, uint32_t at, uint32_t id, struct err *err)
{
    struct bpe_symbol *left = &work->symbols[at];
    if (left->id == NONE || left->after == NONE) return OK;
    struct bpe_symbol *right = &work->symbols[left->after];
    const struct bpe_merge *merge = find_merge(bpe, left->id, right->id);
    if (!merge || merge->id != id) return OK;
    left->id = id;
    left->after = right->after;
    right->id = NONE;
    if (left->after != NONE) work->symbols[left->after].before = at;
    enum status status = left->before != NONE ? wait_for(bpe, work, left->before, err) : OK;
    return status == OK ? wait_for(bpe, work, at, err) : status;
}

static enum status merge_all(const struct bpe *bpe, struct bpe_work *work, struct err *err)
{
    enum status status = OK;
    work->n_heap = 0;
    for (uint32_t i = 0; i < work->n_symbols && status == OK; i++) status = wait_for(bpe, work, i, err);
    while (work->n_heap > 0 && status == OK) {
        const struct bpe_waiting top = heap_pop(work);
        status = merge_one(bpe, work, (uint32_t)top.order, top.id, err);
    }
    return status;
}

/* A character that no merge took and that has no token of its own. */
static enum status put_character(const struct bpe *bpe, uint32_t id, bool *was_unknown, struct id_list *out, struct err *err)
{
    size_t n;
    const char *text = vocab_text(&bpe->vocab, id, &n);
    enum status status = OK;
    if (has_all_bytes(bpe, text, n)) {
        for (size_t i = 0; i < n && status == OK; i++) status = id_list_add(out, bpe->byte_ids[(unsigned char)text[i]], err);
        *was_unknown = false;
        return status;
    }
    if (bpe->unknown < 0) return no_token(text, n, err);
    if (!*was_unknown || !bpe->fuses_unknown) status = id_list_add(out, bpe->unknown, err);
    *was_unknown = true;
    return status;
}

static enum status put_symbols(const struct bpe *bpe, const struct bpe_work *work, struct id_list *out, struct err *err)
{
    bool was_unknown = false;
    enum status status = OK;
    for (uint32_t at = 0; at < work->n_symbols && at != NONE && status == OK; at = work->symbols[at].after) {
        const uint32_t id = work->symbols[at].id;
        if (id >= bpe->n_real) {
            status = put_character(bpe, id, &was_unknown, out, err);
            continue;
        }
        status = id_list_add(out, (int32_t)id, err);
        was_unknown = (int32_t)id == bpe->unknown;
    }
    return status;
}

/* ---- words ------------------------------------------------------------------------------------------------------------------------ */

static struct bpe_cached *cached_slot(struct bpe_work *work, const char *word, size_t n)
{
    if (n == 0 || n > CACHE_WORD_MAX) return NULL;
    if (!work->cache) work->cache = calloc(CACHE_SLOTS, sizeof *work->cache);
    return work->cache ? &work->cache[digest64(word, n) & (CACHE_SLOTS - 1)] : NULL;
}

static void keep(struct bpe_cached *slot, const char *word, size_t n, const struct id_list *out, size_t first)
{
    const size_t n_ids = out->n - first;
    if (!slot || n_ids > CACHE_IDS_MAX) return;
    slot->n_word = (uint8_t)n;
    slot->n_ids = (uint8_t)n_ids;
    memcpy(slot->word, word, n);
    if (n_ids) memcpy(slot->ids, out->ids + first, n_ids * sizeof *slot->ids);
}

/* One word that is not cut further. */
static enum status encode_word(const struct bpe *bpe, struct bpe_work *work, const char *word, size_t n, struct id_list *out, struct err *err)
{
    struct bpe_cached *slot = cached_slot(work, word, n);
    enum status status = OK;
    if (slot && slot->n_word == n && memcmp(slot->word, word, n) == 0) {
        for (unsigned i = 0; i < slot->n_ids && status == OK; i++) status = id_list_add(out, slot->ids[i], err);
        return status;
    }
    const size_t first = out->n;
    status = make_symbols(bpe, work, word, n, err);
    if (status == OK) status = merge_all(bpe, work, err);
    if (status == OK) status = put_symbols(bpe, work, out, err);
    if (status == OK) keep(slot, word, n, out, first);
    return status;
}

static uint64_t joint_of(uint32_t left, uint32_t right)
{
    return (uint64_t)left << 32 | right | UINT64_C(1) << 63;
}

static bool is_joint(const struct bpe *bpe, uint64_t joint)
{
    const size_t mask = bpe->n_joint_slots - 1;
    for (size_t slot = mix(joint) & mask; bpe->joints[slot]; slot = (slot + 1) & mask)
        if (bpe->joints[slot] == joint) return true;
    return false;
}

/* True where no token reaches over the place at, which lies between two characters. */
static bool is_cut(const struct bpe *bpe, const char *word, size_t before, size_t at)
{
    const size_t n_left = at - before, n_right = unicode_length(word[at]);
    if (is_joint(bpe, joint_of(unicode_decode(word + before, n_left), unicode_decode(word + at, n_right)))) return false;
    return (uint32_t)character_id(bpe, word + before, n_left) < bpe->n_real && (uint32_t)character_id(bpe, word + at, n_right) < bpe->n_real;
}

static bool is_newlines(const char *word, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (word[i] != '\n') return false;
    return n > 0;
}

enum status bpe_encode(const struct bpe *bpe, struct bpe_work *work, const char *word, size_t n, struct id_list *out, struct err *err)
{
    if (bpe->ignores_merges || (bpe->knows_newlines && is_newlines(word, n))) {
        const int32_t id = vocab_find(&bpe->vocab, word, n);
        if (id >= 0 && (uint32_t)id < bpe->n_real) return id_list_add(out, id, err);
    }
    if (!bpe->joints) return encode_word(bpe, work, word, n, out, err);
    size_t start = 0, before = 0;
    enum status status = OK;
    for (size_t at = 0; at < n && status == OK; at += unicode_length(word[at])) {
        if (at > start && is_cut(bpe, word, before, at)) {
            status = encode_word(bpe, work, word + start, at - start, out, err);
            start = at;
        }
        before = at;
    }
    return status == OK && n > start ? encode_word(bpe, work, word + start, n - start, out, err) : status;
}

/* ---- making ----------------------------------------------------------------------------------------------------------------------- */

static void place_merge(struct bpe *bpe, struct bpe_merge merge)
{
    const size_t mask = bpe->n_slots - 1;
    size_t slot = mix((uint64_t)merge.left << 32 | merge.right) & mask;
    while (bpe->merges[slot].left != NONE && (bpe->merges[slot].left != merge.left || bpe->merges[slot].right != merge.right))
        slot = (slot + 1) & mask;
    bpe->n_merges += bpe->merges[slot].left == NONE;
    bpe->merges[slot] = merge;
}

static bool grow_merges(struct bpe *bpe)
{
    if ((bpe->n_merges + 1) * 2 <= bpe->n_slots) return true;
    struct bpe old = *bpe;
    bpe->n_slots = old.n_slots ? old.n_slots * 2 : 1024;
    bpe->merges = malloc(bpe->n_slots * sizeof *bpe->merges);
    if (!bpe->merges) {
        *bpe = old;
        return false;
    }
    bpe->n_merges = 0;
    for (size_t i = 0; i < bpe->n_slots; i++) bpe->merges[i].left = NONE;
    for (size_t i = 0; i < old.n_slots; i++)
        if (old.merges[i].left != NONE) place_merge(bpe, old.merges[i]);
    free(old.merges);
    return true;
}

enum status bpe_add_merge(struct bpe *bpe, uint32_t left, uint32_t right, uint32_t rank, uint32_t id, struct err *err)
{
    if (!grow_merges(bpe)) return err_set(err, ERR_MEMORY, "out of memory for merges");
    place_merge(bpe, (struct bpe_merge){ left, right, rank, id });
    return OK;
}

struct scored {
    float score;
    uint32_t id;
};

static int by_score(const void *a, const void *b)
{
    const struct scored *left = a, *right = b;
    return (left->score < right->score) - (left->score > right->score);
}

/* ranks[id] = how many scores are above its own, equal ones counted once. */
static enum status rank_scores(const struct bpe *bpe, const float *scores, uint32_t *ranks, struct err *err)
{
    struct scored *sorted = malloc((bpe->n_real + 1) * sizeof *sorted);
    if (!sorted) return err_set(err, ERR_MEMORY, "out of memory for scores");
    for (uint32_t id = 0; id < bpe->n_real; id++) sorted[id] = (struct scored){ scores[id], id };
    qsort(sorted, bpe->n_real, sizeof *sorted, by_score);
    uint32_t rank = 0;
    for (uint32_t i = 0; i < bpe->n_real; i++) {
        rank += i > 0 && sorted[i].score < sorted[i - 1].score;
        ranks[sorted[i].id] = rank;
    }
    free(sorted);
    return OK;
}

/* Characters that only longer tokens contain get ids from n_real on. */
static enum status add_characters(struct bpe *bpe, struct err *err)
{
    enum status status = OK;
    for (uint32_t id = 0; id < bpe->n_real && status == OK; id++) {
        for (size_t at = 0; vocab_has(&bpe->vocab, id) && at < bpe->vocab.tokens[id].n && status == OK;) {
            size_t n;
            const char *text = vocab_text(&bpe->vocab, id, &n);
            const size_t length = unicode_length(text[at]);
            char character[4];
            memcpy(character, text + at, length); /* adding moves the arena */
            if (vocab_find(&bpe->vocab, character, length) < 0) status = vocab_add(&bpe->vocab, character, length, bpe->vocab.n_ids, err);
            at += length;
        }
    }
    return status;
}

static enum status add_parts(struct bpe *bpe, uint32_t id, uint32_t rank, struct err *err)
{
    size_t n;
    const char *text = vocab_text(&bpe->vocab, id, &n);
    enum status status = OK;
    for (size_t at = n ? unicode_length(text[0]) : 0; at < n && status == OK; at += unicode_length(text[at])) {
        const int32_t left = vocab_find(&bpe->vocab, text, at), right = vocab_find(&bpe->vocab, text + at, n - at);
        if (left >= 0 && right >= 0) status = bpe_add_merge(bpe, (uint32_t)left, (uint32_t)right, rank, id, err);
    }
    return status;
}

enum status bpe_add_scored(struct bpe *bpe, const float *scores, struct err *err)
{
    uint32_t *ranks = malloc((bpe->n_real + 1) * sizeof *ranks);
    if (!ranks) return err_set(err, ERR_MEMORY, "out of memory for scores");
    enum status status = rank_scores(bpe, scores, ranks, err);
    if (status == OK) status = add_characters(bpe, err);
    for (uint32_t id = 0; id < bpe->n_real && status == OK; id++)
        if (vocab_has(&bpe->vocab, id)) status = add_parts(bpe, id, ranks[id], err);
    free(ranks);
    return status;
}

void bpe_index(struct bpe *bpe)
{
    static const char digits[] = "0123456789ABCDEF";
    if (bpe->n_real == 0) bpe->n_real = bpe->vocab.n_ids;
    for (unsigned byte = 0; byte < 256; byte++) {
        const char name[6] = { '<', '0', 'x', digits[byte >> 4], digits[byte & 15], '>' };
        bpe->byte_ids[byte] = vocab_find(&bpe->vocab, name, sizeof name);
    }
    for (uint32_t code = 0; code < BPE_SHORT_CODES; code++) {
        char text[4];
        bpe->short_ids[code] = vocab_find(&bpe->vocab, text, utf8_put(code, text));
    }
}

static bool grow_joints(struct bpe *bpe)
{
    if ((bpe->n_joints + 1) * 2 <= bpe->n_joint_slots) return true;
    const size_t n_old = bpe->n_joint_slots, n_slots = n_old ? n_old * 2 : 4096;
    uint64_t *old = bpe->joints, *joints = calloc(n_slots, sizeof *joints);
    if (!joints) return false;
    for (size_t i = 0; i < n_old; i++) {
        size_t slot = mix(old[i]) & (n_slots - 1);
        if (!old[i]) continue;
        while (joints[slot]) slot = (slot + 1) & (n_slots - 1);
        joints[slot] = old[i];
    }
    free(old);
    bpe->joints = joints;
    bpe->n_joint_slots = n_slots;
    return true;
}

enum status bpe_make_joints(struct bpe *bpe, struct err *err)
{
    if (!grow_joints(bpe)) return err_set(err, ERR_MEMORY, "out of memory for tokens");
    for (uint32_t id = 0; id < bpe->vocab.n_ids; id++) {
        size_t n;
        if (!vocab_has(&bpe->vocab, id)) continue;
        const char *text = vocab_text(&bpe->vocab, id, &n);
        for (size_t before = 0, at = n ? unicode_length(text[0]) : 0; at < n; before = at, at += unicode_length(text[at])) {
            const uint64_t joint = joint_of(unicode_decode(text + before, at - before), unicode_decode(text + at, unicode_length(text[at])));
            if (is_joint(bpe, joint)) continue;
            if (!grow_joints(bpe)) return err_set(err, ERR_MEMORY, "out of memory for tokens");
            size_t slot = mix(joint) & (bpe->n_joint_slots - 1);
            while (bpe->joints[slot]) slot = (slot + 1) & (bpe->n_joint_slots - 1);
            bpe->joints[slot] = joint;
            bpe->n_joints++;
        }
    }
    return OK;
}

void bpe_free(struct bpe *bpe)
{
    vocab_free(&bpe->vocab);
    free(bpe->merges);
    free(bpe->joints);
    *bpe = (struct bpe){ 0 };
}
