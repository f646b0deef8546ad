// Activations of the feed-forward block, computed in float32 and rounded once.
#include "activation.h"
#include "pool.h"
#include "replay.h"
#include "rows.h"
#include "vector.h"

namespace slipway {
namespace {

constexpr int64_t kRelu = 3, kReluSquared = 4;

// Of two operands one of which is NaN, the instruction takes the second.
__m512 positive(__m512 x) { return _mm512_max_ps(_mm512_setzero_ps(), x); }

template <typename Element>
void activate(const Element* x, int64_t count, int64_t kind, Element* out) {
    if (kind == kReluSquared) {
        map(x, count, out, [](__m512 value) { return _mm512_mul_ps(positive(value), positive(value)); });
    } else if (kind == kRelu) {
        map(x, count, out, positive);
    } else {
        with_gate(kind, [&](auto gate) { map(x, count, out, passed<decltype(gate)>); });
    }
}

template <typename Element>
void gate(const Element* gate_up, int64_t rows, int64_t width, int64_t kind, Element* out) {
    with_gate(kind, [&](auto gate) {
        for_rows(rows, width, [&](int64_t row) {
            const Element *from = gate_up + row * 2 * width, *up = from + width;
            for_lanes(width, [&](int64_t i, __mmask16 mask) {
                const __m512 through = passed<decltype(gate)>(load(from + i, mask));
                store(out + row * width + i, mask, _mm512_mul_ps(through, load(up + i, mask)));
            });
        });
    });
}

template <typename Element>
void xielu(const Element* x, int64_t count, float alpha_p, float alpha_n, float beta, float epsilon, Element* out) {
    const __m512 above = _mm512_set1_ps(alpha_p), below = _mm512_set1_ps(alpha_n), slope = _mm512_set1_ps(beta);
    map(x, count, out, [&](__m512 value) {
        const __m512 low = _mm512_min_ps(_mm512_set1_ps(epsilon), value);
        const __m512 excess = _mm512_add_ps(exponential_excess(low), _mm512_sub_ps(low, value));
        const __m512 square = _mm512_mul_ps(_mm512_mul_ps(above, value), value);
        const __mmask16 is_positive = _mm512_cmp_ps_mask(value, _mm512_setzero_ps(), _CMP_GT_OQ);
        const __m512 curve = _mm512_mask_mov_ps(_mm512_mul_ps(below, excess), is_positive, square);
        return _mm512_fmadd_ps(slope, value, curve);
    });
}

}  // namespace
}  // namespace slipway

using namespace slipway;

extern "C" {

#define SLIPWAY_ACTIVATIONS(suffix, Element)                                                                          \
    void slipway_activate_##suffix(const Element* x, int64_t count, int64_t kind, Element* out) {                     \
        activate(x, count, kind, out);                                                                                \
    }                                                                                                                 \
    void slipway_gate_##suffix(const Element* gate_up, int64_t rows, int64_t width, int64_t kind, Element* out) {     \
        gate(gate_up, rows, width, kind, out);                                                                        \
    }                                                                                                                 \
    void slipway_xielu_##suffix(const Element* x, int64_t count, float alpha_p, float alpha_n, float beta,            \
                                float epsilon, Element* out) {                                                        \
        xielu(x, count, alpha_p, alpha_n, beta, epsilon, out);                                                        \
    }

SLIPWAY_ACTIVATIONS(f32, float32)
SLIPWAY_ACTIVATIONS(bf16, bfloat16)
}

SLIPWAY_RECORDABLE(slipway_activate_f32);
SLIPWAY_RECORDABLE(slipway_activate_bf16);
SLIPWAY_RECORDABLE(slipway_gate_f32);
SLIPWAY_RECORDABLE(slipway_gate_bf16);
SLIPWAY_RECORDABLE(slipway_xielu_f32);
SLIPWAY_RECORDABLE(slipway_xielu_bf16);
