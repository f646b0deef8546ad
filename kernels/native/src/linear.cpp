// Products of a few rows with a large weight matrix: out[m, n] = sum over k of x[m, k] * weight[n, k].
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
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "activation.h"
#include "pool.h"
#include "replay.h"
#include "tile.h"
#include "vector.h"

namespace slipway {
namespace {

// Rows of x that are worked on together: their words stay in the second-level cache while panels pass.
constexpr int kRowBlock = 192;

// Calls finish(row, column, sums) for every tile of the product, row tiles innermost.
template <typename Kind, typename Finish>
void multiply(const void* x, int64_t rows, int64_t words, int64_t columns, const void* weight, const Finish& finish) {
    const auto* left = static_cast<const uint32_t*>(x);
    const auto* right = static_cast<const uint32_t*>(weight);
    const int64_t panels = (columns + kPanel - 1) / kPanel, panel_words = words * kPanel;
    for (int64_t block = 0; block < rows; block += kRowBlock) {
        const int64_t in_block = std::min<int64_t>(kRowBlock, rows - block);
        // Tiles of nearly equal height: 64 rows as 11 + 11 + 11 + 11 + 10 + 10, not as five times 12 and a slow 4.
        const int64_t tiles = (in_block + kMaxRows - 1) / kMaxRows;
        parallel_for(panels, 1, [&](int64_t begin, int64_t end) {
            typename Kind::Sum sums[kMaxRows][2];
            for (int64_t panel = begin; panel < end; ++panel) {
                const uint32_t* from = right + panel * panel_words;
                const char* next = reinterpret_cast<const char*>(from + panel_words);
                for (int64_t tile = 0; tile < tiles; ++tile) {
                    const int64_t row = in_block * tile / tiles, height = in_block * (tile + 1) / tiles - row;
                    const int64_t ahead = panel_words * 4 * tile / tiles;
                    kTiles<Kind>[height - 1](left + (block + row) * words, words, from, words, next + ahead,
                                             kPanel * 4 / tiles, sums);
                    finish(block + row, height, panel * kPanel, sums);
                }
            }
        });
    }
}

// Where the products of a panel go. low and high are those of its first and its last 16 columns.
template <typename Out, typename In>
struct Plain {
    Out* out;
    const In* bias;
    const In* residual;
    int64_t columns;

    void put(int64_t row, int64_t column, __m512 low, __m512 high) const {
        half(row, column, low);
        if (column + kLanes < columns) half(row, column + kLanes, high);
    }

    void half(int64_t row, int64_t column, __m512 value) const {
        const __mmask16 mask = lanes(columns - column);
        if (bias) value = _mm512_add_ps(value, load(bias + column, mask));
        if (residual) value = _mm512_add_ps(value, load(residual + row * columns + column, mask));
        store(out + row * columns + column, mask, value);
    }
};

// The gated product of a weight whose panels hold 16 columns of the gate and the 16 of the other half that they scale.
template <typename Element, typename Gate>
struct Gated {
    Element* out;
    int64_t columns;

