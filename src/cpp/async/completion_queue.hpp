#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <vector>

namespace kumo::async {

// Ids of operations that are over, pushed by event-loop and I/O threads, taken by one Python
// thread that waits without the GIL.
class CompletionQueue {
 public:
  void push(std::uint64_t id) {
    {
      std::lock_guard lock(mutex_);
      done_.push_back(id);
    }
    ready_.notify_one();
  }

  // Everything that is over, waiting up to `timeout` for the first.
  std::vector<std::uint64_t> take(std::chrono::nanoseconds timeout) {
    std::unique_lock lock(mutex_);
    ready_.wait_for(lock, timeout, [&] { return !done_.empty(); });
    std::vector<std::uint64_t> out;
    out.swap(done_);
    return out;
  }

 private:
  std::mutex mutex_;
  std::condition_variable ready_;
  std::vector<std::uint64_t> done_;
};

}  // namespace kumo::async
