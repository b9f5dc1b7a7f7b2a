#include "async/buffer.hpp"

#include <cstdlib>
#include <new>

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

}  // namespace kumo::async
