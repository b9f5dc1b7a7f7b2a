#include "async/io_threads.hpp"

#include <pthread.h>

#include <algorithm>
#include <csignal>
#include <utility>

namespace kumo::async {

IoThreads& IoThreads::instance() {
  static IoThreads* threads = new IoThreads();  // leaked: outlives static destructors
  return *threads;
}

void IoThreads::start_locked() {
  // Signals belong to Python's main thread: block them here, so that the threads inherit it.
  sigset_t all;
  sigset_t old;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  const std::size_t count = std::clamp<std::size_t>(std::thread::hardware_concurrency(), 2, 4);
  for (std::size_t i = 0; i < count; ++i) threads_.emplace_back([this] { run(); });
  pthread_sigmask(SIG_SETMASK, &old, nullptr);
}

void IoThreads::stop() {
  std::vector<std::thread> threads;
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    threads.swap(threads_);
  }
  ready_.notify_all();
  for (auto& thread : threads) thread.join();
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
      if (jobs_.empty()) return;
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    job();
  }
}

}  // namespace kumo::async
