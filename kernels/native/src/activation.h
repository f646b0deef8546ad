// Activations on sixteen lanes of float32, by the numbers that kernels/activation/native.py gives them.
#pragma once

#include "vector.h"

namespace slipway {

inline __m512 sigmoid(__m512 x) {
    // e^89 is infinite already; what lies far beyond would leave the exponential's series as NaN.
    const __m512 power = exponential(_mm512_min_ps(_mm512_set1_ps(89), _mm512_sub_ps(_mm512_setzero_ps(), x)));
    return _mm512_div_ps(_mm512_set1_ps(1), _mm512_add_ps(_mm512_set1_ps(1), power));
}

// A gate says which share of x passes it.
struct Silu {
    static __m512 share(__m512 x) { return sigmoid(x); }
};

struct GeluTanh {
    // (1 + tanh u) / 2 is sigmoid(2 u).
    static __m512 share(__m512 x) {
        const __m512 square = _mm512_mul_ps(x, x), factor = _mm512_set1_ps(1.5957691216057308f * 0.044715f);
        return sigmoid(_mm512_mul_ps(x, _mm512_fmadd_ps(square, factor, _mm512_set1_ps(1.5957691216057308f))));
    }
};

struct Gelu {
    // Half of erfc(z) with z = |x| / sqrt 2 is what the tail beyond |x| holds. It is t · p(t) · exp(-z²) / 2 with
    // t = 1 / (1 + z / 2); p was fitted for the least relative error, 4e-8, so that the tail is as exact as the rest.
    static __m512 share(__m512 x) {
        const __m512 size = _mm512_abs_ps(x), one = _mm512_set1_ps(1);
        const __m512 t = _mm512_div_ps(one, _mm512_fmadd_ps(size, _mm512_set1_ps(0.35355339059327379f), one));
        __m512 fit = _mm512_set1_ps(-0.05889161f);
        for (float term : {0.28370595f, -0.48539168f, 0.2759869f, -0.02518343f, 0.20207214f, 0.24326046f, 0.28235355f,
                           0.28208768f})
            fit = _mm512_fmadd_ps(fit, t, _mm512_set1_ps(term));
        const __m512 bell = exponential(_mm512_mul_ps(_mm512_mul_ps(size, _mm512_set1_ps(-0.5f)), size));
        const __m512 tail = _mm512_mul_ps(_mm512_mul_ps(_mm512_mul_ps(t, fit), bell), _mm512_set1_ps(0.5f));
        return _mm512_mask_sub_ps(tail, _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GT_OQ), one, tail);
    }
};

struct Relu {
    static __m512 share(__m512 x) {
        return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_NLE_UQ), _mm512_set1_ps(1));
    }
};

template <typename Gate>
inline __m512 passed(__m512 x) {
    return _mm512_mul_ps(x, Gate::share(x));
}

// Calls function(gate) with the gate of this number.
template <typename Function>
inline void with_gate(int64_t kind, const Function& function) {
    if (kind == 0) function(Silu{});
    if (kind == 1) function(Gelu{});
    if (kind == 2) function(GeluTanh{});
    if (kind == 3) function(Relu{});
}

// expm1(x) - x for x up to 0. Near zero by its series: the difference would lose it to rounding.
inline __m512 exponential_excess(__m512 x) {
    __m512 series = _mm512_set1_ps(1.0f / 40320);
    for (float term : {1.0f / 5040, 1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f})
        series = _mm512_fmadd_ps(series, x, _mm512_set1_ps(term));
    series = _mm512_mul_ps(_mm512_mul_ps(x, x), series);
    const __m512 direct = _mm512_sub_ps(_mm512_sub_ps(exponential(x), _mm512_set1_ps(1)), x);
    return _mm512_mask_mov_ps(direct, _mm512_cmp_ps_mask(x, _mm512_set1_ps(-0.5f), _CMP_GT_OQ), series);
}

}  // namespace slipway
