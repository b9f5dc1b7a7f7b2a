#include "async/io_threads.hpp"

#include <pthread.h>

#include <algorithm>
#include <csignal>
#include <system_error>
#include <utility>

namespace kumo::async {
namespace {

// Signals belong to Python's main thread: threads made while this lives have them blocked.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &old_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t old_{};
};

}  // namespace

IoThreads& IoThreads::instance() {
  static IoThreads* threads = new IoThreads();  // leaked: outlives static destructors
  return *threads;
}

void IoThreads::start_locked() {
  const SignalsBlocked blocked;
  const std::size_t count = std::clamp<std::size_t>(std::thread::hardware_concurrency(), 2, 4);
  try {
    while (threads_.size() < count) {
      threads_.emplace_back([this] { run(); });
      ++running_;
    }
  } catch (const std::system_error&) {
    if (threads_.empty()) throw;  // fewer will do
  }
}

bool IoThreads::stop(const crt::Deadline& deadline) {
  std::vector<std::thread> threads;
  bool all_ended = false;
  {
    std::unique_lock lock(mutex_);
    stopping_ = true;
    ready_.notify_all();
    all_ended = ended_.wait_until(lock, deadline.at(), [&] { return running_ == 0; });
    threads.swap(threads_);
  }
  for (auto& thread : threads) {
    if (all_ended) {
      thread.join();
    } else {
      thread.detach();
    }
  }
  return all_ended;
}

void IoThreads::post(std::function<void()> job) {
  {
    std::unique_lock lock(mutex_);
    if (!stopping_) {
      if (threads_.empty()) start_locked();
      jobs_.push_back(std::move(job));
    } else {
      lock.unlock();
      job();
      return;
    }
  }
  ready_.notify_one();
}

void IoThreads::run() {
  for (;;) {
    std::function<void()> job;
    {
      std::unique_lock lock(mutex_);
      ready_.wait(lock, [&] { return stopping_ || !jobs_.empty(); });
      if (jobs_.empty()) {
        --running_;
        ended_.notify_all();
        return;
      }
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    job();
  }
}

}  // namespace kumo::async
