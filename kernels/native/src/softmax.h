// From scores to probabilities, a group of 128 tokens at a time (Milakov and Gimelshein 2018, arXiv 1805.02867).
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "tile.h"
#include "vector.h"

namespace slipway {

// Panels whose scores are turned into probabilities together.
constexpr int kGroup = 4;
constexpr int kGroupTokens = kGroup * kPanel;
constexpr float kMasked = -std::numeric_limits<float>::infinity();

// An odd rational function, to 3e-7 of the result (coefficients: Eigen 3.4, ptanh); beyond ±7.9 that is 1 in float32.
inline __m512 hyperbolic_tangent(__m512 x) {
    const __m512 end = _mm512_set1_ps(7.90531110763549805f);
    x = _mm512_max_ps(_mm512_sub_ps(_mm512_setzero_ps(), end), _mm512_min_ps(end, x));
    const __m512 square = _mm512_mul_ps(x, x);
    __m512 above = _mm512_set1_ps(-2.76076847742355e-16f), below = _mm512_set1_ps(1.19825839466702e-06f);
    for (float term : {2.00018790482477e-13f, -8.60467152213735e-11f, 5.12229709037114e-08f, 1.48572235717979e-05f,
                       6.37261928875436e-04f, 4.89352455891786e-03f})
        above = _mm512_fmadd_ps(above, square, _mm512_set1_ps(term));
    for (float term : {1.18534705686654e-04f, 2.26843463243900e-03f, 4.89352518554385e-03f})
        below = _mm512_fmadd_ps(below, square, _mm512_set1_ps(term));
    return _mm512_div_ps(_mm512_mul_ps(x, above), below);
}

// What some families change about attention: kernels/attention/cache.py says what each of these does.
struct Variant {
    int64_t window;              // 0: all tokens
    float softcap;               // 0: none
    const float *slopes, *sinks;  // [heads]; null: none

    bool plain() const { return window == 0 && softcap == 0 && !slopes && !sinks; }
    // The first token that a query at `position` sees.
    int64_t first_seen(int64_t position) const {
        return window > 0 && position >= window ? position - window + 1 : 0;
    }
};

// What the scores of one query row meet on their way to probabilities, in one group.
struct Scoring {
    float scale;
    int64_t visible;     // tokens of the group up to the query; not positive if it is before all of them
    int64_t hidden = 0;  // and of these the first ones that are outside its window
    float softcap = 0;
    float slope = 0;

    __mmask16 mask(int64_t token) const {
        const int64_t seen = visible - token;
        return seen > 0 ? lanes(seen) : 0;
    }
    __mmask16 mask_in_window(int64_t token) const {
        const int64_t before = hidden - token;
        return before > 0 ? mask(token) & ~lanes(before) : mask(token);
    }
    // Scores of sixteen tokens from `token` on, capped and with their distance from the query weighed.
    __m512 varied(__m512 scores, int64_t token) const {
        if (softcap != 0) {
            const __m512 inverse = _mm512_set1_ps(1 / softcap);
            scores = _mm512_mul_ps(_mm512_set1_ps(softcap), hyperbolic_tangent(_mm512_mul_ps(scores, inverse)));
        }
        if (slope == 0) return scores;
        const __m512 ahead = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        const __m512 distance = _mm512_add_ps(_mm512_set1_ps(static_cast<float>(token - visible + 1)), ahead);
        return _mm512_fmadd_ps(_mm512_set1_ps(slope), distance, scores);
    }
};

inline void put_probability(float32* to, __m512 low, __m512 high) {
    _mm512_storeu_ps(to, low);
    _mm512_storeu_ps(to + kLanes, high);
}
inline void put_probability(bfloat16* to, __m512 low, __m512 high) {
    _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(high, low));
}

// Turns a row's scores into probabilities relative to its maximum so far, and brings its output to that maximum.
// scores[i] are those of tokens 16i … 16i+15 of the group, for `first` ≤ i < `end`, both even. What is masked may be
// anything.
template <typename Element, bool kPlain>
inline void soften(__m512* scores, int first, int end, const Scoring& scoring, float* maximum, float* sum, float* output,
                   int64_t head_dim, Element* probabilities) {
    const __m512 masked = _mm512_set1_ps(kMasked), factor = _mm512_set1_ps(scoring.scale);
    __m512 most = masked;
    for (int i = first; i < end; ++i) {
        if constexpr (kPlain) {
            scores[i] = _mm512_mask_mul_ps(masked, scoring.mask(i * kLanes), scores[i], factor);
        } else {
            const __m512 varied = scoring.varied(_mm512_mul_ps(scores[i], factor), i * kLanes);
            scores[i] = _mm512_mask_mov_ps(masked, scoring.mask_in_window(i * kLanes), varied);
        }
        most = _mm512_max_ps(most, scores[i]);
    }
    const float largest = _mm512_reduce_max_ps(most);
    if (largest > *maximum) {
        // The first maximum finds an output of zeros.
        const float shrink = *maximum == kMasked ? 0.0f : std::exp(*maximum - largest);
        const __m512 by = _mm512_set1_ps(shrink);
        for_lanes(head_dim, [&](int64_t column, __mmask16 mask) {
            store(output + column, mask, _mm512_mul_ps(load(output + column, mask), by));
        });
        *sum *= shrink;
        *maximum = largest;
    }
    // A group that is wholly before a row's window has no maximum: its probabilities are zero relative to any.
    const __m512 base = _mm512_set1_ps(!kPlain && *maximum == kMasked ? 0.0f : *maximum);
    __m512 total = _mm512_setzero_ps();
    for (int i = first; i < end; i += 2) {
        const __m512 low = exponential(_mm512_sub_ps(scores[i], base));
        const __m512 high = exponential(_mm512_sub_ps(scores[i + 1], base));
        total = _mm512_add_ps(total, _mm512_add_ps(low, high));
        put_probability(probabilities + i * kLanes, low, high);
    }
    *sum += _mm512_reduce_add_ps(total);
}

}  // namespace slipway
