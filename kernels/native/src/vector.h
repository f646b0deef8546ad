// Sixteen-lane helpers over AVX-512: loads and stores of the element types that activations have.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <initializer_list>

namespace slipway {

using float32 = float;
struct bfloat16 {
    uint16_t bits;
};

constexpr int kLanes = 16;
// Elements that are worth handing to another thread: about ten microseconds of simple work.
constexpr int64_t kElementsPerPiece = 16'384;

inline __mmask16 lanes(int64_t count) {
    return count >= kLanes ? static_cast<__mmask16>(0xffff) : static_cast<__mmask16>((1u << count) - 1);
}

inline __m512 load(const float32* from, __mmask16 mask) { return _mm512_maskz_loadu_ps(mask, from); }
inline __m512 load(const bfloat16* from, __mmask16 mask) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from)), 16));
}

inline void store(float32* to, __mmask16 mask, __m512 value) { _mm512_mask_storeu_ps(to, mask, value); }
inline void store(bfloat16* to, __mmask16 mask, __m512 value) {
    _mm256_mask_storeu_epi16(to, mask, (__m256i)_mm512_cvtneps_pbh(value));
}

// e to the power of x, to about one unit in the last place; 0 below -104, where float32 has nothing left.
inline __m512 exponential(__m512 x) {
    const __m512 whole = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504088896341f)),
                                              _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    // x - whole * ln 2, in two parts, of which the first is exact.
    __m512 rest = _mm512_fnmadd_ps(whole, _mm512_set1_ps(0.693359375f), x);
    rest = _mm512_fnmadd_ps(whole, _mm512_set1_ps(-2.12194440e-4f), rest);
    __m512 sum = _mm512_set1_ps(1.0f / 5040);
    for (float term : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f})
        sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(term));
    // Minus infinity has no rest: its result is masked out. NaN stays NaN.
    return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(x, _mm512_set1_ps(-104.0f), _CMP_NLE_UQ), sum, whole);
}

// Calls function(offset, mask) for every sixteen of `count` elements; the mask is short in the last call.
template <typename Function>
inline void for_lanes(int64_t count, const Function& function) {
    int64_t offset = 0;
    for (; offset + kLanes <= count; offset += kLanes) function(offset, static_cast<__mmask16>(0xffff));
    if (offset < count) function(offset, lanes(count - offset));
}

}  // namespace slipway
