#include "crt/parking.hpp"

#include <aws/common/task_scheduler.h>
#include <unistd.h>

#include "crt/error.hpp"

namespace kumo::crt {

// What a loop holds: freed by its task, if that is cancelled.
struct Parking::Place {
  aws_task task{};
  std::shared_ptr<Parking> parking;

  static void reached(aws_task* /*task*/, void* owned, aws_task_status status) {
    const std::unique_ptr<Place> place(static_cast<Place*>(owned));
    place->parking->stopped();
    if (status == AWS_TASK_STATUS_CANCELED) return;  // the loop has ended
    for (;;) ::pause();                              // signals are others' to handle
  }
};

std::shared_ptr<Parking> Parking::begin(aws_event_loop_group* loops,
                                        std::chrono::nanoseconds after) {
  auto parking = std::make_shared<Parking>(Private());
  const std::size_t count = aws_event_loop_group_get_loop_count(loops);
  for (std::size_t index = 0; index < count; ++index) {
    aws_event_loop* loop = aws_event_loop_group_get_loop_at(loops, index);
    std::uint64_t now = 0;
    check(aws_event_loop_current_clock_time(loop, &now), "reading an event loop's clock");
    auto place = std::make_unique<Place>();
    place->parking = parking;
    aws_task_init(&place->task, &Place::reached, place.get(), "kumo_crt_park");
    {
      const std::lock_guard lock(parking->mutex_);
      ++parking->running_;
    }
    aws_event_loop_schedule_task_future(loop, &place->task,
                                        now + static_cast<std::uint64_t>(after.count()));
    [[maybe_unused]] const Place* owned = place.release();  // by the loop
  }
  return parking;
}

bool Parking::wait(const Deadline& deadline) {
  std::unique_lock lock(mutex_);
  return changed_.wait_until(lock, deadline.at(), [&] { return running_ == 0; });
}

void Parking::stopped() noexcept {
  {
    const std::lock_guard lock(mutex_);
    --running_;
  }
  changed_.notify_all();
}

}  // namespace kumo::crt
