#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "crt/deadline.hpp"

namespace kumo::async {

// A few threads for what must not run on event loops: file reads and checksums over large memory.
// Jobs never touch Python. One set per process, not per client: a job may drop the last reference
// to a client, and a thread cannot join itself.
class IoThreads {
 public:
  // Starts the threads on first use.
  static IoThreads& instance();

  // Runs what is queued and joins; at interpreter exit. False if a job was not over in time (a
  // read from a dead file server): its thread is left to the end of the process.
  bool stop(const crt::Deadline& deadline);

  IoThreads(const IoThreads&) = delete;
  IoThreads& operator=(const IoThreads&) = delete;

  // `job` must not throw. After `stop` it runs on the caller's thread. Throws when not a single
  // thread can be started.
  void post(std::function<void()> job);

 private:
  IoThreads() = default;
  ~IoThreads() = default;
  void start_locked();
  void run();

  std::mutex mutex_;
  std::condition_variable ready_;
  std::condition_variable ended_;
  std::deque<std::function<void()>> jobs_;
  bool stopping_ = false;
  std::size_t running_ = 0;  // threads
  std::vector<std::thread> threads_;
};

}  // namespace kumo::async
