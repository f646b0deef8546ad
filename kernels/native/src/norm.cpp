// Normalisation of rows, computed in float32 and rounded once.
//
// With a residual, `x` is added to it first, where it lies, and what is normalised is the sum as it was rounded there.
#include <cmath>

#include "replay.h"
#include "rows.h"
#include "vector.h"

namespace slipway {
namespace {

// Adds a row to its residual; calls function(value) for every sixteen values of the sum, or of x if there is none.
// Returns where that row now is.
template <typename Element, typename Function>
const Element* read_row(const Element* x, Element* residual, int64_t width, const Function& function) {
    for_lanes(width, [&](int64_t i, __mmask16 mask) {
        __m512 value = load(x + i, mask);
        if (residual) {
            store(residual + i, mask, _mm512_add_ps(load(residual + i, mask), value));
            value = load(residual + i, mask);
        }
        function(value);
    });
    return residual ? residual : x;
}

template <typename Element, typename Weight>
void rms_norm(const Element* x, Element* residual, const Weight* weight, int64_t rows, int64_t width, float epsilon,
              Element* out) {
    for_rows(rows, width, [&](int64_t row) {
        __m512 squares = _mm512_setzero_ps();
        const Element* from = read_row(x + row * width, residual ? residual + row * width : nullptr, width,
                                       [&](__m512 value) { squares = _mm512_fmadd_ps(value, value, squares); });
        const float mean = _mm512_reduce_add_ps(squares) / static_cast<float>(width);
        const __m512 factor = _mm512_set1_ps(1 / std::sqrt(mean + epsilon));
        for_lanes(width, [&](int64_t i, __mmask16 mask) {
            const __m512 normalised = _mm512_mul_ps(load(from + i, mask), factor);
            store(out + row * width + i, mask, _mm512_mul_ps(normalised, load(weight + i, mask)));
        });
    });
}

template <typename Element, typename Weight>
void layer_norm(const Element* x, Element* residual, const Weight* weight, const Weight* bias, int64_t rows,
                int64_t width, float epsilon, Element* out) {
    for_rows(rows, width, [&](int64_t row) {
        __m512 sum = _mm512_setzero_ps();
        const Element* from = read_row(x + row * width, residual ? residual + row * width : nullptr, width,
                                       [&](__m512 value) { sum = _mm512_add_ps(sum, value); });
        const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / static_cast<float>(width));
        // From the centred values: the difference of two sums would lose the variance of a row far from zero.
        __m512 squares = _mm512_setzero_ps();
        for_lanes(width, [&](int64_t i, __mmask16 mask) {
            const __m512 centred = _mm512_maskz_sub_ps(mask, load(from + i, mask), mean);
            squares = _mm512_fmadd_ps(centred, centred, squares);
        });
        const float variance = _mm512_reduce_add_ps(squares) / static_cast<float>(width);
        const __m512 factor = _mm512_set1_ps(1 / std::sqrt(variance + epsilon));
        for_lanes(width, [&](int64_t i, __mmask16 mask) {
            const __m512 centred = _mm512_sub_ps(load(from + i, mask), mean);
            __m512 value = _mm512_mul_ps(_mm512_mul_ps(centred, factor), load(weight + i, mask));
            if (bias) value = _mm512_add_ps(value, load(bias + i, mask));
            store(out + row * width + i, mask, value);
        });
    });
}

}  // namespace
}  // namespace slipway

using namespace slipway;

extern "C" {

// The residual and the bias may be null.
#define SLIPWAY_NORMS(suffix, Element, Weight)                                                                        \
    void slipway_rms_norm_##suffix(const Element* x, Element* residual, const Weight* weight, int64_t rows,           \
                                   int64_t width, float epsilon, Element* out) {                                      \
        rms_norm(x, residual, weight, rows, width, epsilon, out);                                                     \
    }                                                                                                                 \
    void slipway_layer_norm_##suffix(const Element* x, Element* residual, const Weight* weight, const Weight* bias,   \
                                     int64_t rows, int64_t width, float epsilon, Element* out) {                      \
        layer_norm(x, residual, weight, bias, rows, width, epsilon, out);                                             \
    }

SLIPWAY_NORMS(f32, float32, float32)
SLIPWAY_NORMS(bf16, bfloat16, bfloat16)
SLIPWAY_NORMS(bf16_f32, bfloat16, float32)
}

SLIPWAY_RECORDABLE(slipway_rms_norm_f32);
SLIPWAY_RECORDABLE(slipway_rms_norm_bf16);
SLIPWAY_RECORDABLE(slipway_rms_norm_bf16_f32);
SLIPWAY_RECORDABLE(slipway_layer_norm_f32);
SLIPWAY_RECORDABLE(slipway_layer_norm_bf16);
SLIPWAY_RECORDABLE(slipway_layer_norm_bf16_f32);
