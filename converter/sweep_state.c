/* sweep_state.c: the finished tensors of a sweep in a file, so that an interrupted one goes on where it was.
 *
 *   llmq-sweep 1 IDENTITY                                        first line
 *   E LANE PERPLEXITY KL REFERENCE CHECKSUM                      one line a lane that was judged
 *   T ITEM SOURCE-DIGEST | LANE LANE ... | CHECKSUM              one line a tensor, all its lanes; a failed lane is x and the reason in hex
 *
 * Why this way: lines are only appended, each with its checksum, so that whatever a kill or a crash leaves is the beginning of a good file; numbers
 * are bits, so that what goes on is the same to the last one. IDENTITY is a digest of the variants, the options that matter, names and shapes, and
 * size and time of every input file, statistics included.
 * Corner cases: a last line that is cut off is overwritten; a file of other settings or of another model is begun anew, but refused with --resume;
 * two runs on one file: the second is refused.
 * Reference: SWEEP.md. Worked number: a lane that is lossless: all sums of d are 0000000000000000.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

#include "base/text.h"
#include "converter/sweep_run.h"
#include "converter/version.h"
#include "smoothquant/tokens.h"

#define STATE_NBYTES_MAX (1ull << 30)
#define LINE_MAX_NBYTES (4u << 20)

struct sweep_state {
    int fd;
    uint64_t nbytes; /* of good lines */
    char first[80]; /* the first line, which every checksum covers: what an older file leaves behind the end is none of ours */
    struct text line;
};

/* ---- identity ------------------------------------------------------------------------------------------------------------------------ */

static void add_str(struct digest_stream *stream, const char *text)
{
    digest_add(stream, text ? text : "", text ? strlen(text) + 1 : 1);
}

static void add_files(struct digest_stream *stream, const struct container *container)
{
    for (size_t i = 0; i < container->n_files; i++) {
        const struct stat *st = &container->files[i].at_open;
        const uint64_t facts[] = { (uint64_t)st->st_size, (uint64_t)st->st_mtim.tv_sec, (uint64_t)st->st_mtim.tv_nsec };
        digest_add(stream, facts, sizeof facts);
    }
}

/* Size and time of a file that an option names; "gain" is none. */
static void add_named_file(struct digest_stream *stream, const struct app *app, enum setting_id id)
{
    struct stat st;
    if (!settings_given(&app->settings, id) || app->io->stat(settings_text(&app->settings, id), &st) != 0) return;
    const uint64_t facts[] = { (uint64_t)st.st_size, (uint64_t)st.st_mtim.tv_sec, (uint64_t)st.st_mtim.tv_nsec };
    digest_add(stream, facts, sizeof facts);
}

/* Options that change what a lane does beyond the text of its variant. */
static void add_settings(struct digest_stream *stream, const struct settings *settings)
{
    static const enum setting_id ids[] = { SET_SCALE_DTYPE, SET_PERCENTILE,  SET_ROUNDING,         SET_HALF_RANGE, SET_RECIPE, SET_IMATRIX,
                                           SET_NVFP4_SCALE, SET_NO_FALLBACK, SET_ALLOW_REQUANTIZE, SET_NONFINITE,  SET_ALIGN };
    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++)
        add_str(stream, settings_given(settings, ids[i]) ? settings_text(settings, ids[i]) : NULL);
    for (size_t i = 0; i < settings->n_rules; i++) {
        add_str(stream, settings->rules[i].keep ? "keep" : "rule");
        add_str(stream, settings->rules[i].text);
    }
}

/* What perplexity is of. */
static void add_text(struct digest_stream *stream, const struct sweep *sweep)
{
    const uint64_t seq = settings_number(&sweep->app->settings, SET_SEQ);
    if (!sweep->docs) return;
    digest_add(stream, &seq, sizeof seq);
    digest_add(stream, sweep->docs->ids, (size_t)sweep->docs->starts[sweep->docs->n_docs] * sizeof *sweep->docs->ids);
    digest_add(stream, sweep->docs->starts, (sweep->docs->n_docs + 1) * sizeof *sweep->docs->starts);
}

