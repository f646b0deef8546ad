// Causal attention over a paged key/value cache, in one pass over the keys (Dao et al. 2022, arXiv 2205.14135).
//
// A block of the cache holds, per KV head, panels of 32 tokens in the layouts that the two products read, where a word is
// one float or two bfloat16:
//
//     keys    [panel][word of head_dim][token][value]       scores = query · keys, 32 tokens wide
//     values  [panel][word of tokens][head_dim][value]      output = probabilities · values, head_dim wide
//
// A query row meets its keys in the same order and in the same groups of 32, whatever else is in the batch and however
// its prompt was cut into chunks; so its result is the same, bit by bit.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "pool.h"
#include "replay.h"
#include "tile.h"
#include "vector.h"

namespace slipway {
namespace {

// Query rows that share a pass over the keys. Each key panel is then read once from memory for all of them.
constexpr int64_t kRowsPerPass = 48;
constexpr float kMasked = -std::numeric_limits<float>::infinity();

struct Shape {
    int64_t heads, kv_heads, head_dim, block_size;

    int64_t group() const { return heads / kv_heads; }
    // Elements between the starts of two panels, and of two blocks.
    int64_t panel() const { return kPanel * head_dim; }
    int64_t block() const { return block_size * kv_heads * head_dim; }
    int64_t kv_head(int64_t head) const { return head * block_size * head_dim; }
};

template <typename Element>
struct Batch {
    const Element* query;  // [tokens] of query_stride elements, the heads first
    int64_t query_stride;
    const Element *keys, *values;
    const int32_t* query_starts;     // [sequences + 1]
    const int32_t* context_lengths;  // [sequences], the queries' own tokens included
    const int32_t* block_tables;     // [sequences, table_stride]
    int64_t table_stride;
    float scale;
    Element* out;  // [tokens, heads, head_dim]
};

// Query tokens [first, first + count) of a sequence, counted from its first query of the batch.
struct Pass {
    int32_t sequence;
    int32_t first, count;
};

inline void put_probability(float32* to, __m512 low, __m512 high) {
    _mm512_storeu_ps(to, low);
    _mm512_storeu_ps(to + kLanes, high);
}
inline void put_probability(bfloat16* to, __m512 low, __m512 high) {
    _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(high, low));
}

// What a thread needs for one pass; kept between passes.
template <typename Kind>
struct Workspace {
    using Element = typename Kind::Element;
    std::vector<Element> query, probabilities;
    std::vector<float> output, maxima, sums;

