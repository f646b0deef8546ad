// Operations on rows of activations, computed in float32 and rounded once.
#include <algorithm>
#include <cmath>

#include "pool.h"
#include "replay.h"
#include "vector.h"

namespace slipway {
namespace {

template <typename Function>
void for_rows(int64_t rows, int64_t width, const Function& function) {
    parallel_for(rows, std::max<int64_t>(1, kElementsPerPiece / width), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) function(row);
    });
}

template <typename Element>
void rms_norm(const Element* x, const Element* weight, int64_t rows, int64_t width, float epsilon, Element* out) {
    for_rows(rows, width, [&](int64_t row) {
        const Element* from = x + row * width;
        __m512 squares = _mm512_setzero_ps();
        for_lanes(width, [&](int64_t i, __mmask16 mask) {
            const __m512 value = load(from + i, mask);
            squares = _mm512_fmadd_ps(value, value, squares);
        });
        const float mean = _mm512_reduce_add_ps(squares) / static_cast<float>(width);
        const __m512 factor = _mm512_set1_ps(1 / std::sqrt(mean + epsilon));
        for_lanes(width, [&](int64_t i, __mmask16 mask) {
            const __m512 normalised = _mm512_mul_ps(load(from + i, mask), factor);
            store(out + row * width + i, mask, _mm512_mul_ps(normalised, load(weight + i, mask)));
        });
    });
}

template <typename Element>
void silu_and_mul(const Element* gate_up, int64_t rows, int64_t width, Element* out) {
    for_rows(rows, width, [&](int64_t row) {
        const Element *gate = gate_up + row * 2 * width, *up = gate + width;
        for_lanes(width, [&](int64_t i, __mmask16 mask) {
            store(out + row * width + i, mask, _mm512_mul_ps(silu(load(gate + i, mask)), load(up + i, mask)));
        });
    });
}

}  // namespace
}  // namespace slipway

using namespace slipway;

extern "C" {

void slipway_rms_norm_f32(const float32* x, const float32* weight, int64_t rows, int64_t width, float epsilon,
                          float32* out) {
    rms_norm(x, weight, rows, width, epsilon, out);
}
void slipway_rms_norm_bf16(const bfloat16* x, const bfloat16* weight, int64_t rows, int64_t width, float epsilon,
                           bfloat16* out) {
    rms_norm(x, weight, rows, width, epsilon, out);
}
void slipway_silu_and_mul_f32(const float32* gate_up, int64_t rows, int64_t width, float32* out) {
    silu_and_mul(gate_up, rows, width, out);
}
void slipway_silu_and_mul_bf16(const bfloat16* gate_up, int64_t rows, int64_t width, bfloat16* out) {
    silu_and_mul(gate_up, rows, width, out);
}
}

SLIPWAY_RECORDABLE(slipway_rms_norm_f32);
SLIPWAY_RECORDABLE(slipway_rms_norm_bf16);
SLIPWAY_RECORDABLE(slipway_silu_and_mul_f32);
SLIPWAY_RECORDABLE(slipway_silu_and_mul_bf16);
