#pragma once

#include <aws/io/event_loop.h>

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>

#include "crt/deadline.hpp"

namespace kumo::crt {

// Stops event loops that cannot be ended, for what is left of the process: each blocks for ever in
// a task of its own. One that went on would begin another TLS handshake while the libraries'
// destructors run, and AWS-LC's random numbers abort the process then.
//
// Threads: `begin` and `wait` are one thread's; the tasks are the loops', which share this object
// and outlive nobody: a loop that ends before its time has come cancels its task.
class Parking {
  struct Private {};

 public:
  // Parks each loop of `loops` once `after` is over, if it is still there by then. The group is
  // used during this call only.
  static std::shared_ptr<Parking> begin(aws_event_loop_group* loops,
                                        std::chrono::nanoseconds after);

  // Waits until every loop is parked, or has ended. False if one is busy with something else (a
  // write to a disk that does not answer).
  bool wait(const Deadline& deadline);

  explicit Parking(Private) {}
  Parking(const Parking&) = delete;
  Parking& operator=(const Parking&) = delete;
  ~Parking() = default;

 private:
  struct Place;
  void stopped() noexcept;  // one more loop

  std::mutex mutex_;
  std::condition_variable changed_;
  std::size_t running_ = 0;
};

}  // namespace kumo::crt
