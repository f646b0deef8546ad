// Which experts each token goes to; the rules are in kernels/moe/router.py.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "activation.h"
#include "replay.h"
#include "rows.h"
#include "vector.h"

namespace slipway {
namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();
enum Scoring : int64_t { kSoftmax, kSigmoid, kSparsemixer };

struct Rule {
    int64_t experts, top_k, scoring, groups, top_groups, group_best;
    bool renormalise;
    float scaling, jitter;
};

// The place of the best value that is allowed, of equal ones the first.
int64_t best(const float* values, const uint8_t* allowed, int64_t count) {
    int64_t found = -1;
    for (int64_t i = 0; i < count; ++i)
        if (allowed[i] && (found < 0 || values[i] > values[found])) found = i;
    return found;
}

// What routing one token needs.
class Row {
  public:
    Row(const Rule& rule) : rule_(rule), logits_(size()), scores_(size()), ranked_(size()), worth_(size()),
                            allowed_(size()), group_allowed_(size()) {}

    template <typename Element>
    void route(const Element* logits, const float* bias, float* weights, int32_t* experts) {
        for_lanes(rule_.experts, [&](int64_t i, __mmask16 mask) {
            const __m512 value = load(logits + i, mask);
            const __mmask16 number = _mm512_cmp_ps_mask(value, value, _CMP_ORD_Q);
            store(logits_.data() + i, mask, _mm512_mask_mov_ps(_mm512_set1_ps(kNone), number, value));
        });
        std::fill(allowed_.begin(), allowed_.end(), uint8_t{1});
        if (rule_.scoring == kSparsemixer) {
            choose_among_close(weights, experts);
        } else {
            choose_best(bias, weights, experts);
        }
        float sum = 0;
        for (int64_t slot = 0; slot < rule_.top_k; ++slot) sum += weights[slot];
        const float divisor = rule_.renormalise ? sum + 1e-20f : 1;
        for (int64_t slot = 0; slot < rule_.top_k; ++slot) weights[slot] = weights[slot] / divisor * rule_.scaling;
    }

  private:
    size_t size() const { return static_cast<size_t>(rule_.experts); }

    void choose_best(const float* bias, float* weights, int32_t* experts) {
        score();
        // Both scores grow with the logit, but rounding makes equal what is not.
        const bool by_logit = !bias && rule_.group_best == 1;
        for (int64_t i = 0; i < rule_.experts; ++i) ranked_[i] = (by_logit ? logits_ : scores_)[i] + (bias ? bias[i] : 0);
        if (rule_.top_groups < rule_.groups) allow_best_groups();
        for (int64_t slot = 0; slot < rule_.top_k; ++slot) {
            const int64_t expert = best(ranked_.data(), allowed_.data(), rule_.experts);
            allowed_[expert] = 0;
            weights[slot] = scores_[expert];
            experts[slot] = static_cast<int32_t>(expert);
        }
    }

    void score() {
        if (rule_.scoring == kSigmoid) {
            for_lanes(rule_.experts, [&](int64_t i, __mmask16 mask) {
                store(scores_.data() + i, mask, sigmoid(load(logits_.data() + i, mask)));
            });
            return;
        }
        const __m512 most = _mm512_set1_ps(*std::max_element(logits_.begin(), logits_.end()));
        __m512 sums = _mm512_setzero_ps();
        for_lanes(rule_.experts, [&](int64_t i, __mmask16 mask) {
            const __m512 power = exponential(_mm512_sub_ps(load(logits_.data() + i, mask), most));
            store(scores_.data() + i, mask, power);
            sums = _mm512_mask_add_ps(sums, mask, sums, power);
        });
        const float sum = _mm512_reduce_add_ps(sums);
        for (float& value : scores_) value /= sum;
    }

    void allow_best_groups() {
        const int64_t width = rule_.experts / rule_.groups;
        for (int64_t group = 0; group < rule_.groups; ++group) {
            const float* values = ranked_.data() + group * width;
            uint8_t* left = allowed_.data() + group * width;
            worth_[group] = 0;
            for (int64_t turn = 0; turn < rule_.group_best; ++turn) {
                const int64_t expert = best(values, left, width);
                left[expert] = 0;
                worth_[group] += values[expert];
            }
        }
        std::fill(allowed_.begin(), allowed_.end(), uint8_t{0});
        std::fill(group_allowed_.begin(), group_allowed_.end(), uint8_t{1});
        for (int64_t turn = 0; turn < rule_.top_groups; ++turn) {
            const int64_t group = best(worth_.data(), group_allowed_.data(), rule_.groups);
            group_allowed_[group] = 0;
            std::fill_n(allowed_.begin() + group * width, width, uint8_t{1});
        }
    }

    void choose_among_close(float* weights, int32_t* experts) {
        for (int64_t slot = 0; slot < rule_.top_k; ++slot) {
            const int64_t expert = best(logits_.data(), allowed_.data(), rule_.experts);
            const float most = allowed_[expert] ? logits_[expert] : kNone;
            float sum = 0;
            for (int64_t i = 0; i < rule_.experts; ++i) {
                const float left = allowed_[i] ? logits_[i] : kNone;
                const bool far = (most - left) / std::max(std::fabs(logits_[i]), most) > 2 * rule_.jitter;
                if (!far) sum += std::exp(left - most);
            }
            allowed_[expert] = 0;
            weights[slot] = 1 / sum;
            experts[slot] = static_cast<int32_t>(expert);
        }
    }

    const Rule rule_;
    std::vector<float> logits_, scores_, ranked_, worth_;
    std::vector<uint8_t> allowed_, group_allowed_;
};

template <typename Element>
void route(const Element* logits, int64_t rows, const float* bias, const Rule& rule, float* weights, int32_t* experts) {
    const int64_t grain = std::max<int64_t>(1, kElementsPerPiece / (rule.experts * (rule.top_k + 4)));
    parallel_for(rows, grain, [&](int64_t begin, int64_t end) {
        Row row(rule);
        for (int64_t token = begin; token < end; ++token)
            row.route(logits + token * rule.experts, bias, weights + token * rule.top_k, experts + token * rule.top_k);
    });
}

}  // namespace
}  // namespace slipway

using namespace slipway;

extern "C" {

#define SLIPWAY_ROUTE(suffix, Element)                                                                                \
    void slipway_route_##suffix(const Element* logits, int64_t rows, int64_t num_experts, const float* bias,          \
                                int64_t top_k, int64_t scoring, int64_t renormalise, int64_t groups,                  \
                                int64_t top_groups, int64_t group_best, float scaling, float jitter, float* weights,  \
                                int32_t* experts) {                                                                   \
        const Rule rule{num_experts, top_k, scoring, groups, top_groups, group_best, renormalise != 0, scaling,       \
                        jitter};                                                                                      \
        route(logits, rows, bias, rule, weights, experts);                                                            \
    }

SLIPWAY_ROUTE(f32, float32)
SLIPWAY_ROUTE(bf16, bfloat16)
}

SLIPWAY_RECORDABLE(slipway_route_f32);
SLIPWAY_RECORDABLE(slipway_route_bf16);
