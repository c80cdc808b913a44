/* tokenizer_container.c: the tokenizer that a model brings along, whatever its container.
 *
 *   GGUF file -> its keys     tokenizer.json among the small files -> that     metadata.gguf among them (a container made from GGUF) -> its keys
 *
 * Why this way: calibration and evaluation name a model, not a tokenizer.
 * Corner cases: a lone .safetensors file brings no small files, the sentence says so. A GGUF file without tokenizer.ggml.model has none.
 * Reference: tokenizer.h. Worked number: a folder with tokenizer.json of 6 KB is opened from these bytes alone.
 */
#include <stdlib.h>
#include <string.h>

#include "container/gguf.h"
#include "container/shown.h"
#include "smoothquant/tokenizer.h"

static size_t find_blob(const struct container *container, const char *name)
{
    for (size_t i = 0; i < container->n_blobs; i++)
        if (strcmp(container->blobs[i].name, name) == 0) return i;
    return SIZE_MAX;
}

/* A small file as text with a NUL behind it; out->text NULL when it is not there. The caller frees it. */
static enum status read_file(struct container *container, const char *name, struct tokenizer_file *out, struct err *err)
{
    const size_t index = find_blob(container, name);
    *out = (struct tokenizer_file){ NULL, 0 };
    if (index == SIZE_MAX) return OK;
    const uint64_t nbytes = container->blobs[index].nbytes;
    if (nbytes > TOKENIZER_FILE_MAX) return err_set(err, ERR_UNSUPPORTED, "%s has %llu bytes", name, (unsigned long long)nbytes);
    char *text = malloc((size_t)nbytes + 1);
    if (!text) return err_set(err, ERR_MEMORY, "out of memory for %s", name);
    enum status status = container_read_blob(container, index, 0, (size_t)nbytes, text, err);
    if (status != OK) {
        free(text);
        return status;
    }
    text[nbytes] = '\0';
    *out = (struct tokenizer_file){ text, (size_t)nbytes };
    return OK;
}

static void free_file(struct tokenizer_file *file)
{
    free((void *)(uintptr_t)file->text);
}

static enum status open_folder(struct container *container, struct tokenizer **out, struct err *err)
{
    struct tokenizer_files files = { 0 };
    enum status status = read_file(container, "tokenizer.json", &files.tokenizer, err);
    if (status == OK) status = read_file(container, "tokenizer_config.json", &files.tokenizer_config, err);
    if (status == OK) status = read_file(container, "config.json", &files.config, err);
    if (status == OK) status = tokenizer_open_json(&files, out, err);
    free_file(&files.tokenizer);
    free_file(&files.tokenizer_config);
    free_file(&files.config);
    return status;
}

static enum status read_container_file(void *context, void *buf, size_t nbytes, uint64_t offset, struct err *err)
{
    return file_read(context, buf, nbytes, offset, err);
}

static enum status open_gguf(struct container *container, struct tokenizer **out, struct err *err)
{
    struct gguf_source source = { .read = read_container_file, .context = &container->files[0], .nbytes = container->files[0].nbytes };
    return tokenizer_open_gguf(gguf_header_of(container, 0), &source, out, err);
}

static enum status open_metadata(struct container *container, struct tokenizer **out, struct err *err)
{
    struct tokenizer_file file;
    struct gguf_header header = { 0 };
    enum status status = read_file(container, GGUF_BLOB_NAME, &file, err);
    if (status != OK) return status;
    struct gguf_source source = { .read = gguf_read_memory, .context = (void *)(uintptr_t)file.text, .nbytes = file.nbytes };
    status = gguf_header_parse(&source, &header, err);
    if (status == OK) status = tokenizer_open_gguf(&header, &source, out, err);
    gguf_header_free(&header);
    free_file(&file);
    return status == OK ? OK : err_wrap(err, status, GGUF_BLOB_NAME);
}

enum status tokenizer_of_container(struct container *container, struct tokenizer **out, struct err *err)
{
    enum status status;
    *out = NULL;
    if (gguf_is(container)) status = open_gguf(container, out, err);
    else if (find_blob(container, "tokenizer.json") != SIZE_MAX) status = open_folder(container, out, err);
    else if (find_blob(container, GGUF_BLOB_NAME) != SIZE_MAX) status = open_metadata(container, out, err);
    else
        return err_set(err, ERR_UNSUPPORTED, "'%s' has no tokenizer: there is no tokenizer.json with it%s; give token ids instead (--tokens)",
                       shown_path(container->path).text, container->n_blobs ? "" : " (a lone file of weights brings none, name its folder)");
    return status == OK ? OK : err_wrap(err, status, "cannot use the tokenizer of '%s'", shown_path(container->path).text);
}
