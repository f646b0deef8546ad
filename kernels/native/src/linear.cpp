// Linear layers; see product.h.
#include <algorithm>
#include <vector>

#include "int8.h"
#include "pool.h"
#include "product.h"
#include "replay.h"
#include "vector.h"

namespace slipway {
namespace {

// Calls finish(row, height, column, sums) for every tile of the product, row tiles innermost.
template <typename Kind, typename Finish>
void multiply(const void* x, int64_t rows, int64_t words, int64_t columns, const void* weight, const Finish& finish) {
    const auto* left = static_cast<const uint32_t*>(x);
    const auto* right = static_cast<const uint32_t*>(weight);
    const int64_t panel_words = words * kPanel;
    for (int64_t block = 0; block < rows; block += kRowBlock) {
        const int64_t in_block = std::min<int64_t>(kRowBlock, rows - block);
        parallel_for(panels_of(columns), 1, [&](int64_t begin, int64_t end) {
            for (int64_t panel = begin; panel < end; ++panel) {
                const uint32_t* from = right + panel * panel_words;
                multiply_panel<Kind>(left + block * words, in_block, words, from, from + panel_words,
                                     [&](int64_t row, int64_t height, const typename Kind::Sum(&sums)[kMaxRows][2]) {
                                         finish(block + row, height, panel * kPanel, sums);
                                     });
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
                       for (int64_t r = 0; r < height; ++r)
                           target.put(row + r, column, from.value(sums[r][0], column, scales[row + r]),
                                      from.value(sums[r][1], column + kLanes, scales[row + r]));
                   });
}

}  // namespace
}  // namespace slipway

using namespace slipway;

extern "C" {

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
