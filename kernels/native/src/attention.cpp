// Causal attention over a paged key/value cache, in one pass over the keys (Dao et al. 2022, arXiv 2205.14135).
//
// A block of the cache holds, per KV head, panels of 32 tokens in the layouts that the two products read, where a word
// is one float or two bfloat16:
//
//     keys    [panel][word of head_dim][token][value]       scores = query · keys, 32 tokens wide
//     values  [panel][word of tokens][head_dim][value]      output = probabilities · values, head_dim wide
//
// A query row meets its keys in the same order and in the same groups of 128, whatever else is in the batch and however
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
// Panels whose scores are turned into probabilities together.
constexpr int kGroup = 4;
constexpr int kGroupTokens = kGroup * kPanel;
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
        probabilities.resize(static_cast<size_t>(rows * kGroupTokens));
        output.assign(static_cast<size_t>(rows * head_dim), 0);
        maxima.assign(static_cast<size_t>(rows), kMasked);
        sums.assign(static_cast<size_t>(rows), 0);
    }
};

// Up to kGroup panels of a sequence that follow one another, and how many of their tokens are there.
template <typename Element>
struct Group {
    int count = 0;
    int64_t tokens = 0;
    const Element *keys[kGroup], *values[kGroup];
};

// output[rows, columns] += probabilities[rows, tokens of the group] · values. What lies behind the group's last token was
// never written, so it must not be multiplied, not even by zero. Meanwhile the values of `next` come in, line by line: many
// at once would stall the loads.
template <typename Kind, int kRows>
inline void add_values(const uint32_t* probabilities, const Group<typename Kind::Element>& group,
                       const Group<typename Kind::Element>& next, int64_t head_dim, float* output) {
    constexpr int kPer = Kind::kPerWord, kWords = kPanel / kPer;
    // As for scores, few rows take more columns at once.
    constexpr int kVectors = kRows <= kFewRows ? 4 : 2;
    for (int64_t column = 0; column < head_dim; column += kVectors * kLanes) {
        __mmask16 masks[kVectors];
        for (int vector = 0; vector < kVectors; ++vector) {
            const int64_t left = head_dim - column - vector * kLanes;
            masks[vector] = left > 0 ? lanes(left) : 0;
        }
        __m512 sums[kRows][kVectors];
#pragma GCC unroll 12
        for (int row = 0; row < kRows; ++row)
#pragma GCC unroll 4
            for (int vector = 0; vector < kVectors; ++vector)
                sums[row][vector] =
                    _mm512_maskz_loadu_ps(masks[vector], output + row * head_dim + column + vector * kLanes);
        const auto add = [&](int panel, int64_t word, __m512i there) __attribute__((always_inline)) {
            const int64_t place = word * head_dim + column;
            const auto* from = reinterpret_cast<const uint32_t*>(group.values[panel]) + place;
            const auto* ahead = reinterpret_cast<const uint32_t*>(next.values[panel < next.count ? panel : 0]) + place;
            __m512i tokens[kVectors];
#pragma GCC unroll 4
            for (int vector = 0; vector < kVectors; ++vector) {
                _mm_prefetch(reinterpret_cast<const char*>(ahead + vector * kLanes), _MM_HINT_T1);
                tokens[vector] =
                    _mm512_and_si512(_mm512_maskz_loadu_epi32(masks[vector], from + vector * kLanes), there);
            }
#pragma GCC unroll 12
            for (int row = 0; row < kRows; ++row) {
                const uint32_t* weights = probabilities + row * kGroup * kWords + panel * kWords;
                const __m512i weight = _mm512_set1_epi32(static_cast<int>(weights[word]));
#pragma GCC unroll 4
                for (int vector = 0; vector < kVectors; ++vector)
                    sums[row][vector] = Kind::add(sums[row][vector], weight, tokens[vector]);
            }
        };
        const __m512i all = _mm512_set1_epi32(-1);
        const int64_t whole = group.tokens / kPer;
        for (int panel = 0; panel < group.count; ++panel)
            for (int64_t word = 0, end = std::min<int64_t>(kWords, whole - panel * kWords); word < end; ++word)
                add(panel, word, all);
        if (group.tokens % kPer) add(group.count - 1, whole % kWords, _mm512_set1_epi32(0xffff));
#pragma GCC unroll 12
        for (int row = 0; row < kRows; ++row)
#pragma GCC unroll 4
            for (int vector = 0; vector < kVectors; ++vector)
                _mm512_mask_storeu_ps(output + row * head_dim + column + vector * kLanes, masks[vector],
                                      sums[row][vector]);
    }
}

template <typename Kind>
using AddValues = void (*)(const uint32_t*, const Group<typename Kind::Element>&, const Group<typename Kind::Element>&,
                           int64_t, float*);

