// Sums on the residual stream, and clipping, computed in float32 and rounded once.
#include "activation.h"
#include "replay.h"
#include "rows.h"
#include "vector.h"

namespace slipway {
namespace {

template <typename Element>
void add(const Element* x, const Element* residual, const Element* gate, int64_t rows, int64_t width, Element* out) {
    for_rows(rows, width, [&](int64_t row) {
        const __m512 share = gate ? sigmoid(_mm512_set1_ps(_mm512_cvtss_f32(load(gate + row, 1)))) : _mm512_set1_ps(1);
        for_lanes(width, [&](int64_t i, __mmask16 mask) {
            const int64_t at = row * width + i;
            const __m512 term = _mm512_mul_ps(share, load(x + at, mask));
            store(out + at, mask, residual ? _mm512_add_ps(load(residual + at, mask), term) : term);
        });
    });
}

// Of two operands one of which is NaN, the instructions take the second.
template <typename Element>
void clip(Element* x, int64_t count, float limit) {
    const __m512 most = _mm512_set1_ps(limit), least = _mm512_set1_ps(-limit);
    map(x, count, x, [&](__m512 value) { return _mm512_min_ps(most, _mm512_max_ps(least, value)); });
}

}  // namespace
}  // namespace slipway

using namespace slipway;

extern "C" {

// The residual and the gate may be null.
#define SLIPWAY_ELEMENTWISE(suffix, Element)                                                                          \
    void slipway_add_##suffix(const Element* x, const Element* residual, const Element* gate, int64_t rows,           \
                              int64_t width, Element* out) {                                                          \
        add(x, residual, gate, rows, width, out);                                                                     \
    }                                                                                                                 \
    void slipway_clip_##suffix(Element* x, int64_t count, float limit) { clip(x, count, limit); }

SLIPWAY_ELEMENTWISE(f32, float32)
SLIPWAY_ELEMENTWISE(bf16, bfloat16)
}

SLIPWAY_RECORDABLE(slipway_add_f32);
SLIPWAY_RECORDABLE(slipway_add_bf16);
SLIPWAY_RECORDABLE(slipway_clip_f32);
SLIPWAY_RECORDABLE(slipway_clip_bf16);