    void put(int64_t row, int64_t column, __m512 gate, __m512 up) const {
        const __mmask16 all = static_cast<__mmask16>(0xffff);
        store(out + row * (columns / 2) + column / 2, all, _mm512_mul_ps(passed<Gate>(gate), up));
    }
};

template <typename Kind, typename Target>
void linear(const void* x, int64_t rows, int64_t depth, int64_t columns, const void* weight, const Target& target) {
    multiply<Kind>(x, rows, depth / Kind::kPerWord, columns, weight,
                   [&](int64_t row, int64_t height, int64_t column, const __m512(&sums)[kMaxRows][2]) {
                       for (int64_t r = 0; r < height; ++r) target.put(row + r, column, sums[r][0], sums[r][1]);
                   });
}

template <typename Kind>
void pack(const typename Kind::Element* weight, int64_t rows, int64_t depth, typename Kind::Element* packed) {
    constexpr int per = Kind::kPerWord;
    const int64_t panels = (rows + kPanel - 1) / kPanel;
    parallel_for(panels, 1, [&](int64_t begin, int64_t end) {
        for (int64_t panel = begin; panel < end; ++panel) {
            auto* to = packed + panel * kPanel * depth;
            for (int64_t column = 0; column < kPanel; ++column) {
                const int64_t row = panel * kPanel + column;
                for (int64_t k = 0; k < depth; k += per)
                    for (int value = 0; value < per; ++value)
                        to[(k / per * kPanel + column) * per + value] =
                            row < rows ? weight[row * depth + k + value] : typename Kind::Element{};
            }
        }
    });
}

// One byte per value, in units of a row's own scale, so that each row of a product has two factors:
// x ≈ scale · (q − 128). q is unsigned because that is what the instruction multiplies with signed weights; the 128 is
// taken out of the sum.
constexpr int kZeroPoint = 128;
constexpr float kLargest = 127.0f;

template <typename In>
float quantize_row(const In* x, int64_t depth, uint8_t* out) {
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
        const int64_t padded = (columns + kPanel - 1) / kPanel * kPanel;
        panels = static_cast<int8_t*>(memory);
        scales = reinterpret_cast<float*>(panels + padded * depth);
        offsets = reinterpret_cast<int32_t*>(scales + padded);
    }
};

template <typename In>
void pack_int8(const In* weight, int64_t rows, int64_t depth, void* packed) {
    const Int8Weight to(packed, depth, rows);
    parallel_for((rows + kPanel - 1) / kPanel, 1, [&](int64_t begin, int64_t end) {
        std::vector<uint8_t> values(static_cast<size_t>(depth));
        for (int64_t column = begin * kPanel; column < end * kPanel; ++column) {
            std::fill(values.begin(), values.end(), kZeroPoint);
            to.scales[column] = column < rows ? quantize_row(weight + column * depth, depth, values.data()) : 0;
            int8_t* panel = to.panels + column / kPanel * kPanel * depth + column % kPanel * 4;
            int32_t sum = 0;
            for (int64_t k = 0; k < depth; ++k) {
                const int value = values[static_cast<size_t>(k)] - kZeroPoint;
                panel[k / 4 * kPanel * 4 + k % 4] = static_cast<int8_t>(value);
                sum += value;
            }
            to.offsets[column] = sum * kZeroPoint;
        }
    });
}

template <typename In, typename Target>
void linear_int8(const In* x, int64_t rows, int64_t depth, int64_t columns, void* weight, const Target& target) {
    static thread_local std::vector<uint8_t> bytes;
    static thread_local std::vector<float> row_scales;
    bytes.resize(static_cast<size_t>(rows * depth));
    row_scales.resize(static_cast<size_t>(rows));
    uint8_t* quantized = bytes.data();
    float* scales = row_scales.data();
    parallel_for(rows, std::max<int64_t>(1, kElementsPerPiece / depth), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row)
            scales[row] = quantize_row(x + row * depth, depth, quantized + row * depth);
    });
    const Int8Weight from(weight, depth, columns);
    multiply<Int8>(quantized, rows, depth / Int8::kPerWord, columns, from.panels,
                   [&](int64_t row, int64_t height, int64_t column, const __m512i(&sums)[kMaxRows][2]) {
                       for (int64_t r = 0; r < height; ++r) {
                           __m512 values[2];
                           for (int half = 0; half < 2; ++half) {
                               const int64_t first = column + half * kLanes;
                               const __m512i offsets = _mm512_loadu_si512(from.offsets + first);
                               const __m512 sum = _mm512_cvtepi32_ps(_mm512_sub_epi32(sums[r][half], offsets));
                               const __m512 factors = _mm512_loadu_ps(from.scales + first);
                               const __m512 factor = _mm512_mul_ps(factors, _mm512_set1_ps(scales[row + r]));
                               values[half] = _mm512_mul_ps(sum, factor);
                           }
                           target.put(row + r, column, values[0], values[1]);
                       }
                   });
}

}  // namespace
}  // namespace slipway

