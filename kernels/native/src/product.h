// Products of rows with a large weight matrix: out[m, n] = sum over k of x[m, k] * weight[n, k].
//
// A weight is repacked once into panels of 32 output columns. Within a panel, one step of k is one 32-bit word of x
// (one float, two bfloat16 or four bytes) against the same word of 32 columns, 128 bytes that lie together:
//
//     panel p = columns 32p … 32p+31        step s = 1, 2 or 4 values of k
//     [p][s][column][value]                 16 columns fill one register
//
// A tile of up to 12 rows times one panel is summed in 24 registers, over all of k, in order. The sum of an output
// therefore never depends on how many other rows there are, nor on the number of threads: results are the same in any
// batch, bit by bit.
#pragma once

#include "activation.h"
#include "tile.h"
#include "vector.h"

namespace slipway {

// Rows of x that are worked on together: their words stay in the second-level cache while panels pass.
constexpr int kRowBlock = 192;

inline int64_t panels_of(int64_t columns) { return (columns + kPanel - 1) / kPanel; }

// Multiplies up to kRowBlock rows with one panel, and fetches the panel that is next meanwhile. Calls finish(row, height,
// sums) for every tile of rows.
template <typename Kind, typename Finish>
inline void multiply_panel(const uint32_t* left, int64_t rows, int64_t words, const uint32_t* panel,
                           const uint32_t* next, const Finish& finish) {
    typename Kind::Sum sums[kMaxRows][2];
    // Tiles of nearly equal height: 64 rows as 11 + 11 + 11 + 11 + 10 + 10, not as five times 12 and a slow 4.
    const int64_t tiles = (rows + kMaxRows - 1) / kMaxRows;
    for (int64_t tile = 0; tile < tiles; ++tile) {
        const int64_t row = rows * tile / tiles, height = rows * (tile + 1) / tiles - row;
        const int64_t ahead = words * kPanel * 4 * tile / tiles;
        kTiles<Kind>[height - 1](left + row * words, words, panel, words, reinterpret_cast<const char*>(next) + ahead,
                                 kPanel * 4 / tiles, sums);
        finish(row, height, sums);
    }
}

}  // namespace slipway