    void fit(int64_t rows, int64_t head_dim) {
        query.resize(static_cast<size_t>(rows * head_dim));
        probabilities.resize(static_cast<size_t>(rows * kPanel));
        output.assign(static_cast<size_t>(rows * head_dim), 0);
        maxima.assign(static_cast<size_t>(rows), kMasked);
        sums.assign(static_cast<size_t>(rows), 0);
    }
};

// output[rows, 16 columns at a time] += probabilities[rows, 32] · values; `words` of the 32 tokens are there, and of the last
// word only the values that `last` lets through: what lies behind them was never written.
template <typename Kind, int kRows>
inline void add_values(const uint32_t* probabilities, const typename Kind::Element* values, int64_t head_dim,
                       int64_t words, __m512i last, float* output) {
    constexpr int kWords = kPanel / Kind::kPerWord;
    for (int64_t column = 0; column < head_dim; column += kPanel) {
        const __mmask16 low = lanes(head_dim - column);
        const __mmask16 high = head_dim - column > kLanes ? lanes(head_dim - column - kLanes) : 0;
        __m512 sums[kRows][2];
#pragma GCC unroll 12
        for (int row = 0; row < kRows; ++row) {
            sums[row][0] = _mm512_maskz_loadu_ps(low, output + row * head_dim + column);
            sums[row][1] = _mm512_maskz_loadu_ps(high, output + row * head_dim + column + kLanes);
        }
        const auto* from = reinterpret_cast<const uint32_t*>(values) + column;
        for (int64_t word = 0; word < words; ++word, from += head_dim) {
            __m512i left = _mm512_maskz_loadu_epi32(low, from), right = _mm512_maskz_loadu_epi32(high, from + kLanes);
            if (word == words - 1) {
                left = _mm512_and_si512(left, last);
                right = _mm512_and_si512(right, last);
            }
#pragma GCC unroll 12
            for (int row = 0; row < kRows; ++row) {
                const __m512i weight = _mm512_set1_epi32(static_cast<int>(probabilities[row * kWords + word]));
                sums[row][0] = Kind::add(sums[row][0], weight, left);
                sums[row][1] = Kind::add(sums[row][1], weight, right);
            }
        }
#pragma GCC unroll 12
        for (int row = 0; row < kRows; ++row) {
            _mm512_mask_storeu_ps(output + row * head_dim + column, low, sums[row][0]);
            _mm512_mask_storeu_ps(output + row * head_dim + column + kLanes, high, sums[row][1]);
        }
    }
}

template <typename Kind>
using AddValues = void (*)(const uint32_t*, const typename Kind::Element*, int64_t, int64_t, __m512i, float*);

template <typename Kind>
constexpr AddValues<Kind> kAddValues[kMaxRows] = {
    add_values<Kind, 1>, add_values<Kind, 2>, add_values<Kind, 3>,  add_values<Kind, 4>,
    add_values<Kind, 5>, add_values<Kind, 6>, add_values<Kind, 7>,  add_values<Kind, 8>,
    add_values<Kind, 9>, add_values<Kind, 10>, add_values<Kind, 11>, add_values<Kind, 12>,
};

// Turns a row's scores into probabilities relative to its maximum so far, and brings its output to that maximum.
template <typename Kind>
inline void soften(__m512 low, __m512 high, int64_t visible, float scale, float* maximum, float* sum, float* output,
                   int64_t head_dim, typename Kind::Element* probabilities) {
    const __m512 masked = _mm512_set1_ps(kMasked), factor = _mm512_set1_ps(scale);
    low = _mm512_mask_mul_ps(masked, visible > 0 ? lanes(visible) : 0, low, factor);
    high = _mm512_mask_mul_ps(masked, visible > kLanes ? lanes(visible - kLanes) : 0, high, factor);
    const float largest = std::max(*maximum, _mm512_reduce_max_ps(_mm512_max_ps(low, high)));
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
    const __m512 base = _mm512_set1_ps(*maximum);
    low = exponential(_mm512_sub_ps(low, base));
    high = exponential(_mm512_sub_ps(high, base));
    *sum += _mm512_reduce_add_ps(_mm512_add_ps(low, high));
    put_probability(probabilities, low, high);
}

template <typename Kind>
void attend(const Batch<typename Kind::Element>& batch, const Shape& shape, const Pass& pass, int64_t kv_head,
            Workspace<Kind>& space) {
    using Element = typename Kind::Element;
    constexpr int kPer = Kind::kPerWord;
    const int64_t group = shape.group(), head_dim = shape.head_dim, rows = pass.count * group;
    const int64_t query_start = batch.query_starts[pass.sequence];
    const int64_t context = batch.context_lengths[pass.sequence];
    const int64_t first_position = context - (batch.query_starts[pass.sequence + 1] - query_start) + pass.first;
    const int64_t visible_to_last = first_position + pass.count;
    const int64_t token = query_start + pass.first;
    space.fit(rows, head_dim);
    for (int64_t row = 0; row < rows; ++row) {
        const Element* from =
            batch.query + (token + row / group) * batch.query_stride + (kv_head * group + row % group) * head_dim;
        std::copy_n(from, head_dim, space.query.data() + row * head_dim);
    }
    const int64_t tiles = (rows + kMaxRows - 1) / kMaxRows, panels = (visible_to_last + kPanel - 1) / kPanel;
    const int32_t* blocks = batch.block_tables + pass.sequence * batch.table_stride;
    const auto offset = [&](int64_t panel) {
        const int64_t start = panel * kPanel, block = blocks[start / shape.block_size];
        return block * shape.block() + shape.kv_head(kv_head) + start % shape.block_size * head_dim;
    };
    int64_t at = offset(0);
    for (int64_t panel = 0; panel < panels; ++panel) {
        const int64_t next = panel + 1 < panels ? offset(panel + 1) : at;
        const Element *keys = batch.keys + at, *values = batch.values + at;
        const int64_t there = std::min<int64_t>(kPanel, visible_to_last - panel * kPanel);
        const int64_t words = (there + kPer - 1) / kPer;
        const __m512i last = there % kPer ? _mm512_set1_epi32(0xffff) : _mm512_set1_epi32(-1);
        for (int64_t tile = 0; tile < tiles; ++tile) {
            const int64_t row = rows * tile / tiles, height = rows * (tile + 1) / tiles - row;
            typename Kind::Sum scores[kMaxRows][2];
            // The next panel of keys comes in with these scores, that of values below.
            kTiles<Kind>[height - 1](reinterpret_cast<const uint32_t*>(space.query.data() + row * head_dim),
                                     head_dim / kPer, reinterpret_cast<const uint32_t*>(keys), head_dim / kPer,
                                     reinterpret_cast<const char*>(batch.keys + next), tile == 0 ? kPanel * 4 : 0, scores);
            for (int64_t r = row; r < row + height; ++r) {
                const int64_t visible = first_position + r / group + 1 - panel * kPanel;
                soften<Kind>(scores[r - row][0], scores[r - row][1], visible, batch.scale, &space.maxima[r],
                             &space.sums[r], space.output.data() + r * head_dim, head_dim,
                             space.probabilities.data() + r * kPanel);
            }
        }
        for (int64_t byte = 0; byte < shape.panel() * static_cast<int64_t>(sizeof(Element)); byte += 64)
            _mm_prefetch(reinterpret_cast<const char*>(batch.values + next) + byte, _MM_HINT_T1);
        for (int64_t tile = 0; tile < tiles; ++tile) {
            const int64_t row = rows * tile / tiles, height = rows * (tile + 1) / tiles - row;
            kAddValues<Kind>[height - 1](reinterpret_cast<const uint32_t*>(space.probabilities.data() + row * kPanel),
                                         values, head_dim, words, last, space.output.data() + row * head_dim);
        }
        at = next;
    }
    for (int64_t row = 0; row < rows; ++row) {
        const __m512 inverse = _mm512_set1_ps(1 / space.sums[row]);
        Element* to = batch.out + ((token + row / group) * shape.heads + kv_head * group + row % group) * head_dim;
        const float* from = space.output.data() + row * head_dim;
        for_lanes(head_dim, [&](int64_t column, __mmask16 mask) {
            store(to + column, mask, _mm512_mul_ps(load(from + column, mask), inverse));
        });
    }
}

template <typename Kind>
void attention(const Batch<typename Kind::Element>& batch, int64_t sequences, const Shape& shape) {
    const auto tokens_per_pass = static_cast<int32_t>(std::max<int64_t>(1, kRowsPerPass / shape.group()));
    std::vector<Pass> passes;
    for (int32_t sequence = 0; sequence < sequences; ++sequence) {
        const int32_t count = batch.query_starts[sequence + 1] - batch.query_starts[sequence];
        for (int32_t first = 0; first < count; first += tokens_per_pass)
            passes.push_back({sequence, first, std::min(tokens_per_pass, count - first)});
    }
    parallel_for(static_cast<int64_t>(passes.size()) * shape.kv_heads, 1, [&](int64_t begin, int64_t end) {
        static thread_local Workspace<Kind> space;
        for (int64_t item = begin; item < end; ++item)
            attend<Kind>(batch, shape, passes[static_cast<size_t>(item / shape.kv_heads)], item % shape.kv_heads, space);
    });
}

// Rotates the first 2 · half elements of each of `heads` heads: pairs (i, i + half), as GPT-NeoX pairs them.
template <typename Element>
inline void rotate(Element* x, int64_t heads, int64_t head_dim, int64_t half, const float* cosine, const float* sine) {
    for (int64_t head = 0; head < heads; ++head, x += head_dim)
        for_lanes(half, [&](int64_t i, __mmask16 mask) {
            const __m512 first = load(x + i, mask), second = load(x + half + i, mask);
            const __m512 c = load(cosine + i, mask), s = load(sine + i, mask);
            store(x + i, mask, _mm512_fmsub_ps(first, c, _mm512_mul_ps(second, s)));
            store(x + half + i, mask, _mm512_fmadd_ps(second, c, _mm512_mul_ps(first, s)));
        });
}

// Rotates queries and keys in place and stores keys and values in the cache.
template <typename Kind>
void rotate_and_store(typename Kind::Element* qkv, int64_t tokens, const Shape& shape, int64_t half, const float* cosine,
                      const float* sine, const int64_t* slots, typename Kind::Element* keys,
                      typename Kind::Element* values) {
    constexpr int kPer = Kind::kPerWord;
    const int64_t head_dim = shape.head_dim, width = (shape.heads + 2 * shape.kv_heads) * head_dim;
    parallel_for(tokens, std::max<int64_t>(1, kElementsPerPiece / 4 / width), [&](int64_t begin, int64_t end) {
        for (int64_t token = begin; token < end; ++token) {
            auto* row = qkv + token * width;
            rotate(row, shape.heads + shape.kv_heads, head_dim, half, cosine + token * half, sine + token * half);
            const int64_t slot = slots[token], within = slot % shape.block_size, lane = within % kPanel;
            for (int64_t head = 0; head < shape.kv_heads; ++head) {
                const int64_t panel =
                    slot / shape.block_size * shape.block() + shape.kv_head(head) + (within - lane) * head_dim;
                const auto* key = row + (shape.heads + head) * head_dim;
                const auto* value = row + (shape.heads + shape.kv_heads + head) * head_dim;
                for (int64_t word = 0; word < head_dim / kPer; ++word)
                    std::copy_n(key + word * kPer, kPer, keys + panel + (word * kPanel + lane) * kPer);
                auto* to = values + panel + lane / kPer * kPer * head_dim + lane % kPer;
                for (int64_t i = 0; i < head_dim; ++i) to[i * kPer] = value[i];
            }
        }
    });
}

}  // namespace
}  // namespace slipway