using namespace slipway;

extern "C" {

void slipway_pack_f32(const float32* weight, int64_t rows, int64_t depth, float32* packed) {
    pack<Float32>(weight, rows, depth, packed);
}
void slipway_pack_bf16(const bfloat16* weight, int64_t rows, int64_t depth, bfloat16* packed) {
    pack<BFloat16>(weight, rows, depth, packed);
}
// Products with a bias and a residual, either of which may be null; and gated ones, of interleaved weights.
#define SLIPWAY_LINEAR(suffix, Kind, Out)                                                                             \
    void slipway_linear_##suffix(const Kind::Element* x, int64_t rows, int64_t depth, int64_t columns,                \
                                 const void* weight, const Kind::Element* bias, const Kind::Element* residual,        \
                                 Out* out) {                                                                          \
        linear<Kind>(x, rows, depth, columns, weight, Plain<Out, Kind::Element>{out, bias, residual, columns});       \
    }
#define SLIPWAY_LINEAR_INT8(suffix, In, Out)                                                                          \
    void slipway_linear_int8_##suffix(const In* x, int64_t rows, int64_t depth, int64_t columns, void* weight,        \
                                      const In* bias, const In* residual, Out* out) {                                 \
        linear_int8(x, rows, depth, columns, weight, Plain<Out, In>{out, bias, residual, columns});                   \
    }
#define SLIPWAY_GATED(suffix, Kind)                                                                                   \
    void slipway_gated_##suffix(const Kind::Element* x, int64_t rows, int64_t depth, int64_t columns,                 \
                                const void* weight, int64_t kind, Kind::Element* out) {                               \
        with_gate(kind, [&](auto gate) {                                                                              \
            linear<Kind>(x, rows, depth, columns, weight, Gated<Kind::Element, decltype(gate)>{out, columns});        \
        });                                                                                                           \
    }                                                                                                                 \
    void slipway_gated_int8_##suffix(const Kind::Element* x, int64_t rows, int64_t depth, int64_t columns,            \
                                     void* weight, int64_t kind, Kind::Element* out) {                                \
        with_gate(kind, [&](auto gate) {                                                                              \
            linear_int8(x, rows, depth, columns, weight, Gated<Kind::Element, decltype(gate)>{out, columns});         \
        });                                                                                                           \
    }

SLIPWAY_LINEAR(f32, Float32, float32)
SLIPWAY_LINEAR(bf16, BFloat16, bfloat16)
SLIPWAY_LINEAR(bf16_f32, BFloat16, float32)
SLIPWAY_LINEAR_INT8(f32, float32, float32)
SLIPWAY_LINEAR_INT8(bf16, bfloat16, bfloat16)
SLIPWAY_LINEAR_INT8(bf16_f32, bfloat16, float32)
SLIPWAY_GATED(f32, Float32)
SLIPWAY_GATED(bf16, BFloat16)

void slipway_pack_int8_f32(const float32* weight, int64_t rows, int64_t depth, void* packed) {
    pack_int8(weight, rows, depth, packed);
}
void slipway_pack_int8_bf16(const bfloat16* weight, int64_t rows, int64_t depth, void* packed) {
    pack_int8(weight, rows, depth, packed);
}
}

SLIPWAY_RECORDABLE(slipway_linear_f32);
SLIPWAY_RECORDABLE(slipway_linear_bf16);
SLIPWAY_RECORDABLE(slipway_linear_bf16_f32);
SLIPWAY_RECORDABLE(slipway_linear_int8_f32);
SLIPWAY_RECORDABLE(slipway_linear_int8_bf16);
SLIPWAY_RECORDABLE(slipway_linear_int8_bf16_f32);
SLIPWAY_RECORDABLE(slipway_gated_f32);
SLIPWAY_RECORDABLE(slipway_gated_bf16);
SLIPWAY_RECORDABLE(slipway_gated_int8_f32);
SLIPWAY_RECORDABLE(slipway_gated_int8_bf16);