static enum status identify(const struct sweep *sweep, char hex[DIGEST128_HEX], struct err *err)
{
    static const enum setting_id files[] = { SET_SMOOTH, SET_SMOOTH_MAP, SET_IMATRIX };
    struct digest_stream *stream = digest_open();
    if (!stream) return err_set(err, ERR_MEMORY, "out of memory");
    add_str(stream, LLMQ_VERSION_TEXT);
    for (size_t v = 0; v < sweep->n_lanes; v++) {
        add_str(stream, sweep->table->variants[sweep->lanes[v].variant].settings);
        add_str(stream, sweep->table->variants[sweep->lanes[v].variant].alpha_text);
        digest_add(stream, &sweep->table->variants[sweep->lanes[v].variant].alpha, sizeof(double));
    }
    add_settings(stream, &sweep->app->settings);
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) add_named_file(stream, sweep->app, files[i]);
    add_files(stream, sweep->container);
    for (size_t i = 0; i < sweep->n_items; i++) {
        add_str(stream, sweep->items[i].name);
        digest_add(stream, &sweep->items[i].shape, sizeof sweep->items[i].shape);
        digest_add(stream, &sweep->items[i].wanted, sizeof sweep->items[i].wanted);
    }
    digest_add(stream, &sweep->spec->sample, sizeof sweep->spec->sample);
    add_text(stream, sweep);
    const struct digest128 digest = digest_value(stream);
    digest128_hex(&digest, hex);
    digest_close(stream);
    return OK;
}

/* ---- lines --------------------------------------------------------------------------------------------------------------------------- */

static uint64_t bits_of(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static double double_of(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void add_hex(struct text *text, const void *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) text_add(text, "%02x", ((const uint8_t *)bytes)[i]);
}

static void add_lane(struct text *text, const struct sweep_lane *lane, const struct sweep_cell *cell)
{
    const struct measure *m = &cell->sums.measure;
    if (lane->failed) {
        text_add(text, " x");
        add_hex(text, lane->failure, strlen(lane->failure));
        return;
    }
    const uint64_t numbers[] = { m->n,
                                 bits_of(m->sum_xx),
                                 bits_of(m->sum_yy),
                                 bits_of(m->sum_xy),
                                 bits_of(m->sum_dd),
                                 bits_of(m->max_d),
                                 bits_of(cell->sums.sum_wxx),
                                 bits_of(cell->sums.sum_wdd),
                                 cell->sums.n_clipped };
    text_add(text, " ");
    for (size_t k = 0; k < sizeof numbers / sizeof numbers[0]; k++) text_add(text, "%016llx", (unsigned long long)numbers[k]);
    add_hex(text, &cell->digest, sizeof cell->digest);
}

static bool read_hex(const char **at, void *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned value = 0;
        for (size_t k = 0; k < 2; k++) {
            const char *digits = "0123456789abcdef", *found = **at ? strchr(digits, **at) : NULL;
            if (!found) return false;
            value = value * 16 + (unsigned)(found - digits);
            ++*at;
        }
        ((uint8_t *)out)[i] = (uint8_t)value;
    }
    return true;
}

static bool read_number(const char **at, uint64_t *number)
{
    uint8_t bytes[8];
    if (!read_hex(at, bytes, sizeof bytes)) return false;
    *number = 0;
    for (size_t i = 0; i < 8; i++) *number = *number << 8 | bytes[i];
    return true;
}

static bool read_lane(const char **at, struct sweep_lane *lane, struct sweep_cell *cell)
{
    struct measure *m = &cell->sums.measure;
    uint64_t n[9];
    if (*(*at)++ != ' ') return false;
    if (**at == 'x') {
        ++*at;
        const size_t length = strspn(*at, "0123456789abcdef") / 2;
        if (length >= sizeof lane->failure) return false;
        memset(lane->failure, 0, sizeof lane->failure);
        lane->failed = true;
        return read_hex(at, lane->failure, length);
    }
    for (size_t k = 0; k < 9; k++)
        if (!read_number(at, &n[k])) return false;
    *m = (struct measure){ n[0], double_of(n[1]), double_of(n[2]), double_of(n[3]), double_of(n[4]), double_of(n[5]) };
    cell->sums.sum_wxx = double_of(n[6]);
    cell->sums.sum_wdd = double_of(n[7]);
    cell->sums.n_clipped = n[8];
    return read_hex(at, &cell->digest, sizeof cell->digest);
}

