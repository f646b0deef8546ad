// Rows of one byte per value, in units of a row's own scale, so that each row of a product has two factors:
// x ≈ scale · (q − 128). q is unsigned because that is what the instruction multiplies with signed weights; the 128 is
// taken out of the sum.
#pragma once

#include "product.h"
#include "vector.h"

namespace slipway {

constexpr int kZeroPoint = 128;
constexpr float kLargest = 127.0f;

template <typename In>
inline float quantize_row(const In* x, int64_t depth, uint8_t* out) {
    __m512 most = _mm512_setzero_ps();
    for_lanes(depth, [&](int64_t k, __mmask16 mask) {
        most = _mm512_max_ps(most, _mm512_abs_ps(load(x + k, mask)));
    });
    const float scale = _mm512_reduce_max_ps(most) / kLargest;
    const __m512 inverse = _mm512_set1_ps(scale > 0 ? 1 / scale : 0);
    const __m512i zero = _mm512_set1_epi32(kZeroPoint);
    for_lanes(depth, [&](int64_t k, __mmask16 mask) {
        const __m512i rounded = _mm512_cvtps_epi32(_mm512_mul_ps(load(x + k, mask), inverse));
        _mm512_mask_cvtusepi32_storeu_epi8(out + k, mask, _mm512_add_epi32(rounded, zero));
    });
    return scale;
}

// A packed int8 weight: its panels, then per column a scale and 128 times the sum of its values.
struct Int8Weight {
    int8_t* panels;
    float* scales;
    int32_t* offsets;

    Int8Weight(void* memory, int64_t depth, int64_t columns) {
        const int64_t padded = panels_of(columns) * kPanel;
        panels = static_cast<int8_t*>(memory);
        scales = reinterpret_cast<float*>(panels + padded * depth);
        offsets = reinterpret_cast<int32_t*>(scales + padded);
    }

    static int64_t bytes(int64_t depth, int64_t columns) { return panels_of(columns) * kPanel * (depth + 8); }

    // What the sums of sixteen columns are worth for a row of x of this scale.
    __m512 value(__m512i sums, int64_t column, float row_scale) const {
        const __m512i offset = _mm512_loadu_si512(offsets + column);
        const __m512 factor = _mm512_mul_ps(_mm512_loadu_ps(scales + column), _mm512_set1_ps(row_scale));
        return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(sums, offset)), factor);
    }
};

}  // namespace slipway
