/* live.c: see live.h. */
#include "support/live.h"

#include "support/support.h"

void live_open(struct live *live, const char *path)
{
    struct err err;
    assert_ok(container_open(&io_system, path ? path : tests_path("data/tiny-llama"), &live->container, &err));
    assert_ok(arch_open(&io_system, tests_path("../configs/arch"), NULL, live->container, &live->arch, &err));
    assert_ok(arch_model_open(live->arch, live->container, &live->model, &err));
    live->options = (struct forward_options){ .io = &io_system,
                                              .model = live->model,
                                              .source = weight_source_container(live->container),
                                              .gemm = gemm_select(NULL),
                                              .n_workers = 2,
                                              .max_ram = 64u << 20,
                                              .spill_dir = "/tmp" };
}

void live_close(struct live *live)
{
    arch_model_close(live->model);
    arch_close(live->arch);
    container_close(live->container);
}

void live_ids(int32_t *ids, size_t n, size_t vocab)
{
    uint64_t seed = 99;
    for (size_t i = 0; i < n; i++) ids[i] = (int32_t)(test_random(&seed) % vocab);
}
