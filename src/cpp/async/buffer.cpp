#include "async/buffer.hpp"

#include <cstdlib>
#include <new>
#include <utility>

namespace kumo::async {
namespace {

constexpr std::size_t kPage = 4096;

}  // namespace

void AlignedBuffer::Free::operator()(std::uint8_t* pointer) const noexcept { std::free(pointer); }

AlignedBuffer::AlignedBuffer(std::size_t capacity) {
  const std::size_t rounded = ((capacity != 0 ? capacity : 1) + kPage - 1) / kPage * kPage;
  if (rounded < capacity) throw std::bad_alloc();
  memory_.reset(static_cast<std::uint8_t*>(std::aligned_alloc(kPage, rounded)));
  if (memory_ == nullptr) throw std::bad_alloc();
  capacity_ = rounded;
}

AlignedBuffer BufferPool::acquire(std::size_t size) {
  {
    std::lock_guard lock(mutex_);
    for (auto it = idle_.rbegin(); it != idle_.rend(); ++it) {
      // A buffer much larger than asked for would waste the memory budget.
      if (it->capacity() < size || it->capacity() > 2 * size + kPage) continue;
      AlignedBuffer found = std::move(*it);
      idle_.erase(std::next(it).base());
      idle_bytes_ -= found.capacity();
      return found;
    }
  }
  return AlignedBuffer(size);
}

void BufferPool::release(AlignedBuffer buffer) noexcept {
  if (!buffer) return;
  std::lock_guard lock(mutex_);
  if (idle_bytes_ + buffer.capacity() > max_idle_bytes_) return;
  try {
    const std::size_t capacity = buffer.capacity();
    idle_.push_back(std::move(buffer));
    idle_bytes_ += capacity;
  } catch (const std::bad_alloc&) {
    return;  // the buffer is simply freed
  }
}

}  // namespace kumo::async