/* E LANE PERPLEXITY KL REFERENCE */
static bool take_judged(struct sweep *sweep, const char *line)
{
    char *end;
    const unsigned long long v = strtoull(line + 2, &end, 10);
    const char *at = end + 1;
    uint64_t bits[3];
    if (end == line + 2 || *end != ' ' || v >= sweep->n_lanes) return false;
    for (size_t k = 0; k < 3; k++)
        if (!read_number(&at, &bits[k])) return false;
    sweep->lanes[v].judged = (struct sweep_judged){ true, double_of(bits[0]), double_of(bits[1]), double_of(bits[2]) };
    return strcmp(at, " ") == 0;
}

/* A line that was found whole by its checksum; false: it is none of ours. */
static bool take_line(struct sweep *sweep, const char *line)
{
    char *end;
    if (line[0] == 'E' && line[1] == ' ') return take_judged(sweep, line);
    if (line[0] != 'T' || line[1] != ' ') return false;
    const unsigned long long i = strtoull(line + 2, &end, 10);
    const char *at = end + 1;
    if (end == line + 2 || *end != ' ' || i >= sweep->n_items) return false;
    struct sweep_item *item = &sweep->items[i];
    if (!read_hex(&at, &item->source_digest, sizeof item->source_digest)) return false;
    for (size_t v = 0; v < sweep->n_lanes; v++)
        if (!read_lane(&at, &sweep->lanes[v], &sweep->lanes[v].cells[i])) return false;
    item->done = strcmp(at, " ") == 0;
    return item->done;
}

/* Of a line, and of the identity of its file. */
static uint64_t checksum(const struct sweep_state *state, const char *line, size_t nbytes)
{
    const uint64_t both[] = { digest64(state->first, strlen(state->first)), digest64(line, nbytes) };
    return digest64(both, sizeof both);
}

/* The checksum stands in the last 16 characters. */
static bool is_sound(const struct sweep_state *state, const char *line, size_t nbytes)
{
    uint64_t stored;
    const char *at = line + nbytes - 16;
    return nbytes > 18 && read_number(&at, &stored) && checksum(state, line, nbytes - 16) == stored;
}

/* Takes lines as long as they are good; returns the bytes they take. */
static uint64_t take_lines(struct sweep *sweep, char *text)
{
    char *at = text + strlen(sweep->state->first);
    for (char *end; (end = strchr(at, '\n')) != NULL; at = end + 1) {
        if (!is_sound(sweep->state, at, (size_t)(end - at))) break;
        end[-16] = '\0';
        if (!take_line(sweep, at)) break;
    }
    return (uint64_t)(at - text);
}

/* ---- the file ------------------------------------------------------------------------------------------------------------------------ */

static enum status append(struct sweep *sweep, struct err *err)
{
    struct sweep_state *state = sweep->state;
    enum status status = text_ok(&state->line, "a line of the state", err);
    for (size_t done = 0; done < state->line.nbytes && !status;) {
        const ssize_t n = sweep->app->io->pwrite(state->fd, state->line.data + done, state->line.nbytes - done, (off_t)(state->nbytes + done));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) status = err_set(err, ERR_IO, "cannot write '%s': %s", sweep->spec->state_path, n < 0 ? strerror(errno) : "nothing was written");
        else done += (size_t)n;
    }
    if (!status) state->nbytes += state->line.nbytes;
    text_reset(&state->line);
    return status;
}

/* The line with its checksum. */
static enum status append_sound(struct sweep *sweep, struct err *err)
{
    struct text *line = &sweep->state->line;
    text_add(line, " ");
    text_add(line, "%016llx\n", (unsigned long long)checksum(sweep->state, line->data, line->nbytes));
    return append(sweep, err);
}

