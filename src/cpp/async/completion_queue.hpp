#pragma once

#include <sys/eventfd.h>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <system_error>
#include <vector>

#include "crt/file_descriptor.hpp"

namespace kumo::async {

// Ids of operations that are over, pushed by event-loop and I/O threads, taken by one Python
// thread: it waits without the GIL, or watches a descriptor beside others (asyncio).
class CompletionQueue {
 public:
  void push(std::uint64_t id) {
    {
      std::lock_guard lock(mutex_);
      done_.push_back(id);
      // Only the first makes the descriptor readable; under the lock, as `take` clears it there.
      if (done_.size() == 1) signal();
    }
    ready_.notify_one();
  }

  // Everything that is over, waiting up to `timeout` for the first.
  std::vector<std::uint64_t> take(std::chrono::nanoseconds timeout) {
    std::unique_lock lock(mutex_);
    ready_.wait_for(lock, timeout, [&] { return !done_.empty(); });
    std::vector<std::uint64_t> out;
    out.swap(done_);
    if (event_.get() >= 0 && !out.empty()) {
      std::uint64_t count = 0;
      (void)!::read(event_.get(), &count, sizeof count);
    }
    return out;
  }

  // A descriptor that is readable while there are ids; made when first asked for.
  int fileno() {
    std::lock_guard lock(mutex_);
    if (event_.get() < 0) {
      event_ = crt::FileDescriptor(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
      if (event_.get() < 0) {
        throw std::system_error(errno, std::generic_category(), "making an eventfd");
      }
      if (!done_.empty()) signal();
    }
    return event_.get();
  }

 private:
  void signal() {
    const std::uint64_t one = 1;
    // Cannot fail: the counter is 0 here, and the descriptor never blocks.
    if (event_.get() >= 0) (void)!::write(event_.get(), &one, sizeof one);
  }

  std::mutex mutex_;
  std::condition_variable ready_;
  std::vector<std::uint64_t> done_;
  crt::FileDescriptor event_;
};

}  // namespace kumo::async