using namespace slipway;

#define SLIPWAY_ATTENTION(suffix, Kind)                                                                              \
    void slipway_attention_##suffix(const Kind::Element* query, int64_t query_stride, const Kind::Element* keys,      \
                                    const Kind::Element* values, const int32_t* query_starts,                         \
                                    const int32_t* context_lengths, const int32_t* block_tables, int64_t table_stride, \
                                    int64_t sequences, int64_t heads, int64_t kv_heads, int64_t head_dim,             \
                                    int64_t block_size, float scale, Kind::Element* out) {                            \
        attention<Kind>({query, query_stride, keys, values, query_starts, context_lengths, block_tables, table_stride, \
                         scale, out},                                                                                 \
                        sequences, {heads, kv_heads, head_dim, block_size});                                          \
    }                                                                                                                 \
    void slipway_rotate_and_store_##suffix(Kind::Element* qkv, int64_t tokens, int64_t heads, int64_t kv_heads,       \
                                           int64_t head_dim, int64_t block_size, int64_t half, const float* cosine,   \
                                           const float* sine, const int64_t* slots, Kind::Element* keys,              \
                                           Kind::Element* values) {                                                   \
        rotate_and_store<Kind>(qkv, tokens, {heads, kv_heads, head_dim, block_size}, half, cosine, sine, slots, keys, \
                               values);                                                                               \
    }

extern "C" {
SLIPWAY_ATTENTION(f32, Float32)
SLIPWAY_ATTENTION(bf16, BFloat16)
}

SLIPWAY_RECORDABLE(slipway_attention_f32);
SLIPWAY_RECORDABLE(slipway_attention_bf16);
SLIPWAY_RECORDABLE(slipway_rotate_and_store_f32);
SLIPWAY_RECORDABLE(slipway_rotate_and_store_bf16);
