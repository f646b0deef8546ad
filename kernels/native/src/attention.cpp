// Causal attention over a paged key/value cache, in one pass over the keys (Dao et al. 2022, arXiv 2205.14135).
//
// A query row meets its keys in the same order and in the same groups of 128, whatever else is in the batch and however
// its prompt was cut into chunks; so its result is the same, bit by bit.
#include <algorithm>
#include <vector>

#include "cache.h"
#include "pool.h"
#include "replay.h"
#include "softmax.h"

namespace slipway {
namespace {

// Query rows that share a pass over the keys. Each key panel is then read once from memory for all of them.
constexpr int64_t kRowsPerPass = 48;

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
    Variant variant;
    Element* out;  // [tokens, heads, head_dim]
};

// Query tokens [first, first + count) of a sequence, counted from its first query of the batch.
struct Pass {
    int32_t sequence;
    int32_t first, count;
};

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

// Up to kGroup panels of a sequence that follow one another. Of their tokens those from `begin` to `end` are there and
// within some query's window; panels without such tokens are not looked up, and point to one that has some.
template <typename Element>
struct Group {
    int64_t begin = 0, end = 0;
    const Element *keys[kGroup], *values[kGroup];

    int first_panel() const { return static_cast<int>(begin / kPanel); }
    int end_panel() const { return static_cast<int>((end + kPanel - 1) / kPanel); }
};

// output[rows, columns] += probabilities[rows, tokens of the group] · values. What lies behind the group's last token was
// never written and what lies before its first one may be no more, so it must not be multiplied, not even by zero.
// Meanwhile the values of `next` come in, line by line: many at once would stall the loads.
template <typename Kind, bool kPlain, int kRows>
inline void add_values(const uint32_t* probabilities, const Group<typename Kind::Element>& group,
                       const Group<typename Kind::Element>& next, int64_t head_dim, float* output) {
    constexpr int kPer = Kind::kPerWord, kWords = kPanel / kPer;
    // As for scores, few rows take more columns at once.
    constexpr int kVectors = kRows <= kFewRows ? 4 : 2;
    const int64_t begin = kPlain ? 0 : group.begin, first = (begin + kPer - 1) / kPer, whole = group.end / kPer;
    const int first_panel = kPlain ? 0 : group.first_panel(), end_panel = group.end_panel();
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
            const auto* ahead = reinterpret_cast<const uint32_t*>(next.values[panel]) + place;
            __m512i tokens[kVectors];
#pragma GCC unroll 4
            for (int vector = 0; vector < kVectors; ++vector)
                tokens[vector] =
                    _mm512_and_si512(_mm512_maskz_loadu_epi32(masks[vector], from + vector * kLanes), there);
#pragma GCC unroll 12
            for (int row = 0; row < kRows; ++row) {
                const uint32_t* weights = probabilities + row * kGroup * kWords + panel * kWords;
                const __m512i weight = _mm512_set1_epi32(static_cast<int>(weights[word]));
#pragma GCC unroll 4
                for (int vector = 0; vector < kVectors; ++vector)
                    sums[row][vector] = Kind::add(sums[row][vector], weight, tokens[vector]);
            }
            // Behind the loads, which would wait for them: the compiler must not move them up (2 % of a decode).
            asm volatile("" ::: "memory");
#pragma GCC unroll 4
            for (int vector = 0; vector < kVectors; ++vector)
                _mm_prefetch(reinterpret_cast<const char*>(ahead + vector * kLanes), _MM_HINT_T1);
        };
        // Words that are there in part hold two tokens: the later one is first, or the earlier one last.
        const __m512i all = _mm512_set1_epi32(-1);
        const __m512i later = _mm512_set1_epi32(~0xffff), earlier = _mm512_set1_epi32(0xffff);
        if (begin % kPer) add(first_panel, begin / kPer % kWords, later);
        for (int panel = first_panel; panel < end_panel; ++panel) {
            const int64_t start = panel * kWords, last = std::min<int64_t>(kWords, whole - start);
            for (int64_t word = std::max<int64_t>(0, first - start); word < last; ++word) add(panel, word, all);
        }
        if (group.end % kPer) add(end_panel - 1, whole % kWords, earlier);
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

template <typename Kind, bool kPlain>
constexpr AddValues<Kind> kAddValues[kMaxRows] = {
    add_values<Kind, kPlain, 1>, add_values<Kind, kPlain, 2>, add_values<Kind, kPlain, 3>,
    add_values<Kind, kPlain, 4>, add_values<Kind, kPlain, 5>, add_values<Kind, kPlain, 6>,
    add_values<Kind, kPlain, 7>, add_values<Kind, kPlain, 8>, add_values<Kind, kPlain, 9>,
    add_values<Kind, kPlain, 10>, add_values<Kind, kPlain, 11>, add_values<Kind, kPlain, 12>,
};

// One pass over the keys of a sequence, by some of its query tokens and all the heads that share a KV head.
template <typename Kind, bool kPlain>
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
        first_seen_ = batch.variant.first_seen(first_position_);
    }

    // `after` is what this thread will probably want next.
    void run(const Group<Element>& after) {
        space_.fit(rows_, head_dim_);
        for (int64_t row = 0; row < rows_; ++row)
            std::copy_n(batch_.query + (token_ + row / group_) * batch_.query_stride + head(row) * head_dim_, head_dim_,
                        space_.query.data() + row * head_dim_);
        begin_rows();
        Group<Element> current = first_group();
        for (int64_t start = first_start(); start < length_; start += kGroupTokens) {
            const bool more = start + kGroupTokens < length_;
            const Group<Element> next = more ? group_at(start + kGroupTokens) : after;
            score(current, next, start);
            add(current, next);
            current = next;
        }
        finish();
    }

    Group<Element> first_group() const { return group_at(first_start()); }

  private:
    int64_t head(int64_t row) const { return kv_head_ * group_ + row % group_; }

    // Groups begin at multiples of their size, wherever the window does.
    int64_t first_start() const { return first_seen_ / kGroupTokens * kGroupTokens; }

    // A sink is a key that comes before all others.
    void begin_rows() {
        if (kPlain || !batch_.variant.sinks) return;
        for (int64_t row = 0; row < rows_; ++row) {
            space_.maxima[row] = batch_.variant.sinks[head(row)];
            space_.sums[row] = 1;
        }
    }

    Group<Element> group_at(int64_t start) const {
        Group<Element> group;
        group.begin = std::max<int64_t>(0, first_seen_ - start);
        group.end = std::min<int64_t>(kGroupTokens, length_ - start);
        const int first = group.first_panel(), end = group.end_panel();
        for (int panel = first; panel < end; ++panel) {
            const int64_t position = start + panel * kPanel, block = blocks_[position / shape_.block_size];
            const int64_t within = position % shape_.block_size * head_dim_;
            const int64_t at = block * shape_.block() + shape_.kv_head(kv_head_) + within;
            group.keys[panel] = batch_.keys + at;
            group.values[panel] = batch_.values + at;
        }
        for (int panel = 0; panel < kGroup; ++panel)
            if (panel < first || panel >= end) {
                group.keys[panel] = group.keys[first];
                group.values[panel] = group.values[first];
            }
        return group;
    }

    Scoring scoring(int64_t row, int64_t start) const {
        const Variant& variant = batch_.variant;
        const int64_t position = first_position_ + row / group_;
        Scoring scoring{batch_.scale, position + 1 - start};
        if constexpr (!kPlain) {
            scoring.hidden = variant.first_seen(position) - start;
            scoring.softcap = variant.softcap;
            scoring.slope = variant.slopes ? variant.slopes[head(row)] : 0;
        }
        return scoring;
    }

    int64_t tiles() const { return (rows_ + kMaxRows - 1) / kMaxRows; }
    int64_t first_row(int64_t tile) const { return rows_ * tile / tiles(); }

    // Probabilities of all rows for a group that begins at token `start`; the next group's keys come in meanwhile.
    void score(const Group<Element>& group, const Group<Element>& next, int64_t start) {
        const int64_t words = head_dim_ / Kind::kPerWord;
        for (int64_t tile = 0; tile < tiles(); ++tile) {
            const int64_t row = first_row(tile), height = first_row(tile + 1) - row;
            __m512 scores[kMaxRows][kGroup * 2];
            const uint32_t* rows = words_of(space_.query.data() + row * head_dim_);
            const int64_t ahead_step = tile == 0 ? kPanel * 4 : 0;
            const int first = kPlain ? 0 : group.first_panel(), end = group.end_panel();
            int panel = first;
            if (height <= kFewRows) {
                for (; panel + 2 <= end; panel += 2) {
                    typename Kind::Sum sums[kFewRows][4];
                    kPairTiles<Kind>[height - 1](rows, words, words_of(group.keys[panel]),
                                                 words_of(group.keys[panel + 1]), words, ahead(next.keys[panel]),
                                                 ahead(next.keys[panel + 1]), ahead_step, sums);
                    for (int64_t r = 0; r < height; ++r) std::copy_n(sums[r], 4, scores[r] + 2 * panel);
                }
            }
            for (; panel < end; ++panel) {
                typename Kind::Sum sums[kMaxRows][2];
                kTiles<Kind>[height - 1](rows, words, words_of(group.keys[panel]), words, ahead(next.keys[panel]),
                                         ahead_step, sums);
                for (int64_t r = 0; r < height; ++r) std::copy_n(sums[r], 2, scores[r] + 2 * panel);
            }
            for (int64_t r = 0; r < height; ++r)
                soften<Element, kPlain>(scores[r], 2 * first, 2 * end, scoring(row + r, start), &space_.maxima[row + r],
                                        &space_.sums[row + r], space_.output.data() + (row + r) * head_dim_, head_dim_,
                                        space_.probabilities.data() + (row + r) * kGroupTokens);
        }
    }

    void add(const Group<Element>& group, const Group<Element>& next) {
        for (int64_t tile = 0; tile < tiles(); ++tile) {
            const int64_t row = first_row(tile), height = first_row(tile + 1) - row;
            kAddValues<Kind, kPlain>[height - 1](words_of(space_.probabilities.data() + row * kGroupTokens), group,
                                                 tile == 0 ? next : group, head_dim_,
                                                 space_.output.data() + row * head_dim_);
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

    static const uint32_t* words_of(const Element* values) { return reinterpret_cast<const uint32_t*>(values); }
    static const char* ahead(const Element* values) { return reinterpret_cast<const char*>(values); }

    const Batch<Element>& batch_;
    const Shape& shape_;
    const int64_t kv_head_, group_, head_dim_, rows_, token_;
    const int32_t* blocks_;
    Workspace<Kind>& space_;
    int64_t first_position_, length_, first_seen_;
};

template <typename Kind, bool kPlain>
void attend(const Batch<typename Kind::Element>& batch, int64_t sequences, const Shape& shape) {
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
            return Attention<Kind, kPlain>(batch, shape, pass, item % shape.kv_heads, space);
        };
        for (int64_t item = begin; item < end; ++item) at(item).run(at(std::min(item + 1, items - 1)).first_group());
    });
}