template <typename Kind>
constexpr AddValues<Kind> kAddValues[kMaxRows] = {
    add_values<Kind, 1>, add_values<Kind, 2>, add_values<Kind, 3>,  add_values<Kind, 4>,
    add_values<Kind, 5>, add_values<Kind, 6>, add_values<Kind, 7>,  add_values<Kind, 8>,
    add_values<Kind, 9>, add_values<Kind, 10>, add_values<Kind, 11>, add_values<Kind, 12>,
};

// Turns a row's scores into probabilities relative to its maximum so far, and brings its output to that maximum.
// scores[i] are those of tokens 16i … 16i+15 of the group, of which the first `visible` count.
template <typename Kind>
inline void soften(__m512* scores, int vectors, int64_t visible, float scale, float* maximum, float* sum, float* output,
                   int64_t head_dim, typename Kind::Element* probabilities) {
    const __m512 masked = _mm512_set1_ps(kMasked), factor = _mm512_set1_ps(scale);
    __m512 most = masked;
    for (int i = 0; i < vectors; ++i) {
        const int64_t left = visible - i * kLanes;
        scores[i] = _mm512_mask_mul_ps(masked, left > 0 ? lanes(left) : 0, scores[i], factor);
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
    const __m512 base = _mm512_set1_ps(*maximum);
    __m512 total = _mm512_setzero_ps();
    for (int i = 0; i < vectors; i += 2) {
        const __m512 low = exponential(_mm512_sub_ps(scores[i], base));
        const __m512 high = exponential(_mm512_sub_ps(scores[i + 1], base));
        total = _mm512_add_ps(total, _mm512_add_ps(low, high));
        put_probability(probabilities + i * kLanes, low, high);
    }
    *sum += _mm512_reduce_add_ps(total);
}

// One pass over the keys of a sequence, by some of its query tokens and all the heads that share a KV head.
template <typename Kind>
class Attention {
    using Element = typename Kind::Element;

  public:
    Attention(const Batch<Element>& batch, const Shape& shape, const Pass& pass, int64_t kv_head,
              Workspace<Kind>& space)
        : batch_(batch), shape_(shape), kv_head_(kv_head), group_(shape.group()), head_dim_(shape.head_dim),
          rows_(pass.count * group_), token_(batch.query_starts[pass.sequence] + pass.first),
          blocks_(batch.block_tables + pass.sequence * batch.table_stride), space_(space) {
        const int64_t queries = batch.query_starts[pass.sequence + 1] - batch.query_starts[pass.sequence];
        first_position_ = batch.context_lengths[pass.sequence] - queries + pass.first;
        length_ = first_position_ + pass.count;
    }

    // `after` is what this thread will probably want next.
    void run(const Group<Element>& after) {
        space_.fit(rows_, head_dim_);
        for (int64_t row = 0; row < rows_; ++row)
            std::copy_n(batch_.query + (token_ + row / group_) * batch_.query_stride + head(row) * head_dim_, head_dim_,
                        space_.query.data() + row * head_dim_);
        Group<Element> current = group_at(0);
        for (int64_t start = 0; start < length_; start += kGroupTokens) {
            const bool more = start + kGroupTokens < length_;
            const Group<Element> next = more ? group_at(start + kGroupTokens) : after;
            score(current, next, start);
            add(current, next);
            current = next;
        }
        finish();
    }

    Group<Element> first_group() const { return group_at(0); }

  private:
    int64_t head(int64_t row) const { return kv_head_ * group_ + row % group_; }

    Group<Element> group_at(int64_t start) const {
        Group<Element> group;
        group.tokens = std::min<int64_t>(kGroupTokens, length_ - start);
        for (; group.count * kPanel < group.tokens; ++group.count) {
            const int64_t position = start + group.count * kPanel, block = blocks_[position / shape_.block_size];
            const int64_t within = position % shape_.block_size * head_dim_;
            const int64_t at = block * shape_.block() + shape_.kv_head(kv_head_) + within;
            group.keys[group.count] = batch_.keys + at;
            group.values[group.count] = batch_.values + at;
        }
        return group;
    }

    int64_t tiles() const { return (rows_ + kMaxRows - 1) / kMaxRows; }
    int64_t first_row(int64_t tile) const { return rows_ * tile / tiles(); }

    // Probabilities of all rows for a group that begins at token `start`; the next group's keys come in meanwhile.
    void score(const Group<Element>& group, const Group<Element>& next, int64_t start) {
        const int64_t words = head_dim_ / Kind::kPerWord;
        for (int64_t tile = 0; tile < tiles(); ++tile) {
            const int64_t row = first_row(tile), height = first_row(tile + 1) - row;
            __m512 scores[kMaxRows][kGroup * 2];
            const uint32_t* rows = words_of(space_.query, row * head_dim_);
            const int64_t ahead_step = tile == 0 ? kPanel * 4 : 0;
            int panel = 0;
            if (height <= kFewRows) {
                for (; panel + 2 <= group.count; panel += 2) {
                    typename Kind::Sum sums[kFewRows][4];
                    kPairTiles<Kind>[height - 1](rows, words, keys(group, panel), keys(group, panel + 1), words,
                                                 ahead(next, panel), ahead(next, panel + 1), ahead_step, sums);
                    for (int64_t r = 0; r < height; ++r) std::copy_n(sums[r], 4, scores[r] + 2 * panel);
                }
            }
            for (; panel < group.count; ++panel) {
                typename Kind::Sum sums[kMaxRows][2];
                kTiles<Kind>[height - 1](rows, words, keys(group, panel), words, ahead(next, panel), ahead_step, sums);
                for (int64_t r = 0; r < height; ++r) std::copy_n(sums[r], 2, scores[r] + 2 * panel);
            }
            for (int64_t r = 0; r < height; ++r) {
                const int64_t visible = first_position_ + (row + r) / group_ + 1 - start;
                soften<Kind>(scores[r], 2 * group.count, visible, batch_.scale, &space_.maxima[row + r],
                             &space_.sums[row + r], space_.output.data() + (row + r) * head_dim_, head_dim_,
                             space_.probabilities.data() + (row + r) * kGroupTokens);
            }
        }
    }

    void add(const Group<Element>& group, const Group<Element>& next) {
        for (int64_t tile = 0; tile < tiles(); ++tile) {
            const int64_t row = first_row(tile), height = first_row(tile + 1) - row;
            kAddValues<Kind>[height - 1](words_of(space_.probabilities, row * kGroupTokens), group,
                                         tile == 0 ? next : group, head_dim_, space_.output.data() + row * head_dim_);
        }
    }

    void finish() {
        for (int64_t row = 0; row < rows_; ++row) {
            const __m512 inverse = _mm512_set1_ps(1 / space_.sums[row]);
            Element* to = batch_.out + ((token_ + row / group_) * shape_.heads + head(row)) * head_dim_;
            const float* from = space_.output.data() + row * head_dim_;
            for_lanes(head_dim_, [&](int64_t column, __mmask16 mask) {
                store(to + column, mask, _mm512_mul_ps(load(from + column, mask), inverse));
            });
        }
    }

    static const uint32_t* keys(const Group<Element>& group, int panel) {
        return reinterpret_cast<const uint32_t*>(group.keys[panel]);
    }
    static const char* ahead(const Group<Element>& next, int panel) {
        return reinterpret_cast<const char*>(next.keys[panel < next.count ? panel : 0]);
    }
    static const uint32_t* words_of(const std::vector<Element>& values, int64_t offset) {
        return reinterpret_cast<const uint32_t*>(values.data() + offset);
    }

    const Batch<Element>& batch_;
    const Shape& shape_;
    const int64_t kv_head_, group_, head_dim_, rows_, token_;
    const int32_t* blocks_;
    Workspace<Kind>& space_;
    int64_t first_position_, length_;
};

template <typename Kind>
void attention(const Batch<typename Kind::Element>& batch, int64_t sequences, const Shape& shape) {
    const auto tokens_per_pass = static_cast<int32_t>(std::max<int64_t>(1, kRowsPerPass / shape.group()));
    std::vector<Pass> passes;
    for (int32_t sequence = 0; sequence < sequences; ++sequence) {
        const int32_t count = batch.query_starts[sequence + 1] - batch.query_starts[sequence];
        for (int32_t first = 0; first < count; first += tokens_per_pass)
            passes.push_back({sequence, first, std::min(tokens_per_pass, count - first)});
    }
    const int64_t items = static_cast<int64_t>(passes.size()) * shape.kv_heads;
    parallel_for(items, 1, [&](int64_t begin, int64_t end) {
        static thread_local Workspace<Kind> space;
        const auto at = [&](int64_t item) {
            const Pass& pass = passes[static_cast<size_t>(item / shape.kv_heads)];
            return Attention<Kind>(batch, shape, pass, item % shape.kv_heads, space);
        };
        for (int64_t item = begin; item < end; ++item) at(item).run(at(std::min(item + 1, items - 1)).first_group());
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
void rotate_and_store(typename Kind::Element* qkv, int64_t tokens, const Shape& shape, int64_t half,
                      const float* cosine, const float* sine, const int64_t* slots, typename Kind::Element* keys,
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
