/* tokenize.c: prints the ids of texts, for the tests against other tokenizers: tokenize MODEL TEXTS.json
 *
 * Formula: MODEL is a folder with tokenizer.json (and tokenizer_config.json, config.json) or a GGUF file; TEXTS.json an array of strings. A line for each:
 * its ids divided by blanks, with what the model wants in front, or "error: " and the sentence. First a line with the error of opening, or "ok".
 * Why this way: the program has no command that only tokenises, and the tests need thousands of texts in one run.
 * Corner cases: what cannot be read ends with exit code 1.
 * Reference: tokenizer.h.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "smoothquant/tokenizer.h"

static void read_or_leave(const char *folder, const char *name, struct tokenizer_file *file)
{
    struct err err;
    char *path = path_join(folder, name), *text = NULL;
    if (path && path_exists(path) && file_slurp(&io_system, path, TOKENIZER_FILE_MAX, &text, &file->nbytes, &err) == OK) file->text = text;
    free(path);
}

static enum status open_model(const char *path, struct tokenizer **tokenizer, struct err *err)
{
    struct tokenizer_files files = { 0 };
    struct container *container = NULL;
    if (!path_is_dir(path)) {
        enum status status = container_open(&io_system, path, &container, err);
        if (status == OK) status = tokenizer_of_container(container, tokenizer, err);
        container_close(container);
        return status;
    }
    read_or_leave(path, "tokenizer.json", &files.tokenizer);
    read_or_leave(path, "tokenizer_config.json", &files.tokenizer_config);
    read_or_leave(path, "config.json", &files.config);
    enum status status = tokenizer_open_json(&files, tokenizer, err);
    free((void *)(uintptr_t)files.tokenizer.text);
    free((void *)(uintptr_t)files.tokenizer_config.text);
    free((void *)(uintptr_t)files.config.text);
    return status;
}

static void print_ids(const struct tokenizer *tokenizer, const char *text)
{
    struct err err;
    int32_t *ids = NULL;
    size_t n_ids = 0;
    if (tokenizer_encode(tokenizer, text, strlen(text), true, &ids, &n_ids, &err) != OK) printf("error: %s", err.text);
    for (size_t i = 0; i < n_ids; i++) printf(i ? " %d" : "%d", (int)ids[i]);
    printf("\n");
    free(ids);
}

int main(int argc, char **argv)
{
    static const struct json_limits limits = { .max_depth = 8, .max_values = 1u << 24 };
    struct tokenizer *tokenizer = NULL;
    struct err err;
    char *text = NULL;
    size_t n = 0;
    cJSON *texts = NULL;
    const cJSON *item;
    if (argc != 3 || file_slurp(&io_system, argv[2], TOKENIZER_FILE_MAX, &text, &n, &err) != OK || json_parse(text, n, &limits, &texts, &err) != OK)
        return 1;
    const enum status status = open_model(argv[1], &tokenizer, &err);
    printf("%s\n", status == OK ? "ok" : err.text);
    if (status == OK) cJSON_ArrayForEach(item, texts) print_ids(tokenizer, item->valuestring ? item->valuestring : "");
    tokenizer_close(tokenizer);
    cJSON_Delete(texts);
    free(text);
    return 0;
}