template <typename Kind>
void attention(const Batch<typename Kind::Element>& batch, int64_t sequences, const Shape& shape) {
    (batch.variant.plain() ? attend<Kind, true> : attend<Kind, false>)(batch, sequences, shape);
}

}  // namespace
}  // namespace slipway

using namespace slipway;

#define SLIPWAY_ATTENTION(suffix, Kind)                                                                               \
    void slipway_attention_##suffix(                                                                                  \
        const Kind::Element* query, int64_t query_stride, const Kind::Element* keys, const Kind::Element* values,     \
        const int32_t* query_starts, const int32_t* context_lengths, const int32_t* block_tables,                     \
        int64_t table_stride, int64_t sequences, int64_t heads, int64_t kv_heads, int64_t head_dim,                   \
        int64_t block_size, float scale, int64_t window, float softcap, const float* slopes, const float* sinks,      \
        Kind::Element* out) {                                                                                         \
        attention<Kind>({query, query_stride, keys, values, query_starts, context_lengths, block_tables,              \
                         table_stride, scale, {window, softcap, slopes, sinks}, out},                                 \
                        sequences, {heads, kv_heads, head_dim, block_size});                                          \
    }

extern "C" {
SLIPWAY_ATTENTION(f32, Float32)
SLIPWAY_ATTENTION(bf16, BFloat16)
}

SLIPWAY_RECORDABLE(slipway_attention_f32);
SLIPWAY_RECORDABLE(slipway_attention_bf16);
