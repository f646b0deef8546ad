// The register tile that linear layers and attention share: up to 12 rows times a panel of 32 columns.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "vector.h"

namespace slipway {

constexpr int kPanel = 32;
constexpr int kMaxRows = 12;

struct Float32 {
    using Element = float32;
    using Sum = __m512;
    static constexpr int kPerWord = 1;
    static Sum zero() { return _mm512_setzero_ps(); }
    static Sum add(Sum sum, __m512i x, __m512i w) {
        return _mm512_fmadd_ps(_mm512_castsi512_ps(x), _mm512_castsi512_ps(w), sum);
    }
};

struct BFloat16 {
    using Element = bfloat16;
    using Sum = __m512;
    static constexpr int kPerWord = 2;
    static Sum zero() { return _mm512_setzero_ps(); }
    static Sum add(Sum sum, __m512i x, __m512i w) { return _mm512_dpbf16_ps(sum, (__m512bh)x, (__m512bh)w); }
};

struct Int8 {
    using Element = uint8_t;
    using Sum = __m512i;
    static constexpr int kPerWord = 4;
    static Sum zero() { return _mm512_setzero_si512(); }
    static Sum add(Sum sum, __m512i x, __m512i w) { return _mm512_dpbusd_epi32(sum, x, w); }
};

// sums[r][h] = rows r of x times columns 16h … 16h+15 of a panel. On the way the panel that follows is fetched from
// memory into the second-level cache, `ahead_step` bytes per word.
template <typename Kind, int kRows>
inline void multiply_tile(const uint32_t* x, int64_t stride, const uint32_t* panel, int64_t words, const char* ahead,
                          int64_t ahead_step, typename Kind::Sum (&sums)[kMaxRows][2]) {
    typename Kind::Sum local[kRows][2];
#pragma GCC unroll 12
    for (int row = 0; row < kRows; ++row) local[row][0] = local[row][1] = Kind::zero();
    for (int64_t word = 0; word < words; ++word) {
        const __m512i low = _mm512_loadu_si512(panel);
        const __m512i high = _mm512_loadu_si512(panel + kLanes);
        panel += kPanel;
        _mm_prefetch(ahead, _MM_HINT_T1);
        _mm_prefetch(ahead + 64, _MM_HINT_T1);
        ahead += ahead_step;
#pragma GCC unroll 12
        for (int row = 0; row < kRows; ++row) {
            const __m512i value = _mm512_set1_epi32(static_cast<int>(x[row * stride + word]));
            local[row][0] = Kind::add(local[row][0], value, low);
            local[row][1] = Kind::add(local[row][1], value, high);
        }
    }
#pragma GCC unroll 12
    for (int row = 0; row < kRows; ++row) {
        sums[row][0] = local[row][0];
        sums[row][1] = local[row][1];
    }
}

// The same for a few rows and two panels: an instruction's result is ready after several more have begun, so that a
// dozen sums or more must grow side by side.
constexpr int kFewRows = 6;

template <typename Kind, int kRows>
inline void multiply_pair(const uint32_t* x, int64_t stride, const uint32_t* first, const uint32_t* second,
                          int64_t words, const char* ahead_first, const char* ahead_second, int64_t ahead_step,
                          typename Kind::Sum (&sums)[kFewRows][4]) {
    typename Kind::Sum local[kRows][4];
#pragma GCC unroll 6
    for (int row = 0; row < kRows; ++row)
        local[row][0] = local[row][1] = local[row][2] = local[row][3] = Kind::zero();
    for (int64_t word = 0; word < words; ++word, first += kPanel, second += kPanel) {
        const __m512i columns[4] = {_mm512_loadu_si512(first), _mm512_loadu_si512(first + kLanes),
                                    _mm512_loadu_si512(second), _mm512_loadu_si512(second + kLanes)};
        _mm_prefetch(ahead_first, _MM_HINT_T1);
        _mm_prefetch(ahead_first + 64, _MM_HINT_T1);
        _mm_prefetch(ahead_second, _MM_HINT_T1);
        _mm_prefetch(ahead_second + 64, _MM_HINT_T1);
        ahead_first += ahead_step;
        ahead_second += ahead_step;
#pragma GCC unroll 6
        for (int row = 0; row < kRows; ++row) {
            const __m512i value = _mm512_set1_epi32(static_cast<int>(x[row * stride + word]));
#pragma GCC unroll 4
            for (int vector = 0; vector < 4; ++vector)
                local[row][vector] = Kind::add(local[row][vector], value, columns[vector]);
        }
    }
#pragma GCC unroll 6
    for (int row = 0; row < kRows; ++row)
        for (int vector = 0; vector < 4; ++vector) sums[row][vector] = local[row][vector];
}

template <typename Kind>
using Tile = void (*)(const uint32_t*, int64_t, const uint32_t*, int64_t, const char*, int64_t,
                      typename Kind::Sum (&)[kMaxRows][2]);

template <typename Kind>
constexpr Tile<Kind> kTiles[kMaxRows] = {
    multiply_tile<Kind, 1>, multiply_tile<Kind, 2>, multiply_tile<Kind, 3>,  multiply_tile<Kind, 4>,
    multiply_tile<Kind, 5>, multiply_tile<Kind, 6>, multiply_tile<Kind, 7>,  multiply_tile<Kind, 8>,
    multiply_tile<Kind, 9>, multiply_tile<Kind, 10>, multiply_tile<Kind, 11>, multiply_tile<Kind, 12>,
};

template <typename Kind>
using PairTile = void (*)(const uint32_t*, int64_t, const uint32_t*, const uint32_t*, int64_t, const char*, const char*,
                          int64_t, typename Kind::Sum (&)[kFewRows][4]);

template <typename Kind>
constexpr PairTile<Kind> kPairTiles[kFewRows] = {
    multiply_pair<Kind, 1>, multiply_pair<Kind, 2>, multiply_pair<Kind, 3>,
    multiply_pair<Kind, 4>, multiply_pair<Kind, 5>, multiply_pair<Kind, 6>,
};

}  // namespace slipway
