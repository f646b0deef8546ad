#include "pool.h"

#include <immintrin.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>
#include <vector>

namespace slipway {
namespace {

// Longer than the wait between two kernels of a step, shorter than what a scheduler's time slice costs.
constexpr int64_t kSpinNanoseconds = 60'000;

int64_t now() {
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1'000'000'000 + time.tv_nsec;
}

// A 32-bit value that threads wait on.
struct alignas(64) Signal {
    std::atomic<uint32_t> value{0};
    std::atomic<uint32_t> sleepers{0};

    // Returns when the value is no longer `old`.
    void wait_change(uint32_t old) {
        const int64_t deadline = now() + kSpinNanoseconds;
        do {
            for (int turn = 0; turn < 64; ++turn) {
                if (value.load(std::memory_order_acquire) != old) return;
                _mm_pause();
            }
        } while (now() < deadline);
        sleepers.fetch_add(1);
        while (value.load() == old) syscall(SYS_futex, &value, FUTEX_WAIT_PRIVATE, old, nullptr, nullptr, 0);
        sleepers.fetch_sub(1);
    }

    void wake() {
        if (sleepers.load() != 0) syscall(SYS_futex, &value, FUTEX_WAKE_PRIVATE, INT32_MAX, nullptr, nullptr, 0);
    }
};

// What is left of a thread's share: begin in the low half, end in the high half. The owner takes from the beginning and
// helpers take from the end, so that both go on through adjacent memory.
struct alignas(64) Share {
    std::atomic<uint64_t> range{0};

    static uint64_t pack(uint64_t begin, uint64_t end) { return end << 32 | begin; }

    bool take(bool from_front, uint64_t grain, int64_t* begin, int64_t* end) {
        uint64_t current = range.load(std::memory_order_relaxed);
        while (true) {
            const uint64_t first = current & 0xffffffffu, last = current >> 32;
            if (first >= last) return false;
            const uint64_t length = std::min(grain, last - first);
            const uint64_t rest = from_front ? pack(first + length, last) : pack(first, last - length);
            if (range.compare_exchange_weak(current, rest, std::memory_order_acq_rel)) {
                *begin = static_cast<int64_t>(from_front ? first : last - length);
                *end = *begin + static_cast<int64_t>(length);
                return true;
            }
        }
    }
};

// How many threads are worth using. A thread whose core another process has taken holds all others up at the end of
// every piece of work, for as long as that process keeps the core: two threads beside one busy process are then slower
// than one. So when much time is lost waiting, one thread fewer is used for a while.
class Crew {
  public:
    explicit Crew(int size) : size_(size), active_(size) {}

    int active() const { return active_; }

    // The others were waited for this long.
    void waited(int64_t nanoseconds) {
        if (nanoseconds > kLate) lost_ += nanoseconds;
    }

    // Between two pieces of work.
    void review(int64_t time) {
        const int64_t window = time - began_;
        if (window < kWindow) return;
        const bool held_up = lost_ > window / 4;
        if (held_up && active_ > 1) {
            --active_;
            patience_ = std::min(2 * patience_, kLongest);
            retry_at_ = time + patience_;
        } else if (active_ < size_ && time >= retry_at_) {
            ++active_;
        } else if (active_ == size_ && !held_up) {
            patience_ = kShortest;
        }
        began_ = time;
        lost_ = 0;
    }

  private:
    static constexpr int64_t kMillisecond = 1'000'000;
    // A wait that no piece of work explains.
    static constexpr int64_t kLate = kMillisecond / 5;
    static constexpr int64_t kWindow = 30 * kMillisecond;
    static constexpr int64_t kShortest = 50 * kMillisecond, kLongest = 1600 * kMillisecond;

    const int size_;
    int active_;
    int64_t began_ = 0, lost_ = 0, retry_at_ = 0, patience_ = kShortest;
};

// The work is open while pieces are left to take. A thread counts itself in, looks whether the work is open, and counts
// itself out when it finds no more pieces; the caller closes the work and waits until nobody is in. So a thread that
// comes late, or never, is not waited for.
class Pool {
  public:
    explicit Pool(int threads) : shares_(threads), calls_(threads), crew_(threads) {
        for (int index = 1; index < threads; ++index) workers_.emplace_back([this, index] { work(index); });
    }

    ~Pool() {
        ended_ = true;
        for (int index = 1; index < size(); ++index) call(index);
        for (auto& worker : workers_) worker.join();
    }

    int size() const { return static_cast<int>(shares_.size()); }

    void run(int64_t count, int64_t grain, Part part, void* context) {
        const int64_t pieces = (count + grain - 1) / grain;
        const int active = crew_.active();
        if (size() == 1 || pieces == 1) {
            part(context, 0, count);
            return;
        }
        part_ = part;
        context_ = context;
        grain_ = static_cast<uint64_t>(grain);
        for (int64_t index = 0; index < size(); ++index) {
            const int64_t begin = std::min(index, int64_t{active}), end = std::min(index + 1, int64_t{active});
            const int64_t first = pieces * begin / active * grain, last = pieces * end / active * grain;
            shares_[index].range.store(Share::pack(first, std::min(last, count)));
        }
        open_.store(true);
        for (int index = 1; index < active; ++index) call(index);
        help(0);
        open_.store(false);
        await_workers();
        crew_.review(now());
    }

  private:
    void call(int worker) {
        calls_[worker].value.fetch_add(1);
        calls_[worker].wake();
    }

    void await_workers() {
        uint32_t inside = inside_.value.load();
        if (inside == 0) return;
        const int64_t since = now();
        for (; inside != 0; inside = inside_.value.load()) inside_.wait_change(inside);
        crew_.waited(now() - since);
    }

    void work(int index) {
        uint32_t seen = 0;
        while (true) {
            calls_[index].wait_change(seen);
            seen = calls_[index].value.load();
            if (ended_) return;
            inside_.value.fetch_add(1);
            if (open_.load()) help(index);
            inside_.value.fetch_sub(1);
            inside_.wake();
        }
    }

    void help(int index) {
        int64_t begin, end;
        while (shares_[index].take(true, grain_, &begin, &end)) part_(context_, begin, end);
        for (int other = 1; other < size(); ++other) {
            Share& share = shares_[(index + other) % size()];
            while (share.take(false, grain_, &begin, &end)) part_(context_, begin, end);
        }
    }

    std::vector<Share> shares_;
    std::vector<Signal> calls_;
    std::vector<std::thread> workers_;
    Signal inside_;
    std::atomic<bool> open_{false}, ended_{false};
    Crew crew_;
    Part part_ = nullptr;
    void* context_ = nullptr;
    uint64_t grain_ = 1;
};

std::unique_ptr<Pool> pool;

}  // namespace

void parallel(int64_t count, int64_t grain, Part part, void* context) {
    if (count <= 0) return;
    if (!pool) {
        part(context, 0, count);
        return;
    }
    pool->run(count, grain, part, context);
}

}  // namespace slipway

// Sets how many threads the kernels use, the caller's included; not while a kernel runs.
extern "C" void slipway_set_threads(int threads) {
    slipway::pool.reset();
    slipway::pool = std::make_unique<slipway::Pool>(std::max(1, threads));
}
