/* draw.c: see draw.h.
 *
 * Why this way: see draw.h.
 * Corner cases: see draw.h.
 * Reference: see draw.h. Worked number: draw(state, 1) is 0.
 */
#include "support/draw.h"

#include <math.h>

#include "number/elem.h"
#include "number/half.h"
#include "support/support.h"

uint32_t draw(uint64_t *state, uint32_t below)
{
    return (uint32_t)((test_random(state) >> 33) % below);
}

float draw_normal(uint64_t *state)
{
    int32_t sum = 0;
    for (int i = 0; i < 12; i++) sum += (int32_t)draw(state, 65536);
    return (float)(sum - 6 * 65535) * 0x1p-16f;
}

float draw_shape(size_t shape, size_t i, float level, float normal, uint64_t *state)
{
    switch (shape) {
    case 0:
        return normal * 0.02f;
    case 1:
        return bf16_to_f32(f32_to_bf16(normal * 0.02f));
    case 2:
        return normal * (draw(state, 64) == 0 ? 1.0f : 0.02f);
    case 3:
        return draw(state, 10) == 0 ? normal : draw(state, 2) ? -0.0f : 0.0f;
    case 4:
        return level;
    case 5:
        return (float)((int32_t)draw(state, 17) - 8) * 0.125f;
    case 6:
        return i % 32 == (size_t)(fabsf(level) * 8.0f) % 32 ? level : 0.0f;
    default:
        return normal * exact_exp2((int32_t)(fabsf(level) * 16.0f) % 32 - 16);
    }
}

void draw_row(draw_value_of *value, size_t shape, size_t n, uint64_t *state, float *x)
{
    float level = 0.0f;
    for (size_t i = 0; i < n; i++) {
        if (i % 16 == 0 && (i % 32 == 0 || shape == DRAW_SCALES)) level = draw_normal(state);
        x[i] = value(shape, i, level, state);
    }
}