static enum status open_file(struct sweep *sweep, struct err *err)
{
    const struct io_calls *io = sweep->app->io;
    const char *path = sweep->spec->state_path;
    struct stat st;
    sweep->state->fd = io->open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666);
    if (sweep->state->fd < 0) return err_set(err, ERR_IO, "cannot open '%s': %s", path, strerror(errno));
    if (io->fstat(sweep->state->fd, &st) != 0 || !S_ISREG(st.st_mode)) return err_set(err, ERR_UNSUPPORTED, "'%s' is no regular file", path);
    if (io->flock(sweep->state->fd, LOCK_EX | LOCK_NB) != 0) return err_set(err, ERR_EXISTS, "'%s' is in use by another run", path);
    return OK;
}

static size_t count_done(const struct sweep *sweep, size_t *n_wanted)
{
    size_t done = 0;
    *n_wanted = 0;
    for (size_t i = 0; i < sweep->n_items; i++) {
        *n_wanted += sweep->items[i].wanted;
        done += sweep->items[i].done;
    }
    return done;
}

/* What an earlier run has left in the file, if it fits. */
static enum status read_state(struct sweep *sweep, struct err *err)
{
    const char *first = sweep->state->first;
    char *text = NULL;
    size_t nbytes = 0, wanted;
    enum status status = file_slurp(sweep->app->io, sweep->spec->state_path, STATE_NBYTES_MAX, &text, &nbytes, err);
    if (status) return status;
    if (nbytes >= strlen(first) && memcmp(text, first, strlen(first)) == 0) {
        sweep->state->nbytes = take_lines(sweep, text);
        const size_t done = count_done(sweep, &wanted);
        app_note(sweep->app, "going on with '%s': %zu of %zu tensors are finished", sweep->spec->state_path, done, wanted);
    } else if (nbytes && sweep->spec->resume)
        status = err_set(err, ERR_USAGE, "--resume: '%s' is of other options or of another model; without --resume the sweep begins anew",
                         sweep->spec->state_path);
    else if (nbytes) app_note(sweep->app, "'%s' is of other options or of another model; beginning anew", sweep->spec->state_path);
    free(text);
    return status;
}

enum status sweep_state_open(struct sweep *sweep, struct err *err)
{
    char hex[DIGEST128_HEX];
    if (!sweep->spec->state_path) return OK;
    enum status status = identify(sweep, hex, err);
    if (status) return status;
    sweep->state = calloc(1, sizeof *sweep->state);
    if (!sweep->state) return err_set(err, ERR_MEMORY, "out of memory");
    sweep->state->fd = -1;
    snprintf(sweep->state->first, sizeof sweep->state->first, "llmq-sweep 1 %s\n", hex);
    sweep->state->line = text_make(LINE_MAX_NBYTES);
    status = open_file(sweep, err);
    if (!status) status = read_state(sweep, err);
    if (status || sweep->state->nbytes) return status;
    text_add(&sweep->state->line, "%s", sweep->state->first);
    return append(sweep, err);
}

enum status sweep_state_put(struct sweep *sweep, size_t item, struct err *err)
{
    struct sweep_state *state = sweep->state;
    if (!state) return OK;
    text_add(&state->line, "T %zu ", item);
    add_hex(&state->line, &sweep->items[item].source_digest, sizeof sweep->items[item].source_digest);
    for (size_t v = 0; v < sweep->n_lanes; v++) add_lane(&state->line, &sweep->lanes[v], &sweep->lanes[v].cells[item]);
    return append_sound(sweep, err);
}

enum status sweep_state_put_judged(struct sweep *sweep, size_t lane, struct err *err)
{
    const struct sweep_judged *judged = &sweep->lanes[lane].judged;
    if (!sweep->state) return OK;
    text_add(&sweep->state->line, "E %zu %016llx%016llx%016llx", lane, (unsigned long long)bits_of(judged->perplexity),
             (unsigned long long)bits_of(judged->kl), (unsigned long long)bits_of(judged->reference));
    return append_sound(sweep, err);
}

void sweep_state_close(struct sweep *sweep)
{
    if (!sweep->state) return;
    if (sweep->state->fd >= 0) sweep->app->io->close(sweep->state->fd);
    text_free(&sweep->state->line);
    free(sweep->state);
    sweep->state = NULL;
}

void sweep_forget(const struct app *app, const struct sweep_spec *spec)
{
    if (spec->state_path) app->io->unlink(spec->state_path);
}
